"""The ladder of phases, the words of the page, and the report of a run that was stopped."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from mobileface.report import curves, ladder, plots, text, unfinished, words
from mobileface.report.html import write_report
from mobileface.report.read import RunFiles, read_log, read_run
from mobileface.training import plan_phases, plan_terms

PLAN = {"name": "my-ladder", "phases": [{"name": "<b>one", "images": 600}, {"name": "two", "images": 1000}]}


def card(*phases: dict[str, Any]) -> dict[str, Any]:
    return {"training": {"phases": list(phases)}}


def phase(name: str, losses: list[str], accuracy: float | None, auc: float) -> dict[str, Any]:
    results = [] if accuracy is None else [{"set": "lfw", "accuracy": accuracy, "std": 0.0123}]
    return {"name": name, "losses": losses, "results": results, "held_out_auc": auc, "images": 10_048}


def stopped_run(run: Path) -> Path:
    """Two phases begun, 800 of 1600 images seen, no card."""
    run.mkdir()
    (run / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    (run / "arch.json").write_text("{}")
    rows: list[dict[str, Any]] = [{"event": "start", "images": 0, "device": "cpu", "precision": "bf16"}]
    for images in range(10, 810, 10):
        terms = {"classification": 2.0} | ({"intra": 0.3} if images > 600 else {})
        rows.append({"event": "step", "images": images, "loss": 2.0, "terms": terms, "seconds": images / 10})
        if images == 600:
            rows.append({"event": "phase", "images": 600, "name": "two"})
    (run / "log.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return run


@pytest.mark.parametrize(
    ("before", "now", "wanted"),
    [
        ([], ["arcface", "intra"], "arcface + intra"),
        (["arcface"], ["combined"], "arcface → combined"),
        (["arcface", "intra"], ["arcface", "intra", "inter", "pk batches"], "+ inter, + pk batches"),
        (["arcface", "intra"], ["cosface", "support_vector"], "arcface → cosface, + support_vector, − intra"),
        (["arcface", "pk batches"], ["arcface", "class_uniform batches"], "pk batches → class_uniform batches"),
        (["arcface", "novel"], ["arcface", "newer"], "+ newer, − novel"),
        (["arcface"], ["arcface"], "the same losses"),
    ],
)
def test_what_is_new(before: list[str], now: list[str], wanted: str) -> None:
    assert words.what_is_new(before, now) == wanted


@given(*(st.lists(st.sampled_from([*words.LOSSES, "novel"]), unique=True) for _ in range(2)))
def test_what_is_new_leads_from_one_phase_to_the_next(before: list[str], now: list[str]) -> None:
    found = set(before)
    if before:
        for part in words.what_is_new(before, now).split(", "):
            if part.startswith("+ "):
                found.add(part[2:])
            elif part.startswith("− "):
                found.remove(part[2:])
            elif part != "the same losses":
                old, new = part.split(" → ")
                found = (found - {old}) | {new}
        assert found == set(now)


def kinds(union: Any) -> list[type[BaseModel]]:
    """The tables of a plan's union."""
    return list(get_args(get_args(union)[0]))


def kind(table: type[BaseModel]) -> str:
    return str(get_args(table.model_fields["kind"].annotation)[0])


def test_every_loss_of_a_plan_is_explained() -> None:
    terms = [kind(table) for table in kinds(plan_terms.Term)]
    views = {"degraded": "octuplet"}
    poor = [{"views": views, "sampler": {"kind": "pk", "images": 2}, "terms": ["octuplet"]}]
    poor += [{"views": views, "terms": [{"kind": "classification", "threshold": 0.2}, "contrastive"]}]
    plain = [term for term in terms if term not in ("octuplet", "contrastive")]
    made: list[dict[str, Any]] = [*poor, *({"terms": list({"classification": 0, term: 0})} for term in plain)]
    made += [{"terms": [{"kind": "triplet", "mining": mining}]} for mining in ("batch_hard", "semi_hard")]
    parts: list[dict[str, Any]] = [{"margin": kind(table)} for table in kinds(plan_terms.Margin)]
    parts += [{"negatives": kind(table)} for table in kinds(plan_terms.Negatives)]
    parts += [{"balance": {"beta": 0.99}}]
    made += [{"terms": [{"kind": "classification"} | part]} for part in parts]
    made += [{"sampler": kind(table)} for table in kinds(plan_phases.Sampler)]
    made += [{"quantise": "int8"}]
    named = {word for data in made for word in plan_phases.losses(plan_phases.Phase.model_validate(data))}
    assert len(named) > 15
    assert (named | set(terms)) == set(words.LOSSES)


def test_only_words_that_occur_are_explained() -> None:
    found = words.losses(card(phase("a", ["arcface"], 0.5, 0.6), phase("b", ["arcface", "intra"], 0.5, 0.6)), None)
    assert [word for word, _ in found] == ["arcface", "intra"]
    assert [word for word, _ in words.losses({"teacher": {"path": "t.onnx"}}, None)] == ["distillation"]
    assert words.losses({}, None) == []


def test_the_best_row_is_that_of_the_first_set_else_of_held_out_people() -> None:
    rows = [phase("a", ["arcface"], 0.7817, 0.9), phase("b", ["combined"], 0.79, 0.8), phase("c", [], 0.79, 0.7)]
    found = ladder.phases(card(*rows))
    assert found is not None
    assert [row["best"] for row in found["rows"]] == [False, True, False]
    assert found["rows"][0]["sets"] == ["78.17\u00a0% ±\u00a01.23"]
    assert found["best_on"] == "lfw"
    found = ladder.phases(card(*({**row, "results": []} for row in rows)))
    assert found is not None
    assert [row["best"] for row in found["rows"]] == [True, False, False]
    assert (found["best_on"], found["sets"]) == ("held-out people", [])
    assert ladder.phases(card(rows[0])) is None


@pytest.mark.parametrize(
    ("sets", "wanted"),
    [
        ([10, 10], "One tenth of the pairs. The threshold is chosen on the other nine tenths,"),
        ([2], "A part of the pairs: one of 2 on s0. The threshold is chosen on the other parts,"),
        ([None], "A part of the pairs. The"),
    ],
)
def test_a_fold_is_a_tenth_only_where_there_are_ten(sets: list[int | None], wanted: str) -> None:
    assert words.fold([{"name": f"s{i}", "folds": count} for i, count in enumerate(sets)]).startswith(wanted)


@pytest.mark.parametrize(("images", "people"), [(100, 3.0), (101, None)])
def test_people_held_out_are_told_only_where_all_images_are_accounted_for(images: int, people: float | None) -> None:
    training = {"identities": 17, "train_images": 90, "held_out_images": 10}
    assert curves.people_held_out({"data": {"images": images, "identities": 20}, "training": training}) == people


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.lists(st.integers(1, 49), max_size=4, unique=True))
def test_stretches_are_the_rows_of_each_phase(images: list[int], borders: list[int]) -> None:
    images, edges = sorted(images), [0, *sorted(borders), 50]
    slow: dict[int, list[int]] = {}
    for row, seen in enumerate(images):
        slow.setdefault(sum(seen > border for border in borders), []).append(row)
    found = plots.stretches(np.array(images, np.float64), edges)
    assert [list(range(each.start, each.stop)) for each in found] == [slow[number] for number in sorted(slow)]


def test_curves_of_phases_have_numbers_and_one_axis() -> None:
    """A term of the second phase alone is drawn over all images; its running mean is that of its own rows."""
    edges = [0.0, 500.0, 1000.0]
    places = []
    for images in (range(0, 1001, 50), range(550, 1001, 50)):
        root = ElementTree.fromstring(plots.training_curve("k", list(images), [float(i) for i in images], True, edges))
        shown = {element.text: float(element.get("x", "nan")) for element in root.iter("text")}
        assert {"1", "2", "0", "1k"} <= shown.keys()
        places.append((shown["2"] - shown["1"]) / (shown["1k"] - shown["0"]))
    assert places == pytest.approx([0.5, 0.5], abs=0.02)


def test_the_running_mean_does_not_cross_a_border() -> None:
    """A step at the border stays a step: each phase's thick line is level."""
    svg = plots.training_curve("k", list(range(50, 1050, 50)), [1.0] * 10 + [5.0] * 10, True, [0.0, 500.0, 1000.0])
    paths = [path for path in ElementTree.fromstring(svg).iter("path") if "--first" in path.get("style", "")]
    thick = [path.get("d", "") for path in paths if "opacity" not in path.get("style", "")]
    heights = [{float(point.split()[1]) for point in re.split("[ML]", line)[1:]} for line in thick]
    assert [len(height) for height in heights] == [1, 1]
    assert heights[0] != heights[1]


def test_the_report_of_a_stopped_run(tmp_path: Path) -> None:
    run = stopped_run(tmp_path / "folder")
    asked: list[Path] = []

    def budget(folder: Path) -> dict[str, Any]:
        asked.append(folder)
        limits = {"name": "small", "max_flops": 2e8}
        return {"arch": "tiny", "flops_lfrc": 1e8, "params": 1000, "fits": True, "budget": limits}

    page = write_report(run, budget).read_text(encoding="utf-8")
    assert asked == [run]
    for wanted in (
        "<title>my-ladder · mobileface report</title>",
        "This run is unfinished: 800 of 1,600 images seen.",
        "Budget “small”.",
        "50\u00a0% of the FLOPs allowed",
        "1 &lt;b&gt;one, 2 two.",
        "<dt>precision</dt><dd>bf16</dd>",
        "<dt>intra</dt>",
    ):
        assert wanted in page, wanted
    assert "unfinished" not in write_report(finished(run), budget).read_text(encoding="utf-8")
    assert asked == [run]


def finished(run: Path) -> Path:
    (run / "card.json").write_text(json.dumps({"name": "my-ladder"}))
    return run


def test_a_stopped_run_without_arch_or_with_a_damaged_plan(tmp_path: Path) -> None:
    run = stopped_run(tmp_path / "folder")
    (run / "arch.json").unlink()
    (run / "plan.yaml").write_text("name: [1, &a")
    page = write_report(run, lambda _: pytest.fail("asked for a budget of nothing")).read_text(encoding="utf-8")
    assert "This run is unfinished: its training has not ended." in page
    assert "<h1>folder</h1>" in page


@given(
    st.text(st.characters(exclude_categories=()))
    | st.recursive(
        st.none() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["name", "phases", "images"]), inner),
        max_leaves=5,
    ).map(yaml.safe_dump)
)
def test_any_plan_text_can_stand_in_a_stopped_run(plan: str) -> None:
    found = unfinished.filled_in(RunFiles(Path("run"), {}, plan, None, {}, {}, {}), None)
    assert found.card["unfinished"].endswith(("images seen", "has not ended"))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["name", "losses", "results", "held_out_auc", "images"]),
            st.none()
            | st.floats()
            | st.text()
            | st.lists(
                st.text(max_size=3)
                | st.dictionaries(
                    st.sampled_from(["set", "accuracy", "std"]), st.none() | st.floats() | st.text(max_size=3)
                ),
                max_size=3,
            ),
        ),
        min_size=2,
        max_size=4,
    )
)
def test_any_card_makes_a_ladder_of_all_its_phases(phases: list[dict[str, Any]]) -> None:
    found = ladder.phases(card(*phases))
    assert found is not None
    assert len(found["rows"]) == len(phases)
    assert sum(row["best"] for row in found["rows"]) <= 1
    assert {len(row["sets"]) for row in found["rows"]} == {len(found["sets"])}


def test_the_log_tells_where_phases_begin(tmp_path: Path) -> None:
    run = stopped_run(tmp_path / "folder")
    log = read_log(run / "log.jsonl")
    assert ladder.edges(log) == [0.0, 600.0, 800.0]
    assert log.start["device"] == "cpu"
    files = unfinished.filled_in(read_run(run), None)
    assert files.card["training"]["images_seen"] == 800
    assert ladder.begun(files.card, log) == ["<b>one", "two"]


def test_names_break_after_slashes_and_underscores() -> None:
    assert text.breakable("A_<b>/A_0001.jpg") == "A_<wbr>&lt;b&gt;/<wbr>A_<wbr>0001.jpg"
