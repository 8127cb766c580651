"""Norms against factors: a stub whose norm is made to follow one is found out, and nothing else is found."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mobileface.understanding.factors import FACTORS, Factor, factor_norms, pictures

PEOPLE = 4
Floats = NDArray[np.float64]
Images = NDArray[np.uint8]


@pytest.fixture(scope="module")
def drawn() -> dict[str, Images]:
    return {name: pictures(factor, PEOPLE) for name, factor in FACTORS.items()}


def following(faces: Images, values: Floats) -> Callable[[Images], dict[str, Floats]]:
    """A stub embedder: it knows the pictures (L, P, ...) by their bytes, and its norm in each is `values` (L, P)."""
    flat = faces.reshape(-1, 112, 112, 3)
    known = {image.tobytes(): value for image, value in zip(flat, values.ravel(), strict=True)}
    assert len(known) == len(flat)  # no two are the same
    return lambda images: {"embedding": np.array([known[image.tobytes()] for image in images])}


def found_by(factor: Factor, faces: Images, values: Floats) -> dict[str, Any]:
    row: dict[str, Any] = factor_norms(following(faces, values), factor, faces)["branches"]["embedding"]
    return row


@pytest.mark.parametrize("name", FACTORS)
def test_a_norm_that_follows_the_factor_is_found(name: str, drawn: dict[str, Images]) -> None:
    """In a line: Pearson and Spearman -1. In a curve: Spearman only."""
    factor, faces = FACTORS[name], drawn[name]
    strengths = np.array([factor.strength(value) for value in factor.values])
    line = np.repeat(20 - strengths[:, None] / strengths[-1], PEOPLE, 1)
    row = found_by(factor, faces, line)
    assert (row["pearson"], row["spearman"]) == (pytest.approx(-1), pytest.approx(-1))
    np.testing.assert_allclose(row["mean"], line[:, 0])
    np.testing.assert_allclose(row["std"], 0, atol=1e-12)
    curve = found_by(factor, faces, np.exp(-8 * strengths / strengths[-1])[:, None] * np.ones(PEOPLE))
    assert curve["spearman"] == pytest.approx(-1)
    assert -0.95 < curve["pearson"] < -0.3


@pytest.mark.parametrize("name", FACTORS)
def test_a_norm_of_the_person_alone_has_none(name: str, drawn: dict[str, Images]) -> None:
    people = np.repeat(np.arange(PEOPLE, dtype=np.float64)[None], len(FACTORS[name].values), 0)
    row = found_by(FACTORS[name], drawn[name], people)
    assert abs(row["pearson"]) < 1e-12
    assert abs(row["spearman"]) < 1e-12
    assert found_by(FACTORS[name], drawn[name], np.ones_like(people))["pearson"] is None


def test_a_smaller_range_counts_its_own_pictures_only(drawn: dict[str, Images]) -> None:
    """A norm that is flat to 45 degrees and falls behind: the paper's finding about the local feature."""
    yaw = FACTORS["yaw"]
    assert yaw.within == 45
    values = np.array([10 + 0.1 * (i % 2) if v <= 45 else 10 - v / 10 for v in yaw.values for i in range(PEOPLE)])
    row = found_by(yaw, drawn["yaw"], values.reshape(-1, PEOPLE))
    assert abs(row["pearson_within"]) < 1e-12
    assert row["pearson"] < -0.8
    assert "pearson_within" not in found_by(FACTORS["blur"], drawn["blur"], np.ones((4, PEOPLE)))


def test_levels_are_the_papers_and_begin_at_rest(drawn: dict[str, Images]) -> None:
    assert FACTORS["yaw"].values == (0, 15, 30, 45, 60, 75, 90)
    assert FACTORS["blur"].values == (0, 6, 12, 18)
    assert FACTORS["expression"].values == (0, 1, 2, 3, 4)
    for name, factor in FACTORS.items():
        strengths = [factor.strength(value) for value in factor.values]
        assert strengths[0] == 0
        assert strengths == sorted(set(strengths))
        assert drawn[name].shape == (len(factor.values), PEOPLE, 112, 112, 3)
        assert np.array_equal(drawn[name][0], drawn["yaw"][0])
    assert FACTORS["resolution"].strength(14) == math.log2(8)
    assert [int(drawn["yaw"][-1, person].astype(int).std()) for person in range(PEOPLE)] != [0] * PEOPLE
