"""Scores against slow obvious loops, closed forms and a brute-force grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mobileface.errors import InputError
from mobileface.evaluation import scores as sc

TIED = st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.25 + 2**-54, 0.5, math.nextafter(0.5, 1.0), 1.0])
ANY = st.floats(-1, 1, allow_subnormal=False)


@st.composite
def judged(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels with at least one pair of each kind."""
    size = draw(st.integers(2, 40))
    scores = np.array(draw(st.lists(draw(st.sampled_from([TIED, ANY])), min_size=size, max_size=size)))
    same = draw(hnp.arrays(np.bool_, size))
    same[0], same[-1] = True, False
    return scores, same


def accuracy(scores: np.ndarray, same: np.ndarray, threshold: float) -> float:
    return sum((score >= threshold) == label for score, label in zip(scores, same, strict=True)) / len(scores)


@given(judged())
def test_best_threshold_beats_every_other(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, same = case
    found = accuracy(scores, same, sc.best_threshold(scores, same))
    # every way of telling the scores apart is "at or above this score", or none
    everywhere = [accuracy(scores, same, t) for t in [*scores, math.nextafter(max(scores), math.inf)]]
    grid = [accuracy(scores, same, t) for t in np.linspace(-1, 1, 81)]
    assert found == max(everywhere)
    assert found >= max(grid)


@given(judged())
def test_of_equally_good_thresholds_the_highest_is_taken(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, same = case
    found = sc.best_threshold(scores, same)
    accepted = (scores >= found).sum()
    best = accuracy(scores, same, found)
    stricter = [t for t in scores if (scores >= t).sum() < accepted]
    assert all(accuracy(scores, same, t) < best for t in stricter)


def test_threshold_lies_in_the_middle_of_the_gap() -> None:
    scores, same = np.array([0.1, 0.2, 0.6, 0.9]), np.array([False, False, True, True])
    assert sc.best_threshold(scores, same) == pytest.approx(0.4)


def test_constant_scores_accept_or_reject_all() -> None:
    scores = np.full(5, 0.3)
    assert sc.best_threshold(scores, np.array([True, True, True, False, False])) == 0.3
    assert sc.best_threshold(scores, np.array([True, True, False, False, False])) == math.nextafter(0.3, 1)


def test_k_fold_never_looks_at_the_judged_fold() -> None:
    rng = np.random.default_rng(5)
    same = rng.random(60) < 0.5
    scores = same * 0.3 + rng.normal(0, 0.3, 60).round(1)
    fold = rng.permutation(np.arange(60) % 4) + 3  # folds need not start at 0
    accuracies, thresholds = sc.k_fold(scores, same, fold)
    for k, (found, threshold) in enumerate(zip(accuracies, thresholds, strict=True)):
        others = [i for i in range(60) if fold[i] != k + 3]
        judged_here = [i for i in range(60) if fold[i] == k + 3]
        assert threshold == sc.best_threshold(scores[others], same[others])
        assert found == accuracy(scores[judged_here], same[judged_here], threshold)
    changed = scores.copy()
    changed[fold == 3] = rng.normal(size=(fold == 3).sum())
    assert sc.k_fold(changed, same, fold)[1][0] == thresholds[0]


@given(judged())
def test_roc_is_what_counting_gives(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, same = case
    fpr, tpr = sc.roc(scores, same)
    slow = [(0.0, 0.0)]
    for threshold in sorted(set(scores.tolist()), reverse=True):
        accepted = scores >= threshold
        slow.append(((accepted & ~same).sum() / (~same).sum(), (accepted & same).sum() / same.sum()))
    np.testing.assert_array_equal(np.stack([fpr, tpr], axis=1), slow)


@given(judged())
def test_auc_is_mann_whitney(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, same = case
    wins = [(g > i) + (g == i) / 2 for g in scores[same] for i in scores[~same]]
    assert sc.auc(*sc.roc(scores, same)) == pytest.approx(sum(wins) / len(wins), abs=1e-12)


@given(judged())
def test_eer_lies_on_the_roc_where_both_errors_are_equal(case: tuple[np.ndarray, np.ndarray]) -> None:
    fpr, tpr = sc.roc(*case)
    found = sc.eer(fpr, tpr)
    crossings = []
    for i in range(len(fpr) - 1):  # each piece of the ROC against the line fpr = 1 - tpr
        a, b = fpr[i] + tpr[i] - 1, fpr[i + 1] + tpr[i + 1] - 1
        if a < 0 <= b:
            crossings.append(fpr[i] + (fpr[i + 1] - fpr[i]) * -a / (b - a))
    assert len(crossings) == 1
    assert found == pytest.approx(crossings[0], abs=1e-12)


def test_closed_forms_of_two_normal_distributions() -> None:
    """Scores N(0, 1) and N(d, 1): AUC = Phi(d / sqrt 2), EER = Phi(-d / 2), accuracy there Phi(d / 2)."""
    quantiles = (np.arange(4000) + 0.5) / 4000
    normal = np.sqrt(2) * _erfinv(2 * quantiles - 1)
    shift = 2.0
    scores = np.concatenate([normal, normal + shift])
    same = np.repeat([False, True], 4000)
    fpr, tpr = sc.roc(scores, same)
    assert sc.auc(fpr, tpr) == pytest.approx(_phi(shift / math.sqrt(2)), abs=1e-3)
    assert sc.eer(fpr, tpr) == pytest.approx(_phi(-shift / 2), abs=1e-3)
    best = sc.best_threshold(scores, same)
    assert best == pytest.approx(shift / 2, abs=0.1)  # the optimum is flat
    assert accuracy(scores, same, best) == pytest.approx(_phi(shift / 2), abs=1e-3)
    highest = np.sort(normal)[::-1]
    wanted = _phi(shift - math.sqrt(2) * float(_erfinv(np.array([1 - 2e-2]))[0]))
    assert sc.tar_at_far(normal + shift, highest, 4000, 1e-2) == pytest.approx(wanted, abs=3e-3)


def _phi(x: float) -> float:
    return (1 + math.erf(x / math.sqrt(2))) / 2


def _erfinv(y: np.ndarray) -> np.ndarray:
    """By bisection of math.erf: slow, obvious."""
    low, high = np.full(y.shape, -6.0), np.full(y.shape, 6.0)
    erf = np.vectorize(math.erf)
    for _ in range(45):
        middle = (low + high) / 2
        below = erf(middle) < y
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2


def test_perfect_and_constant_scores() -> None:
    same = np.array([True, True, False, False])
    perfect = sc.roc(np.array([0.9, 0.8, 0.1, 0.2]), same)
    assert (sc.auc(*perfect), sc.eer(*perfect)) == (1.0, 0.0)
    constant = sc.roc(np.full(4, 0.5), same)
    assert (sc.auc(*constant), sc.eer(*constant)) == (0.5, 0.5)
    assert len(constant[0]) == 2


@given(judged(), st.sampled_from([0.01, 0.1, 0.25, 0.5, 0.99]))
def test_tar_is_the_best_that_keeps_the_far(case: tuple[np.ndarray, np.ndarray], far: float) -> None:
    scores, same = case
    genuine, impostor = scores[same], scores[~same]
    best = 0.0  # rejecting all is always allowed
    for threshold in scores:
        if (impostor >= threshold).mean() <= far:
            best = max(best, (genuine >= threshold).mean())
    highest = np.sort(impostor)[::-1]
    assert sc.tar_at_far(genuine, highest, len(impostor), far) == best
    kept = highest[: sc.allowed(far, len(impostor)) + 1]
    assert sc.tar_at_far(genuine, kept, len(impostor), far) == best


def test_far_times_count_is_not_rounded_down_by_its_float() -> None:
    assert [sc.allowed(1e-3, n) for n in (999, 1000, 3000, 29_000, 57_000)] == [0, 1, 3, 29, 57]
    assert sc.allowed(1e-4, 30_000) == 3
    assert sc.tar_at_far(np.array([0.1]), np.array([0.9, 0.8]), 2, 1.0) == 1.0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 12), st.integers(1, 900))
def test_top_impostors_are_those_of_the_whole_matrix(seed: int, images: int, people: int, keep: int) -> None:
    rng = np.random.default_rng(seed)
    units = sc.unit(rng.normal(size=(images, 3)).astype(np.float32).round(1) + np.float32(0.01))
    identity = rng.integers(0, people, images)
    slow = sorted(
        (
            float(units[i].astype(np.float64) @ units[j])
            for i in range(images)
            for j in range(i)
            if identity[i] != identity[j]
        ),
        reverse=True,
    )
    assert sc.count_impostors(identity) == len(slow)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sc, "BLOCK", int(rng.integers(1, 200)))
        found = sc.top_impostors(units, identity, keep)
    np.testing.assert_allclose(found, slow[:keep], atol=3e-7)


def test_count_of_impostors_at_scale_does_not_overflow() -> None:
    identity = np.repeat(np.arange(1000), 100)
    assert sc.count_impostors(identity) == 1000 * 999 // 2 * 100 * 100


def test_cosines_and_units_against_float64() -> None:
    rng = np.random.default_rng(1)
    raw = rng.normal(size=(20, 512)).astype(np.float32) * 1e-3
    first, second = rng.integers(0, 20, 50), rng.integers(0, 20, 50)
    units = sc.unit(raw)
    exact = raw.astype(np.float64) / np.linalg.norm(raw.astype(np.float64), axis=1, keepdims=True)
    assert units.dtype == np.float32
    found = sc.cosines(units, first, second)
    np.testing.assert_allclose(found, (exact[first] * exact[second]).sum(1), atol=3e-7)


def test_an_embedding_of_zeros_is_refused() -> None:
    with pytest.raises(InputError, match="1 of 2 embeddings are all zero"):
        sc.unit(np.array([[1, 0], [0, 0]], np.float32))


@given(judged(), st.integers(4, 12))
def test_thin_roc_keeps_ends_and_points(case: tuple[np.ndarray, np.ndarray], points: int) -> None:
    fpr, tpr = sc.roc(*case)
    thin = sc.thin_roc(fpr, tpr, points)
    assert len(thin[0]) <= max(points, 2)
    pairs = set(zip(fpr, tpr, strict=True))
    assert set(zip(*thin, strict=True)) <= pairs
    assert {(0.0, 0.0), (1.0, 1.0)} <= set(zip(*thin, strict=True))
    assert (np.diff(thin[0]) >= 0).all()


def test_histogram_counts_everything_once() -> None:
    scores = np.array([-1.0, 1.0000001, 0.005, 0.0, 0.5])
    found = sc.histogram(scores, np.array([True, True, True, False, False]))
    assert len(found["edges"]) == 101
    assert (sum(found["same"]), sum(found["different"])) == (3, 2)
    assert (found["same"][0], found["same"][99], found["same"][50], found["different"][75]) == (1, 1, 1, 1)
