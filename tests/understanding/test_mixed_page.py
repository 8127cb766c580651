"""The section on mixed quality: where something is missing, what stands on the page, and that other runs have none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mobileface.cli import main
from mobileface.errors import InputError
from mobileface.training.plan import read_plan
from mobileface.understanding import run as running
from mobileface.understanding.distances import EDGES
from mobileface.understanding.mixed import NO_CHECKPOINT, NO_FACES, look_mixed
from mobileface.understanding.mixed_page import mixed_quality, shared
from tests.report.page import Page, assert_self_contained
from tests.understanding.mixed_runs import QUEUES, Json, looked, moved, opened

pytestmark = pytest.mark.slow

MakeFolder = Callable[..., Path]
Captured = pytest.CaptureFixture[str]


def test_faces_that_have_moved(runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    moved(runs, tmp_path, "proxy")
    assert looked(tmp_path, "proxy") == ({"missing": NO_FACES}, None)
    assert "proxy: its training faces cannot be read" in caplog.text
    numbers, pictures = looked(tmp_path, "proxy", runs / "faces")
    assert (numbers["own"], numbers["images"]) == (False, 60)
    assert numbers["distances"]["negative"]["count"] == 60 * 12  # nobody is taken for one of the queue's people
    section = mixed_quality([{"name": "proxy", "mixed": numbers}], [pictures])
    assert section is not None
    (sheet,), (row,) = section["partitions"], section["distances"]["rows"]
    assert sheet["caption"].startswith("Its training faces cannot be read where its plan says; all 60 faces of --data")
    assert row["known"] == "faces of --data: all count as other people"


def test_the_batch_of_other_faces_knows_its_people(runs: Path, tmp_path: Path, make_folder: MakeFolder) -> None:
    moved(runs, tmp_path, "batch")
    one = make_folder(tmp_path / "one", 1)
    assert looked(tmp_path, "batch", one)[0]["distances"]["negative"]["count"] == 0
    assert looked(tmp_path, "batch", runs / "faces")[0]["distances"]["negative"]["count"] > 0


def test_a_run_without_its_checkpoint(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "proxy", tmp_path / "proxy")
    best = tmp_path / "proxy" / "checkpoints" / "best.safetensors"
    best.unlink()
    assert looked(tmp_path, "proxy") == ({"missing": NO_CHECKPOINT}, None)
    best.write_bytes(b"bad")
    with pytest.raises(InputError, match="is not a whole checkpoint"):
        looked(tmp_path, "proxy")
    for other in ("batch", "momentum", "plain"):
        shutil.copy(runs / other / "checkpoints" / "best.safetensors", best)
        with pytest.raises(InputError, match="belongs to another plan"):
            looked(tmp_path, "proxy")


def test_a_run_of_another_kind_has_no_numbers(runs: Path) -> None:
    plan = read_plan(runs / "plain" / "plan.yaml")
    for own in (plan, None):
        assert look_mixed("plain", runs / "plain", opened(runs / "plain"), own, None) == (None, None)
    assert mixed_quality([{"name": "plain", "mixed": None}], [None]) is None


# -- the page


def page_of(folders: list[Path], out: Path) -> tuple[Page, Json]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "PEOPLE", 1)
        assert main(["understand", *map(str, folders), "--out", str(out)]) == 0
    return Page((out / "understanding.html").read_text(encoding="utf-8")), json.loads(
        (out / "understanding.json").read_text()
    )


def test_the_page_has_both_panels(runs: Path, tmp_path: Path) -> None:
    gone = moved(runs, tmp_path, "batch")
    page, numbers = page_of([runs / "proxy", gone, runs / "plain"], tmp_path / "out")
    assert_self_contained(page)
    assert len(page.values("id")) == len(set(page.values("id")))
    assert "#quality" in page.values("href")
    assert "batch: not run. " + NO_FACES in page.text
    section = page.text[page.text.index("Runs that divide faces") :]
    assert "plain" not in section
    assert section.count("Red is low: learned by contrast; green is high.") == 1
    mixed = numbers["runs"][0]["mixed"]
    for kind in ("positive", "negative"):
        found = mixed["distances"][kind]
        assert section.count(f"{found['mean']:.3f} ± {found['std']:.3f}") == 2  # the plot's note, the table
    assert f" and {100 * mixed['partition']['pairs_low']:.1f} % of the pairs" in section
    shown = [row for rows in mixed["partition"]["shown"].values() for row in rows]
    assert page.values("class").count("low") == sum(row["low"] for row in shown)
    assert 0 < sum(row["low"] for row in shown) < len(shown)
    assert sum(text.startswith("a face crop, clean") for text in page.values("alt")) == len(shown)
    assert [run["mixed"] for run in numbers["runs"][1:]] == [{"missing": NO_FACES}, None]
    assert not [word for word in ("person-", "face-", ".jpg") if word in section + " ".join(page.values("alt"))]


def test_a_partition_without_degraded_views_and_one_without_contrast(runs: Path) -> None:
    numbers, pictures = looked(runs, "partition")
    assert pictures.shape[1] == 1
    section = mixed_quality([{"name": "partition", "mixed": numbers}], [pictures])
    assert section is not None
    assert section["distances"] == {"plots": [], "rows": []}
    assert "left out of the classification" in section["partitions"][0]["red"]


def test_queues_stand_beside_each_other(runs: Path) -> None:
    """One range for all plots, which holds every bin of any of them; a row for each run."""
    found = [{"name": name, "mixed": looked(runs, name)[0]} for name in QUEUES]
    section = mixed_quality(found, [None] * len(found))
    assert section is not None
    assert [row["queue"] for row in section["distances"]["rows"]] == list(QUEUES)
    assert [plot["title"] for plot in section["distances"]["plots"]] == list(QUEUES)
    counts = np.array([run["mixed"]["distances"][kind]["counts"] for run in found for kind in ("positive", "negative")])
    filled = np.flatnonzero(counts.sum(0))
    assert shared([run["mixed"]["distances"] for run in found]) == (EDGES[filled[0]], EDGES[filled[-1] + 1])


def test_nothing_of_it_for_other_runs(runs: Path, tmp_path: Path) -> None:
    page, numbers = page_of([runs / "plain"], tmp_path)
    text = (tmp_path / "understanding.html").read_text()
    assert not [word for word in ("Mixed quality", "couple", "#quality", "queue", "by contrast") if word in text]
    assert [run["mixed"] for run in numbers["runs"]] == [None]
    assert "Maps" in page.text


def test_a_damaged_checkpoint_is_one_line(runs: Path, tmp_path: Path, capsys: Captured) -> None:
    shutil.copytree(runs / "proxy", tmp_path / "proxy")
    (tmp_path / "proxy" / "checkpoints" / "best.safetensors").write_bytes(b"bad")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "PEOPLE", 1)
        assert main(["understand", str(tmp_path / "proxy"), "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()
