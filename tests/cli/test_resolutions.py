"""`mobileface resolutions` from files to page; its mistakes cost one line and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mobileface.cli import main
from mobileface.data.images import encode
from mobileface.models.build import network as network_of
from mobileface.report import resolutions as page_module
from mobileface.report import resolutions_plots
from mobileface.zoo import ZOO

Captured = pytest.CaptureFixture[str]
PEOPLE = ("<b>one", "two")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, make_face: Callable[[int, int], np.ndarray]) -> Path:
    """Two run folders, `before` and `after`, `deep/after`, and a set of eight pairs, `judge<i>`."""
    top = tmp_path_factory.mktemp("resolutions")
    for seed, name in enumerate(("before", "after", "deep/after")):
        torch.manual_seed(seed)
        (top / name).mkdir(parents=True)
        (top / name / "arch.json").write_text(json.dumps(ZOO["micro"].to_dict()))
        save_file(network_of(ZOO["micro"]).state_dict(), top / name / "model.safetensors")
    for person, name in enumerate(PEOPLE):
        (top / "judge<i>" / name).mkdir(parents=True)
        for i in range(1, 7):
            (top / "judge<i>" / name / f"{name}_{i:04d}.jpg").write_bytes(encode(make_face(person, i)))
    one, two = PEOPLE
    same = [f"{one}\t1\t2\n{two}\t3\t4\n", f"{one}\t3\t5\n{two}\t1\t6\n"]
    other = [f"{one}\t1\t{two}\t2\n{one}\t4\t{two}\t3\n", f"{one}\t6\t{two}\t5\n{one}\t2\t{two}\t1\n"]
    (top / "judge<i>" / "pairs.txt").write_text("2\t2\n" + same[0] + other[0] + same[1] + other[1])
    return top


@pytest.fixture(scope="module")
def foreign(root: Path) -> Path:
    """An ONNX file of somebody else: the means of 16 x 16 tiles of what it was fed."""
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    nodes = [
        helper.make_node("AveragePool", ["input"], ["pooled"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Flatten", ["pooled"], ["out"]),
    ]
    values = [("input", ["N", 3, 112, 112]), ("out", ["N", 147])]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in values]
    graph = helper.make_graph(nodes, "tiles", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, root / "foreign.onnx")
    return root / "foreign.onnx"


CONTRACT = ["--scale", "255", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"]


class Page(HTMLParser):
    """The tags, ids, addresses and the text of a page; every tag must be closed by its own end."""

    VOID = ("meta", "wbr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [str(value) for name, value in attributes if name == "id"]
        self.links += [str(value) for name, value in attributes if name in ("href", "src", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def run(root: Path, out: Path, *arguments: str) -> int:
    fixed = ["--on", str(root / "judge<i>" / "pairs.txt"), "--out", str(out), "--threads", "1"]
    return main(["resolutions", *arguments, *fixed])


def test_two_models_from_files_to_page(root: Path, tmp_path: Path, capsys: Captured) -> None:
    models = [str(root / "before"), str(root / "after")]
    assert run(root, tmp_path / "out", *models, "--sides", "9,20") == 0
    lines = capsys.readouterr().out.splitlines()
    numbers = json.loads((tmp_path / "out" / "resolutions.json").read_text())
    assert numbers["sides"] == [9, 20, 112]
    assert [(r["model"], r["set"]) for r in numbers["results"]] == [("before", "judge<i>"), ("after", "judge<i>")]
    assert [model["name"] for model in numbers["models"]] == ["before", "after"]
    assert len({model["model_sha256"] for model in numbers["models"]}) == 2
    assert (numbers["sets"][0]["pairs"], numbers["sets"][0]["images"]) == (8, 12)
    first = numbers["results"][0]["rows"][0]
    assert lines[0] == "judge<i>, before: accuracy by side of the second image (cross), of both images (same)"
    assert lines[1].startswith(f"    9 px  cross {first['accuracy']:.4f}  same ")
    assert [line[:8] for line in lines[1:5]] == ["    9 px", "   20 px", "  112 px", "    mean"]
    assert lines[5].startswith("judge<i>, after: accuracy by side of")
    assert len(lines) == 11
    assert lines[10] == f"page: {tmp_path / 'out' / 'resolutions.html'}"
    page = Page((tmp_path / "out" / "resolutions.html").read_text(encoding="utf-8"))
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert not {"script", "img", "link"} & set(page.tags)
    assert "judge<i>" in page.text
    assert page.tags.count("svg") == 2 + 2 * (2 + 3)  # comparisons; of each model two ROCs and a histogram a side
    assert "Before and after" in page.text
    for result in numbers["results"]:
        for row in result["matrix"]:
            for accuracy in row:
                assert f"{100 * accuracy:.1f}" in page.text
    old, new = (r["mean"]["cross"] for r in numbers["results"])
    assert f"mean over the sides {resolutions_plots.signed(round(100 * (new - old), 1))} points" in page.text


def test_112_px_and_one_model_say_what_evaluate_says(root: Path, tmp_path: Path, capsys: Captured) -> None:
    assert run(root, tmp_path / "out", str(root / "before"), "--sides", "112", "--flip", "none", "--json") == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers == json.loads((tmp_path / "out" / "resolutions.json").read_text())
    pairs = str(root / "judge<i>" / "pairs.txt")
    assert main(["evaluate", str(root / "before"), "--on", pairs, "--flip", "none", "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    row = numbers["results"][0]["rows"][0]
    for key in ("accuracy", "std", "threshold", "eer", "auc", "roc", "tar_impostors"):
        assert row[key] == plain[key]
    assert numbers["models"][0]["model_sha256"] == plain["model_sha256"]
    assert numbers["sets"][0]["data_sha256"] == plain["data_sha256"]
    assert "Before and after" not in (tmp_path / "out" / "resolutions.html").read_text(encoding="utf-8")


def test_models_that_are_called_alike_go_by_their_paths(root: Path, tmp_path: Path) -> None:
    models = [str(root / "after"), str(root / "deep" / "after")]
    assert run(root, tmp_path, *models, "--sides", "112") == 0
    assert [model["name"] for model in json.loads((tmp_path / "resolutions.json").read_text())["models"]] == models


def test_a_contract_is_for_the_foreign_file_alone(root: Path, foreign: Path, tmp_path: Path) -> None:
    assert run(root, tmp_path, str(root / "before"), str(foreign), "--sides", "14", *CONTRACT) == 0
    both = json.loads((tmp_path / "resolutions.json").read_text())["models"]
    assert [model["contract"]["scale"] for model in both] == [1.0, 255.0]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["before", "--sides", "7,x"], "--sides is '7,x', wanted whole numbers from 1 to 112 (px)"),
        (["before", "--sides", "113"], "--sides is '113', wanted whole numbers from 1 to 112"),
        (["before", "--sides", "0,7"], "--sides is '0,7', wanted whole numbers from 1 to 112"),
        (["before", "after", "deep/after"], "found 3 models, wanted one, or two to compare"),
        (["before", "before/../before"], "before: is given twice, wanted two models"),
        (["before", "--on", "judge<i>/pairs.txt"], "--on: two sets are called 'judge_i_'"),
        (["before", "--on", "xqlfw"], "xqlfw: not found, wanted xqlfw; --data says where xqlfw/ lies"),
        (["before", "--on", "lwf"], "'lwf' is no known pair set (did you mean 'lfw'?)"),
        (["before", "--flip", "both"], "--flip is 'both', wanted sum or none"),
        (["before", "gone"], "gone: not found, wanted a run folder"),
        (["before", *CONTRACT], "a run folder takes RGB in 0..255 and needs no contract; leave --scale out"),
        (["before/model.safetensors", *CONTRACT], "carries its own input contract; leave --scale, --mean and --std"),
        (["foreign.onnx"], "foreign.onnx: does not say how its input is normalised, wanted --scale"),
        (["foreign.onnx", "--scale", "255"], "--mean is missing"),
    ],
)
def test_mistakes(
    root: Path,
    foreign: Path,
    tmp_path: Path,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    wanted: str,
) -> None:
    monkeypatch.chdir(root)
    assert foreign.exists()
    assert run(root, tmp_path / "out", *arguments, "--data", str(root)) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert wanted in err
    assert not (tmp_path / "out").exists()  # refused before anything was embedded


def numbers_of(accuracies: list[list[float]], unmatched: bool = True) -> dict[str, Any]:
    """What `compare` gives for models with these accuracies at 7 and 112 px, everything else made up."""
    histogram = {"edges": [-1.0, 0.0, 1.0], "matched": [1, 3], "hardest": [2, 2]}

    def row(kind: str, side: int, accuracy: float) -> dict[str, Any]:
        found = {"matched_mean": accuracy, "hardest_mean": 0.25, "difference": accuracy - 0.25, "histogram": histogram}
        return {
            "kind": kind, "side": side, "accuracy": accuracy, "std": 0.01, "threshold": 0.3, "eer": 1 - accuracy,
            "auc": accuracy, "tar": {"1e-3": None}, "tar_impostors": {"source": "list", "pairs": 4},
            "unmatched": found if unmatched else None, "roc": {"fpr": [0, 0.5, 1], "tpr": [0, accuracy, 1]},
        }  # fmt: skip

    contract = {"scale": 1.0, "mean": [0, 0, 0], "flip": "sum"}
    return {
        "protocol": "p", "degradation": "d", "sides": [7, 112], "versions": {"numpy": "1"},
        "models": [{"name": f"m{i}", "model_sha256": "a", "contract": contract} for i in range(len(accuracies))],
        "sets": [{"name": "s", "data_sha256": "b", "pairs": 8, "images": 9, "folds": 2}],
        "results": [
            {"model": f"m{i}", "set": "s", "flip": "sum", "matrix": [[low, low], [low, high]],
             "mean": {"cross": (low + high) / 2, "same": (low + high) / 2},
             "rows": [row(kind, s, a) for kind in ("cross", "same") for s, a in ((7, low), (112, high))]}
            for i, (low, high) in enumerate(accuracies)
        ],
    }  # fmt: skip


def test_gains_and_losses_have_signs_and_colours() -> None:
    """From 60.0 to 72.5 at 7 px, from 99.0 to 98.5 at 112 px."""
    page = page_module.render(numbers_of([[0.6, 0.99], [0.725, 0.985]]))
    comparison = re.search(
        r'<div role="img" aria-label="Accuracy of two models[^"]*: 7 px \+12\.5, 112 px −0\.5">', page
    )
    assert comparison is not None
    svg = page[comparison.end() : page.index("</svg>", comparison.end())]
    texts = re.findall(r'<text style="[^"]*fill: var\((--\w+)\)[^"]*"[^>]*>([^<]*)</text>', svg)
    assert ("--good", "+12.5") in texts
    assert ("--bad", "−0.5") in texts
    assert "mean over the sides +6.0 points" in page
    assert "7 px: +0.475 (+0.125)" in page  # matched - hardest, and how much more than before
    assert "112 px: +0.735 (−0.005)" in page


def test_what_nobody_knows_is_not_run() -> None:
    page = Page(page_module.render(numbers_of([[0.5, 0.75]], unmatched=False)))
    assert "The set does not say who is in an image" in page.text
    assert page.tags.count("svg") == 2
    assert "Before and after" not in page.text


def test_colour_of_a_cell_grows_with_accuracy_from_guessing() -> None:
    shares = [cell["share"] for cell in page_module.cells([0.4, 0.5, 0.75, 1.0])]
    assert shares == ["0.000", "0.000", "0.250", "0.500"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_of_sides_go_from_one_of_the_pages_to_the_other(scheme: str) -> None:
    colours = resolutions_plots.scale(10, scheme)
    assert len(set(colours)) == 10
    assert (colours[0], colours[-1]) == resolutions_plots.ENDS[scheme]
    assert resolutions_plots.scale(1, scheme) == [resolutions_plots.ENDS[scheme][1]]
    style = (Path(page_module.__file__).parent / "style.css").read_text()
    assert all(f": {colour};" in style for colour in resolutions_plots.ENDS[scheme])
