"""What scores of pairs say: accuracy over folds, ROC, EER, AUC, TAR at a FAR. NumPy only, no images.

A pair is accepted when its score is at or above the threshold. All counts are exact: thresholds are searched
at the scores themselves, never on a grid.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mobileface.errors import InputError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

BLOCK = 1 << 22  # scores held at once when all pairs are gone through: 16 MB


def unit(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, D) -> the same rows with length 1. Raises InputError for a row of zeros, which has no direction."""
    norms = np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    if (norms == 0).any():
        raise InputError(f"{(norms == 0).sum()} of {len(norms)} embeddings are all zero, wanted a direction")
    return (embeddings / norms).astype(np.float32)


def cosines(units: NDArray[np.float32], first: NDArray[np.int64], second: NDArray[np.int64]) -> Floats:
    """Cosine of each pair of rows, (P,); computed in float32."""
    return np.einsum("pd,pd->p", units[first], units[second]).astype(np.float64)


def best_threshold(scores: Floats, same: Bools) -> float:
    """The threshold with the highest accuracy on these pairs, out of all that tell them apart differently.

    Candidates: the midpoint of each two neighbouring distinct scores, the lowest score (accept all) and the
    float above the highest (reject all). Of equally good ones the highest is taken, as InsightFace's argmax
    over a growing distance does.
    """
    order = np.argsort(scores, kind="stable")
    sorted_scores, sorted_same = scores[order], same[order]
    starts = np.flatnonzero(np.r_[True, np.diff(sorted_scores) > 0])  # where a new distinct score begins
    cuts = np.r_[starts, len(scores)]  # accept sorted[cut:]
    positives = np.r_[0, np.cumsum(sorted_same)]
    correct = (positives[-1] - positives[cuts]) + (cuts - positives[cuts])
    best = len(cuts) - 1 - int(np.argmax(correct[::-1]))
    distinct = sorted_scores[starts]
    if best == 0:
        return float(distinct[0])
    if best == len(distinct):
        return float(np.nextafter(distinct[-1], np.inf))
    low, high = distinct[best - 1], distinct[best]
    middle = low + (high - low) / 2
    return float(middle if middle > low else high)  # neighbouring floats have no float between them


def k_fold(scores: Floats, same: Bools, fold: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """(accuracy, threshold) of each fold, (K,) each; a fold's threshold is the best one on the others."""
    accuracies, thresholds = [], []
    for held_out in np.unique(fold):
        judged = fold == held_out
        threshold = best_threshold(scores[~judged], same[~judged])
        accuracies.append(np.mean((scores[judged] >= threshold) == same[judged]))
        thresholds.append(threshold)
    return np.array(accuracies), np.array(thresholds)


def roc(scores: Floats, same: Bools) -> tuple[Floats, Floats]:
    """(fpr, tpr): the exact ROC from (0, 0) to (1, 1), one point for each distinct score.

    Pairs with equal scores are one step, drawn as a slope.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.r_[np.flatnonzero(np.diff(scores[order]) != 0), len(scores) - 1]
    positives = np.r_[0, np.cumsum(same[order])[ends]]
    negatives = np.r_[0, np.cumsum(~same[order])[ends]]
    return negatives / negatives[-1], positives / positives[-1]


def auc(fpr: Floats, tpr: Floats) -> float:
    """Area under the exact ROC: the chance that a genuine pair scores higher, ties counted half."""
    return float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2))


def eer(fpr: Floats, tpr: Floats) -> float:
    """Equal error rate: where fpr = 1 - tpr on the exact ROC, with straight lines between its points."""
    gap = fpr + tpr - 1  # grows from -1 to 1
    after = int(np.argmax(gap >= 0))
    share = -gap[after - 1] / (gap[after] - gap[after - 1])
    return float(fpr[after - 1] + share * (fpr[after] - fpr[after - 1]))


def thin_roc(fpr: Floats, tpr: Floats, points: int = 200) -> tuple[Floats, Floats]:
    """At most `points` points of a ROC for a plot: spread over log10(fpr) and over tpr, both ends kept."""
    if len(fpr) <= points:
        return fpr, tpr
    half = points // 2 - 1
    lowest = fpr[fpr > 0][0]
    wanted = np.r_[
        np.searchsorted(fpr, np.geomspace(lowest, 1.0, half), side="right") - 1,
        np.searchsorted(tpr, np.linspace(0.0, 1.0, half)),
        0,
        len(fpr) - 1,
    ]
    kept = np.unique(np.clip(wanted, 0, len(fpr) - 1))
    return fpr[kept], tpr[kept]


def histogram(scores: Floats, same: Bools, bins: int = 100) -> dict[str, list[float]]:
    """Counts of cosines in equal bins over -1..1: `edges` (bins + 1,), `same` and `different` (bins,)."""
    edges = np.linspace(-1.0, 1.0, bins + 1)
    inside = np.clip(scores, -1.0, 1.0)  # a cosine of float32 vectors may be 1.0000001
    return {
        "edges": edges.round(6).tolist(),
        "same": np.histogram(inside[same], edges)[0].tolist(),
        "different": np.histogram(inside[~same], edges)[0].tolist(),
    }


def count_impostors(identity: NDArray[np.int64]) -> int:
    """Number of unordered pairs of images of two different people."""
    counts = np.unique(identity, return_counts=True)[1].astype(object)  # Python ints: no overflow at scale
    total = len(identity) * (len(identity) - 1) // 2
    return int(total - sum(c * (c - 1) // 2 for c in counts))


def top_impostors(units: NDArray[np.float32], identity: NDArray[np.int64], keep: int) -> Floats:
    """The `keep` highest cosines over all pairs of different people, highest first; fewer if there are fewer.

    Goes through all N (N - 1) / 2 pairs in blocks: memory grows with BLOCK + keep, not with the pairs.
    """
    best = np.empty(0, np.float32)
    rows = max(1, BLOCK // max(1, len(units)))
    for start in range(0, len(units), rows):
        block = units[start : start + rows]
        scores = block @ units[start:].T  # column j is image start + j; right of the diagonal they count
        impostor = identity[start : start + rows, None] != identity[None, start:]
        impostor &= np.arange(len(block))[:, None] < np.arange(scores.shape[1])[None, :]
        if len(best) >= keep > 0:
            impostor &= scores > best.min()
        best = _highest(np.concatenate([best, scores[impostor]]), keep)
    return np.sort(best)[::-1].astype(np.float64)


def _highest(values: NDArray[np.float32], keep: int) -> NDArray[np.float32]:
    if len(values) <= keep:
        return values
    return np.partition(values, len(values) - keep)[len(values) - keep :]


def allowed(far: float, impostors: int) -> int:
    """How many impostor pairs may be accepted at this FAR; 1e-9 absorbs the rounding of far * count."""
    return math.floor(far * impostors + 1e-9)


def tar_at_far(genuine: Floats, highest: Floats, impostors: int, far: float) -> float:
    """Share of genuine pairs accepted at the lowest threshold that accepts at most `far` of the impostors.

    `highest` holds the highest impostor scores, highest first: all `impostors` of them, or at least
    `allowed(far, impostors) + 1`. No interpolation: the FAR is kept exactly, ties included, because the
    threshold lies just above the first impostor score that must be rejected.
    """
    accepted = allowed(far, impostors)
    if accepted >= impostors:
        return 1.0
    return float(np.mean(genuine > highest[accepted]))
