"""What all samplers promise, the plain one, and their speed."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobileface.data.augment import generator
from mobileface.data.samplers import SAMPLERS, ClassUniformSampler, PKSampler, PlainSampler
from mobileface.errors import InputError
from tests.data.sampler_cases import MASK, Case, case, cases, epoch_of, few, taken


def test_the_table_of_samplers() -> None:
    assert {"plain": PlainSampler, "pk": PKSampler, "class_uniform": ClassUniformSampler} == SAMPLERS


@given(case=cases(), epoch=st.integers(0, 3))
@few
def test_plain_is_a_permutation_of_each_epoch(case: Case, epoch: int) -> None:
    wanted = generator(case.seed, epoch).permutation(case.train).tolist()
    assert epoch_of(case.any("plain"), epoch) == wanted


def test_plain_orders_seem_random() -> None:
    sampler = PlainSampler(np.arange(10), np.arange(10), 5, 5)
    firsts = Counter(sampler(10 * epoch) for epoch in range(1000))
    assert all(60 < firsts[i] < 140 for i in range(10))  # 100 +- 4.2 sigma


# ---- what all of them promise


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


# ---- speed


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
