"""Samplers against slow, obvious versions of themselves, and the promises that they make."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobileface.data.augment import generator
from mobileface.data.samplers import SAMPLERS, ClassUniformSampler, Indices, PKSampler, PlainSampler, Sampler
from mobileface.errors import InputError

few = settings(max_examples=60, deadline=None)
MASK = 2**64 - 1


@dataclass(frozen=True)
class Case:
    """A training set, and batches that fit it."""

    train: Indices
    classes: Indices
    images: int
    places: int
    seed: int

    @property
    def batch(self) -> int:
        return self.images * self.places

    @property
    def own(self) -> dict[int, list[int]]:
        """Identity -> its images, both rising."""
        names = sorted({int(self.classes[i]) for i in self.train} - {-1})
        return {name: [i for i in self.train.tolist() if self.classes[i] == name] for name in names}

    def pk(self) -> PKSampler:
        return PKSampler(self.train, self.classes, self.batch, self.seed, images=self.images)

    def class_uniform(self) -> ClassUniformSampler:
        return ClassUniformSampler(self.train, self.classes, self.batch, self.seed)

    def any(self, name: str) -> Sampler:
        return self.pk() if name == "pk" else SAMPLERS[name](self.train, self.classes, self.batch, self.seed)


def case(sizes: list[int], places: int, images: int = 4, unlabelled: int = 0, seed: int = 0) -> Case:
    """Identities of these sizes, their images scattered over the set; as many images beside them are held out."""
    rng = np.random.default_rng(seed)
    names = rng.choice(3 * len(sizes), len(sizes), replace=False)  # as where some identities are held out
    labels = np.concatenate([np.repeat(names, sizes), np.full(unlabelled, -1)]).astype(np.int64)
    labels = rng.permutation(labels)
    train = np.sort(rng.choice(2 * len(labels), len(labels), replace=False))
    classes = np.full(2 * len(labels), -1, np.int64)
    classes[train] = labels
    return Case(train, classes, images, places, seed)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    sizes = draw(st.lists(st.one_of(st.integers(1, 9), st.integers(1, 40)), min_size=1, max_size=9))
    places = draw(st.integers(1, len(sizes)))
    return case(sizes, places, draw(st.integers(1, 5)), draw(st.integers(0, 3)), draw(st.integers(0, 2**32)))


def taken(sampler: Sampler, first: int, count: int) -> list[int]:
    return [sampler(position) for position in range(first, first + count)]


def epoch_of(sampler: Sampler, epoch: int) -> list[int]:
    return taken(sampler, epoch * sampler.epoch_length, sampler.epoch_length)


# -- slow versions: lists, loops, Python's integers; the same draws of the same generator


def slow_batches(share: list[int], places: int) -> int:
    """Try every number of batches."""

    def overfill(count: int) -> int:
        return sum(min(s, count) for s in share) - count * places

    filled = max(count for count in range(sum(share) // places + 2) if overfill(count) >= 0)
    return filled if overfill(filled) == 0 else filled + 1


def slow_slots(case: Case, order: list[int]) -> tuple[list[int], int]:
    """Slots of each identity, and the number of batches."""
    counts = [len(images) for images in case.own.values()]
    share = [max(1, n // case.images) for n in counts]
    batches = slow_batches(share, case.places)
    slots = [min(s, batches) for s in share]
    missing = batches * case.places - sum(slots)
    candidates = [k for k in range(len(counts)) if slots[k] < batches]
    candidates.sort(key=lambda k: (case.images * slots[k] - counts[k], order.index(k)))
    for k in candidates[:missing]:
        slots[k] += 1
    return slots, batches


def slow_pk(case: Case, epoch: int) -> list[int]:
    rng = generator(case.seed, epoch)
    groups = list(case.own.values())
    flat = [(k, i) for k, images in enumerate(groups) for i in images]
    mixed: list[list[int]] = [[] for _ in groups]
    for at in rng.permutation(len(flat)):
        mixed[flat[at][0]].append(flat[at][1])
    order = rng.permutation(len(groups)).tolist()
    slots, batches = slow_slots(case, order)
    queue = [(k, nth) for k in order for nth in range(slots[k])]
    dealt: list[list[tuple[int, int]]] = [[] for _ in range(batches)]
    for row in range(case.places):
        hand = queue[row * batches : (row + 1) * batches]
        shared = queue[row * batches - 1][0] if row else None
        free = [b for b in range(batches) if row and dealt[b][-1][0] != shared]
        first = rng.permutation(np.array(free, np.int64))[: sum(k == shared for k, _ in hand)].tolist()
        rest = rng.permutation(np.array([b for b in range(batches) if b not in first], np.int64)).tolist()
        for slot, b in zip(hand, first + rest, strict=True):
            dealt[b].append(slot)
    seats = rng.permuted(np.tile(np.arange(case.places), (batches, 1)), axis=1)
    found = []
    for batch, seating in zip(dealt, seats, strict=True):
        for k, nth in (batch[seat] for seat in seating):
            found += [mixed[k][(nth * case.images + j) % len(mixed[k])] for j in range(case.images)]
    return found


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


def test_the_table_of_samplers() -> None:
    assert {"plain": PlainSampler, "pk": PKSampler, "class_uniform": ClassUniformSampler} == SAMPLERS


def test_splitmix_is_the_published_one() -> None:
    """First outputs of the reference code for seed 1234567."""
    state, found = 1234567, []
    for _ in range(3):
        found.append(splitmix(state))
        state = (state + 0x9E3779B97F4A7C15) & MASK
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(case=cases(), epoch=st.integers(0, 3))
@few
def test_plain_is_a_permutation_of_each_epoch(case: Case, epoch: int) -> None:
    wanted = generator(case.seed, epoch).permutation(case.train).tolist()
    assert epoch_of(case.any("plain"), epoch) == wanted


@given(case=cases(), epoch=st.integers(0, 3))
@few
def test_pk_is_what_a_slow_loop_makes(case: Case, epoch: int) -> None:
    assert epoch_of(case.pk(), epoch) == slow_pk(case, epoch)


@given(case=cases(), cycle=st.integers(0, 200))
@few
def test_class_uniform_is_what_a_slow_loop_makes(case: Case, cycle: int) -> None:
    sampler = case.class_uniform()
    for wanted in (cycle, cycle + 1, cycle + 7, cycle):
        assert epoch_of(sampler, wanted) == slow_class_uniform(case, wanted)


# -- what all of them promise


@pytest.mark.parametrize("name", SAMPLERS)
@given(case=cases(), data=st.data())
@settings(max_examples=25, deadline=None)
def test_positions_may_be_asked_for_in_any_order(name: str, case: Case, data: st.DataObject) -> None:
    sampler = case.any(name)
    count = 12 * sampler.epoch_length
    forward = taken(sampler, 0, count)
    asked = data.draw(st.lists(st.integers(0, count - 1), max_size=30))
    one = case.any(name)
    assert [one(position) for position in asked] == [forward[position] for position in asked]
    assert [case.any(name)(position) for position in asked[:5]] == [forward[position] for position in asked[:5]]


@pytest.mark.parametrize("name", SAMPLERS)
def test_seeds_and_epochs_have_orders_of_their_own(name: str) -> None:
    made = case([8, 8, 8, 8, 8, 8], places=3)
    samplers = [SAMPLERS[name](made.train, made.classes, 12, seed) for seed in (0, 0, 1, MASK)]  # up to the largest
    orders = [[tuple(epoch_of(sampler, epoch)) for epoch in range(5)] for sampler in samplers]
    assert orders[0] == orders[1]
    assert len({order for some in orders[1:] for order in some}) == 15


@pytest.mark.parametrize("name", SAMPLERS)
@given(case=cases())
@settings(max_examples=25, deadline=None)
def test_train_is_what_is_drawn(name: str, case: Case) -> None:
    sampler = case.any(name)
    known = case.train if name == "plain" else case.train[case.classes[case.train] >= 0]
    assert sampler.train.tolist() == known.tolist()
    assert sampler.left_out == len(case.train) - len(known)
    assert set(taken(sampler, 0, 4 * sampler.epoch_length)) <= set(known.tolist())


@pytest.mark.parametrize("name", ["pk", "class_uniform"])
def test_without_labels_there_is_nothing_to_draw(name: str) -> None:
    with pytest.raises(InputError) as caught:
        SAMPLERS[name](np.array([1, 3, 4]), np.full(6, -1), 4, 0)
    assert str(caught.value) == f"sampler {name}: found no label on any of 3 training images; wanted some"


def test_batches_that_ranks_cannot_share_are_refused() -> None:
    made = case([5] * 9, places=8)  # batches of 32
    for name in ("plain", "class_uniform"):
        for world in (1, 2, 8, 32):
            made.any(name).check_parts(world)
        with pytest.raises(InputError, match=rf"^sampler {name}: batch is 32; wanted a multiple of 3 \(the 3 parts\)$"):
            made.any(name).check_parts(3)
    for world in (1, 2, 8):
        made.pk().check_parts(world)
    text = r"^sampler pk: batch is 32; wanted a multiple of 64 \(16 parts x 4 images of an identity\)$"
    with pytest.raises(InputError, match=text):
        made.pk().check_parts(16)


# -- pk


def batches_of(case: Case, sampler: PKSampler, epoch: int) -> list[list[list[int]]]:
    """Images by batch and place."""
    drawn = epoch_of(sampler, epoch)
    slots = [drawn[at : at + case.images] for at in range(0, len(drawn), case.images)]
    return [slots[at : at + case.places] for at in range(0, len(slots), case.places)]


@given(case=cases(), epoch=st.integers(0, 3))
@few
def test_a_batch_holds_distinct_identities_and_their_images_side_by_side(case: Case, epoch: int) -> None:
    sampler = case.pk()
    assert sampler.epoch_length % case.batch == 0
    for batch in batches_of(case, sampler, epoch):
        names = [{int(case.classes[i]) for i in slot} for slot in batch]
        assert all(len(name) == 1 for name in names)
        assert len(set.union(*names)) == case.places
        for name, slot in zip(names, batch, strict=True):
            assert len(set(slot)) == min(case.images, len(case.own[name.pop()]))


@given(case=cases(), epoch=st.integers(0, 3))
@few
def test_an_epoch_covers_each_identity_by_its_size(case: Case, epoch: int) -> None:
    sampler = case.pk()
    batches = batches_of(case, sampler, epoch)
    slots = Counter(int(case.classes[slot[0]]) for batch in batches for slot in batch)
    drawn = Counter(i for batch in batches for slot in batch for i in slot)
    more = 0
    for name, own in case.own.items():
        share = max(1, len(own) // case.images)
        if slots[name] < share:
            assert slots[name] == len(batches)  # one slot of every batch: no more is possible
        else:
            assert slots[name] <= share + 1
            more += slots[name] - share
        times = [drawn[i] for i in own]
        assert max(times) - min(times) <= 1  # every image once before any is taken twice
    assert more < case.places
    assert sampler.repeats == sum(n - 1 for n in drawn.values())
    assert sampler.short == sum(len(own) < case.images for own in case.own.values())


def test_every_image_once_where_the_sizes_allow_it() -> None:
    made = case([4, 8, 12, 8, 4, 16, 8, 4], places=4)  # 16 slots
    sampler = made.pk()
    for epoch in range(5):
        assert sorted(epoch_of(sampler, epoch)) == made.train.tolist()
    assert (sampler.repeats, sampler.short, sampler.epoch_length) == (0, 0, 64)


def test_repeats_and_short_by_hand() -> None:
    """Sizes 1, 3, 4, 7, 9 fill 1, 1, 1, 1, 2 slots of 4: the first repeats 3 draws, the second 1."""
    found = []
    for places in (2, 3, 4):
        sampler = case([1, 3, 4, 7, 9], places, unlabelled=2).pk()
        found.append((sampler.epoch_length // 4, sampler.repeats))
        assert (sampler.short, sampler.left_out) == (2, 2)
    # 8 slots: 9 stands in both batches, so the two that are missing go to 7 (3 images left over) and 4 (none)
    assert found == [(6, 4), (6, 4), (8, 4 + 1 + 4)]


def test_a_large_identity_stands_in_every_batch_and_no_more() -> None:
    made = case([1000, 4, 4, 4, 4, 4, 4, 4], places=4)
    sampler = made.pk()
    largest = max(made.own, key=lambda name: len(made.own[name]))
    assert sampler.epoch_length == 3 * 16  # 7 slots of the small identities for 9 places: two more
    drawn = [i for epoch in range(300) for i in epoch_of(sampler, epoch)]
    counts = Counter(int(made.classes[i]) for i in drawn)
    assert counts[largest] == len(drawn) / 4
    assert len({i for i in drawn if made.classes[i] == largest}) > 900  # 3600 draws of 1000


def test_all_identities_in_every_batch() -> None:
    made = case([20, 20, 20, 1], places=4)
    sampler = made.pk()
    for position in range(0, 160, 16):
        assert sorted(made.classes[taken(sampler, position, 16)].tolist()) == sorted(4 * list(made.own))


def test_what_pk_cannot_do_is_refused() -> None:
    made = case([5, 5, 5], places=3)

    def refused(batch: int, images: int) -> str:
        with pytest.raises(InputError) as caught:
            PKSampler(made.train, made.classes, batch, 0, images=images)
        return str(caught.value)

    assert refused(10, 4) == "sampler pk: batch is 10; wanted a multiple of its images of an identity, 4"
    assert refused(8, 0) == "sampler pk: images is 0; wanted at least 1"
    assert refused(16, 4) == (
        "sampler pk: found 3 labelled identities; wanted at least 4, as a batch of 16 with 4 images of each holds"
    )


def test_identities_meet_all_others_and_sit_everywhere() -> None:
    """12 identities of 2 slots, 6 batches of 4, 1000 epochs: company, places and images have no favourites."""
    made = case([11] * 12, places=4)
    sampler = made.pk()
    pairs: Counter[tuple[int, ...]] = Counter()
    places: Counter[tuple[int, int]] = Counter()
    images: Counter[int] = Counter()
    for epoch in range(1000):
        for batch in batches_of(made, sampler, epoch):
            names = [int(made.classes[slot[0]]) for slot in batch]
            pairs.update(combinations(sorted(names), 2))
            places.update(enumerate(names))
            images.update(i for slot in batch for i in slot)
    assert len(pairs) == 66
    assert all(abs(n - 6000 * 6 / 66) < 130 for n in pairs.values())  # 545 +- 24 if binomial
    assert len(places) == 48
    assert all(abs(n - 500) < 110 for n in places.values())
    assert len(images) == 132
    assert all(abs(n - 8000 / 11) < 75 for n in images.values())  # 727 +- 14


def test_company_and_places_change_within_an_epoch() -> None:
    """8 identities of 100 slots, 200 batches of 4: a row holds two whole identities, which do not meet."""
    made = case([400] * 8, places=4)
    names = [[int(made.classes[slot[0]]) for slot in batch] for batch in batches_of(made, made.pk(), 0)]
    assert len(names) == 200
    pairs = Counter(pair for batch in names for pair in combinations(sorted(batch), 2))
    assert len(pairs) == 28 - 4
    assert all(25 < n < 75 for n in pairs.values())  # 50 +- 3.5
    places = Counter(at for batch in names for at in enumerate(batch))
    assert len(places) == 32
    assert all(8 < n < 50 for n in places.values())  # 25 +- 4.3


def test_slots_that_are_missing_go_round_among_equals() -> None:
    """7 identities of a slot each in batches of 4: the eighth place is anybody's."""
    made = case([4] * 7, places=4)
    sampler = made.pk()
    assert sampler.epoch_length == 32
    twice = Counter(
        name
        for epoch in range(700)
        for name, n in Counter(made.classes[epoch_of(sampler, epoch)].tolist()).items()
        if n == 8
    )
    assert sorted(twice) == sorted(made.own)
    assert all(60 < n < 140 for n in twice.values())


# -- class_uniform


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


def test_plain_orders_seem_random() -> None:
    sampler = PlainSampler(np.arange(10), np.arange(10), 5, 5)
    firsts = Counter(sampler(10 * epoch) for epoch in range(1000))
    assert all(60 < firsts[i] < 140 for i in range(10))  # 100 +- 4.2 sigma


# -- speed


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_million_images_are_sampled_fast(name: str) -> None:
    """CPU seconds; limits are several times what it takes."""
    rng = np.random.default_rng(0)
    weights = rng.lognormal(0, 1, 100_000)
    classes = rng.choice(100_000, 1_000_000, p=weights / weights.sum())
    began = time.process_time()
    sampler = SAMPLERS[name](np.arange(1_000_000), classes, 512, 1)
    assert time.process_time() - began < 3
    for epoch in range(2):
        began = time.process_time()
        sampler(epoch * sampler.epoch_length)
        assert time.process_time() - began < 1.5
    began = time.process_time()
    taken(sampler, sampler.epoch_length, 50_000)
    assert time.process_time() - began < 50_000 * 5e-6
