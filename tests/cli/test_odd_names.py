"""Hostile and odd names of people, images, folders and runs, from training to report."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from mobileface.cli import main
from tests.cli.output import Captured, one_line
from tests.cli.pairs import pairs_folder

MakeData = Callable[..., dict[str, Any]]
ODD_PEOPLE = [
    b"\xff\xfe person", b"<script>alert(1)<b>", b"..dots..", b"[bold]a[", b"\"onload='x\" & :smile:",
    b"new\nline\x1b[31m",
]  # fmt: skip


class Tags(HTMLParser):
    """Every tag of a page with its attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attributes))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def odd_faces(tmp_path: Path, shared_faces: Path) -> Path:
    """Six people with hostile names, images named alike, one of them bad."""
    top = tmp_path / "odd"
    for number, person in enumerate(ODD_PEOPLE):
        folder = os.fsencode(top) + b"/" + person
        os.makedirs(folder)
        for i in range(6):
            source = shared_faces / f"person-{number % 5}" / f"face-{i}.jpg"
            Path(os.fsdecode(folder + b"/" + person + b"_%d.jpg" % i)).write_bytes(source.read_bytes())
    for person in (ODD_PEOPLE[0], ODD_PEOPLE[1], ODD_PEOPLE[5]):
        Path(os.fsdecode(os.fsencode(top) + b"/" + person + b"/" + person + b"_3.jpg")).write_bytes(b"bad")
    return top


def test_odd_names_from_training_to_report(
    odd_faces: Path, shared_faces: Path, tmp_path: Path, make_plan_data: MakeData, capsys: Captured
) -> None:
    people = ("<img src=x onerror=alert(2)>", "..b'\"&\u202e\U0001f600")
    pairs = pairs_folder(tmp_path / "judge<b>", shared_faces, people)
    data = make_plan_data(odd_faces, evaluate=[str(pairs)], phase={"images": 40})
    (tmp_path / "odd.yaml").write_text(yaml.safe_dump(data))
    run = tmp_path / "run é[/red]:smile:😀"
    assert main(["make", str(tmp_path / "odd.yaml"), "--out", str(run)]) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"report: {run}/report.html"
    card = json.loads((run / "card.json").read_text())
    assert len(card["data"]["skipped"]) == 3
    page = Tags((run / "report.html").read_text(encoding="utf-8"))
    assert "<script>alert(1)<b>_3.jpg" in page.text
    assert "onerror" not in {name for _, attributes in page.tags for name, _ in attributes}
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert main(["report", str(run)]) == 0
    assert main(["evaluate", str(run), "--on", str(pairs)]) == 0
    assert main(["data", "info", str(odd_faces)]) == 0
    assert "bad images: 3" in capsys.readouterr().out
    assert main(["data", "pack", str(odd_faces), "--to", str(tmp_path / "odd.rec")]) == 2
    one_line(capsys, "does not decode as an image").encode("utf-8")


def test_a_data_folder_of_any_name(shared_faces: Path, recipe: Path, tmp_path: Path, capsys: Captured) -> None:
    names = ["\U0001f600 x", "a: b #c", "tab\there", "'\"", "~", "é" * 100, os.fsdecode(b"\xff\xe9")]
    for number, name in enumerate(names):
        (tmp_path / "roots" / name).mkdir(parents=True)
        (tmp_path / "roots" / name / "faces").symlink_to(shared_faces)
        arguments = ["train", str(recipe), "--out", str(tmp_path / f"run{number}"), "--set", "phases.0.images=4"]
        assert main([*arguments, "--data", str(tmp_path / "roots" / name)]) == 0, (name, capsys.readouterr().err)
        assert main([*arguments, "--data", str(tmp_path / "roots" / name)]) == 0  # the plan was kept as it is


@pytest.mark.parametrize("name", [b"\xff", b"a\nb", b"\x1b[31m"])
def test_a_run_folder_has_a_name_that_can_be_printed(
    recipe: Path, tmp_path: Path, capsys: Captured, name: bytes
) -> None:
    run = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
    assert main(["train", str(recipe), "--out", run]) == 2
    one_line(capsys, "wanted a name of printable text for a run folder")
    assert not os.path.exists(run)
