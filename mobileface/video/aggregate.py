"""One feature for each video out of the embeddings of its frames."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WEIGHTS = ("mean", "norm")


def aggregate(vectors: NDArray[np.float32], kept: NDArray[np.bool_], starts: NDArray[np.int64]) -> NDArray[np.float32]:
    """The mean of each video's kept frames, made a unit vector: (N, D) frames -> (V, D).

    vectors: unit embeddings (the challenge's script sums those), or raw ones, which makes it the mean weighted by
    the norms. starts: (V + 1,), video v has rows starts[v] to starts[v + 1]. A video without a kept frame has zeros,
    as has one whose frames cancel out: no direction. Sums are in float64.
    """
    first = np.concatenate([[0], np.cumsum(kept)])[starts]  # of each video among the kept rows
    some = first[1:] > first[:-1]
    sums = np.zeros((len(starts) - 1, vectors.shape[1]))
    if some.any():
        rows = vectors if kept.all() else vectors[kept]
        sums[some] = np.add.reduceat(rows, first[:-1][some], axis=0, dtype=np.float64)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 0).astype(np.float32)
