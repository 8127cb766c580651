"""Margins of angle and cosine against the textbook's formula, the papers' and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mobileface.losses.margins import ArcFace, CosFace, Softmax, SphereFace, combined_logit
from tests.losses.margin_cases import SHAPES, Shape, doubles, grid, make, textbook

shapes = st.tuples(st.floats(1, 4), st.floats(0, 3.1), st.floats(0, 1))


@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_the_textbooks(shape: Shape) -> None:
    angles = torch.linspace(0.01, math.pi - 0.01, 400, dtype=torch.float64)
    torch.testing.assert_close(make(shape)(angles.cos()), doubles([textbook(float(a), *shape) for a in angles]))


def test_single_margins_are_the_papers() -> None:
    theta = torch.linspace(0.01, math.pi - 0.6, 200, dtype=torch.float64)
    torch.testing.assert_close(ArcFace(radians=0.5)(theta.cos()), torch.cos(theta + 0.5))
    torch.testing.assert_close(CosFace(cosine=0.35)(theta.cos()), torch.cos(theta) - 0.35)
    torch.testing.assert_close(Softmax()(theta.cos()), torch.cos(theta))
    theta = torch.linspace(0.01, math.pi / 1.35, 200, dtype=torch.float64)
    torch.testing.assert_close(SphereFace()(theta.cos()), torch.cos(1.35 * theta))


def test_no_margin_is_softmax_and_a_part_alone_is_that_part() -> None:
    cosines = grid()
    torch.testing.assert_close(ArcFace(radians=0.0)(cosines), cosines, atol=2e-6, rtol=0)
    torch.testing.assert_close(CosFace(cosine=0.0)(cosines), cosines, atol=0, rtol=0)
    torch.testing.assert_close(make((1, 0.5, 0))(cosines), ArcFace(radians=0.5)(cosines), atol=0, rtol=0)
    torch.testing.assert_close(make((1.35, 0, 0))(cosines), SphereFace()(cosines), atol=0, rtol=0)
    torch.testing.assert_close(make((1, 0, 0.2))(cosines), CosFace(cosine=0.2)(cosines), atol=2e-6, rtol=0)


def test_combined_applies_all_three_together() -> None:
    cosines = torch.tensor([0.6, 0.2, -0.3])
    assert ((make((1, 0.3, 0.2))(cosines) - CosFace(cosine=0.2)(cosines)).abs() > 0.1).all()
    assert ((make((1, 0.3, 0.2))(cosines) - ArcFace(radians=0.3)(cosines)).abs() > 0.1).all()
    assert ((make((1.1, 0.3, 0.2))(cosines) - make((1, 0.3, 0.2))(cosines)).abs() > 0.01).all()


def test_radians_for_each_sample_are_those_of_one_number() -> None:
    cosines = grid(100)
    radians = torch.linspace(0, 3, 100, dtype=torch.float64)
    single = [combined_logit(c[None], 1.2, float(r), 0.1) for c, r in zip(cosines, radians, strict=True)]
    torch.testing.assert_close(combined_logit(cosines, 1.2, radians, 0.1), torch.cat(single))


@given(shape=shapes)
@settings(deadline=None)
def test_monotone_and_without_a_jump(shape: Shape) -> None:
    n = 2001
    steps = make(shape)(grid(n)).diff()
    assert (steps <= 1e-9).all()
    # cos(m1 theta + m2) is Lipschitz with m1 >= 1; EPS holds angles back by sqrt(2 EPS) at either end
    assert (steps >= -shape[0] * (math.pi / (n - 1) + 0.0015)).all()


def test_below_the_turn_the_pull_is_softmaxs() -> None:
    cosines = torch.tensor([-0.9, -0.95, -1.0], requires_grad=True)  # ArcFace 0.5 turns at -0.878
    (slope,) = torch.autograd.grad(ArcFace(radians=0.5)(cosines).sum(), cosines)
    assert slope.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_of_finite_differences(shape: Shape) -> None:
    margin = make(shape)
    cosines = torch.linspace(-0.99, 0.99, 41, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(margin(cosines).sum(), cosines)
    h = 1e-6
    with torch.no_grad():
        expected = (margin(cosines + h) - margin(cosines - h)) / (2 * h)
    torch.testing.assert_close(slope, expected, atol=1e-6, rtol=1e-6)
    assert (slope >= 0).all()


def test_arcfaces_slope_is_the_mended_equation_15() -> None:
    """AdaFace equation 15 with its brackets and root (errata 3): cos m + cos(theta) sin m / sqrt(1 - cos^2)."""
    cosines = torch.linspace(-0.85, 0.99, 50, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(ArcFace()(cosines).sum(), cosines)
    cos = cosines.detach()
    torch.testing.assert_close(slope, math.cos(0.5) + cos * math.sin(0.5) / (1 - cos**2).sqrt())
