"""Thirty images, one of them bad, and a teacher's targets for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

MakeFolder = Callable[..., Path]


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
