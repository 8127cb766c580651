"""Watching in a training: a row at each validation, which changes no weight and resumes exactly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mobileface.errors import InputError
from mobileface.training import checkpoint
from mobileface.training.plan import Plan
from mobileface.training.watch import LADDERS, LEVELS, TRACKED
from tests.training.runs import train

MakePlan = Callable[..., Plan]


def quality(run: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [row for row in found if row["event"] == "quality"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, shared_faces: Path, make_plan: MakePlan) -> Path:
    """A training of 18 steps, judged after each six, that nothing stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train(make_plan(shared_faces, watch=6), run)
    return run


def test_each_validation_has_its_row(whole: Path) -> None:
    rows = quality(whole)
    assert [row["images"] for row in rows] == [24, 48, 72]
    for row in rows:
        assert all(-1 <= row[f"{kind}_{name}"] <= 1 for kind in LADDERS for name in ("norm", "probability"))
        assert np.shape(row["tracked"]["norm"]) == (min(6, TRACKED), len(LEVELS))
    assert rows[0]["levels"] != rows[2]["levels"]


def test_watching_changes_no_weight(whole: Path, shared_faces: Path, make_plan: MakePlan, tmp_path: Path) -> None:
    train(make_plan(shared_faces), tmp_path / "run")
    assert quality(tmp_path / "run") == []
    for name in ("model", "checkpoints/last", "checkpoints/best"):
        one, two = (load_file(folder / f"{name}.safetensors") for folder in (whole, tmp_path / "run"))
        assert one.keys() == two.keys()
        assert [key for key in one if not torch.equal(one[key], two[key])] == []


@pytest.mark.parametrize("written", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 4))])
def test_rows_come_once_when_a_training_goes_on(
    written: int, whole: Path, shared_faces: Path, make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped when a checkpoint cannot be written: its row is in the log by then, and must not stay there twice."""
    plan, calls, original = make_plan(shared_faces, watch=6), 0, checkpoint.save_file

    def full_disk(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == written:
            raise OSError("no space left")
        original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full_disk)
        with pytest.raises(OSError, match="no space left"):
            train(plan, tmp_path / "run")
    stopped = [row["images"] for row in quality(tmp_path / "run")]
    last = tmp_path / "run" / "checkpoints" / "last.safetensors"
    assert stopped[-1] > (checkpoint.load(last)[1]["seen"] if last.exists() else 0)
    train(plan, tmp_path / "run")
    assert quality(tmp_path / "run") == quality(whole)
    for name in ("model", "checkpoints/last"):
        one, two = (load_file(folder / f"{name}.safetensors") for folder in (whole, tmp_path / "run"))
        assert [key for key in one if not torch.equal(one[key], two[key])] == []


def test_a_phase_without_a_classifier_has_norms_only(shared_faces: Path, make_plan: MakePlan, tmp_path: Path) -> None:
    terms = [{"kind": "triplet"}]
    phase = {"terms": terms, "images": 24, "batch": 8, "sampler": {"kind": "pk", "images": 4}}
    train(make_plan(shared_faces, watch=3, phase=phase), tmp_path / "run")
    (row,) = quality(tmp_path / "run")
    assert "resolution_norm" in row
    assert "resolution_probability" not in row


@pytest.mark.parametrize("value", [-1, 10_001, "many"])
def test_a_plan_takes_a_number_of_images(value: Any, shared_faces: Path, make_plan: MakePlan) -> None:
    with pytest.raises(InputError, match="watch"):
        make_plan(shared_faces, watch=value)
