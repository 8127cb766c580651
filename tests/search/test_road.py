"""A road in small: train, prune, deepen, each from the step before; done once, done twice, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mobileface.arch import SEMobileFaceNet, arch_from_dict, load_arch
from mobileface.embedders.network import load_network
from mobileface.zoo import ZOO
from search.cost import cost
from search.deepen import deeper
from search.prune_channels import resized
from search.road import BEFORE, Deepen, Prune, main, read_road
from search.road import go as go_on

MakeData = Callable[..., dict[str, Any]]
Capture = pytest.CaptureFixture[str]
RECIPE = Path(__file__).parents[2] / "recipes" / "prune-and-deepen.yaml"
WORK = cost(ZOO["micro"]).flops_lfrc


@pytest.fixture
def road(shared_faces: Path, make_plan_data: MakeData) -> dict[str, Any]:
    plan = make_plan_data(shared_faces, phase={"images": 16})
    plan = {key: value for key, value in plan.items() if key not in ("arch", "name")}
    again = {
        "phases": [{"name": "again", "images": 8, "terms": ["distillation"]}],
        "teacher": {"model": BEFORE, "online": True},
    }
    steps = [
        {"kind": "train", "plan": {"arch": "micro"}},
        {"kind": "prune", "budget": {"max_flops": 0.8 * WORK}, "plan": again},
        {"kind": "deepen", "blocks": 2, "plan": again},
    ]
    return {"name": "small", "budget": {"max_flops": WORK}, "plan": plan, "steps": steps}


def go(road: dict[str, Any], folder: Path, *options: str) -> int:
    (folder / "road.yaml").write_text(json.dumps(road))
    return main([str(folder / "road.yaml"), "--out", str(folder / "out"), *options])


@pytest.mark.slow
@pytest.mark.usefixtures("no_workers")
def test_each_step_begins_with_what_the_one_before_made(
    road: dict[str, Any], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert go(road, tmp_path) == 0
    out = tmp_path / "out"
    runs = [out / "1-train", out / "2-prune" / "1", out / "3-deepen"]
    assert f"run: {runs[-1]}; to judge" in capsys.readouterr().out
    trained, pruned, deep = [load_arch(run / "arch.json") for run in runs]
    assert trained == ZOO["micro"]
    assert cost(pruned).flops_lfrc <= 0.8 * WORK
    assert isinstance(pruned, SEMobileFaceNet)
    assert deep == replace(deeper(pruned, -1, 2), name=f"{pruned.name}-deeper")
    assert [row.depth for row in deep.stages] == [1, 2, 3]
    assert load_network(runs[-1]).arch == deep
    cards = [json.loads((run / "card.json").read_text()) for run in runs]
    assert [card["budget"]["fits"] for card in cards] == [None, True, True]
    assert [card["teacher"] and card["teacher"]["path"] for card in cards] == [None, "1-train", "1"]

    weights = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    monkeypatch.setattr("mobileface.training.loop.train", lambda *_, **__: pytest.fail("trained again"))
    assert go(road, tmp_path) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == weights
    capsys.readouterr()
    road["steps"][2]["blocks"] = 1
    assert go(road, tmp_path) == 2
    assert "3-deepen: holds another deepening; give another --out" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("no_workers")
def test_too_deep_for_the_budget_is_found_before_its_training(
    road: dict[str, Any], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is mended is made anew."""
    road["budget"], road["steps"][1:] = {"max_flops": 2 * WORK}, [{**road["steps"][2], "blocks": 400}]
    with monkeypatch.context() as patch:
        patch.setattr("search.road._look_ahead", lambda *_: None)
        assert go(road, tmp_path) == 1
    assert "micro-deeper is over budget custom" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["1-train"]
    for blocks, stopped in ((2, True), (1, False)):
        road["steps"][1]["blocks"] = blocks
        with monkeypatch.context() as patch:
            if stopped:
                patch.setattr("mobileface.training.loop.train", lambda *_, **__: 1 / 0)
            assert go(road, tmp_path) == int(stopped), capsys.readouterr().err
    assert load_arch(tmp_path / "out" / "2-deepen" / "arch.json").stages[-1].depth == 2


def test_a_last_pruning_to_more_than_the_road_allows(road: dict[str, Any], tmp_path: Path, capsys: Capture) -> None:
    road["budget"], road["steps"] = {"max_flops": 0.7 * WORK}, road["steps"][:2]
    assert go(road, tmp_path) == 1
    assert f"prunes to max_flops {0.8 * WORK:g}; the road's budget allows {0.7 * WORK:g}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    road["steps"][1]["budget"] |= {
        "max_size_mib": 0.9 * cost(ZOO["micro"]).size_mib
    }  # at which of them it ends is open
    with pytest.raises(ZeroDivisionError), pytest.MonkeyPatch.context() as patch:
        patch.setattr("mobileface.training.whole.train_run", lambda *_: 1 / 0)
        path = tmp_path / "road.yaml"
        path.write_text(json.dumps(road))
        ready, plans = read_road(path, None)
        go_on(ready, plans, tmp_path / "out", Console(quiet=True))


@pytest.mark.parametrize(
    ("steps", "code", "wanted"),
    [
        ([{"kind": "deepen", "blocks": 400}], 1, "micro is over budget custom"),
        ([{"kind": "deepen", "blocks": 1, "row": 3}], 2, "row is 3; micro has 3 rows"),
        ([{"kind": "prune", "budget": {"max_flops": 9}}], 1, "leaves at least 8 channels everywhere"),
        ([{"kind": "prune", "budget": "lfrc-light"}], 2, "micro is within the budget lfrc-light"),
        (
            [{"kind": "prune", "budget": {"max_flops": 0.8 * WORK}}, {"kind": "deepen", "blocks": 400}],
            1,
            "leaves at least 8 channels everywhere",
        ),
    ],
    ids=range(5),
)
def test_what_is_known_to_fail_is_told_before_the_first_training(
    road: dict[str, Any], steps: list[dict[str, Any]], code: int, wanted: str, tmp_path: Path, capsys: Capture
) -> None:
    plan = road["steps"][2]["plan"]
    assert go({**road, "steps": [road["steps"][0], *({**step, "plan": plan} for step in steps)]}, tmp_path) == code
    assert wanted in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_families_are_refused_before_the_first_training(
    road: dict[str, Any], tmp_path: Path, capsys: Capture
) -> None:
    road["steps"][0]["plan"]["arch"] = "iresnet-micro"
    assert go(road, tmp_path) == 2
    assert "iresnet-micro: is of the family iresnet; wanted se_mobilefacenet" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_steps_have_in_common_and_what_they_change(road: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "road.yaml").write_text(json.dumps(road))
    read, plans = read_road(tmp_path / "road.yaml", tmp_path)
    assert [plan.name for plan in plans] == ["small-1", "small-2", "small-3"]
    assert [plan.start for plan in plans] == [None, BEFORE, BEFORE]
    assert [plan.arch for plan in plans] == ["micro", None, None]
    assert {plan.data.root for plan in plans} == {str(tmp_path)}
    assert [len(plan.phases) for plan in plans] == [1, 1, 1]
    assert [plan.phases[0].batch for plan in plans] == [4, 4, 4]
    assert [plan.phases[0].optimizer.lr for plan in plans] == pytest.approx([0.05, 0.005, 0.005])
    assert len(read.steps) == 3


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"steps": []}, "steps: wanted a list of 1 or more"),
        ({"steps": [{"kind": "deepen", "blocks": 1}]}, "steps.0: is deepen; wanted train"),
        ({"steps": [{"kind": "trian"}]}, "did you mean 'train'"),
        ({"budgt": {}}, "unknown key 'budgt' (did you mean 'budget'?)"),
        ({"name": "../up"}, "name: wanted a name of letters"),
        ({"budget": "lfrc"}, "no budget is called 'lfrc'"),
        ({"steps": [{"kind": "train"}, {"kind": "prune", "budget": "lfrc-lite"}]}, "did you mean 'lfrc-light'"),
        (
            {"plan": {"budget": "lfrc-light"}},
            "plan: has budget; the road has name and budget, the plan of steps.0 arch",
        ),
        ({"steps": [{"kind": "train", "plan": {"name": "x"}}]}, "steps.0.plan: has name;"),
        (
            {"steps": [{"kind": "train"}, {"kind": "deepen", "blocks": 1, "plan": {"arch": "tiny"}}]},
            "steps.1.plan: has arch; the road has name and budget",
        ),
        ({"steps": [{"kind": "train"}, {"kind": "deepen", "blocks": 10**9}]}, "steps.1.blocks: wanted at most 512"),
        ({"plan": {"data": {"train": []}}}, "steps.0.plan: data.train: wanted a list of 1 or more"),
    ],
)
def test_bad_roads_are_one_line(
    road: dict[str, Any], change: dict[str, Any], wanted: str, tmp_path: Path, capsys: Capture
) -> None:
    assert go({**road, **change}, tmp_path) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert wanted in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["a: [", "a: &x 1", "- 1", "", "a: \x00"])
def test_files_that_are_no_roads(text: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    assert main([str(tmp_path / "bad.yaml")]) == 2
    assert main([str(tmp_path / "none.yaml")]) == 2
    assert capsys.readouterr().err.count("error: ") == 2


def test_the_recipe_leaves_room_for_its_new_blocks() -> None:
    """They are as wide inside as the row's widest block behind the pruning: 192 of its channels fit in."""
    road, plans = read_road(RECIPE, Path("/data"))
    assert [plan.phases[0].images for plan in plans] == [36_000, 6_000, 18_000]
    train, prune, deepen = road.steps
    assert train.kind == "train"
    assert isinstance(prune, Prune)
    assert isinstance(deepen, Deepen)
    assert not isinstance(road.budget, str)
    assert not isinstance(prune.budget, str)
    wide = arch_from_dict(plans[0].arch)
    assert isinstance(wide, SEMobileFaceNet)
    narrow = resized(wide, {f"stages.4.{block}.expand.conv": 192 for block in range(2)})
    added = cost(deeper(narrow, deepen.row, deepen.blocks)).flops_lfrc - cost(narrow).flops_lfrc
    assert prune.budget.max_flops is not None
    assert prune.budget.max_flops < 0.51 * cost(wide).flops_lfrc
    assert prune.budget.max_flops + added < (road.budget.max_flops or 0)
