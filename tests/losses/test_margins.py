"""Margins against their textbook formulas, finite differences, and the shape that a margin must have."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mobileface.errors import InputError
from mobileface.losses.margins import MARGINS, Margin, arcface, combined, cosface, softmax

SHAPES = [  # factor (m1), radians (m2), cosine (m3)
    (1.0, 0.0, 0.0),
    (1.0, 0.5, 0.0),
    (1.0, 0.0, 0.35),
    (1.0, 0.3, 0.2),
    (1.35, 0.0, 0.0),
    (1.35, 0.4, 0.1),
    (3.0, 0.0, 0.0),
    (1.0, 3.0, 0.0),
]
shapes = st.tuples(st.floats(1, 4), st.floats(0, 3.1), st.floats(0, 1))


def make(shape: tuple[float, float, float]) -> Margin:
    return combined(factor=shape[0], radians=shape[1], cosine=shape[2])


def textbook(theta: float, factor: float, radians: float, cosine: float) -> float:
    """cos(m1 theta + m2) - m3 up to the turn, the shifted cosine after it; one angle, plain Python."""
    if factor * theta + radians <= math.pi:
        return math.cos(factor * theta + radians) - cosine
    return math.cos(theta) - math.cos((math.pi - radians) / factor) - 1 - cosine


def grid(n: int = 2001, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.linspace(0, math.pi, n, dtype=torch.float64).cos().to(dtype)


def test_the_table_of_margins() -> None:
    assert list(MARGINS) == ["softmax", "cosface", "arcface", "combined"]


@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_the_textbooks(shape: tuple[float, float, float]) -> None:
    angles = torch.linspace(0.01, math.pi - 0.01, 400, dtype=torch.float64)
    expected = [textbook(float(a), *shape) for a in angles]
    torch.testing.assert_close(make(shape)(angles.cos()), torch.tensor(expected, dtype=torch.float64))


def test_single_margins_are_the_papers() -> None:
    theta = torch.linspace(0.01, math.pi - 0.6, 200, dtype=torch.float64)
    torch.testing.assert_close(arcface(radians=0.5)(theta.cos()), torch.cos(theta + 0.5))
    torch.testing.assert_close(cosface(cosine=0.35)(theta.cos()), torch.cos(theta) - 0.35)
    torch.testing.assert_close(softmax()(theta.cos()), torch.cos(theta))


def test_no_margin_is_softmax_and_a_part_alone_is_that_part() -> None:
    cosines = grid()
    torch.testing.assert_close(arcface(radians=0.0)(cosines), cosines, atol=2e-6, rtol=0)
    torch.testing.assert_close(cosface(cosine=0.0)(cosines), cosines, atol=0, rtol=0)
    torch.testing.assert_close(make((1, 0.5, 0))(cosines), arcface(radians=0.5)(cosines), atol=0, rtol=0)
    torch.testing.assert_close(make((1, 0, 0.2))(cosines), cosface(cosine=0.2)(cosines), atol=2e-6, rtol=0)


def test_combined_applies_all_three_together() -> None:
    cosines = torch.tensor([0.6, 0.2, -0.3])
    assert ((make((1, 0.3, 0.2))(cosines) - cosface(cosine=0.2)(cosines)).abs() > 0.1).all()
    assert ((make((1, 0.3, 0.2))(cosines) - arcface(radians=0.3)(cosines)).abs() > 0.1).all()
    assert ((make((1.1, 0.3, 0.2))(cosines) - make((1, 0.3, 0.2))(cosines)).abs() > 0.01).all()


@pytest.mark.parametrize("name", MARGINS)
def test_every_default_is_monotone_in_float32(name: str) -> None:
    logits = MARGINS[name]()(grid(dtype=torch.float32))
    assert (logits.diff() <= 1e-6).all()
    assert logits[0] - logits[-1] > 1.8


@given(shape=shapes)
@settings(deadline=None)
def test_monotone_and_without_a_jump(shape: tuple[float, float, float]) -> None:
    n = 2001
    steps = make(shape)(grid(n)).diff()
    assert (steps <= 1e-9).all()
    # cos(m1 theta + m2) is Lipschitz with m1 >= 1; EPS holds angles back by sqrt(2 EPS) at either end
    assert (steps >= -shape[0] * (math.pi / (n - 1) + 0.0015)).all()


def test_below_the_turn_the_pull_is_softmaxs() -> None:
    cosines = torch.tensor([-0.9, -0.95, -1.0], requires_grad=True)  # ArcFace 0.5 turns at -0.878
    (slope,) = torch.autograd.grad(arcface(radians=0.5)(cosines).sum(), cosines)
    assert slope.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_of_finite_differences(shape: tuple[float, float, float]) -> None:
    margin = make(shape)
    cosines = torch.linspace(-0.99, 0.99, 41, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(margin(cosines).sum(), cosines)
    h = 1e-6
    with torch.no_grad():
        expected = (margin(cosines + h) - margin(cosines - h)) / (2 * h)
    torch.testing.assert_close(slope, expected, atol=1e-6, rtol=1e-6)
    assert (slope >= 0).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ends_are_finite(shape: tuple[float, float, float], dtype: torch.dtype) -> None:
    ends = [
        1.0,
        -1.0,
        1 + 1e-6,
        -1 - 1e-6,
        1 - 1e-8,
        -1 + 1e-8,
        1 - 1e-6,
        -1 + 1e-6,
    ]  # rounding leaves [-1, 1]
    cosines = torch.tensor(ends, dtype=dtype, requires_grad=True)
    logits = make(shape)(cosines)
    (slope,) = torch.autograd.grad(logits.sum(), cosines)
    assert logits.isfinite().all()
    assert slope.isfinite().all()
    assert slope.abs().max() <= 4 * 708


@pytest.mark.parametrize(
    ("make_it", "text"),
    [
        (lambda: combined(factor=0.9), "margin's factor is 0.9; wanted at least 1 and finite"),
        (lambda: arcface(radians=-0.1), "margin's radians is -0.1; wanted at least 0 and less than 3.14159"),
        (lambda: arcface(radians=28.6), "margin's radians is 28.6; wanted at least 0 and less than 3.14159"),
        (lambda: cosface(cosine=-0.35), "margin's cosine is -0.35; wanted at least 0 and finite"),
        (lambda: cosface(cosine=math.nan), "margin's cosine is nan; wanted at least 0 and finite"),
        (lambda: combined(factor=math.inf), "margin's factor is inf; wanted at least 1 and finite"),
    ],
)
def test_numbers_out_of_range_are_named(make_it: object, text: str) -> None:
    assert callable(make_it)
    with pytest.raises(InputError) as caught:
        make_it()
    assert str(caught.value) == text
