"""Windows of scores against sorting: what a pass proves, whatever a sample had guessed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mobileface.evaluation.at_scale_windows import (
    BINS,
    BOTTOM,
    TOP,
    Found,
    Sample,
    Tally,
    Window,
    choose,
    conclude,
    joined,
)

few_scores = st.lists(
    st.sampled_from([-0.5, -0.1, 0.0, 0.1, 0.1 + 1e-16, 0.3, 0.30000001, 0.7]), min_size=1, max_size=60
)
many_scores = st.lists(st.integers(-(10**6), 10**6).map(lambda n: n / 1e6), min_size=1, max_size=60)
ends = st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(sorted)


def sorted_answer(scores: np.ndarray, genuine: np.ndarray, k: int) -> Found:
    refused = np.sort(scores[~genuine])[::-1][k]
    above = scores > refused
    return Found(float(refused), (int((above & ~genuine).sum()), int((above & genuine).sum())))


@example([0.0, 0.0, -1e-06, 0.0, 0.0, 1e-06, 0.0, 1e-06, -1e-06], (1.0, 1.0), 0, 2, 0)
@given(few_scores | many_scores, ends, st.integers(0, 3), st.integers(2, 8), st.integers(0, 59))
def test_any_first_window_ends_at_the_sorted_answer(
    scores: list[float], between: Sequence[float], seed: int, most: int, k: int
) -> None:
    all_scores = np.array(scores)
    genuine = np.random.default_rng(seed).random(len(scores)) < 0.3
    genuine[0] = False
    k %= int((~genuine).sum())
    state: Found | Window = Window((k,), *between)
    for _ in range(24):
        if isinstance(state, Found):
            break
        tally = Tally(state, most)
        for part in np.array_split(np.arange(len(scores)), 3):  # any number of parts, kept apart and added
            other = Tally(state, most)
            other.add_scores(all_scores[part], genuine[part])
            tally.add(other)
        state = conclude(tally)[k]
    assert state == sorted_answer(all_scores, genuine, k)


@given(many_scores, st.sampled_from([1e-5, 3e-3, 0.1]), st.integers(0, 9), ends, st.data())
def test_screened_scores_prove_a_window_that_holds_the_true_score(
    scores: list[float], margin: float, seed: int, between: list[float], data: st.DataObject
) -> None:
    """Each screened score is off by up to the margin, and the pass sees them only near the window."""
    true = np.array(scores)
    screened = true + np.random.default_rng(seed).choice([-1.0, -0.3, 0.0, 1.0], len(true)) * margin * 0.999
    k = data.draw(st.integers(0, len(true) - 1))
    window = Window((k,), between[0], between[1], margin)
    near = (screened >= window.low - margin) & (screened <= window.high + margin)
    tally = Tally(window, 10**6)
    tally.above += (int((screened > window.high + margin).sum()), 0)
    tally.add_scores(screened[near], np.zeros(int(near.sum()), bool))
    found = conclude(tally)[k]
    assert isinstance(found, Window)
    assert found.low <= np.sort(true)[::-1][k] <= found.high


def test_a_narrowing_pass_makes_a_window_thousands_of_times_narrower() -> None:
    scores = np.random.default_rng(0).normal(size=100_000) * 0.1
    tally = Tally(Window((100,), BOTTOM, TOP, 1e-6), 1000)
    tally.add_scores(scores, np.zeros(len(scores), bool))
    found = conclude(tally)[100]
    assert isinstance(found, Window)
    assert found.high - found.low < 1.1 * (TOP - BOTTOM) / BINS


def test_too_many_distinct_scores_become_bins_and_ties_do_not() -> None:
    tied = Tally(Window((0,)), 2)
    tied.add_scores(np.repeat([0.1, 0.2], 10_000), np.zeros(20_000, bool))
    tied.settle()
    assert (tied.binned, tied.keys.tolist(), tied.counts.tolist()) == (False, [0.1, 0.2], [[10_000] * 2, [0, 0]])
    tied.add_scores(np.array([0.3, 0.1]), np.array([True, False]))
    tied.settle()
    assert (tied.binned, tied.counts.tolist()) == (True, [[10_001, 10_000, 0], [0, 0, 1]])


def test_windows_that_overlap_are_one() -> None:
    windows = [Window((5,), 0.4, TOP), Window((90,), 0.1, 0.2), Window((7,), 0.3, 0.5), Window((8,), 0.2, 0.25)]
    assert joined(windows) == [Window((90, 8), 0.1, 0.25), Window((7, 5), 0.3, TOP)]


def test_a_sample_places_the_window_around_the_score() -> None:
    scores = np.sort(np.random.default_rng(0).normal(size=1_000_000) * 0.06).astype(np.float32)
    sample = Sample(scores[::10], 1_000_000)
    for k in (0, 50, 5000, 300_000):
        window = sample.window(k)
        assert window.low < scores[-1 - k] < window.high
        assert sample.expected(window.low, window.high) < 0.6 * k + 2000
    assert Sample(scores[:0], 10).window(3) == Window((3,), BOTTOM, TOP)


ERRORS = {"bf16": 6e-3, "fp32": 3e-5, "fp64": 1e-13}


@pytest.mark.parametrize(
    ("k", "precision", "settled"),
    [
        (100, "bf16", True),  # few pairs are near it, in any precision
        (10_000_000, "fp32", False),  # bf16 would never separate it; fp32 will, once the window is narrower
    ],
)
def test_the_fastest_precision_that_gets_there(k: int, precision: str, settled: bool) -> None:
    scores = np.sort(np.random.default_rng(0).normal(size=1_000_000) * 0.06).astype(np.float32)
    sample = Sample(scores, 4 * 10**9)
    chosen, windows = choose([sample.window(k)], ERRORS, sample, 4 * 10**9 / 2000, 1 << 22)
    assert (chosen, windows[0].margin == 0) == (precision, settled)
    assert windows[0].margin in (0, ERRORS[precision])
