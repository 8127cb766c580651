"""Running statistics against a slow loop in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mobileface.losses.statistics import NormStatistics

batches = st.lists(st.lists(st.floats(0.001, 100), max_size=6), max_size=8)


@given(batches=batches, momentum=st.floats(0.001, 1))
@settings(deadline=None)
def test_updates_are_those_of_a_slow_loop(batches: list[list[float]], momentum: float) -> None:
    made = NormStatistics(momentum=momentum).double()
    mean, std = 20.0, 100.0
    for batch in batches:
        made.update(torch.tensor(batch, dtype=torch.float64))
        n = len(batch)
        if n >= 2:
            middle = sum(batch) / n
            mean = momentum * middle + (1 - momentum) * mean
            std = momentum * math.sqrt(sum((v - middle) ** 2 for v in batch) / (n - 1)) + (1 - momentum) * std
    assert made.mean.item() == pytest.approx(mean, rel=1e-9, abs=1e-9)
    assert made.std.item() == pytest.approx(std, rel=1e-9, abs=1e-9)


def test_a_step_is_followed_with_the_weight_of_the_new_batch() -> None:
    """Errata 1: from 20 towards 30 with 0.01: 10 (1 - 0.99^n) of the way after n batches."""
    made = NormStatistics().double()
    for n in range(1, 301):
        made.update(torch.tensor([29.0, 30.0, 31.0]))
        assert made.mean.item() == pytest.approx(20 + 10 * (1 - 0.99**n))
        assert made.std.item() == pytest.approx(1 + 99 * 0.99**n)
    assert made.mean.item() > 29.5  # with the weights the other way round, the first batch alone gives 29.9


@pytest.mark.parametrize("batch", [[], [7.0], [[7.0]]])
def test_a_batch_of_one_or_none_changes_nothing(batch: list[float]) -> None:
    made = NormStatistics()
    made.update(torch.tensor(batch))
    assert (made.mean.item(), made.std.item()) == (20.0, 100.0)


def test_eval_mode_freezes_them() -> None:
    made = NormStatistics().eval()
    made.update(torch.tensor([1.0, 2.0]))
    assert (made.mean.item(), made.std.item()) == (20.0, 100.0)
    made.train().update(torch.tensor([1.0, 2.0]))
    assert made.mean.item() < 20


@given(value=st.floats(-1e4, 1e4), mean=st.floats(0, 50), std=st.floats(0, 50), h=st.floats(0, 2))
@settings(deadline=None)
def test_the_indicator_is_its_formula(value: float, mean: float, std: float, h: float) -> None:
    made = NormStatistics().double()
    made.mean.fill_(mean)
    made.std.fill_(std)
    found = made.indicator(torch.tensor([value], dtype=torch.float64), h).item()
    assert found == pytest.approx(min(max((value - mean) / (std + 0.001) * h, -1), 1), abs=1e-12)


def test_the_indicator_stands_still_without_a_deviation() -> None:
    made = NormStatistics(mean=5.0, std=0.0)
    assert made.indicator(torch.tensor([4.0, 5.0, 6.0]), 0.333).tolist() == [-1.0, 0.0, 1.0]


def test_nothing_has_a_gradient() -> None:
    made = NormStatistics()
    values = torch.tensor([10.0, 300.0], requires_grad=True)
    made.update(values)
    assert not made.indicator(values, 0.333).requires_grad
    assert not made.mean.requires_grad
    assert not made.std.requires_grad


def test_the_state_is_two_buffers_that_go_on_where_they_were() -> None:
    first, second = NormStatistics(), NormStatistics(mean=0.5, std=0.25)
    assert list(first.state_dict()) == ["mean", "std"]
    assert list(first.parameters()) == []
    first.update(torch.tensor([3.0, 4.5]))
    second.load_state_dict(first.state_dict())
    for made in (first, second):
        made.update(torch.tensor([50.0, 60.5]))
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(first.std, second.std)


def test_values_of_another_type_are_read_in_that_of_the_buffers() -> None:
    made = NormStatistics()
    made.update(torch.tensor([10.0, 14.0], dtype=torch.bfloat16))
    assert made.mean.dtype == torch.float32
    assert made.mean.item() == pytest.approx(0.99 * 20 + 0.01 * 12)
    assert made.indicator(torch.tensor([1.0], dtype=torch.bfloat16), 0.333).dtype == torch.float32
