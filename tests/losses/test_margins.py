"""What every margin keeps: monotone, finite, its gradients those of finite differences, bad numbers refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
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
)
from tests.losses.margin_cases import SHAPES, doubles, grid, make


def quality(margin: Margin, like: Tensor, value: float | None = None) -> Tensor:
    """(B,): one quality for all; where none is named, one that the margin neither clips nor finds average."""
    usual = {"none": math.nan, "norm": 37.0, "probability": 0.7, "score": 0.7}[margin.quality]
    return torch.full_like(like, usual if value is None else value)


def test_the_table_of_margins() -> None:
    wanted = [Softmax, CosFace, ArcFace, Combined, SphereFace, MagFace, AdaFace]
    assert list(MARGINS.values()) == wanted
    assert list(MARGINS) == [cls.__name__.lower() for cls in wanted]
    assert [MARGINS[name]().quality for name in MARGINS] == ["none"] * 5 + ["norm", "norm"]


def test_only_adaface_has_a_state() -> None:
    for name, made in MARGINS.items():
        wanted = ["statistics.mean", "statistics.std"] if name == "adaface" else []
        assert list(made().state_dict()) == wanted
        assert list(made().parameters()) == []


@pytest.mark.parametrize("name", MARGINS)
def test_every_default_is_monotone_in_float32(name: str) -> None:
    margin = MARGINS[name]()
    cosines = grid(dtype=torch.float32)
    for value in (0.0, 12.0, 100.0) if margin.quality == "norm" else (0.0,):
        logits = margin(cosines, quality(margin, cosines, value))
        assert (logits.diff() <= 1e-6).all()
        assert logits[0] - logits[-1] > 1.8


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
