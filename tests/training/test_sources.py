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


def test_data_that_are_not_there_name_the_option(
    make_plan_data: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    data = make_plan_data(tmp_path)
    data["data"] |= {"root": ".", "train": [{"folder": "faces"}]}
    with pytest.raises(InputError, match=r"^faces: is not there; --data DIR says where"):
        sources.open_faces(parse_plan(data, "test"))
    (tmp_path / "faces").mkdir()
    with pytest.raises(InputError, match=r"^faces: ") as caught:  # what is wrong inside is said by its reader
        sources.open_faces(parse_plan(data, "test"))
    assert "--data" not in str(caught.value)


@pytest.mark.parametrize("blind", [False, True])
def test_a_teacher_that_cannot_tell_the_people_apart_is_doubted(
    shared_faces: Path,
    make_plan_data: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    blind: bool,
) -> None:
    (tmp_path / "pixels.onnx").touch()
    monkeypatch.chdir(tmp_path)
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
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ranks: str | None, model: str, online: bool, threads: int | None
) -> None:
    (tmp_path / model).touch()
    given: list[int | None] = []
    monkeypatch.setattr(sources, "open_embedder", lambda path, contract, threads: given.append(threads))
    monkeypatch.setattr(sources.os, "cpu_count", lambda: 8)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if ranks:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    sources.open_teacher(sources.Teacher(model=model, online=online), tmp_path)
    assert given == [threads]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The working directory, and another folder: the data root."""
    here, root = tmp_path / "here", tmp_path / "root"
    for folder in (here, root):
        folder.mkdir()
    monkeypatch.chdir(here)
    return here, root


def model_at(folder: Path) -> Path:
    """What is taken for a run folder at first sight."""
    folder.mkdir(parents=True)
    for name in ("arch.json", "model.safetensors"):
        (folder / name).touch()
    return folder


def taken(key: str, name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path that `start` or `teacher.model` stands for."""
    if key == "teacher.model":
        monkeypatch.setattr(sources, "open_embedder", lambda path, contract, threads: path)
        return sources.open_teacher(sources.Teacher(model=name), root)  # type: ignore[return-value]
    data = {"name": "a", "start": name, "data": {"train": [{"folder": "faces"}], "root": str(root)}}
    return sources.start_folder(parse_plan(data, "x"))


@pytest.mark.parametrize("key", ["start", "teacher.model"])
def test_a_model_is_looked_for_here_and_then_in_the_data_root(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    here, root = places
    with pytest.raises(InputError) as caught:
        taken(key, "runs/a", root, monkeypatch)
    assert str(caught.value).startswith(f"{key}: runs/a: not found in {here} nor in {root}; wanted ")
    there = model_at(root / "runs" / "a")
    assert taken(key, "runs/a", root, monkeypatch) == there
    nearer = model_at(here / "runs" / "a")
    assert taken(key, "runs/a", root, monkeypatch) == nearer
    assert taken(key, str(there), root, monkeypatch) == there
    with pytest.raises(InputError, match=f"^{key}: {root}/none: not found; wanted .*a run folder"):
        taken(key, str(root / "none"), root, monkeypatch)
    with pytest.raises(InputError, match=f"^{key}: none: not found in {here}; wanted "):
        taken(key, "none", here, monkeypatch)


def test_a_start_that_is_no_run_folder_is_named_by_its_path(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, root = places
    model_at(root / "a")
    (here / "a").mkdir()
    with pytest.raises(InputError, match=f"^start: {here}/a: holds no arch.json; wanted a run folder"):
        taken("start", "a", root, monkeypatch)
