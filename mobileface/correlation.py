"""How far two rows of numbers rise and fall together."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pearson(x: ArrayLike, y: ArrayLike) -> float | None:
    """Correlation of two rows (N,), -1..1; None where one holds no two different values, or any not finite."""
    pair = np.stack([np.asarray(x, np.float64), np.asarray(y, np.float64)])
    if pair.shape[1] < 2 or not np.isfinite(pair).all():
        return None
    pair -= pair.min(1, keepdims=True)
    widths = pair.max(1, keepdims=True)
    if not widths.all():
        return None
    return float(np.corrcoef(pair / widths)[0, 1])


def spearman(x: ArrayLike, y: ArrayLike) -> float | None:
    """`pearson` of the ranks: 1 wherever y rises with x, in a line or not."""
    pair = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return pearson(*map(ranks, pair)) if all(np.isfinite(row).all() for row in pair) else None


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) -> (N,): places from 1 in rising order; equal values share the mean of theirs."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    shared: NDArray[np.float64] = np.cumsum(sizes) - (sizes - 1) / 2
    return shared[group]
