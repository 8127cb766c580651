"""What several ranks see of norms and probabilities is what one process sees."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.training.watch_rank import CLASSES, rows


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_rows_of_all_ranks_are_those_of_one_process(world: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.training.watch_rank"]
    children = [
        subprocess.Popen([*command, str(r), str(world), str(tmp_path / "store"), str(tmp_path)]) for r in range(world)
    ]
    assert [child.wait() for child in children] == [0] * world
    wanted = rows()
    assert len(wanted) == len(CLASSES)
    for rank in range(world):
        found: list[dict[str, Any]] = json.loads((tmp_path / f"{rank}.json").read_text())
        for one, two in zip(found, wanted, strict=True):
            assert one.keys() == two.keys()
            assert one["tracked"]["norm"] == two["tracked"]["norm"]
            for level, other in zip(one["levels"], two["levels"], strict=True):
                assert level["probability"] == pytest.approx(other["probability"], abs=1e-5)
            assert one["blur_probability"] == pytest.approx(two["blur_probability"], abs=1e-4)
