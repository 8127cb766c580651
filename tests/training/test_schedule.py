"""Learning rates against closed forms and torch's own scheduler."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mobileface.training.plan_phases import Schedule
from mobileface.training.schedule import learning_rate


def rates(schedule: Schedule, peak: float, total: int, every: int = 1) -> list[float]:
    return [learning_rate(schedule, peak, seen, total) for seen in range(0, total, every)]


def test_constant() -> None:
    assert set(rates(Schedule(kind="constant"), 0.3, 50)) == {0.3}


def test_steps_drop_at_their_milestones() -> None:
    found = rates(Schedule(kind="step", milestones=[10, 30], factor=0.1), 2.0, 40)
    assert found == pytest.approx([2.0] * 10 + [0.2] * 20 + [0.02] * 10)


def test_cosine_is_half_a_wave() -> None:
    found = rates(Schedule(kind="cosine"), 0.5, 100)
    assert found == pytest.approx([0.25 * (1 + math.cos(math.pi * seen / 100)) for seen in range(100)])
    assert learning_rate(Schedule(kind="cosine"), 0.5, 100, 100) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("power", [1.0, 2.0, 0.5])
def test_polynomial(power: float) -> None:
    found = rates(Schedule(kind="polynomial", power=power), 3.0, 10)
    assert found == pytest.approx([3 * ((10 - seen) / 10) ** power for seen in range(10)])


def test_warm_up_rises_in_a_line_and_the_rest_follows_behind_it() -> None:
    schedule = Schedule(kind="cosine", warmup=20)
    found = rates(schedule, 1.0, 120)
    assert found[:20] == pytest.approx([(seen + 1) / 20 for seen in range(20)])
    assert found[20:] == pytest.approx(rates(Schedule(kind="cosine"), 1.0, 100))


def test_milestones_count_from_the_start_of_the_phase_not_from_the_end_of_the_warm_up() -> None:
    found = rates(Schedule(kind="step", milestones=[30], warmup=10), 1.0, 40)
    assert found[9:] == pytest.approx([1.0] * 21 + [0.1] * 10)


@pytest.mark.parametrize(("steps", "peak"), [(10, 0.1), (137, 2e-3), (1000, 1.0)])
def test_one_cycle_is_that_of_torch(steps: int, peak: float) -> None:
    """Torch's cycle ends *at* the last step, ours behind the last image: so each is asked at the same share."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], peak)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps, cycle_momentum=False)
    total = 10**12  # images, so that rounding a share to whole images costs nothing
    top = 0.3 * steps - 1  # torch's step of the highest rate
    for step in range(steps):
        share = 0.3 * step / top if step < top else 0.3 + 0.7 * (step - top) / (steps - 1 - top)
        found = learning_rate(Schedule(kind="one_cycle"), peak, round(share * total), total)
        assert found == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6, abs=peak * 1e-9)
        optimizer.step()
        if step < steps - 1:
            scheduler.step()


KINDS: dict[str, dict[str, Any]] = {
    "constant": {}, "step": {"milestones": [5, 500]}, "cosine": {}, "one_cycle": {}, "polynomial": {"power": 0.7},
}  # fmt: skip


@given(
    st.sampled_from(sorted(KINDS)),
    st.floats(1e-8, 1e3),
    st.integers(0, 2000),
    st.integers(1, 2000),
    st.integers(0, 3000),
)
def test_rates_stay_between_nothing_and_the_peak(kind: str, peak: float, warmup: int, total: int, seen: int) -> None:
    schedule = Schedule(kind=kind, warmup=0 if kind == "one_cycle" else warmup, **KINDS[kind])  # type: ignore[arg-type]
    rate = learning_rate(schedule, peak, seen, total)
    assert 0 <= rate <= peak * (1 + 1e-12)
    if seen < total:  # a step that is taken is never for nothing
        assert rate > 0


@given(st.sampled_from(["step", "cosine", "polynomial", "constant"]), st.integers(0, 200), st.integers(201, 1000))
def test_after_the_warm_up_no_rate_rises(kind: str, warmup: int, total: int) -> None:
    found = rates(Schedule(kind=kind, warmup=warmup, **KINDS[kind]), 1.0, total, 7)  # type: ignore[arg-type]
    top = found.index(max(found))
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
