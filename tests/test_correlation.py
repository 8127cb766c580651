"""Correlations against the sums of the textbook and against counting."""

from __future__ import annotations

import math
from statistics import StatisticsError
from statistics import correlation as standard

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobileface.correlation import pearson, ranks, spearman

values = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))
pairs = st.lists(st.tuples(values, values), min_size=2, max_size=30)


@given(pairs)
def test_both_are_those_of_the_standard_library(drawn: list[tuple[float, float]]) -> None:
    x, y = zip(*drawn, strict=True)
    try:
        wanted = standard(x, y), standard(slow_ranks(x), slow_ranks(y))
    except StatisticsError:  # one of them is constant
        assert pearson(x, y) is None
        assert spearman(x, y) is None
        return
    assert pearson(x, y) == pytest.approx(wanted[0], abs=1e-6)
    assert spearman(x, y) == pytest.approx(wanted[1], abs=1e-9)


def slow_ranks(row: tuple[float, ...]) -> list[float]:
    """How many are smaller, and half of the others that are equal, from 1."""
    return [1 + sum(b < a for b in row) + (sum(b == a for b in row) - 1) / 2 for a in row]


@given(st.lists(values, min_size=1, max_size=30))
def test_ranks_by_counting(row: list[float]) -> None:
    assert ranks(np.array(row)).tolist() == slow_ranks(tuple(row))


def test_a_curve_that_rises_is_no_line() -> None:
    x = np.arange(1.0, 20)
    assert spearman(x, x**9) == 1
    assert spearman(x, -(x**9)) == -1
    assert 0.5 < (pearson(x, x**9) or 0) < 0.9


@pytest.mark.parametrize("x", [[], [1.0], [1.0, 1.0], [1.0, math.nan], [1.0, math.inf]])
def test_without_two_values_there_is_none(x: list[float]) -> None:
    y = list(range(len(x)))
    assert pearson(x, y) is None
    assert pearson(y, x) is None
    assert spearman(x, y) is None


def test_tiny_and_huge_numbers() -> None:
    assert pearson([1e-200, 2e-200, 3e-200], [1e200, 2e200, 3e200]) == pytest.approx(1)
