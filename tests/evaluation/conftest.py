"""What several tests of scoring at scale share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluation.at_scale_pairs import FARS, brute, people, write


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[tuple[Path, Path]], dict[str, tuple[float, int, int]]]:
    """Two files of different lengths, and the answer."""
    folder, sides = tmp_path_factory.mktemp("two"), [people(1500, 50, 1), people(2100, 50, 2)]
    return [write(folder, f"side{n}", *side) for n, side in enumerate(sides)], brute(sides, FARS)
