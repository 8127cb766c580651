"""The PK sampler against a slow, obvious version of itself, and the promises that it makes."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobileface.data.augment import generator
from mobileface.data.samplers import PKSampler
from mobileface.errors import InputError
from tests.data.sampler_cases import Case, case, cases, epoch_of, few, taken

# ---- a slow version: lists, loops; the same draws of the same generator


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


@given(case=cases(), epoch=st.integers(0, 3))
@few
def test_pk_is_what_a_slow_loop_makes(case: Case, epoch: int) -> None:
    assert epoch_of(case.pk(), epoch) == slow_pk(case, epoch)


# ---- what it promises


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
