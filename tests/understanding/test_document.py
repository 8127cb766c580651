"""docs/understanding.md says what the result file says, and its pictures are there and stand alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.environment import RESULTS
from benchmarks.pictures import sheet
from benchmarks.understanding import DOCUMENT, PICTURES, plans
from benchmarks.understanding_tables import render, tables
from mobileface.data.augment import INTERPOLATIONS
from mobileface.training.plan import parse_plan
from mobileface.understanding.norms import BINS
from mobileface.understanding.page import signed

RESULT = json.loads((RESULTS / "understanding.json").read_text(encoding="utf-8"))
TEXT = DOCUMENT.read_text(encoding="utf-8")
PLOT = {
    "title": "a < b",
    "note": "& so on",
    "legend": ["one", "two"],
    "svg": '<svg viewBox="0 0 1 1"><path d="M0 0"/></svg>',
}


def test_tables_are_those_of_the_result_file() -> None:
    assert render(TEXT) == TEXT
    assert re.findall(r"<!-- table: (\w+) -->", TEXT) == list(tables(RESULT))


def test_every_run_was_looked_at_from_before_its_first_step() -> None:
    assert [run["name"] for run in RESULT["runs"]] == list(plans())
    for run in RESULT["runs"]:
        images = run["watched"]["images"]
        assert (images[0], images[-1]) == (0, run["images"])
        assert len(images) == 7
        assert 0.5 < run["held_out_auc"] <= 1


def test_what_the_text_says_of_the_trainings() -> None:
    """Each number in the text, and each "ahead", is that of the result file."""
    words = " ".join(TEXT.split())
    runs = {run["name"]: run for run in RESULT["runs"]}
    found = {name: run["watched"]["correlations"] for name, run in runs.items()}
    plain, control, adaface = (found[name]["resolution"] for name in ("arcface", "arcface-augmented", "adaface"))
    for said, value in {
        "before its first step ({})": plain["norm"][0],
        "in the first row ({})": plain["norm"][1],
        "knows nothing yet ({})": plain["probability"][1],
        "do alike ({} and": plain["norm"][-1],
        f"do alike ({signed(plain['norm'][-1])} and {{}})": plain["probability"][-1],
        "{} in the end with ArcFace": control["norm"][-1],
        "{} with AdaFace.": adaface["norm"][-1],
        "share falls with yaw ({})": runs["lgaf"]["factors"]["yaw"]["branches"]["share of local"]["pearson"],
    }.items():
        assert said.format(signed(value)) in words
    ahead = [p > n for n, p in zip(plain["norm"][1:], plain["probability"][1:], strict=True)]
    assert sum(ahead) == 2
    assert "in two of six rows the probability is ahead" in words
    for name in ("arcface-augmented", "adaface"):
        for kind in found[name].values():
            assert all(p > n for n, p in zip(kind["norm"][3:], kind["probability"][3:], strict=True))
    statistics, clean = runs["adaface"]["margin_statistics"], runs["adaface"]["watched"]["levels"][0]
    indicator = 0.333 * clean["norm_std"] / statistics["std"]
    assert f"stood at {statistics['std']:.1f} behind {runs['adaface']['images'] // 64} steps" in words
    assert f"spread by {clean['norm_std']:.1f}; an image one deviation off" in words
    assert f"indicator of {indicator:.2f} then" in words
    real, rest = runs["arcface"]["norms"]["embedding"], runs["arcface"]["factors"]["yaw"]["branches"]["embedding"]
    assert f"higher norms ({real['mean']:.1f}) than sharp procedural people at rest ({rest['mean'][0]:.1f})" in words
    assert all(m["gates"]["0.95"] - m["gates"]["0.05"] < 0.03 for m in RESULT["attention"].values())


def test_real_faces_are_numbers_and_nothing_else() -> None:
    """Mean, deviation, quantiles and counts; no name of an image, no path."""
    data = RESULT["data"]
    assert set(data) == {"name", "images", "whole", "bad", "sha256"}
    assert f"{data['images']:,} of the {data['whole']:,} crops" in " ".join(TEXT.split())
    for run in RESULT["runs"]:
        assert list(run["norms"]) == (["embedding", "local", "global"] if run["name"] == "lgaf" else ["embedding"])
        for found in run["norms"].values():
            assert set(found) == {"mean", "std", "quantiles", "histogram"}
            assert sum(found["histogram"]["counts"]) == data["images"]
            assert len(found["histogram"]["counts"]) == BINS
            assert found["histogram"]["edges"][0] < found["quantiles"]["0.5"] < found["histogram"]["edges"][-1]
    assert not [text for text in strings(RESULT) if re.search(r"/|\\|\.(jpg|png|rec)", text)]


def strings(value: Any) -> list[str]:
    """All texts of plain data, keys included."""
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in strings(part)]
    if isinstance(value, list):
        return [text for part in value for text in strings(part)]
    return [value] if isinstance(value, str) else []


def test_shares_and_gates_lie_between_0_and_1() -> None:
    assert list(RESULT["attention"]) == ["procedural", "real"]
    for measures in RESULT["attention"].values():
        assert list(measures) == ["share of local", "gates"]
        for found in measures.values():
            assert 0 <= found["least"] <= found["0.05"] <= found["mean"] <= found["0.95"] <= found["most"] <= 1


def test_pictures_are_there_and_stand_alone() -> None:
    named = re.findall(r"\]\(understanding/([^)]+)\)", TEXT)
    assert len(named) >= 4
    for name in named:
        path: Path = PICTURES / name
        assert path.stat().st_size > 1000
        if path.suffix == ".svg":
            drawn = path.read_text(encoding="utf-8")
            ElementTree.fromstring(drawn)
            assert not re.search(r"<script|<image|https?://(?!www\.w3\.org)", drawn)
            ids = re.findall(r'\bid="([^"]+)"', drawn)
            assert len(ids) == len(set(ids))
            assert set(re.findall(r"url\(#([^)]+)\)", drawn)) <= set(ids)


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (2, 1), (5, 3)])
def test_a_sheet_has_a_place_for_each_plot(count: int, rows: int) -> None:
    root = ElementTree.fromstring(sheet([PLOT] * count))
    places = [part.get("transform") for part in root if part.tag.endswith("}g")]
    assert len(set(places)) == count
    assert float(root.get("viewBox", "").split()[3]) == pytest.approx(16 + rows * (40 + 252 + 16))
    assert "a < b" in "".join(root.itertext())


def test_the_trainings_are_plans_that_watch() -> None:
    for name, plan in plans().items():
        found = parse_plan(plan, name)
        assert (found.name, found.watch) == (name, 64)
        assert found.phases[0].images <= 24_000


def test_the_losses_are_compared_with_the_same_pictures() -> None:
    """AdaFace's run and its control differ in name and margin alone; the augmentation is the public code's."""
    adaface, control = (plans()[name]["phases"][0] for name in ("adaface", "arcface-augmented"))
    assert adaface.pop("terms")[0].pop("margin") != control.pop("terms")[0].pop("margin")
    assert {**adaface, "name": ""} == {**control, "name": ""}
    (coarse,) = [step for step in adaface["views"]["clean"] if isinstance(step, dict)]
    assert set(coarse["interpolations"]) == set(INTERPOLATIONS)
    demo, control = (plans()[name]["phases"][0] for name in ("arcface", "arcface-augmented"))
    assert demo["terms"] == control["terms"]
    assert demo["views"] != control["views"]
