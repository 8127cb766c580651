"""Union-find against plain sets; components against a slow graph search."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mobileface import unionfind
from mobileface.errors import InputError
from mobileface.unionfind import SMALL, UnionFind, by_size, components, components_of_each

Units = NDArray[np.float32]

pairs = st.integers(1, 40).flatmap(
    lambda n: st.tuples(st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=80))
)


def people(rng: np.random.Generator, count: int, persons: int, dim: int, noise: float) -> Units:
    """Unit vectors around random centres."""
    centres = rng.normal(size=(persons, dim))
    raw = centres[rng.integers(0, persons, count)] + noise * rng.normal(size=(count, dim))
    units: Units = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
    return units


def slow_components(units: Units, threshold: float) -> list[int]:
    """A walk from each image not yet seen, over all images that are similar enough; Python floats."""
    rows = [[float(x) for x in row] for row in units]
    number = [-1] * len(rows)
    for first in range(len(rows)):
        if number[first] >= 0:
            continue
        number[first] = max(number) + 1
        waiting = [first]
        while waiting:
            i = waiting.pop()
            for j in range(len(rows)):
                if number[j] < 0 and math.fsum(a * b for a, b in zip(rows[i], rows[j], strict=True)) >= threshold:
                    number[j] = number[first]
                    waiting.append(j)
    return number


@given(pairs)
@settings(deadline=None, max_examples=60)
def test_unions_are_those_of_plain_sets(case: tuple[int, list[tuple[int, int]]]) -> None:
    count, joins = case
    sets, plain = UnionFind(count), [{i} for i in range(count)]
    for a, b in joins:
        assert sets.union(a, b) == (plain[a] is not plain[b])
        if plain[a] is not plain[b]:
            both = plain[a] | plain[b]
            for i in both:
                plain[i] = both
    for i in range(count):
        root = sets.find(i)
        assert root in plain[i]
        assert all(sets.find(j) == root for j in plain[i])
        assert sets.parent[root] == root
        assert sets.size[root] == len(plain[i])


@given(pairs)
@settings(deadline=None, max_examples=60)
def test_roots_are_what_find_gives_and_hang_right_below(case: tuple[int, list[tuple[int, int]]]) -> None:
    count, joins = case
    sets = UnionFind(count)
    for a, b in joins:
        sets.union(a, b)
    members = np.arange(0, count, 2)
    roots = sets.roots(members)
    assert roots.tolist() == [sets.find(int(i)) for i in members]
    assert sets.parent[members].tolist() == roots.tolist()


def test_trees_stay_shallow() -> None:
    deep = UnionFind(1024)
    for width in (2**k for k in range(10)):  # equal trees joined: the worst case of union by size
        for i in range(0, 1024, 2 * width):
            deep.union(i, i + width)

    def depth(i: int) -> int:
        return 0 if deep.parent[i] == i else 1 + depth(int(deep.parent[i]))

    assert max(depth(i) for i in range(1024)) <= 10


def test_find_halves_the_path() -> None:
    sets = UnionFind(8)
    sets.parent[:] = [0, 0, 1, 2, 3, 4, 5, 6]  # a chain
    assert sets.find(7) == 0
    assert sets.parent.tolist() == [0, 0, 1, 1, 3, 3, 5, 5]


@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 40),
    st.integers(1, 8),
    st.integers(2, 6),
    st.floats(0.05, 1.5),
    st.floats(-0.5, 0.99),
    st.integers(1, 45),
)
@settings(deadline=None, max_examples=120)
def test_components_are_those_of_a_graph_search(
    seed: int, count: int, persons: int, dim: int, noise: float, threshold: float, block: int
) -> None:
    units = people(np.random.default_rng(seed), count, persons, dim, noise)
    assert components(units, threshold, block).tolist() == slow_components(units, threshold)


@given(st.integers(0, 2**32 - 1), st.integers(1, 130))
@settings(deadline=None, max_examples=15)
def test_the_block_does_not_matter(seed: int, block: int) -> None:
    units = people(np.random.default_rng(seed), 120, 20, 8, 0.4)
    assert components(units, 0.6, block).tolist() == components(units, 0.6).tolist()


def graph_components(joined: NDArray[np.bool_]) -> list[int]:
    """Components of an adjacency matrix, by powers of it."""
    reach = joined | np.eye(len(joined), dtype=bool)
    while not np.array_equal(further := (reach.astype(np.float32) @ reach) > 0, reach):
        reach = further
    first = reach.argmax(axis=1)
    return np.unique(first, return_inverse=True)[1].tolist()


@given(st.integers(0, 2**32 - 1), st.sampled_from([7, 50, 1000]), st.floats(0.0, 0.4))
@settings(deadline=None, max_examples=12)
def test_a_threshold_nearer_to_cosines_than_float32_can_tell(seed: int, block: int, shift: float) -> None:
    """Pairs of rows that share one cosine but for 1e-8: which of them are joined only float64 can say."""
    rng = np.random.default_rng(seed)
    pairs = 24
    low, high = rng.normal(size=(2, pairs, 3))
    turn = np.arccos(0.5 + shift + rng.uniform(-1e-8, 1e-8, pairs))  # pair p lies in a plane of its own
    units = np.zeros((2 * pairs, 3 * pairs))
    for p in range(pairs):
        basis = np.linalg.qr(np.stack([low[p], high[p]], axis=1))[0].T
        units[2 * p, 3 * p : 3 * p + 3] = basis[0]
        units[2 * p + 1, 3 * p : 3 * p + 3] = math.cos(turn[p]) * basis[0] + math.sin(turn[p]) * basis[1]
    own = np.einsum("pd,pd->p", units[::2], units[1::2])
    threshold = float(np.median(own))
    expected = graph_components(units @ units.T >= threshold - 1e-15)
    clear = np.abs(own - threshold) > 1e-14  # of the others the last bit decides
    for found in (components(units, threshold, block), components_of_each(units, np.array([0, len(units)]), threshold)):
        joined = found[::2] == found[1::2]
        wanted = np.array(expected[::2]) == np.array(expected[1::2])
        assert joined[clear].tolist() == wanted[clear].tolist()
    assert 0 < (own[clear] >= threshold).sum() < clear.sum()  # some are, some are not


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 12), max_size=12),
    st.floats(0.05, 1.0),
    st.floats(-0.5, 0.99),
)
@settings(deadline=None, max_examples=60)
def test_each_set_is_grouped_as_if_it_were_alone(seed: int, sizes: list[int], noise: float, threshold: float) -> None:
    starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
    units = people(np.random.default_rng(seed), int(starts[-1]), 3, 5, noise)
    found = components_of_each(units, starts, threshold)
    for first, last in itertools.pairwise(starts):
        assert found[first:last].tolist() == slow_components(units[first:last], threshold)


@pytest.mark.parametrize("count", [2, 64, SMALL, SMALL + 1])
def test_a_long_chain_in_a_set(count: int) -> None:
    """Each row is similar to its neighbours only, in an order that hides it."""
    angle = np.radians(160.0 * np.random.default_rng(count).permutation(count) / count)
    chain = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    step = math.cos(math.radians(160.0 * 1.5 / count))
    both = np.concatenate([chain, chain, chain[:1]])
    starts = np.array([0, count, count, 2 * count, 2 * count + 1])
    assert components_of_each(both, starts, step).tolist() == [0] * (2 * count + 1)
    apart = math.cos(math.radians(160.0 * 0.5 / count))
    assert components_of_each(both, starts, apart).tolist() == [*range(count), *range(count), 0]


def test_many_sets_are_looked_at_in_bounded_memory() -> None:
    units = people(np.random.default_rng(4), 64 * 600, 600, 16, 0.5)
    starts = np.arange(601) * 64
    tracemalloc.start()
    found = components_of_each(units, starts, 0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20  # the cosines of all sets: 10 MB, their rows again 2.5 MB
    chosen = slice(64 * 599, 64 * 600)
    assert found[chosen].tolist() == components(units[chosen], 0.5).tolist()


@pytest.mark.parametrize("starts", [[], [0], [0, 2], [1, 3], [0, 2, 1, 3], [0, 3, 4]])
def test_starts_that_do_not_cut_the_rows(starts: list[int]) -> None:
    with pytest.raises(InputError, match=r"starts do not cut 3 rows into sets"):
        components_of_each(np.eye(3), np.array(starts, np.int64))


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 9), max_size=9))
@settings(deadline=None, max_examples=40)
def test_sizes_of_each_set_are_ranked_by_themselves(seed: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
    number = np.concatenate([np.empty(0, np.int64), *(unionfind._numbered(rng.integers(0, 4, n)) for n in sizes)])
    quality = rng.integers(1, 3, len(number)).astype(np.float32)  # many ties
    found = by_size(number, quality, starts)
    for first, last in itertools.pairwise(starts):
        own, norms = number[first:last], quality[first:last]
        order = sorted(set(own), key=lambda n: (-(own == n).sum(), -norms[own == n].mean(), n))
        assert found[first:last].tolist() == [order.index(n) for n in own]


@pytest.mark.parametrize("block", [1, 3, 100])
def test_a_chain_is_one_component_and_breaks_where_a_link_is_missing(block: int) -> None:
    angle = np.radians(10.0 * np.arange(36))
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert components(circle, math.cos(math.radians(10.5)), block).tolist() == [0] * 36
    assert components(circle, math.cos(math.radians(9.5)), block).tolist() == list(range(36))
    broken = np.delete(circle, [0, 18], axis=0)
    shuffled = np.random.default_rng(0).permutation(34)
    found = components(broken[shuffled], math.cos(math.radians(10.5)), block)
    assert found[np.argsort(shuffled)].tolist() in ([0] * 17 + [1] * 17, [1] * 17 + [0] * 17)


def test_the_threshold_itself_joins() -> None:
    units = np.array([[1.0, 0.0], [0.5, math.sqrt(0.75)]])
    assert components(units, 0.5).tolist() == [0, 0]
    assert components(units, np.nextafter(0.5, 1)).tolist() == [0, 1]


def test_none_and_one() -> None:
    assert components(np.empty((0, 4), np.float32)).tolist() == []
    assert components(np.eye(1, 4)).tolist() == [0]


def test_one_person_costs_little_and_few_unions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image of a person is like each other one, and only a row of blocks may be computed for it."""
    rng = np.random.default_rng(1)
    count, block, strangers = 3000, 100, 30
    units = people(rng, count, 1, 16, 0.4)
    units[::100] = people(rng, strangers, strangers, 16, 0.0)
    computed, unions = 0, 0
    join, union = unionfind._join, UnionFind.union

    def counted(sets: UnionFind, units: Units, rows: Any, columns: Any, threshold: float) -> None:
        nonlocal computed
        computed += len(rows) * len(columns)
        join(sets, units, rows, columns, threshold)

    def counted_union(sets: UnionFind, a: int, b: int) -> bool:
        nonlocal unions
        unions += 1
        return union(sets, a, b)

    monkeypatch.setattr(unionfind, "_join", counted)
    monkeypatch.setattr(UnionFind, "union", counted_union)
    number = components(units, 0.7, block)
    assert np.bincount(number).max() >= count - 2 * strangers
    assert computed < 4 * count * block  # the whole matrix would be 30 times count x block, its half 15 times
    assert unions < 4 * count


def test_memory_is_bounded_by_the_block() -> None:
    units = people(np.random.default_rng(2), 4000, 4000, 8, 0.0)
    tracemalloc.start()
    number = components(units, 0.95, block=64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert number.max() > 100
    assert peak < 2 * 2**20  # all cosines: 128 MB


def test_by_size_breaks_ties_by_quality_then_by_the_first_row() -> None:
    number = np.array([0, 1, 2, 1, 2, 3, 3, 4, 4, 4])
    quality = np.array([9.0, 2.0, 2.5, 2.0, 2.5, 2.0, 2.0, 0.1, 0.1, 0.1])
    assert by_size(number, quality).tolist() == [4, 2, 1, 2, 1, 3, 3, 0, 0, 0]


@pytest.mark.parametrize(
    ("units", "threshold", "block", "text"),
    [
        (np.eye(3) * 2, 0.4, 8, r"embedding 0 has length 2; wanted unit vectors"),
        (np.diag([1.0, 1.0, np.nan]), 0.4, 2, r"embedding 2 has length not finite; wanted unit vectors"),
        (np.diag([1.0, np.inf]), 0.4, 2, r"embedding 1 has length not finite"),
        (np.zeros((2, 3)), 0.4, 8, r"embedding 0 has length 0"),
        (np.ones(3), 0.4, 8, r"embeddings have shape \(3,\); wanted \(N, D\)"),
        (np.eye(3), 1.1, 8, r"threshold is 1\.1; wanted a cosine, -1 to 1"),
        (np.eye(3), math.nan, 8, r"threshold is nan"),
        (np.eye(3), 0.4, 0, r"block is 0; wanted at least 1"),
    ],
)
def test_what_cannot_be_grouped(units: NDArray[np.float64], threshold: float, block: int, text: str) -> None:
    with pytest.raises(InputError, match=text):
        components(units, threshold, block)
