"""The class-uniform sampler against a slow version of itself, in Python's integers."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mobileface.data.augment import generator
from tests.data.sampler_cases import MASK, Case, case, cases, epoch_of, few, taken


def splitmix(state: int) -> int:
    """The generator's next output, from https://prng.di.unimi.it/splitmix64.c."""
    state = (state + 0x9E3779B97F4A7C15) & MASK
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & MASK
    return state ^ (state >> 31)


def slow_class_uniform(case: Case, cycle: int) -> list[int]:
    images = []
    for own in case.own.values():
        key = splitmix(splitmix(case.seed) ^ cycle // len(own))
        images.append(sorted(own, key=lambda i, key=key: splitmix(key ^ i))[cycle % len(own)])  # type: ignore[misc]
    return [images[k] for k in generator(case.seed, cycle).permutation(len(images))]


def test_splitmix_is_the_published_one() -> None:
    """First outputs of the reference code for seed 1234567."""
    state, found = 1234567, []
    for _ in range(3):
        found.append(splitmix(state))
        state = (state + 0x9E3779B97F4A7C15) & MASK
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(case=cases(), cycle=st.integers(0, 200))
@few
def test_class_uniform_is_what_a_slow_loop_makes(case: Case, cycle: int) -> None:
    sampler = case.class_uniform()
    for wanted in (cycle, cycle + 1, cycle + 7, cycle):
        assert epoch_of(sampler, wanted) == slow_class_uniform(case, wanted)


@given(case=cases())
@few
def test_every_identity_once_a_cycle_and_every_image_once_a_round(case: Case) -> None:
    sampler = case.class_uniform()
    drawn: dict[int, list[int]] = {name: [] for name in case.own}
    for cycle in range(30):
        images = epoch_of(sampler, cycle)
        names = [int(case.classes[i]) for i in images]
        assert sorted(names) == list(case.own)
        for name, i in zip(names, images, strict=True):
            drawn[name].append(i)
    for name, own in case.own.items():
        for first in range(0, 30 - len(own) + 1, len(own)):
            assert sorted(drawn[name][first : first + len(own)]) == own


def test_rounds_of_an_identity_seem_random() -> None:
    """All 6 orders of three images, in rounds that follow one another and in two identities at the same time."""
    made = case([3, 3], places=1)
    sampler = made.class_uniform()
    rounds = []
    for first in range(0, 3600 * 6, 6):
        images = taken(sampler, first, 6)
        rounds.append(tuple(tuple(i for i in images if made.classes[i] == name) for name in made.own))
    for pairs in (
        Counter((one[0], two[0]) for one, two in pairwise(rounds)),
        Counter(rounds),
    ):
        assert len(pairs) == 36
        assert all(60 < n < 140 for n in pairs.values())  # 100 +- 4 sigma
