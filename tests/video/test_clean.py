"""Cleaning many videos at once against one frame at a time, and what is kept where nothing agrees."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mobileface.errors import InputError
from mobileface.video import clean as module
from mobileface.video.aggregate import aggregate
from mobileface.video.clean import clean

Rows = NDArray[np.float32]


def slow_clean(raw: Rows, threshold: float | None, weights: str) -> tuple[list[bool], list[float]]:
    """One video: (kept, feature), with Python's numbers and sets."""
    rows = [[float(x) for x in row] for row in raw]
    norms = [math.sqrt(math.fsum(x * x for x in row)) for row in rows]
    groups: list[set[int]] = []
    for i, row in enumerate(rows):
        own = {i}
        for group in list(groups):
            cosines = [math.fsum(a * b for a, b in zip(row, rows[j], strict=True)) / norms[i] / norms[j] for j in group]
            if threshold is None or max(cosines) >= threshold:
                own |= group
                groups.remove(group)
        groups.append(own)
    best = min(groups, key=lambda g: (-len(g), -math.fsum(norms[i] for i in g) / len(g), min(g)))
    total = [math.fsum(rows[i][d] / (norms[i] if weights == "mean" else 1) for i in best) for d in range(len(rows[0]))]
    length = math.sqrt(math.fsum(x * x for x in total))
    return [i in best for i in range(len(rows))], [x / length for x in total]


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 9), min_size=1, max_size=8),
    st.one_of(st.none(), st.floats(-0.9, 0.95)),
    st.sampled_from(["mean", "norm"]),
    st.integers(1, 30),
)
@settings(max_examples=60)
def test_many_videos_are_cleaned_as_each_by_itself(
    seed: int, sizes: list[int], threshold: float | None, weights: str, at_once: int
) -> None:
    rng = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    raw = (rng.normal(size=(3, 4))[rng.integers(0, 3, starts[-1])] + 0.4 * rng.normal(size=(starts[-1], 4))).astype(
        np.float32
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ROWS", at_once)
        found = clean(raw, starts, threshold, weights)
    for video, (first, last) in enumerate(itertools.pairwise(starts)):
        kept, feature = slow_clean(raw[first:last], threshold, weights)
        assert found.kept[first:last].tolist() == kept
        np.testing.assert_allclose(found.feature[video], feature, atol=3e-5)
        own = raw[first:last] / np.linalg.norm(raw[first:last], axis=1, keepdims=True)
        np.testing.assert_allclose(found.cosine[first:last], own @ np.array(feature), atol=3e-5)
    np.testing.assert_allclose(found.quality, np.linalg.norm(raw, axis=1), rtol=1e-6)


def test_where_no_two_frames_are_similar_the_best_one_is_kept() -> None:
    raw = np.eye(4, dtype=np.float32) * np.array([[1.0], [3.0], [2.0], [3.0]], np.float32)
    found = clean(raw, np.array([0, 4]), 0.4)
    assert found.component.tolist() == [2 + 1, 0, 2, 1]  # by quality, the earlier one of equals
    np.testing.assert_array_equal(found.feature, raw[1:2] / 3)


def test_of_equally_large_groups_the_better_then_the_earlier_is_kept() -> None:
    one, two = np.eye(2, dtype=np.float32)
    raw = np.stack([one, two, 2 * two, one])
    assert clean(raw, np.array([0, 4])).kept.tolist() == [False, True, True, False]
    assert clean(np.stack([one, two, two, one]), np.array([0, 4])).kept.tolist() == [True, False, False, True]


def test_videos_without_frames_have_zeros() -> None:
    raw = np.eye(3, dtype=np.float32)[:2]
    found = clean(raw, np.array([0, 0, 1, 1, 2, 2]))
    np.testing.assert_array_equal(found.feature, [[0, 0, 0], raw[0], [0, 0, 0], raw[1], [0, 0, 0]])
    assert clean(raw[:0], np.array([0])).feature.shape == (0, 3)
    assert clean(raw[:0], np.array([0, 0])).feature.tolist() == [[0, 0, 0]]


def test_frames_that_cancel_out_give_no_direction() -> None:
    row = np.array([[3.0, 4.0]], np.float32)
    both = np.concatenate([row, -row])
    assert clean(both, np.array([0, 2]), None).feature.tolist() == [[0, 0]]
    np.testing.assert_allclose(aggregate(both, np.array([True, False]), np.array([0, 2])), row / 5)


def test_memory_is_that_of_some_videos_and_the_result() -> None:
    raw = np.random.default_rng(0).normal(size=(64 * 1500, 16)).astype(np.float32)
    starts = np.arange(1501) * 64
    tracemalloc.start()
    found = clean(raw, starts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    held = sum(array.nbytes for array in (found.component, found.quality, found.cosine, found.feature))
    assert peak - held < 5 * 2**20  # the unit embeddings alone: 6 MB


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"raw": np.array([[1, 0], [np.nan, 1], [0, 1]])}, r"frame 1 has an embedding of length nan; wanted above 0"),
        ({"raw": np.array([[1, 0], [1, 1], [0, 0]])}, r"frame 2 has an embedding of length 0"),
        ({"starts": np.array([0, 2])}, r"2 starts do not cut 3 rows"),
        ({"threshold": 1.5}, r"threshold is 1\.5"),
        ({"weights": "norms"}, r"weights is 'norms' \(did you mean 'norm'\?\); wanted mean or norm"),
    ],
)
def test_what_cannot_be_cleaned(change: dict[str, object], text: str) -> None:
    arguments = {"raw": np.eye(3, 2) + 1, "starts": np.array([0, 1, 3]), **change}
    arguments["raw"] = np.asarray(arguments["raw"], np.float32)
    with pytest.raises(InputError, match=text):
        clean(**arguments)  # type: ignore[arg-type]
