"""Union-find against plain sets; components against a slow graph search."""

from __future__ import annotations

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
from mobileface.unionfind import UnionFind, by_size, components

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
@settings(deadline=None, max_examples=25)
def test_the_block_does_not_matter(seed: int, block: int) -> None:
    units = people(np.random.default_rng(seed), 120, 20, 8, 0.4)
    assert components(units, 0.6, block).tolist() == components(units, 0.6).tolist()


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
