"""The page of a search, as a browser gets it."""

from __future__ import annotations

import dataclasses
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from mobileface.arch import SEMobileFaceNet
from mobileface.zoo import ZOO
from search import page
from search.budget import Budget
from search.cost import cost
from search.found import front
from search.run import search_for
from search.work import Search
from tests.search.searches import BUDGET, Formula, a_search, trials_of


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Search:
    out = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        search_for(a_search(out, 12, Formula(1, "nan")), 1, Console(quiet=True))
    return a_search(out, 12)


class Reader(HTMLParser):
    """Tags and words of a page; every tag that needs an end has one, in order."""

    VOID = ("meta", "br", "img", "link", "input", "wbr")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return reader


def test_the_page_is_whole_and_asks_nobody(found: Search) -> None:
    text = (found.out / "page.html").read_text()
    reader = read(text)
    ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    assert len(set(ids)) == len(ids)
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in reader.tags}
    assert not re.findall(r"(?:src|href)=[\"'](?!#)", text)
    words = " ".join(reader.words)
    trials = trials_of(found)
    for trial in front(trials):
        assert trial.user_attrs["arch"] in words
        assert f"{trial.values[0]:.4f}" in words
    assert "12" in words
    assert "1 failed" in words
    assert "The best network, with prelu, beside lfrc-step5" in words
    assert "lfrc-step5 at 976.6 MFLOPs" in words  # too dear to be drawn, so it is said


def test_the_same_trials_give_the_same_page(found: Search) -> None:
    trials = trials_of(found)
    assert page.render(found, trials) == page.render(found, trials)


def test_names_from_outside_are_escaped(found: Search) -> None:
    space = dataclasses.replace(found.space, name="<b>x</b>")
    other = dataclasses.replace(found, space=space, budget=dataclasses.replace(BUDGET, name="<i>y"))
    text = page.render(other, trials_of(found))
    read(text)
    assert "<b>x" not in text
    assert "<i>y" not in text
    assert "&lt;b&gt;x" in text


@pytest.mark.parametrize("name", ["tiny", "micro", "student-real", "mobilefacenet", "lfrc-step0", "lfrc-step5"])
def test_stages_add_up_to_the_network(name: str) -> None:
    arch = ZOO[name]
    assert isinstance(arch, SEMobileFaceNet)
    rows = [row for _, row in page.stages(arch).values()]
    assert sum(int(row.params.replace(",", "")) for row in rows) == cost(arch).params
    assert abs(sum(row.share for row in rows) - 1) < 1e-9
    depthwise = 1 if arch.stem_depthwise else 0
    assert sum(row.blocks for row in rows) == 4 + depthwise + sum(stage.depth for stage in arch.stages)


def test_stages_are_laid_side_by_side_by_their_grid() -> None:
    rows = page.compared(ZOO["student-real"], ZOO["lfrc-step5"])
    names = [row["name"] for row in rows]
    grids = ["56 px", "to 28 px", "28 px", "to 14 px", "14 px", "to 7 px", "7 px"]
    assert names == ["stem", *grids, "head", "gdc", "embedding"]
    own, other = rows[names.index("14 px")]["rows"]
    assert (own.blocks, own.width, own.hidden, own.kernel, own.se) == (6, "96", "192", "3", "yes")
    assert (other.blocks, other.width, other.hidden, other.kernel, other.se) == (15, "124", "248", "3", "yes")
    assert rows[names.index("28 px")]["rows"][0] is None  # student-real has no such blocks
    pruned = dataclasses.replace(ZOO["micro"], stages=(dataclasses.replace(ZOO["micro"].stages[1], hidden=(8, 4)),))
    assert next(row for name, row in page.stages(pruned).values() if name == "to 28 px").hidden == "4 to 8"


@pytest.mark.parametrize(
    ("budget", "against", "said"),
    [
        (Budget("b", "macs", 2e7), "flops", "MMACs"),
        (Budget("b", "lfrc", 2e7, 8.0), "size", "MiB"),
        (Budget("b", "lfrc", None, 8.0), "flops", "MFLOPs"),
    ],
)
def test_units_follow_the_budget(tmp_path: Path, budget: Budget, against: str, said: str) -> None:
    search = a_search(tmp_path, 2, budget=budget, against=against)
    search_for(search, 1, Console(quiet=True))
    assert f'<th scope="col" class="n">{said}</th>' in (tmp_path / "page.html").read_text()
