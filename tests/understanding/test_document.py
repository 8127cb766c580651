"""docs/understanding.md says what the result file says, and its pictures are there and stand alone."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.pictures import sheet
from benchmarks.understanding import DOCUMENT, PICTURES, plans, render
from mobileface.training.plan import parse_plan

TEXT = DOCUMENT.read_text(encoding="utf-8")
PLOT = {
    "title": "a < b",
    "note": "& so on",
    "legend": ["one", "two"],
    "svg": '<svg viewBox="0 0 1 1"><path d="M0 0"/></svg>',
}


def test_tables_are_those_of_the_result_file() -> None:
    assert render(TEXT) == TEXT
    assert TEXT.count("<!-- table:") == 2


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
