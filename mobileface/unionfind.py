"""Union-find, and the groups of embeddings that a chain of similar pairs holds together.

Used to clean training sets and the frames of videos (progressive framework, section 4.2 and Fig. 4: "unsupervised
clustering based on Union-Find").
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobileface.errors import InputError

BLOCK = 1024  # rows and columns of one block of cosines: 8 MiB in float64
UNIT_TOLERANCE = 1e-3  # how far a row's length may be from 1; a raw embedding is far outside


class UnionFind:
    """Disjoint sets of the numbers 0..size-1; path halving, union by size.

    `parent` and `size` are (N,) int64 arrays; a root is its own parent, and `size` holds at a root the number of
    members of its set.
    """

    def __init__(self, count: int) -> None:
        self.parent: NDArray[np.int64] = np.arange(count, dtype=np.int64)
        self.size: NDArray[np.int64] = np.ones(count, np.int64)

    def find(self, i: int) -> int:
        """The root of the set that holds `i`; on the way each visited node is hung below its grandparent."""
        parent = self.parent
        while (above := int(parent[i])) != i:
            parent[i] = parent[above]
            i = int(parent[i])
        return i

    def union(self, a: int, b: int) -> bool:
        """Join the sets of `a` and `b`, the smaller below the larger; False where they are one already."""
        a, b = self.find(a), self.find(b)
        if a == b:
            return False
        if self.size[a] < self.size[b]:
            a, b = b, a
        self.parent[b] = a
        self.size[a] += self.size[b]
        return True

    def roots(self, members: NDArray[np.int64]) -> NDArray[np.int64]:
        """The root of each of `members` (M,), all at once; each is hung right below its root."""
        root = self.parent[members]
        while not np.array_equal(above := self.parent[root], root):
            root = above
        self.parent[members] = root
        return root


def components(units: NDArray[np.floating[Any]], threshold: float = 0.4, block: int = BLOCK) -> NDArray[np.int64]:
    """Groups of unit embeddings: two are joined where their cosine is at least `threshold`, and so is every chain.

    units: (N, D) rows of length one. Returns (N,) int64: 0..components-1, numbered in the order of each group's
    first row. 0.4 is the best threshold of Table 5 of the progressive framework.

    Cosines are computed in float64, a block of rows against a block of columns at a time, so memory is a few
    arrays of `block` x `block` and (block, D), whatever N is. Pairs whose rows are known to be joined are not
    computed again: N images of one person cost little more than N x block cosines, N strangers N^2 / 2.

    Raises InputError for rows that are not of length one (NaN included) and for a threshold outside -1..1.
    """
    if units.ndim != 2:
        raise InputError(f"embeddings have shape {units.shape}; wanted (N, D)")
    if not -1 <= threshold <= 1:  # NaN fails as well
        raise InputError(f"threshold is {threshold:g}; wanted a cosine, -1 to 1")
    if block < 1:
        raise InputError(f"block is {block}; wanted at least 1")
    for start in range(0, len(units), block):
        _check_lengths(units[start : start + block], start)
    sets, everyone = UnionFind(len(units)), np.arange(len(units))
    for start in range(0, len(units), block):
        rows, later = everyone[start : start + block], everyone[start + block :]
        _join(sets, units, rows, rows, threshold)
        # Most rows are in one set by now. Only what is outside of it can still be joined to them.
        root = sets.roots(rows)
        largest = np.bincount(root).argmax()
        _join_all(sets, units, rows[root == largest], later[sets.roots(later) != largest], threshold, block)
        _join_all(sets, units, rows[root != largest], later, threshold, block)
    return _numbered(sets.roots(everyone))


def by_size(number: NDArray[np.int64], quality: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Components (N,) numbered anew: 0 is the largest; ties by higher mean quality, then by the lower old number.

    For the numbers that `components` gives, the last tie goes to the component with the earliest row. quality: (N,),
    the norms of the embeddings, say.
    """
    size = np.bincount(number)
    mean = np.bincount(number, weights=quality) / size
    rank = np.empty(len(size), np.int64)
    rank[np.lexsort((-mean, -size))] = np.arange(len(size))  # stable, so old numbers break the last tie
    return rank[number]


def _join_all(
    sets: UnionFind,
    units: NDArray[np.floating[Any]],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    threshold: float,
    block: int,
) -> None:
    if len(rows):
        for start in range(0, len(columns), block):
            _join(sets, units, rows, columns[start : start + block], threshold)


def _join(
    sets: UnionFind,
    units: NDArray[np.floating[Any]],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    threshold: float,
) -> None:
    """Join all pairs of rows x columns that are similar enough.

    In each round every row and every column takes one partner from another set. Each set that has a partner is
    joined to one at least, so there are about log2(sets) rounds and few unions, however many pairs are similar.
    """
    cosines = units[rows].astype(np.float64) @ units[columns].astype(np.float64).T
    similar = cosines >= threshold
    while True:
        similar &= sets.roots(rows)[:, None] != sets.roots(columns)
        for members, others, pairs in ((rows, columns, similar), (columns, rows, similar.T)):
            partner = pairs.argmax(axis=1)
            found = np.flatnonzero(pairs[np.arange(len(members)), partner])
            for i, j in zip(members[found].tolist(), others[partner[found]].tolist(), strict=True):
                sets.union(i, j)
        if not len(found):  # every pair has a column, so the last look finds what there is
            return


def _numbered(root: NDArray[np.int64]) -> NDArray[np.int64]:
    """Roots -> 0, 1, ... in the order in which each first appears."""
    _, first, number = np.unique(root, return_index=True, return_inverse=True)
    order = np.empty(len(first), np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    return order[number]


def _check_lengths(units: NDArray[np.floating[Any]], start: int) -> None:
    lengths = np.linalg.norm(units, axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT_TOLERANCE))
    if len(wrong):
        row = int(wrong[0])
        length = float(lengths[row])
        found = f"{length:.6g}" if math.isfinite(length) else "not finite"
        raise InputError(f"embedding {start + row} has length {found}; wanted unit vectors")
