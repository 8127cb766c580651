"""MagFace and AdaFace, whose margins follow a quality, against their formulas in plain Python."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mobileface.losses.margins import AdaFace, ArcFace, MagFace
from mobileface.statistics import end_step
from tests.losses.margin_cases import doubles, grid, textbook

norms = st.floats(0, 300)

# ---- MagFace


def textbook_magface(theta: float, norm: float) -> float:
    held = min(max(norm, 10.0), 110.0)
    return textbook(theta, 1.0, 0.45 + (0.8 - 0.45) / (110 - 10) * (held - 10), 0.0)


@given(theta=st.floats(0.01, math.pi - 0.01), norm=norms)
@settings(deadline=None)
def test_magface_is_the_textbooks(theta: float, norm: float) -> None:
    found = MagFace()(doubles([math.cos(theta)]), doubles([norm]))
    assert found.item() == pytest.approx(textbook_magface(theta, norm), abs=1e-12)


def test_an_equal_margin_for_all_norms_is_arcface() -> None:
    cosines = grid()
    flat = MagFace(radians_low=0.5, radians_high=0.5)(cosines, torch.linspace(0, 300, 2001).double())
    torch.testing.assert_close(flat, ArcFace()(cosines), atol=1e-12, rtol=0)


def test_magfaces_norm_is_shortened_by_the_margin_and_lengthened_by_the_penalty() -> None:
    margin = MagFace()
    length = doubles([5.0, 11.0, 40.0, 109.0, 200.0]).requires_grad_()
    (by_margin,) = torch.autograd.grad(margin(torch.full_like(length, 0.4), length).sum(), length)
    (by_penalty,) = torch.autograd.grad(margin.penalty(length).sum(), length)
    angle = math.acos(0.4) + 0.45 + 0.0035 * (length.detach() - 10)
    inside = doubles([0, 1, 1, 1, 0])  # held at the bounds, without a gradient there
    torch.testing.assert_close(by_margin, -0.0035 * angle.sin() * inside)
    torch.testing.assert_close(by_penalty, 35 * (1 / 110**2 - 1 / length.detach() ** 2) * inside)
    assert (by_margin[1:4] < 0).all()  # a longer norm, a lower logit, a higher loss
    assert (by_penalty[1:4] < 0).all()  # a longer norm, a lower loss


def test_magfaces_penalty_is_the_papers() -> None:
    length = doubles([3.0, 10.0, 42.0, 110.0, 500.0])
    wanted = [35 * (a / 110**2 + 1 / a) for a in (10.0, 10.0, 42.0, 110.0, 110.0)]
    torch.testing.assert_close(MagFace().penalty(length), doubles(wanted))
    torch.testing.assert_close(MagFace(penalty_weight=7).penalty(length), doubles(wanted) / 5)
    straight = length.clone().requires_grad_()
    penalty = MagFace(gradient="straight_through").penalty(straight)
    (slope,) = torch.autograd.grad(penalty.sum(), straight)
    assert slope[2].item() < 0  # the penalty's gradient stays


# ---- AdaFace


def textbook_adaface(cosine: float, z: float, m: float = 0.4) -> float:
    theta = math.acos(min(max(cosine, -0.999), 0.999))
    return math.cos(min(max(theta - m * z, 0.001), math.pi - 0.001)) - (m * z + m)


def adaface_at(z: float, **options: Any) -> tuple[AdaFace, float]:
    """An AdaFace and the norm whose indicator is z; statistics 20 and 10."""
    made = AdaFace(concentration=1.0, **options).double()
    made.statistics.mean.fill_(20.0)
    made.statistics.std.fill_(10.0)
    return made, 20.0 + z * (10.0 + 0.001)


@given(cosine=st.floats(-1, 1), z=st.floats(-1, 1))
@settings(deadline=None)
def test_adaface_is_the_textbooks(cosine: float, z: float) -> None:
    margin, norm = adaface_at(z)
    found = margin(doubles([cosine]), doubles([norm]))
    assert found.item() == pytest.approx(textbook_adaface(cosine, z), abs=1e-12)


def test_adaface_is_arcface_then_cosface_then_a_negative_angle() -> None:
    """AdaFace section 3.3: the quality indicator at -1, 0, 1."""
    theta = torch.linspace(0.5, math.pi - 0.5, 200, dtype=torch.float64)
    for z, wanted in [
        (-1.0, torch.cos(theta + 0.4)),
        (0.0, torch.cos(theta) - 0.4),
        (1.0, torch.cos(theta - 0.4) - 0.8),
    ]:
        margin, norm = adaface_at(z)
        torch.testing.assert_close(margin(theta.cos(), torch.full_like(theta, norm)), wanted)


def test_adafaces_constants_are_the_public_codes() -> None:
    """Norm 53.0 against mean 20, deviation 100: z = 33 / 100.001 * 0.333; m = 0.4; written out by hand."""
    z = 33.0 / 100.001 * 0.333
    found = AdaFace().double()(doubles([0.3]), doubles([53.0]))
    assert found.item() == pytest.approx(math.cos(math.acos(0.3) - 0.4 * z) - (0.4 * z + 0.4), abs=1e-12)


def test_adaface_holds_norms_to_its_range() -> None:
    margin = AdaFace(concentration=1.0)
    cosines = torch.full((2,), 0.3)
    assert margin(cosines, torch.tensor([100.0, 1e6])).diff().item() == 0
    assert margin(cosines, torch.tensor([0.001, 0.0])).diff().item() == 0
    margin.observe(torch.tensor([0.0, 1e6]))
    end_step(margin)
    assert margin.statistics.mean.item() == pytest.approx(0.99 * 20 + 0.01 * (100 + 0.001) / 2)


@pytest.mark.parametrize("proxy", ["probability", "score"])
def test_adafaces_other_proxies_are_taken_as_they_are(proxy: str) -> None:
    margin = AdaFace(quality=proxy, concentration=1.0).double()
    assert margin.quality == proxy
    for value in (0.0, 0.2, 0.5, 0.9):
        z = (value - 0.5) / 0.251
        found = margin(doubles([0.3]), doubles([value])).item()
        assert found == pytest.approx(textbook_adaface(0.3, min(max(z, -1), 1)), abs=1e-12)
    margin.observe(doubles([0.0, 0.0]))
    end_step(margin)
    assert margin.statistics.mean.item() == pytest.approx(0.99 * 0.5)


def test_adaface_learns_from_observe_alone_and_only_in_training() -> None:
    margin = AdaFace()
    cosines, values = torch.tensor([0.1, 0.2]), torch.tensor([30.0, 50.0])
    before = margin(cosines, values)
    assert torch.equal(margin(cosines, values), before)
    margin.eval().observe(values)
    end_step(margin)
    assert torch.equal(margin(cosines, values), before)
    margin.train().observe(values)
    assert torch.equal(margin(cosines, values), before)  # a step is judged by the steps before it
    end_step(margin)
    after = margin(cosines, values)
    assert margin.statistics.mean.item() == pytest.approx(20.2)
    assert not torch.equal(after, before)
    assert torch.equal(margin.eval()(cosines, values), after)
    copy = AdaFace()
    copy.load_state_dict(margin.state_dict())
    assert torch.equal(copy(cosines, values), after)


@given(z=st.floats(-1, 1))
@settings(deadline=None, max_examples=30)
def test_adaface_never_rises_and_is_flat_only_at_its_clamps(z: float) -> None:
    n = 2001
    margin, norm = adaface_at(z)
    theta = torch.linspace(0, math.pi, n, dtype=torch.float64)
    steps = margin(theta.cos(), torch.full_like(theta, norm)).diff()
    assert (steps <= 1e-12).all()
    assert (steps >= -(math.pi / (n - 1) + 0.05)).all()  # its clamp of the cosine holds angles back by 0.0447
    ends = math.acos(0.999)
    free = (theta > max(ends, 0.4 * z) + 0.002) & (theta < math.pi - max(ends, -0.4 * z) - 0.002)
    assert (steps[free[1:] & free[:-1]] < 0).all()
