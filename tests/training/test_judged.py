"""Who watches a training's validations hears of each once its checkpoint is saved, and may end the training there."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobileface.factory import find_plan_arch
from mobileface.training import checkpoint, loop
from mobileface.training.plan import Plan
from mobileface.training.sources import open_faces
from tests.training.runs import QUIET, assert_same_tensors, rows

MakePlan = Callable[..., Plan]


class Hopeless(Exception):
    """What a search raises."""


def train(plan: Plan, run: Path, judged: loop.Judged | None, workers: int = 0) -> dict[str, Any]:
    run.mkdir(exist_ok=True)
    return loop.train(plan, find_plan_arch(plan), run, open_faces(plan), None, QUIET, workers, judged=judged)


def seen(run: Path) -> int:
    return int(checkpoint.load(run / "checkpoints" / "last.safetensors")[1]["seen"])


def test_each_validation_is_told_behind_its_checkpoint(shared_faces: Path, make_plan: MakePlan, tmp_path: Path) -> None:
    heard, saved, run = [], [], tmp_path / "run"

    def judged(images: int, auc: float) -> None:
        heard.append((images, auc))
        saved.append(seen(run))

    train(make_plan(shared_faces), run, judged)
    assert heard == [(row["images"], row["auc"]) for row in rows(run, "validation")]
    assert saved == [images for images, _ in heard] == [24, 48, 72]


def test_ended_at_every_validation_and_taken_up_again(shared_faces: Path, make_plan: MakePlan, tmp_path: Path) -> None:
    plan, run, whole, heard = make_plan(shared_faces), tmp_path / "run", tmp_path / "whole", []
    facts = train(plan, whole, None)

    def judged(images: int, auc: float) -> None:
        heard.append(images)
        raise Hopeless(f"{auc:.1f}")

    for images in (24, 48, 72):
        with pytest.raises(Hopeless):
            train(plan, run, judged)
        assert seen(run) == images
        assert not (run / "model.safetensors").exists()
    assert train(plan, run, judged) | {"seconds": 0} == facts | {"seconds": 0}
    assert heard == [24, 48, 72]
    assert_same_tensors(run, whole, "model", "checkpoints/best", "checkpoints/last")
    assert [rows(run, event) for event in ("step", "validation")] == [
        rows(whole, event) for event in ("step", "validation")
    ]


def test_it_hears_of_what_the_training_begins_with(shared_faces: Path, make_plan: MakePlan, tmp_path: Path) -> None:
    from mobileface.files import write_json

    plan, begun, heard = make_plan(shared_faces), tmp_path / "begun", []
    train(plan, begun, None)
    write_json(begun / "arch.json", find_plan_arch(plan).to_dict())
    further = make_plan(shared_faces, arch=None, start=str(begun))
    train(further, tmp_path / "run", lambda images, auc: heard.append(images))
    assert heard == [0, 24, 48, 72]


def test_the_loading_processes_end_with_the_training(shared_faces: Path, make_plan: MakePlan, tmp_path: Path) -> None:
    running = []

    def judged(images: int, auc: float) -> None:
        running.append(len(multiprocessing.active_children()))
        raise Hopeless

    with pytest.raises(Hopeless) as caught:  # and its traceback, with all frames
        train(make_plan(shared_faces), tmp_path / "run", judged, workers=1)
    assert running == [1]
    assert multiprocessing.active_children() == []
    assert caught.tb is not None


def test_where_nobody_is_held_out_there_is_nothing_to_hear(
    shared_faces: Path, make_plan: MakePlan, tmp_path: Path
) -> None:
    plan, heard = make_plan(shared_faces, data={"validate": {"identities": 0}}), []
    train(plan, tmp_path / "run", lambda images, auc: heard.append(images))
    assert heard == []
