"""Margins against their textbook formulas in plain Python, finite differences, and the shape a margin must have."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mobileface.errors import InputError
from mobileface.losses.margins import (
    MARGINS,
    AdaFace,
    ArcFace,
    Combined,
    CosFace,
    MagFace,
    Margin,
    Softmax,
    SphereFace,
    combined_logit,
)
from mobileface.statistics import end_step

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
Shape = tuple[float, float, float]
shapes = st.tuples(st.floats(1, 4), st.floats(0, 3.1), st.floats(0, 1))
norms = st.floats(0, 300)


def make(shape: Shape, **options: Any) -> Combined:
    return Combined(factor=shape[0], radians=shape[1], cosine=shape[2], **options)


def textbook(theta: float, factor: float, radians: float, cosine: float) -> float:
    """cos(m1 theta + m2) - m3 up to the turn, the shifted cosine after it; one angle, plain Python."""
    if factor * theta + radians <= math.pi:
        return math.cos(factor * theta + radians) - cosine
    return math.cos(theta) - math.cos((math.pi - radians) / factor) - 1 - cosine


def textbook_magface(theta: float, norm: float) -> float:
    held = min(max(norm, 10.0), 110.0)
    return textbook(theta, 1.0, 0.45 + (0.8 - 0.45) / (110 - 10) * (held - 10), 0.0)


def textbook_adaface(cosine: float, z: float, m: float = 0.4) -> float:
    theta = math.acos(min(max(cosine, -0.999), 0.999))
    return math.cos(min(max(theta - m * z, 0.001), math.pi - 0.001)) - (m * z + m)


def doubles(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def grid(n: int = 2001, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.linspace(0, math.pi, n, dtype=torch.float64).cos().to(dtype)


def quality(margin: Margin, like: Tensor, value: float | None = None) -> Tensor:
    """(B,): one quality for all; where none is named, one that the margin neither clips nor finds average."""
    usual = {"none": math.nan, "norm": 37.0, "probability": 0.7, "score": 0.7}[margin.quality]
    return torch.full_like(like, usual if value is None else value)


def adaface_at(z: float, **options: Any) -> tuple[AdaFace, float]:
    """An AdaFace and the norm whose indicator is z; statistics 20 and 10."""
    made = AdaFace(concentration=1.0, **options).double()
    made.statistics.mean.fill_(20.0)
    made.statistics.std.fill_(10.0)
    return made, 20.0 + z * (10.0 + 0.001)


def test_the_table_of_margins() -> None:
    wanted = [Softmax, CosFace, ArcFace, Combined, SphereFace, MagFace, AdaFace]
    assert list(MARGINS.values()) == wanted
    assert list(MARGINS) == [cls.__name__.lower() for cls in wanted]
    assert [MARGINS[name]().quality for name in MARGINS] == ["none"] * 5 + ["norm", "norm"]


@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_the_textbooks(shape: Shape) -> None:
    angles = torch.linspace(0.01, math.pi - 0.01, 400, dtype=torch.float64)
    torch.testing.assert_close(make(shape)(angles.cos()), doubles([textbook(float(a), *shape) for a in angles]))


@given(theta=st.floats(0.01, math.pi - 0.01), norm=norms)
@settings(deadline=None)
def test_magface_is_the_textbooks(theta: float, norm: float) -> None:
    found = MagFace()(doubles([math.cos(theta)]), doubles([norm]))
    assert found.item() == pytest.approx(textbook_magface(theta, norm), abs=1e-12)


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


def test_only_adaface_has_a_state() -> None:
    for name, made in MARGINS.items():
        wanted = ["statistics.mean", "statistics.std"] if name == "adaface" else []
        assert list(made().state_dict()) == wanted
        assert list(made().parameters()) == []


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


def test_an_equal_margin_for_all_norms_is_arcface() -> None:
    cosines = grid()
    flat = MagFace(radians_low=0.5, radians_high=0.5)(cosines, torch.linspace(0, 300, 2001).double())
    torch.testing.assert_close(flat, ArcFace()(cosines), atol=1e-12, rtol=0)


def test_combined_applies_all_three_together() -> None:
    cosines = torch.tensor([0.6, 0.2, -0.3])
    assert ((make((1, 0.3, 0.2))(cosines) - CosFace(cosine=0.2)(cosines)).abs() > 0.1).all()
    assert ((make((1, 0.3, 0.2))(cosines) - ArcFace(radians=0.3)(cosines)).abs() > 0.1).all()
    assert ((make((1.1, 0.3, 0.2))(cosines) - make((1, 0.3, 0.2))(cosines)).abs() > 0.01).all()


@pytest.mark.parametrize("name", MARGINS)
def test_every_default_is_monotone_in_float32(name: str) -> None:
    margin = MARGINS[name]()
    cosines = grid(dtype=torch.float32)
    for value in (0.0, 12.0, 100.0) if margin.quality == "norm" else (0.0,):
        logits = margin(cosines, quality(margin, cosines, value))
        assert (logits.diff() <= 1e-6).all()
        assert logits[0] - logits[-1] > 1.8


@given(shape=shapes)
@settings(deadline=None)
def test_monotone_and_without_a_jump(shape: Shape) -> None:
    n = 2001
    steps = make(shape)(grid(n)).diff()
    assert (steps <= 1e-9).all()
    # cos(m1 theta + m2) is Lipschitz with m1 >= 1; EPS holds angles back by sqrt(2 EPS) at either end
    assert (steps >= -shape[0] * (math.pi / (n - 1) + 0.0015)).all()


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


def test_below_the_turn_the_pull_is_softmaxs() -> None:
    cosines = torch.tensor([-0.9, -0.95, -1.0], requires_grad=True)  # ArcFace 0.5 turns at -0.878
    (slope,) = torch.autograd.grad(ArcFace(radians=0.5)(cosines).sum(), cosines)
    assert slope.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("name", MARGINS)
def test_straight_through_has_the_value_of_the_margin(name: str) -> None:
    for dtype in (torch.float32, torch.float64):
        exact, straight = MARGINS[name]().to(dtype), MARGINS[name](gradient="straight_through").to(dtype)
        cosines = grid(501, dtype)
        given_quality = quality(exact, cosines)
        assert torch.equal(exact(cosines, given_quality), straight(cosines, given_quality))


@pytest.mark.parametrize("name", MARGINS)
def test_straight_through_has_the_slope_of_the_plain_cosine(name: str) -> None:
    """Errata 4: the public code's margin has no gradient; neither to the cosine nor to the norm."""
    margin = MARGINS[name](gradient="straight_through")
    cosines = grid(501, torch.float32).requires_grad_()
    values = quality(margin, cosines.detach()).requires_grad_()
    logits = margin(cosines, values)
    slope, other = torch.autograd.grad(logits.sum(), [cosines, values], allow_unused=True)
    assert torch.equal(slope, torch.ones_like(slope))
    assert other is None or (other == 0).all()
    if name != "softmax":
        assert (logits != cosines).any()


@pytest.mark.parametrize("name", MARGINS)
def test_gradcheck(name: str) -> None:
    margin = MARGINS[name]().double()
    # on either side of every turn, none within 0.02 of one
    cosines = doubles([-0.97, -0.95, -0.75, -0.4, 0.0, 0.3, 0.7, 0.95, 0.985]).requires_grad_()
    norm = doubles([11.0, 90.0, 14.0, 50.0, 105.0, 20.0, 30.0, 109.0, 60.0]).requires_grad_(name == "magface")
    assert torch.autograd.gradcheck(lambda c, q: margin(c, q), (cosines, norm))


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


@pytest.mark.parametrize("name", [name for name in MARGINS if name != "magface"])
def test_no_other_has_a_penalty_or_a_gradient_to_its_quality(name: str) -> None:
    margin = MARGINS[name]()
    cosines = torch.tensor([0.3, 0.1], requires_grad=True)
    values = quality(margin, cosines.detach()).requires_grad_()
    assert margin.penalty(values) is None
    (slope,) = torch.autograd.grad(margin(cosines, values).sum(), values, allow_unused=True)
    assert slope is None


@pytest.mark.parametrize("name", ["softmax", "cosface", "arcface", "combined", "sphereface"])
def test_an_unused_quality_is_ignored(name: str) -> None:
    margin, cosines = MARGINS[name](), grid(50)
    margin.observe(torch.tensor([math.nan]))
    assert torch.equal(margin(cosines, torch.full((50,), math.nan)), margin(cosines))


@pytest.mark.parametrize("name", MARGINS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ends_are_finite(name: str, dtype: torch.dtype) -> None:
    # rounding leaves [-1, 1]
    ends = [1.0, -1.0, 1 + 1e-6, -1 - 1e-6, 1 - 1e-8, -1 + 1e-8, 1 - 1e-6, -1 + 1e-6]
    everything = [MARGINS[name]()] + ([make(shape) for shape in SHAPES] if name == "combined" else [])
    for margin in everything:
        for value in (0.0, 1e-30, 20.0, 1e6) if margin.quality == "norm" else (0.0,):
            cosines = torch.tensor(ends, dtype=dtype, requires_grad=True)
            values = quality(margin, cosines.detach(), value).requires_grad_()
            logits = margin(cosines, values)
            slopes = torch.autograd.grad(logits.sum(), [cosines, values], allow_unused=True)
            assert logits.isfinite().all()
            assert logits.dtype == dtype
            assert slopes[0].abs().max() <= 4 * 708
            assert slopes[1] is None or slopes[1].isfinite().all()


@pytest.mark.parametrize("name", MARGINS)
def test_nan_is_not_hidden(name: str) -> None:
    margin = MARGINS[name]()
    logits = margin(torch.tensor([math.nan, 0.5]), torch.tensor([20.0, 20.0]))
    assert logits.isnan().tolist() == [True, False]
    if margin.quality == "norm":
        assert margin(torch.tensor([0.5]), torch.tensor([math.nan])).isnan().all()


def test_radians_for_each_sample_are_those_of_one_number() -> None:
    cosines = grid(100)
    radians = torch.linspace(0, 3, 100, dtype=torch.float64)
    single = [combined_logit(c[None], 1.2, float(r), 0.1) for c, r in zip(cosines, radians, strict=True)]
    torch.testing.assert_close(combined_logit(cosines, 1.2, radians, 0.1), torch.cat(single))


@pytest.mark.parametrize(
    ("make_it", "text"),
    [
        (lambda: Combined(factor=0.9), "Combined's factor is 0.9; wanted at least 1 and finite"),
        (lambda: SphereFace(factor=0.5), "SphereFace's factor is 0.5; wanted at least 1 and finite"),
        (lambda: ArcFace(radians=-0.1), "ArcFace's radians is -0.1; wanted at least 0 and less than 3.14159"),
        (lambda: ArcFace(radians=28.6), "ArcFace's radians is 28.6; wanted at least 0 and less than 3.14159"),
        (lambda: CosFace(cosine=-0.35), "CosFace's cosine is -0.35; wanted at least 0 and finite"),
        (lambda: CosFace(cosine=math.nan), "CosFace's cosine is nan; wanted at least 0 and finite"),
        (lambda: Combined(factor=math.inf), "Combined's factor is inf; wanted at least 1 and finite"),
        (lambda: Softmax(gradient="none"), "Softmax's gradient is 'none'; wanted exact or straight_through"),
        (lambda: MagFace(norm_low=0), "MagFace's norms are 0 to 110; wanted above 0 and rising"),
        (lambda: MagFace(norm_high=10), "MagFace's norms are 10 to 10; wanted above 0 and rising"),
        (lambda: MagFace(norm_high=math.inf), "MagFace's norm_high is inf; wanted at least 0 and finite"),
        (
            lambda: MagFace(radians_high=0.4),
            "MagFace's radians_high is 0.4; wanted at least 0.45 and less than 3.14159",
        ),
        (lambda: MagFace(penalty_weight=-1), "MagFace's penalty_weight is -1; wanted at least 0 and finite"),
        (lambda: AdaFace(margin=-0.4), "AdaFace's margin is -0.4; wanted at least 0 and less than 3.14159"),
        (lambda: AdaFace(concentration=-1), "AdaFace's concentration is -1; wanted at least 0 and finite"),
        (lambda: AdaFace(quality="x"), "AdaFace's quality is 'x'; wanted one of norm, probability, score"),
        (lambda: AdaFace()(torch.ones(2)), "AdaFace's quality is missing; wanted norm, (2,)"),
        (lambda: MagFace()(torch.ones(2), torch.ones(2, 1)), "MagFace's quality is of shape (2, 1); wanted norm, (2,)"),
    ],
)
def test_bad_input_is_named(make_it: Callable[[], object], text: str) -> None:
    with pytest.raises(InputError) as caught:
        make_it()
    assert str(caught.value) == text


@pytest.mark.parametrize("name", MARGINS)
def test_numbers_go_by_keyword_alone(name: str) -> None:
    with pytest.raises(TypeError, match="positional"):
        MARGINS[name](0.5)  # type: ignore[misc]
