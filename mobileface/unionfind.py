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

BLOCK = 1024  # rows and columns of one block of cosines: 4 MiB in float32
SMALL = 255  # rows of a set that is looked at together with others of its size: their numbers are uint8, 255 is none
COSINES, ROWS = 1 << 18, 1 << 12  # of such sets at once: 1 MiB of cosines, some MiB of embeddings
PAIRS = 1 << 12  # scored again at once
LARGE = 8  # a set that holds one row of so many of a block is compared by itself
DENSE = 16  # one pair of so many is similar: too many for a list of them
UNIT_TOLERANCE = 1e-3  # how far a row's length may be from 1; a raw embedding is far outside

Units = NDArray[np.floating[Any]]
Integers = NDArray[np.int64]


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


def components(units: Units, threshold: float = 0.4, block: int = BLOCK) -> Integers:
    """Groups of unit embeddings: two are joined where their cosine is at least `threshold`, and so is every chain.

    units: (N, D) rows of length one. Returns (N,) int64: 0..components-1, numbered in the order of each group's
    first row. 0.4 is the best threshold of Table 5 of the progressive framework.

    The cosine of two rows is the sum of their products in float64 (`_reach`): that decides, whatever the block. A
    block of rows times a block of columns in float32 only tells which pairs are so near to the threshold that it
    must be asked. Memory is a few arrays of `block` x `block` and (block, D), whatever N is. Pairs whose rows are
    known to be joined are not computed again: N images of one person cost little more than N x block cosines,
    N strangers N^2 / 2.

    Raises InputError for rows that are not of length one (NaN included) and for a threshold outside -1..1.
    """
    _check(units, threshold)
    if block < 1:
        raise InputError(f"block is {block}; wanted at least 1")
    sets, everyone = UnionFind(len(units)), np.arange(len(units))
    for start in range(0, len(units), block):
        rows, later = everyone[start : start + block], everyone[start + block :]
        _join(sets, units, rows, rows, threshold)
        # Many rows are in a few sets by now. Only what is outside of a set can still be joined to it.
        root = sets.roots(rows)
        name, place, count = np.unique(root, return_inverse=True, return_counts=True)
        large = count >= max(2, len(rows) // LARGE)
        for own in [rows[root == one] for one in name[large]]:
            _join_all(sets, units, own, later[sets.roots(later) != sets.find(int(own[0]))], threshold, block)
        _join_all(sets, units, rows[~large[place]], later, threshold, block)
    return _numbered(sets.roots(everyone))


def components_of_each(units: Units, starts: Integers, threshold: float = 0.4) -> Integers:
    """`components` of many sets of rows, all in one array: set v is rows starts[v] to starts[v + 1], maybe none.

    units: (N, D). starts: (V + 1,) from 0 to N. Returns (N,) int64, each set's numbers from 0. The same pairs are
    joined as by `components`; small sets of one size are looked at together. Raises InputError as `components` does.
    """
    _check(units, threshold)
    check_starts(starts, len(units))
    sizes, number = np.diff(starts), np.empty(len(units), np.int64)
    for size in np.unique(sizes[sizes > 0]).tolist():
        step = max(1, min(COSINES // size**2, ROWS // size)) if size <= SMALL else 1
        first = starts[:-1][sizes == size]
        for start in range(0, len(first), step):
            rows = first[start : start + step, None] + np.arange(size)
            if size <= SMALL:
                number[rows] = _components_of_small(units[rows], threshold)
            else:
                number[rows[0]] = components(units[rows[0, 0] : rows[0, -1] + 1], threshold)
    return number


def by_size(number: Integers, quality: NDArray[np.floating[Any]], starts: Integers | None = None) -> Integers:
    """Components (N,) numbered anew: 0 is the largest; ties by higher mean quality, then by the lower old number.

    For the numbers that `components` gives, the last tie goes to the component with the earliest row. quality: (N,),
    the norms of the embeddings, say. starts: as in `components_of_each`; each set's components are numbered by
    themselves.
    """
    starts = np.array([0, len(number)]) if starts is None else starts
    first = np.repeat(starts[:-1], np.diff(starts))  # (N,): of the set that holds the row
    component = first + number  # a set has no more components than rows, so each has a place of its own
    size = np.bincount(component, minlength=len(number))
    mean = np.bincount(component, weights=quality, minlength=len(number)) / np.maximum(size, 1)
    rank = np.empty(len(number), np.int64)
    rank[np.lexsort((-mean, -size, first))] = np.arange(len(number)) - first  # stable: old numbers break the last tie
    return rank[component]


def check_starts(starts: Integers, count: int) -> None:
    """InputError unless `starts` (V + 1,) cut `count` rows into V sets."""
    if len(starts) == 0 or starts[0] != 0 or starts[-1] != count or (np.diff(starts) < 0).any():
        raise InputError(f"{len(starts)} starts do not cut {count} rows into sets; wanted 0 to {count}, rising")


def _components_of_small(units: Units, threshold: float) -> Integers:
    """`components` of P sets of n rows each, (P, n, D) -> (P, n); n is at most SMALL.

    Each row takes the lowest number of a row that it is similar to, then that row's number, until none changes.
    """
    sets, size, dim = units.shape
    single = units.astype(np.float32, copy=False)
    above = single @ single.transpose(0, 2, 1)
    above -= threshold
    apart = above < 0
    near = np.flatnonzero(np.abs(above, out=above) <= _rounding(dim))
    if len(near):
        which, i, j = np.unravel_index(near, apart.shape)
        apart.flat[near] = ~_reach(units.reshape(-1, dim), which * size + i, which * size + j, threshold)
    hidden = np.negative(apart.view(np.uint8))  # 255 where two rows are apart, else 0
    lowest = np.tile(np.arange(size, dtype=np.uint8), (sets, 1))
    while True:
        lower = np.minimum(lowest, (hidden | lowest[:, :, None]).min(axis=1))
        lower = np.take_along_axis(lower, lower.astype(np.int64), axis=1)
        if np.array_equal(lower, lowest):
            break
        lowest = lower
    order = np.cumsum(lowest == np.arange(size), axis=1) - 1
    return np.take_along_axis(order, lowest.astype(np.int64), axis=1)


def _join_all(sets: UnionFind, units: Units, rows: Integers, columns: Integers, threshold: float, block: int) -> None:
    if len(rows):
        for start in range(0, len(columns), block):
            _join(sets, units, rows, columns[start : start + block], threshold)


def _join(sets: UnionFind, units: Units, rows: Integers, columns: Integers, threshold: float) -> None:
    """Join all pairs of rows x columns that are similar enough."""
    cosines = units[rows].astype(np.float32, copy=False) @ units[columns].astype(np.float32, copy=False).T
    rounding = _rounding(units.shape[1])
    near = cosines >= threshold - rounding
    for join in (False, True):
        if np.count_nonzero(near) > near.size // DENSE:
            if join:
                _join_dense(sets, rows, columns, near & (cosines >= threshold + rounding))
            near &= sets.roots(rows)[:, None] != sets.roots(columns)
    pair = np.flatnonzero(near)  # np.nonzero of two dimensions takes ten times as long
    sure = cosines.ravel()[pair] >= threshold + rounding
    first, second = rows[pair // len(columns)], columns[pair % len(columns)]
    _join_pairs(sets, first[sure], second[sure])
    first, second = first[~sure], second[~sure]
    for start in range(0, len(first), PAIRS):
        a, b = _apart(sets, first[start : start + PAIRS], second[start : start + PAIRS])
        reach = _reach(units, a, b, threshold)
        _join_pairs(sets, a[reach], b[reach])


def _join_dense(sets: UnionFind, rows: Integers, columns: Integers, similar: NDArray[np.bool_]) -> None:
    """Join each row to its first similar column, and each column to its first similar row."""
    column, row = similar.argmax(axis=1), similar.argmax(axis=0)
    some, any_ = similar[np.arange(len(rows)), column], similar[row, np.arange(len(columns))]
    _join_pairs(sets, rows[some], columns[column[some]])
    _join_pairs(sets, rows[row[any_]], columns[any_])


def _join_pairs(sets: UnionFind, first: Integers, second: Integers) -> None:
    """Join all pairs (P,), (P,).

    In each round every set takes one pair with another set on either side, so there are about log2(sets) rounds and
    few unions, however many pairs there are.
    """
    while True:
        first, second = _apart(sets, first, second)
        if not len(first):
            return
        picks = [np.unique(sets.roots(side), return_index=True)[1] for side in (first, second)]
        for pick in np.concatenate(picks).tolist():
            sets.union(int(first[pick]), int(second[pick]))


def _apart(sets: UnionFind, first: Integers, second: Integers) -> tuple[Integers, Integers]:
    """The pairs whose rows are not joined yet."""
    apart = sets.roots(first) != sets.roots(second)
    return first[apart], second[apart]


def _reach(units: Units, first: Integers, second: Integers, threshold: float) -> NDArray[np.bool_]:
    """Whether the cosine of each pair of rows is at least `threshold`: products in float64, summed by NumPy, (P,).

    The one rule that decides: the same for a pair whatever other pairs it is asked with, and in either order.
    """
    found = np.empty(len(first), np.bool_)
    for start in range(0, len(first), PAIRS):
        pairs = slice(start, start + PAIRS)
        products = units[first[pairs]].astype(np.float64) * units[second[pairs]]
        found[pairs] = products.sum(axis=1) >= threshold
    return found


def _rounding(dim: int) -> float:
    """How far a float32 cosine of two unit rows (D,) may be from that of `_reach`.

    D unit roundoffs for any order of summation (Higham, Accuracy and Stability, 2002, 3.1), two for rows that were
    not float32 and one for the threshold; and lengths may be a little above one.
    """
    return 1.01 * (dim + 4) * 2.0**-24


def _numbered(root: Integers) -> Integers:
    """Roots -> 0, 1, ... in the order in which each first appears."""
    _, first, number = np.unique(root, return_index=True, return_inverse=True)
    order = np.empty(len(first), np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    return order[number]


def _check(units: Units, threshold: float) -> None:
    if units.ndim != 2:
        raise InputError(f"embeddings have shape {units.shape}; wanted (N, D)")
    if not -1 <= threshold <= 1:  # NaN fails as well
        raise InputError(f"threshold is {threshold:g}; wanted a cosine, -1 to 1")
    for start in range(0, len(units), BLOCK):
        block = units[start : start + BLOCK]
        with np.errstate(all="ignore"):
            lengths = np.sqrt(np.einsum("nd,nd->n", block, block))
        wrong = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT_TOLERANCE))
        if len(wrong):
            length = float(lengths[wrong[0]])
            found = f"{length:.6g}" if math.isfinite(length) else "not finite"
            raise InputError(f"embedding {start + wrong[0]} has length {found}; wanted unit vectors")
