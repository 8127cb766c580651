"""Running statistics against a slow loop in plain Python."""

from __future__ import annotations

import math
import operator
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mobileface.statistics import NormStatistics, end_step


def take_in(made: NormStatistics, values: torch.Tensor) -> None:
    """A training step of one batch."""
    made.observe(values)
    end_step(made)


batches = st.lists(st.lists(st.floats(0.001, 100), max_size=6), max_size=8)


@given(batches=batches, momentum=st.floats(0.001, 1))
@settings(deadline=None)
def test_updates_are_those_of_a_slow_loop(batches: list[list[float]], momentum: float) -> None:
    made = NormStatistics(momentum=momentum).double()
    mean, std = 20.0, 100.0
    for batch in batches:
        take_in(made, torch.tensor(batch, dtype=torch.float64))
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
        take_in(made, torch.tensor([29.0, 30.0, 31.0]))
        assert made.mean.item() == pytest.approx(20 + 10 * (1 - 0.99**n))
        assert made.std.item() == pytest.approx(1 + 99 * 0.99**n)
    assert made.mean.item() > 29.5  # with the weights the other way round, the first batch alone gives 29.9


@given(batches=batches, momentum=st.floats(0.001, 1))
@settings(deadline=None)
def test_from_the_data_all_steps_so_far_count_with_their_moving_weights(
    batches: list[list[float]], momentum: float
) -> None:
    """Of n steps, k steps back has the weight (1 - momentum)^k; the weights add up to one. One sample is no step."""
    made = NormStatistics(momentum=momentum, mean=0.0, std=0.0).double()
    means, deviations = [], []
    for batch in batches:
        take_in(made, torch.tensor(batch, dtype=torch.float64))
        if len(batch) >= 2:
            means.append(statistics.mean(batch))
            deviations.append(statistics.stdev(batch))
        weights = [(1 - momentum) ** back for back in reversed(range(len(means)))]
        for got, seen in ((made.mean, means), (made.std, deviations)):
            wanted = sum(map(operator.mul, weights, seen)) / sum(weights) if seen else 0
            assert got.item() == pytest.approx(wanted, rel=1e-6, abs=1e-9)


def test_from_the_data_the_first_step_counts_whole_and_the_hundredth_for_a_little_more_than_a_hundredth() -> None:
    made = NormStatistics(mean=0.0, std=0.0).double()
    take_in(made, torch.tensor([3.0, 4.0, 5.0]))
    assert (made.mean.item(), made.std.item()) == (pytest.approx(4), pytest.approx(1))
    for _ in range(98):
        take_in(made, torch.tensor([3.0, 4.0, 5.0]))
    take_in(made, torch.tensor([103.0, 104.0, 105.0]))
    assert made.mean.item() == pytest.approx(4 + 100 * 0.01577, rel=1e-3)  # 0.01 / (1 - 0.366)


@pytest.mark.parametrize("batch", [[], [7.0], [[7.0]]])
def test_a_batch_of_one_or_none_changes_nothing(batch: list[float]) -> None:
    made = NormStatistics()
    take_in(made, torch.tensor(batch))
    assert (made.mean.item(), made.std.item()) == (20.0, 100.0)


def test_eval_mode_freezes_them() -> None:
    made = NormStatistics().eval()
    take_in(made, torch.tensor([1.0, 2.0]))
    assert (made.mean.item(), made.std.item()) == (20.0, 100.0)
    take_in(made.train(), torch.tensor([1.0, 2.0]))
    assert made.mean.item() < 20


@given(
    value=st.floats(-1e4, 1e4),
    mean=st.floats(0, 50),
    std=st.floats(0, 50),
    h=st.floats(0, 2),
    eps=st.sampled_from([None, 1e-6, 0.5]),
)
@settings(deadline=None)
def test_the_indicator_is_its_formula(value: float, mean: float, std: float, h: float, eps: float | None) -> None:
    made = (NormStatistics() if eps is None else NormStatistics(eps=eps)).double()
    made.mean.fill_(mean)
    made.std.fill_(std)
    found = made.indicator(torch.tensor([value], dtype=torch.float64), h).item()
    eps = 0.001 if eps is None else eps  # AdaFace's
    assert found == pytest.approx(min(max((value - mean) / (std + eps) * h, -1), 1), abs=1e-12)


def test_the_indicator_stands_still_without_a_deviation() -> None:
    made = NormStatistics(mean=5.0, std=0.0)
    assert made.indicator(torch.tensor([4.0, 5.0, 6.0]), 0.333).tolist() == [-1.0, 0.0, 1.0]


def test_nothing_has_a_gradient() -> None:
    made = NormStatistics()
    values = torch.tensor([10.0, 300.0], requires_grad=True)
    take_in(made, values)
    assert not made.indicator(values, 0.333).requires_grad
    assert not made.mean.requires_grad
    assert not made.std.requires_grad


@pytest.mark.parametrize("begin", [(20.0, 100.0), (0.0, 0.0)])
def test_the_state_is_buffers_that_go_on_where_they_were(begin: tuple[float, float]) -> None:
    """Begun with the data, the number of steps is one of them."""
    first, second = (NormStatistics(0.01, *begin) for _ in range(2))
    assert list(first.state_dict()) == ["mean", "std", *([] if begin[1] else ["steps"])]
    assert list(first.parameters()) == []
    take_in(first, torch.tensor([3.0, 4.5]))
    second.load_state_dict(first.state_dict())
    for made in (first, second):
        take_in(made, torch.tensor([50.0, 60.5]))
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(first.std, second.std)


def test_values_of_another_type_are_read_in_that_of_the_buffers() -> None:
    made = NormStatistics()
    take_in(made, torch.tensor([10.0, 14.0], dtype=torch.bfloat16))
    assert made.mean.dtype == torch.float32
    assert made.mean.item() == pytest.approx(0.99 * 20 + 0.01 * 12)
    assert made.indicator(torch.tensor([1.0], dtype=torch.bfloat16), 0.333).dtype == torch.float32


@given(batch=st.lists(st.floats(0.001, 100), min_size=2, max_size=12), cut=st.integers(0, 12))
@settings(deadline=None)
def test_a_step_in_parts_is_the_step_of_the_whole(batch: list[float], cut: int) -> None:
    """The statistics do not depend on how micro-batches cut a batch, and stand still until its end."""
    whole, parts = NormStatistics().double(), NormStatistics().double()
    take_in(whole, torch.tensor(batch, dtype=torch.float64))
    for part in (batch[:cut], batch[cut:]):
        parts.observe(torch.tensor(part, dtype=torch.float64))
        assert (parts.mean.item(), parts.std.item()) == (20.0, 100.0)
    end_step(torch.nn.ModuleList([parts]))
    torch.testing.assert_close((parts.mean, parts.std), (whole.mean, whole.std), rtol=1e-12, atol=1e-9)
    end_step(parts)  # nothing was observed since
    torch.testing.assert_close((parts.mean, parts.std), (whole.mean, whole.std), rtol=1e-12, atol=1e-9)


def test_norms_that_hardly_differ_have_their_deviation() -> None:
    """Sums of squares lose digits; in float64 enough are left for norms."""
    values = 100 + 1e-2 * torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    made = NormStatistics(momentum=1.0).double()
    take_in(made, values)
    assert made.std.item() == pytest.approx(values.std().item(), rel=1e-6)
