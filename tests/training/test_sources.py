"""What a plan's words stand for: the teacher, what it says of itself, and how many threads it is given."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from mobileface.embedders.contract import InputContract
from mobileface.errors import InputError
from mobileface.factory import find_plan_arch
from mobileface.training import sources
from mobileface.training.plan import parse_plan


class Pixels:
    """An embedder: a few pixels of the crop, or the same for every crop."""

    path, dim, sha256, contract, libraries = Path("pixels.onnx"), 48, "0" * 64, InputContract(), ()

    def __init__(self, blind: bool) -> None:
        self.blind = blind

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        small = images[:, 14::28, 14::28].reshape(len(images), -1).astype(np.float32) - 128
        return np.random.default_rng(0).normal(size=small.shape).astype(np.float32) if self.blind else small


@pytest.mark.parametrize("blind", [False, True])
def test_a_teacher_that_cannot_tell_the_people_apart_is_doubted(
    shared_faces: Path,
    make_plan_data: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    blind: bool,
) -> None:
    data = make_plan_data(shared_faces, phase={"terms": ["distillation"]}, teacher={"model": "pixels.onnx"})
    plan = parse_plan(data, "test")
    monkeypatch.setattr(sources, "open_embedder", lambda path, contract, threads: Pixels(blind))
    said = io.StringIO()
    with caplog.at_level(logging.WARNING):
        sources.teach(plan, sources.open_faces(plan), Console(file=said, width=200))
    auc = float(said.getvalue().split("AUC ")[1])
    assert (auc > 0.9) is not blind
    assert ("is its contract right?" in caplog.text) is blind


@pytest.mark.parametrize(
    ("ranks", "model", "online", "threads"),
    [
        (None, "teacher.onnx", True, None),
        ("4", "teacher.onnx", True, 2),
        ("16", "teacher.onnx", True, 1),
        ("4", "teacher.onnx", False, 1),
        ("4", "run", True, None),
    ],
)
def test_ranks_on_one_machine_share_its_cores(
    monkeypatch: pytest.MonkeyPatch, ranks: str | None, model: str, online: bool, threads: int | None
) -> None:
    given: list[int | None] = []
    monkeypatch.setattr(sources, "open_embedder", lambda path, contract, threads: given.append(threads))
    monkeypatch.setattr(sources.os, "cpu_count", lambda: 8)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if ranks:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    sources.open_teacher(sources.Teacher(model=model, online=online), Path())
    assert given == [threads]


def test_a_start_that_is_no_run_folder(
    shared_faces: Path, make_plan_data: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    data = make_plan_data(shared_faces, start="nowhere")
    del data["arch"]
    with pytest.raises(
        InputError, match=r"^start: .*nowhere: holds no arch\.json; wanted a run folder, .* inside data"
    ):
        find_plan_arch(parse_plan(data, "x"))
