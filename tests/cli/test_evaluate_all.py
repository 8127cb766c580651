"""`evaluate --on all` and the sets that are no pairs, from files to page; mistakes cost one line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mobileface.cli import main
from mobileface.data.images import encode
from mobileface.data.verification_bin import write_bin
from mobileface.evaluation import everything
from mobileface.evaluation.everything import NAMES
from mobileface.models.build import network as network_of
from mobileface.report import everything as page_module
from mobileface.report.html import write_report
from mobileface.zoo import ZOO
from tests.cli.output import Captured, one_line
from tests.cli.pairs import pairs_folder
from tests.face_sets import paint, write_ijb, write_ijbs, write_tinyface

X, Y, Z = (100, 0, 0), (0, 100, 0), (0, 0, 100)


class Page(HTMLParser):
    """Text, ids, links and tags of a page; every tag is closed by its own end."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.tags, self.ids, self.links, self.open = "", [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [value for name, value in attrs if name in ("href", "src", "xlink:href") and value]
        if tag not in ("meta", "wbr", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights and architecture, nothing else."""
    folder = tmp_path_factory.mktemp("all") / "run<b>"
    torch.manual_seed(0)
    folder.mkdir()
    (folder / "arch.json").write_text(json.dumps(ZOO["micro"].to_dict()))
    save_file(network_of(ZOO["micro"]).state_dict(), folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, shared_faces: Path, make_face: Callable[..., np.ndarray]) -> Path:
    """LFW, TinyFace, SCface, IJB-C with 1:N, IJB-S: a few images each."""
    root = tmp_path_factory.mktemp("sets")
    pairs_folder(root / "lfw", shared_faces, ("a", "b"))
    write_tinyface(root / "tinyface", {"1_1": X, "2_1": Y}, {"1_2": X, "2_2": Y}, {"d": Z})
    for person in range(1, 4):
        (root / "scface").mkdir(exist_ok=True)
        for name in ("frontal", "cam1_1", "cam2_2", "cam3_3"):
            (root / "scface" / f"{person:03d}_{name}.jpg").write_bytes(encode(make_face(person, len(name))))
    images = [(t, t, (X, Y, Z)[t % 3], 0.9) for t in range(1, 13)]
    pairs = [(a, b, int(a % 3 == b % 3)) for a in range(1, 13) for b in range(1, a)]
    write_ijb(
        root / "ijbc", images, [*pairs, (1, 99, 1)], ({1: 1, 2: 2}, {3: 0}, {t: t % 3 for t in range(4, 13)}), "ijbc"
    )
    videos = [(p, f"videos/{v}.mp4") for p in (1, 2) for v in (p, 10 + p)]
    crops = {f"{p}/{name.replace('/', '_')[:-4]}_1.jpg": (X, Y)[p - 1] for p, name in videos}
    crops |= {"1/img_1.jpg": X, "2/img_2.jpg": Y}
    probes = {kind: ["videos/1.mp4", "videos/2.mp4"] for kind in ("single-booking", "surveillance")}
    halves = {"single": [(1, "img/1.png"), (2, "img/2.png")], "booking": [(1, "img/1.png"), (2, "img/2.png")],
              "surveillance": [(1, "videos/11.mp4"), (2, "videos/12.mp4")]}  # fmt: skip
    galleries = {f"{kind}_g{g}": [rows[g - 1]] for kind, rows in halves.items() for g in (1, 2)}
    write_ijbs(root / "ijbs", crops, videos, probes, galleries)
    return root


def test_all_from_files_to_page(run_folder: Path, data: Path, tmp_path: Path, capsys: Captured) -> None:
    arguments = ["evaluate", str(run_folder), "--data", str(data), "--out", str(tmp_path), "--on", "all"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    there = ("lfw", "tinyface", "scface", "ijbc", "ijbs")
    for name in NAMES:
        said = [line for line in lines if line.startswith(f"{name}: not there: looked for ")]
        assert len(said) == (name not in there), name
    for begin in ("lfw: accuracy", "tinyface, probes: rank 1", "scface, d2, 2.6 m: rank 1", "ijbc: TAR",
                  "ijbc-1n, mixed media: rank 1", "ijbs, surveillance to booking: rank 1"):  # fmt: skip
        assert sum(line.startswith(begin) for line in lines) == 1, begin
    assert lines[-1] == f"page: {tmp_path / 'evaluation.html'}"
    assert {path.name for path in tmp_path.glob("*.json")} == {
        "lfw.json", "lfw.worst.json", "tinyface.json", "scface.json", "ijbc.json", "ijbc-1n.json", "ijbs.json",
    }  # fmt: skip
    text = (tmp_path / "evaluation.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "run<b>" in page.text  # escaped in the source
    assert "<b>run" not in text
    assert "run<b>" not in text
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert page.tags.count("svg") == 2 * 2 + 4  # ROC and scores of the two sets of pairs, CMC of the four searches
    for words in ("Judged on 6 sets; 8 more were not judged", "Not the whole set.", "N1D1F2: norm weighted yes",
                  "not there: looked for cfp/Protocol", "templates, of them empty", "Rank 20"):  # fmt: skip
        assert words in page.text, words
    assert text.count("SHA-256") == 7  # of each set and of the model


def test_one_set_by_its_name(run_folder: Path, data: Path, tmp_path: Path, capsys: Captured) -> None:
    arguments = ["evaluate", str(run_folder), "--data", str(data), "--out", str(tmp_path), "--json", "--flip", "none"]
    assert main([*arguments, "--on", "ijbs", "--templates", "N0D0"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["set"], result["fusion"]["variant"], len(result["parts"])) == ("ijbs", "N0D0F1", 3)
    assert not (tmp_path / "evaluation.html").exists()
    assert main([*arguments, "--on", "ijbc"]) == 0
    assert [found["set"] for found in json.loads(capsys.readouterr().out)["results"]] == ["ijbc", "ijbc-1n"]


def test_in_a_run_folder_results_and_page_lie_there(
    run_folder: Path, data: Path, tmp_path: Path, capsys: Captured
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for file in run_folder.iterdir():
        (run / file.name).write_bytes(file.read_bytes())
    small = tmp_path / "small"
    small.mkdir()
    (small / "tinyface").symlink_to(data / "tinyface")
    (small / "ijbc").symlink_to(data / "ijbc")
    assert main(["evaluate", str(run), "--on", "all", "--data", str(small), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [result["set"] for result in found["results"]] == ["tinyface", "ijbc", "ijbc-1n"]
    assert {one["set"] for one in found["absent"]} == set(NAMES) - {"tinyface", "ijbc"}
    for result in found["results"]:
        assert json.loads((run / "evaluation" / f"{result['set']}.json").read_text()) == result
        assert result["flip"] == "sum"
    assert "Judged on 3 sets" in (run / "evaluation.html").read_text(encoding="utf-8")
    report = write_report(run).read_text(encoding="utf-8")  # goes on working: these have the page above
    assert ("ijbc" in report, "tinyface" in report) == (False, False)


def test_an_image_that_cannot_be_read_costs_its_set_alone(run_folder: Path, tmp_path: Path, capsys: Captured) -> None:
    """A set by its name must be whole; of all, the others are judged, and the page says why it is not."""
    write_tinyface(tmp_path / "tinyface", {"1_1": X}, {"1_2": X}, {"d": Z})
    paint(tmp_path / "tinyface/Testing_Set/Probe/1_1.jpg", X, side=20)
    for name in ("001_frontal", "001_cam1_1"):
        paint(tmp_path / "scface" / f"{name}.jpg", X)
    arguments = ["evaluate", str(run_folder), "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--on"]
    assert main([*arguments, "all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("tinyface: cannot be used: ") and "20x20 px" in line for line in lines) == 1
    assert sum(line.startswith("scface, d1, 4.2 m: rank 1") for line in lines) == 1
    page = Page((tmp_path / "out/evaluation.html").read_text(encoding="utf-8"))
    assert "Judged on 1 set; 12 more were not judged" in page.text
    assert "1_1.jpg: is 20x20 px" in page.text
    assert main([*arguments, "tinyface"]) == 2
    one_line(capsys, "Probe/1_1.jpg: is 20x20 px")


def test_a_lowest_accuracy_is_met_by_no_set_that_failed(run_folder: Path, tmp_path: Path, capsys: Captured) -> None:
    contents = [(encode(np.full((112, 112, 3), 9 * p, np.uint8)), b"no image", p % 2 == 0) for p in range(20)]
    write_bin(tmp_path / "lfw.bin", contents)
    for name in ("001_frontal", "001_cam1_1"):
        paint(tmp_path / "scface" / f"{name}.jpg", X)
    out = ["--out", str(tmp_path / "out"), "--min-accuracy", "0.5"]
    assert main(["evaluate", str(run_folder), "--data", str(tmp_path), "--on", "all", *out]) == 2
    assert "--min-accuracy: no set of pairs could be judged" in capsys.readouterr().err


def test_where_results_cannot_lie_is_said_before_any_work(
    run_folder: Path, data: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder below a file, and one below a folder that is not ours to write to."""
    monkeypatch.setattr(everything, "judge", lambda *_: pytest.fail("judged for nothing"))
    (tmp_path / "file").write_text("")
    arguments = ["evaluate", str(run_folder), "--data", str(data), "--on", "all"]
    assert main([*arguments, "--out", str(tmp_path / "file" / "out")]) == 2
    one_line(capsys, f"{tmp_path / 'file'}: is no folder that can be written to")
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)
    assert main([*arguments, "--out", str(tmp_path / "new" / "out")]) == 2
    one_line(capsys, f"{tmp_path}: is no folder that can be written to")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--on", "tinyfase"], "'tinyfase' is no known set (did you mean 'tinyface'?)"),
        (["--on", "ijbb"], "holds no ijbb/meta/ or IJBB/meta/, wanted ijbb"),
        (["--on", "all", "--templates", "N3"], "--templates is 'N3', wanted N0 or N1"),
        (["--on", "all", "--data", "/nowhere"], "/nowhere: not found; --data says where the sets lie"),
        (["--on", "tinyface", "--flip", "both"], "flip is 'both', wanted sum, none"),
        (["--on", "tinyface", "--min-accuracy", "0.5"], "--min-accuracy: only sets of pairs have an accuracy"),
        (["--on", "lfw", "--on", "lfw/pairs.txt"], "--on: two sets are called 'lfw'"),
    ],
)
def test_mistakes(run_folder: Path, data: Path, tmp_path: Path, capsys: Captured, arguments: list[str],
                  wanted: str) -> None:  # fmt: skip
    assert main(["evaluate", str(run_folder), "--data", str(data), "--out", str(tmp_path / "out"), *arguments]) == 2
    one_line(capsys, wanted)


def test_a_headline_is_what_a_set_is_known_by() -> None:
    part = {"name": "p", "rank": {"1": 0.5, "5": 0.75}, "tpir": {"1e-1": 0.25}}
    empty = {"name": "q", "rank": {}, "tpir": {}}
    assert page_module.headline({"accuracy": 0.5, "std": 0.25}) == ["accuracy 50.00\u00a0% ±\u00a025.00"]
    assert page_module.headline({"parts": [part, empty]}) == ["p: rank 1 50.00\u00a0%"]
    assert page_module.headline({"tar": {"1e-6": 0.1, "1e-4": 0.2}}) == ["TAR 20.00\u00a0% at FAR 1e-4"]
    assert page_module.headline({"tar": {}, "eer": 0.125}) == ["EER 12.50\u00a0%"]
