"""A recipe, a run that was trained by it, and no loading processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mobileface.cli import main
from mobileface.training import loop

MakeData = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _no_workers(no_workers: None) -> None:
    """In every test of this folder."""


@pytest.fixture
def recipe(tmp_path: Path, shared_faces: Path, make_plan_data: MakeData) -> Path:
    """A recipe over the shared folder; `--data` is left to the plan."""
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(make_plan_data(shared_faces, phase={"images": 16})))
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, shared_faces: Path, make_plan_data: MakeData) -> Iterator[Path]:
    """A run folder; tests must not change what it holds."""
    top = tmp_path_factory.mktemp("trained")
    (top / "toy.yaml").write_text(yaml.safe_dump(make_plan_data(shared_faces, phase={"images": 16})))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "default_workers", lambda: 0)
        assert main(["train", str(top / "toy.yaml"), "--out", str(top / "run")]) == 0
    return top / "run"
