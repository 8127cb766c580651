"""Pruning a run: what is left is an architecture, steps end within the budget, bad input is one line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

from mobileface.arch import load_arch
from mobileface.embedders.network import load_network
from mobileface.errors import InputError
from mobileface.models.build import build
from mobileface.training.plan import parse_plan
from mobileface.training.whole import load_plan
from mobileface.zoo import ZOO
from search.budget import Budget, judge
from search.cost import cost
from search.prune import main, prune_run
from search.prune_graph import prune, write_network
from tests.search.pruning import lively, pixels

MakeData = Callable[..., dict[str, Any]]
Capture = pytest.CaptureFixture[str]
QUIET = Console(quiet=True)


@pytest.mark.parametrize("name", ["iresnet-micro", "lgaf-micro"])
def test_other_families_are_one_clear_line(name: str, tmp_path: Path, capsys: Capture) -> None:
    arch = ZOO[name]
    with pytest.raises(InputError, match=f"{name}: is of the family {arch.family}; wanted se_mobilefacenet"):
        prune(build(arch), arch, Budget(max_flops=1), pixels(1))
    write_network(tmp_path / "run", arch, build(arch))
    assert main([str(tmp_path / "run"), "--budget", "lfrc-light"]) == 2
    assert capsys.readouterr().err == f"error: {name}: is of the family {arch.family}; wanted se_mobilefacenet\n"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """As good as trained."""
    write_network(tmp_path / "run", ZOO["micro"], lively(ZOO["micro"]))
    return tmp_path / "run"


@pytest.fixture
def recipe(tmp_path: Path, shared_faces: Path, make_plan_data: MakeData) -> Path:
    data = make_plan_data(shared_faces, phase={"images": 16, "name": "recover", "terms": ["distillation"]})
    data |= {"start": "it", "teacher": {"model": "it", "online": True}, "name": "toy"}
    data["phases"].append({"name": "finish", "images": 24})
    del data["arch"]
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


LESS = Budget(max_flops=0.75 * cost(ZOO["micro"]).flops_lfrc)


def finished(run: Path, recipe: Path, out: Path) -> Path:
    return prune_run(run, LESS, 2, load_plan(recipe, None, []), out, QUIET)


@pytest.mark.usefixtures("no_workers")
def test_from_a_run_to_a_smaller_one_in_steps(
    run: Path, recipe: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [str(run), "--max-flops", str(LESS.max_flops), "--recipe", str(recipe), "--steps", "2"]
    arguments += ["--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    said, last = capsys.readouterr().out, tmp_path / "out" / "2"
    assert f"run: {last}; to judge and export it: mobileface make {last}/plan.yaml --out {last}" in said
    before, whole = [line for line in said.splitlines() if "AUC" in line and "step" in line], cost(ZOO["micro"])
    assert len(before) == 2
    assert before[0].startswith(f"step 1 of 2: {whole.flops_lfrc / 1e6:.1f} -> ")
    arches = [load_arch(tmp_path / "out" / name / "arch.json") for name in ("1", "2")]
    assert cost(arches[1]).flops_lfrc < cost(arches[0]).flops_lfrc <= 0.75**0.5 * whole.flops_lfrc
    assert judge(arches[1], LESS)["fits"]
    assert load_network(last).arch == arches[1]
    card = json.loads((last / "card.json").read_text())
    assert (card["teacher"]["path"], card["start"]["path"]) == ("run", "2-start")
    assert (card["budget"]["fits"], card["training"]["images_seen"]) == (True, 40)
    assert json.loads((tmp_path / "out" / "1" / "card.json").read_text())["training"]["images_seen"] == 16

    weights = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.safetensors")}
    monkeypatch.setattr("mobileface.training.loop.train", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr("search.prune_graph.prune", lambda *_: pytest.fail("pruned again"))
    assert main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.safetensors")} == weights


@pytest.mark.slow
@pytest.mark.usefixtures("no_workers")
def test_a_pruning_that_was_stopped_goes_on_to_the_same_weights(
    run: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = load_network(finished(run, recipe, tmp_path / "once")).state_dict()
    with monkeypatch.context() as patch:

        def stopped(folder: Path, *_: Any) -> None:
            if folder.name == "2-start":
                raise KeyboardInterrupt
            write_network(folder, *_)

        patch.setattr("search.prune_graph.write_network", stopped)
        with pytest.raises(KeyboardInterrupt):
            finished(run, recipe, tmp_path / "twice")
    assert (tmp_path / "twice" / "1" / "card.json").exists()
    twice = load_network(finished(run, recipe, tmp_path / "twice")).state_dict()
    assert all(torch.equal(tensor, twice[name]) for name, tensor in once.items())


@pytest.mark.usefixtures("no_workers")
def test_a_folder_of_another_pruning_is_left_alone(run: Path, recipe: Path, tmp_path: Path) -> None:
    plan, out = load_plan(recipe, None, []), tmp_path / "out"
    prune_run(run, LESS, 1, plan, out, QUIET)
    with pytest.raises(InputError, match="was begun with other steps; give another --out"):
        prune_run(run, LESS, 3, plan, out, QUIET)
    with pytest.raises(InputError, match="other budget"):
        prune_run(run, dataclasses.replace(LESS, max_size_mib=1), 1, plan, out, QUIET)
    with pytest.raises(InputError, match=r"holds a run of another plan \(seed=5 there, seed=9 here\)"):
        prune_run(run, LESS, 1, plan.model_copy(update={"seed": 9}), out, QUIET)
    for content in ("{", "[]"):
        (out / "prune.json").write_text(content)
        with pytest.raises(InputError, match="give another --out"):
            prune_run(run, LESS, 1, plan, out, QUIET)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"is not empty and holds no prune\.json"):
        finished(run, recipe, tmp_path / "full")


@pytest.mark.usefixtures("no_workers")
def test_what_failed_before_a_training_can_be_mended(run: Path, recipe: Path, tmp_path: Path, capsys: Capture) -> None:
    """In the same folder: images that are not there, then a teacher; at last even the budget is another."""
    arguments = [str(run), "--recipe", str(recipe), "--out", str(tmp_path / "out"), "--max-flops"]
    assert main([*arguments, "3e6", "--set", "data.train.0.folder=nowhere"]) == 2
    assert "nowhere: is not a folder" in capsys.readouterr().err
    assert main([*arguments, "3e6", "--set", "teacher.model=nobody"]) == 2
    assert "teacher.model: nobody: not found" in capsys.readouterr().err
    assert main([*arguments, str(LESS.max_flops), "--steps", "1"]) == 0, capsys.readouterr().err
    begun = load_arch(tmp_path / "out" / "1-start" / "arch.json")
    assert 0.95 * (LESS.max_flops or 0) < cost(begun).flops_lfrc <= (LESS.max_flops or 0)
    assert load_arch(tmp_path / "out" / "1" / "arch.json") == begun


def test_without_torch_pruning_it_says_what_to_install(
    run: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.prune_graph.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"torch-pruning is missing, wanted: pip install 'mobileface\[search\]'"):
        finished(run, recipe, tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "code", "wanted"),
    [
        ([], 2, "no budget is given; wanted --budget NAME, or --max-flops"),
        (["--budget", "lfrc-light", "--max-flops", "1e6"], 2, "--budget and --max-… are both given"),
        (["--budget", "lfrc"], 2, "no budget is called 'lfrc'"),
        (["--budget", "lfrc-light", "--rule", "macs"], 2, "which counts by lfrc; leave --rule out"),
        (["--budget", "lfrc-light"], 2, "micro is within the budget lfrc-light; wanted a network to prune"),
        (["--max-flops", "1e4"], 1, "pruning leaves at least 8 channels everywhere"),
        (["--max-flops", "1e6", "--set", "arch=micro", "--set", "start="], 2, "wanted start, a word"),
    ],
)
def test_bad_input_is_one_line(
    run: Path, recipe: Path, arguments: list[str], code: int, wanted: str, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    assert main([str(run), "--recipe", str(recipe), "--out", str(out), *arguments]) == code
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert wanted in said
    assert said.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("there", "wanted"),
    [([], "has no arch.json; wanted a run folder"), (["arch.json"], "has no model.safetensors; wanted a run whose")],
)
def test_what_is_no_trained_network_is_said(
    run: Path, recipe: Path, tmp_path: Path, capsys: Capture, there: list[str], wanted: str
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in there:
        (bare / name).write_bytes((run / name).read_bytes())
    assert main([str(bare), "--recipe", str(recipe), "--out", str(tmp_path / "out"), "--max-flops", "1e6"]) == 2
    assert f"bare: {wanted}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_recipe_in_the_repository_is_one_for_pruning() -> None:
    plan = load_plan(Path(__file__).parents[2] / "recipes" / "prune-real.yaml", Path("/data"), [])
    assert plan.teacher is not None
    assert plan.teacher.model == plan.start
    assert (plan.data.root, [phase.name for phase in plan.phases]) == ("/data", ["recover", "finish"])
    assert plan == parse_plan(yaml.safe_load(plan.to_yaml()), "again")
