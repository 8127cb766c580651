"""Features of people in files, and the slow answer for all their pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobileface.data.features import write_features
from mobileface.evaluation.at_scale import Settings, score_at_scale

Rows = np.ndarray
FARS = "0.3,1e-2,1e-3,1e-4,1e-7"


def write(folder: Path, name: str, rows: Rows, person: Sequence[int]) -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True)
    write_features(folder / f"{name}.bin", [rows.astype(np.float32)], *rows.shape)
    (folder / f"{name}.txt").write_text("".join(f"{'distractor' if p < 0 else p}\n" for p in person))
    return folder / f"{name}.bin", folder / f"{name}.txt"


def people(count: int, dim: int, seed: int) -> tuple[Rows, Rows]:
    """Noisy rows of 100 people, a tenth strangers; some rows are copies, of the same person and of others."""
    draw = np.random.default_rng(seed)
    person = draw.integers(0, 100, count)
    rows = np.random.default_rng(7).normal(size=(100, dim))[person] + draw.normal(size=(count, dim))
    rows[7::50] = rows[6::50][: len(rows[7::50])] * 3
    person[::10] = -1
    return rows.astype(np.float32), person


def signs(count: int, dim: int, seed: int) -> tuple[Rows, Rows]:
    """Rows of +1 and -1: with 4^n columns every score is a whole number divided by `dim`, in any precision."""
    draw = np.random.default_rng(seed)
    return draw.choice([-1.0, 1.0], (count, dim)), draw.integers(-1, 3, count)


def brute(sides: list[tuple[Rows, Rows]], fars: str) -> dict[str, tuple[float, int, int]]:
    """(refused score, impostor, genuine pairs above it): every pair's score in one matrix, sorted."""
    units = []
    for rows, _ in sides:
        rows = rows.astype(np.float32).astype(np.float64)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        units.append((rows / np.where(lengths, lengths, 1)).astype(np.float32).astype(np.float64))
    scores = units[0] @ units[-1].T
    scores[~units[0].any(axis=1)] = scores[:, ~units[-1].any(axis=1)] = -2
    mates = (sides[0][1][:, None] == sides[-1][1]) & (sides[0][1][:, None] >= 0)
    pairs = np.triu(np.ones(scores.shape, bool), 1) if len(sides) == 1 else np.ones(scores.shape, bool)
    impostors, genuine = np.sort(scores[pairs & ~mates])[::-1], scores[pairs & mates]
    found = {}
    for far in fars.split(","):
        refused = float(impostors[math.floor(float(far) * len(impostors) + 1e-9)])
        above = refused + 1e-13  # another order of sums moves the last digits of a tie
        found[far] = (refused, int((impostors > above).sum()), int((genuine > above).sum()))
    return found


def rows_of(result: dict[str, Any]) -> dict[str, tuple[float, int, int]]:
    return {r["far"]: (r["refused"], r["accepted_impostors"], r["accepted_genuine"]) for r in result["rows"]}


def same(found: dict[str, tuple[float, int, int]], wanted: dict[str, tuple[float, int, int]]) -> None:
    for far in wanted:
        assert found[far][1:] == wanted[far][1:], far
        assert found[far][0] == pytest.approx(wanted[far][0], abs=1e-12)


def scored(files: list[tuple[Path, Path]], fars: str = FARS, **more: Any) -> dict[str, Any]:
    options = Settings(**{name: more.pop(name) for name in list(more) if name in ("memory_mib", "precision")})
    gallery = files[1][0] if len(files) > 1 else None
    return score_at_scale(files[0][0], gallery, [labels for _, labels in files], fars, options, **more)
