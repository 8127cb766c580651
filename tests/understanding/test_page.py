"""The whole command: a page that stands alone, the numbers beside it, one line for what cannot be used."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from mobileface.cli import main
from mobileface.embedders.network import NetworkEmbedder, open_run
from mobileface.files import write_json
from mobileface.understanding import run as running
from mobileface.understanding.factors import FACTORS
from mobileface.understanding.gradients import panels, scaling_terms
from mobileface.understanding.norms import Crops
from mobileface.understanding.page import render, scaling
from mobileface.understanding.run import open_named, understand
from mobileface.zoo import find_arch
from tests.report.page import Page, assert_self_contained
from tests.understanding.networks import SMALL, Sharpness, embedder, lgaf
from tests.understanding.test_watched import row, write

pytestmark = pytest.mark.slow

MakeFolder = Callable[..., Path]
Captured = pytest.CaptureFixture[str]
HOSTILE = '<b onload="x">'
PEOPLE = 6


def write_run(folder: Path) -> Path:
    """A run folder with an LGAF of random weights."""
    folder.mkdir(parents=True)
    write_json(folder / "arch.json", SMALL.to_dict())
    save_file(lgaf().network.state_dict(), folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, make_folder: MakeFolder) -> Path:
    """Two runs over thirty faces: a watched one whose norm is the sharpness, and an LGAF; hostile names."""
    top = tmp_path_factory.mktemp("understanding")
    faces = make_folder(top / HOSTILE.replace("/", ""))
    (faces / "person-0" / "face-0.jpg").write_bytes(b"bad")
    sharp, fused = top / "sharp", write_run(top / HOSTILE / "fused")
    sharp.mkdir()
    write_json(sharp / "arch.json", find_arch("micro").to_dict())
    write(sharp / "log.jsonl", [row(100), {"event": "phase", "images": 150}, row(200, 0.1), {"event": "quality"}])

    def opened(folder: Path, *options: Any) -> NetworkEmbedder:
        return embedder(Sharpness()) if folder == sharp else open_run(folder, *options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "PEOPLE", PEOPLE)
        patch.setattr(running, "open_run", opened)
        said: list[str] = []
        assert understand([sharp, fused], faces, top / "out", said.append) == top / "out" / "understanding.html"
    assert said == ["drawing procedural faces", "looking at sharp", "looking at fused"]
    return top / "out"


@pytest.fixture(scope="module")
def page(out: Path) -> Page:
    return Page((out / "understanding.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def numbers(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "understanding.json").read_text())
    return found


def test_the_page_stands_alone(page: Page) -> None:
    assert_self_contained(page)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    used = {href[1:] for href in page.values("href")}
    used |= set(re.findall(r"url\(#([^)]+)\)", " ".join(page.values("clip-path") + page.values("style"))))
    assert used <= set(ids)
    assert HOSTILE.replace("/", "") in page.text


def test_a_norm_that_is_the_sharpness_is_found_out(numbers: dict[str, Any], page: Page) -> None:
    sharp, fused = numbers["runs"]
    assert (sharp["name"], fused["name"]) == ("sharp", "fused")
    for name in ("blur", "resolution"):
        found = sharp["factors"][name]["branches"]["embedding"]
        assert found["spearman"] < -0.5  # over all pictures: people differ as well
        assert found["mean"] == sorted(found["mean"], reverse=True)
        assert f"{found['pearson']:.2f} ({found['spearman']:.2f})".replace("-", "−") in page.text
    assert abs(sharp["factors"]["expression"]["branches"]["embedding"]["spearman"]) < 0.5
    assert list(sharp["factors"]) == list(FACTORS)


def test_an_lgaf_has_three_norms_and_its_maps(numbers: dict[str, Any]) -> None:
    sharp, fused = numbers["runs"]
    assert list(fused["norms"]) == list(fused["factors"]["yaw"]["branches"]) == ["embedding", "local", "global"]
    assert list(sharp["norms"]) == ["embedding"]
    assert len(sharp["maps"]) == 1
    assert len(fused["maps"]) == 2 + 2 * 3  # heads times scales
    assert all(found["least"] <= found["most"] for found in fused["maps"])


def test_plots_and_pictures_are_all_there(page: Page, numbers: dict[str, Any]) -> None:
    histograms = 1 + 3
    assert page.tags.count("svg") == len(panels()) + 5 + 2 * len(FACTORS) + histograms
    maps = (1 + 1) + (1 + 8)  # the crops themselves, and their maps
    shown = 3 * 8  # at each end and in the middle of a norm
    assert len(page.values("src")) == histograms * shown + maps
    assert numbers["data"]["images"] == 29
    assert numbers["data"]["bad"] == 1
    assert "1 images could not be read" in page.text
    assert "drawn at random" not in page.text
    for curve in numbers["gradients"]["panels"]["ArcFace"]:
        assert curve["label"] in page.text


def test_the_watched_run_and_the_other(page: Page, numbers: dict[str, Any]) -> None:
    assert numbers["runs"][0]["watched"]["images"] == [100, 200]
    assert numbers["runs"][1]["watched"] is None
    assert "at the end norm +0.20, P_y +0.20" in page.text
    assert page.text.count("Its log has no rows of watch") == 1


def test_a_set_of_which_some_are_drawn(numbers: dict[str, Any]) -> None:
    crop = np.zeros((1, 112, 112, 3), np.uint8)
    run = {**numbers["runs"][0], "norms": {}, "maps": [], "factors": {"yaw": numbers["runs"][0]["factors"]["yaw"]}}
    gradients = {**numbers["gradients"], "panels": {"Softmax": numbers["gradients"]["panels"]["Softmax"]}}
    data = {**numbers["data"], "whole": 1000}
    shown = {**numbers, "gradients": gradients, "data": data, "runs": [{**run, "watched": None}]}
    text = render(shown, Crops("faces", crop, ["a"], 1000, 1, ""), [[crop]], None)
    assert "29 faces of" in text
    assert ", drawn at random from its 1000 (1 images" in text


def test_a_curve_that_leaves_its_plot_is_named() -> None:
    """AdaFace at a high norm: the slope cos m - sin(m) cos / sin at 177 degrees, where it is 8.4; no other."""
    plots = {plot["title"]: plot for plot in scaling(scaling_terms())["plots"]}
    theta = math.radians(177)
    highest = math.cos(0.4) - math.sin(0.4) * math.cos(theta) / math.sin(theta)
    assert plots["AdaFace"]["note"] == f"high norm rises off the plot, to {highest:.1f} at 177°"
    assert [name for name, plot in plots.items() if plot["note"]] == ["AdaFace"]
    assert all(not plot["alt"].endswith(": ") for plot in plots.values())


# ---- the command line


def test_without_data_and_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """Maps are drawn over procedural people; the page lies in the run folder."""
    monkeypatch.setattr(running, "PEOPLE", 1)
    run = write_run(tmp_path / "run")
    assert main(["understand", str(run)]) == 0
    assert capsys.readouterr().out == f"page: {run / 'understanding.html'}\n"
    found = json.loads((run / "understanding.json").read_text())
    assert found["data"] is None
    assert found["runs"][0]["norms"] is None
    assert found["runs"][0]["mapped"][:2] == ["at rest", "yaw 90"]
    assert "No faces were given" in (run / "understanding.html").read_text()


def test_runs_of_one_name_go_by_their_paths(tmp_path: Path) -> None:
    one, two, three = (write_run(tmp_path / name) for name in ("a/run", "b/run", "other"))
    folders = [one, two, three]
    assert [open_named(folder, folders).name for folder in folders] == [str(one), str(two), "other"]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["{tmp}/nowhere"], "nowhere: not a folder; want a run folder"),
        (["{tmp}/empty"], "not a run folder: it holds none of"),
        (["{tmp}/untrained"], "untrained: holds no model.safetensors, wanted a run folder"),
        (["{tmp}/run", "--data", "{tmp}/nowhere"], "is neither an image folder nor a .rec"),
        (["{tmp}/run", "--data", "{tmp}/empty"], "holds no image in a folder of its own"),
        (["{tmp}/run", "{tmp}/empty"], "not a run folder"),
        (["{tmp}/plan"], "plan.yaml: "),
    ],
)
def test_what_cannot_be_used_is_one_line(
    arguments: list[str], wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(running, "PEOPLE", 1)
    for name in ("empty", "untrained"):
        (tmp_path / name).mkdir()
    write_json(tmp_path / "untrained" / "arch.json", SMALL.to_dict())
    write_run(tmp_path / "run")
    (write_run(tmp_path / "plan") / "plan.yaml").write_text("name: [")
    out = tmp_path / "out"
    assert main(["understand", *(text.format(tmp=tmp_path) for text in arguments), "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert wanted in err
    assert not out.exists()
