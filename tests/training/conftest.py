"""Thirty images, one of them bad, with a teacher's targets; eight people; a training that is prepared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mobileface.factory import find_plan_arch
from mobileface.training.plan import parse_plan
from mobileface.training.sources import open_faces
from mobileface.training.trainer import Trainer, prepare

MakeFolder = Callable[..., Path]
MakeData = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, make_folder: MakeFolder) -> Path:
    """Thirty images, one of them bad: skipping must not depend on where a training was stopped either."""
    top = make_folder(tmp_path_factory.mktemp("loop") / "faces")
    (top / "person-3" / "face-4.jpg").write_bytes(b"\xff\xd8 bad")
    return top


@pytest.fixture(scope="session")
def targets() -> NDArray[np.float32]:
    """(30, 32): unit rows."""
    drawn = np.random.default_rng(0).normal(size=(30, 32)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def people(make_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight people: five to train on where two in five are held out."""
    return make_folder(tmp_path_factory.mktemp("people") / "faces", identities=8)


@pytest.fixture
def make_trainer(shared_faces: Path, make_plan_data: MakeData, tmp_path: Path) -> Callable[..., Trainer]:
    """`make_trainer(phase, **changes)`: prepared, nobody held out."""

    def made(phase: dict[str, Any], **changes: Any) -> Trainer:
        data = make_plan_data(shared_faces, phase=phase, data={"validate": {"identities": 0}}, **changes)
        plan = parse_plan(data, "x")
        (tmp_path / "run").mkdir(exist_ok=True)
        return prepare(plan, find_plan_arch(plan), tmp_path / "run", open_faces(plan), None, lambda text: None)[0]

    return made
