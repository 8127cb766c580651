"""Trained once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.understanding.mixed_runs import write_runs


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, make_folder: Callable[..., Path], make_plan_data: Any) -> Path:
    """See `write_runs`. Tests must not write here."""
    top = tmp_path_factory.mktemp("mixed")
    return write_runs(top, make_folder(top / "faces", 10), make_plan_data)
