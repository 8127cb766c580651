"""How far the pairs of contrastive learning lie apart, by the queue that it has (QGFace, III-C and Fig. 3b)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 50
EDGES = np.linspace(0, 2, BINS + 1)  # of 1 - cos
CHUNK = 8192  # features of a queue that are held against all queries at once

Features = NDArray[np.float64]  # (N, D), of length one
Labels = NDArray[np.int64]  # (N,); below 0: none
Block = tuple[slice, Features, Labels]  # which queries, and what they are held against


class Spread:
    """Count, mean, deviation and histogram of distances that come part by part."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, 0.0, 0.0
        self.counts = np.zeros(BINS, np.int64)

    def add(self, cosines: NDArray[np.float64]) -> None:
        """Take in 1 - cos of each, within 0..2."""
        distances = (1 - cosines).clip(0, 2)
        self.count += distances.size
        self.total += float(distances.sum())
        self.squares += float(np.square(distances).sum())
        self.counts += np.histogram(distances, EDGES)[0]

    def to_dict(self) -> dict[str, Any]:
        """Mean and deviation are None where there is no pair."""
        mean = self.total / self.count if self.count else None
        std = None if mean is None else max(0.0, self.squares / self.count - mean**2) ** 0.5
        return {"count": self.count, "mean": mean, "std": std, "counts": self.counts.tolist()}


def pair_distances(queries: Features, keys: Features, labels: Labels, blocks: Iterator[Block]) -> dict[str, Any]:
    """1 - cos of the pairs (row by row), and of each block's queries to its features of other identities.

    As the term's mask: what has no label is nobody's negative.
    """
    positive, negative = Spread(), Spread()
    positive.add((queries * keys).sum(1))
    for rows, features, theirs in blocks:
        others = (labels[rows, None] != theirs) & (theirs >= 0)
        negative.add((queries[rows] @ features.T)[others])
    return {"positive": positive.to_dict(), "negative": negative.to_dict(), "edges": EDGES.tolist()}


def of_queue(features: Features, labels: Labels) -> Iterator[Block]:
    """All queries against what the queue holds."""
    for start in range(0, len(labels), CHUNK):
        yield slice(None), features[start : start + CHUNK], labels[start : start + CHUNK]


def of_batches(queries: Features, keys: Features, labels: Labels, size: int) -> Iterator[Block]:
    """Those of each batch of `size` against both views of its images, as they are the term's negatives."""
    for start in range(0, len(labels), size):
        own = slice(start, start + size)
        yield own, np.concatenate([queries[own], keys[own]]), np.tile(labels[own], 2)
