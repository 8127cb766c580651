"""Gradient scaling terms against the paper's closed forms (equations 13 to 15, the last as errata have it) and against
finite differences of -log P_y, written out in plain Python."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mobileface.losses.margins import MARGINS, AdaFace, Margin
from mobileface.losses.negatives import Curricular, Negatives, Plain
from mobileface.understanding.gradients import SCALE, boundary, panels, scaling_term, scaling_terms

DEGREES = [1.0, 10.0, 20.0, 27.0, 30.0, 33.0, 40.0, 45.0, 60.0, 90.0, 120.0, 150.0, 170.0]
ANGLES = torch.deg2rad(torch.tensor(DEGREES, dtype=torch.float64))


def chance(logit: float, other: float, scale: float) -> float:
    """P_y of two classes."""
    return 1 / (1 + math.exp(min(700.0, scale * (other - logit))))


def closed(f: Callable[[float], float], slope: Callable[[float], float], scale: float = SCALE) -> list[float]:
    """(P_y - 1) s f'(cos) at DEGREES, the other centre at a right angle; `f` and `slope` of the angle."""
    return [
        (chance(f(theta), math.sin(theta), scale) - 1) * scale * slope(theta) for theta in map(math.radians, DEGREES)
    ]


def adaface(z: float) -> tuple[AdaFace, float]:
    """One whose indicator is `z` at the norm that comes with it."""
    margin = AdaFace(concentration=1.0).double()
    margin.statistics.mean.fill_(20.0)
    margin.statistics.std.fill_(10.0)
    return margin, 20.0 + z * (10.0 + 0.001)


def arcface_slope(theta: float, m: float) -> float:
    """d cos(theta + m) / d cos(theta) = cos m + cos(theta) sin(m) / sqrt(1 - cos^2): equation 15 put right."""
    return math.cos(m) + math.cos(theta) * math.sin(m) / math.sqrt(1 - math.cos(theta) ** 2)


def assert_near(found: Tensor, wanted: list[float]) -> None:
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-9, atol=1e-12)


def test_softmax_and_cosface_only_move_the_boundary() -> None:
    assert_near(scaling_term(MARGINS["softmax"](), ANGLES), closed(math.cos, lambda _: 1.0))
    cosface = MARGINS["cosface"](cosine=0.35)
    assert_near(scaling_term(cosface, ANGLES), closed(lambda theta: math.cos(theta) - 0.35, lambda _: 1.0))


def test_arcface_is_equation_15() -> None:
    """Behind theta + m = pi, ours: the slope of the plain cosine, shifted to meet the curve."""

    def f(theta: float) -> float:
        return math.cos(theta + 0.5) if theta + 0.5 <= math.pi else math.cos(theta) - math.cos(math.pi - 0.5) - 1

    def slope(theta: float) -> float:
        return arcface_slope(theta, 0.5) if theta + 0.5 <= math.pi else 1.0

    assert_near(scaling_term(MARGINS["arcface"](radians=0.5), ANGLES), closed(f, slope))
    straight = MARGINS["arcface"](radians=0.5, gradient="straight_through")
    assert_near(scaling_term(straight, ANGLES), closed(f, lambda _: 1.0))


def test_sphereface_and_combined() -> None:
    inside = [i for i, degrees in enumerate(DEGREES) if 1.35 * degrees < 180]
    sphere = closed(lambda t: math.cos(1.35 * t), lambda t: 1.35 * math.sin(1.35 * t) / math.sin(t))
    assert_near(scaling_term(MARGINS["sphereface"](), ANGLES)[inside], [sphere[i] for i in inside])
    combined = closed(lambda t: math.cos(t + 0.3) - 0.2, lambda t: arcface_slope(t, 0.3))
    inside = [i for i, degrees in enumerate(DEGREES) if math.radians(degrees) + 0.3 < math.pi]
    assert_near(scaling_term(MARGINS["combined"](), ANGLES)[inside], [combined[i] for i in inside])


@pytest.mark.parametrize(("norm", "m"), [(10.0, 0.45), (60.0, 0.625), (110.0, 0.8)])
def test_magface_is_arcface_with_a_margin_of_the_norm(norm: float, m: float) -> None:
    wanted = closed(lambda t: math.cos(t + m), lambda t: arcface_slope(t, m))
    inside = [i for i, degrees in enumerate(DEGREES) if math.radians(degrees) + m < math.pi]
    assert_near(scaling_term(MARGINS["magface"](), ANGLES, norm)[inside], [wanted[i] for i in inside])


@pytest.mark.parametrize("z", [-1.0, 0.0, 1.0])
def test_adaface_at_a_low_a_middle_and_a_high_norm(z: float) -> None:
    """cos(theta - m z) - (m z + m); its angle is held inside of 0 and pi, where the slope is 0."""
    margin, norm = adaface(z)
    shift = 0.4 * z

    def slope(theta: float) -> float:
        return arcface_slope(theta, -shift) if 0.001 < theta - shift < math.pi - 0.001 else 0.0

    def f(theta: float) -> float:
        return math.cos(min(max(theta - shift, 0.001), math.pi - 0.001)) - (shift + 0.4)

    found = scaling_term(margin, ANGLES, norm)
    inside = [i for i, theta in enumerate(ANGLES.tolist()) if abs(math.cos(theta)) < 0.999]
    assert_near(found[inside], [closed(f, slope)[i] for i in inside])


@pytest.mark.parametrize("t", [0.0, 0.3, 0.6])
def test_curricular_changes_what_stands_against_it(t: float) -> None:
    negatives = Curricular().double()
    negatives.t.fill_(t)
    wanted = []
    for theta in ANGLES.tolist():
        own = math.cos(theta + 0.5) if theta + 0.5 <= math.pi else math.cos(theta) + math.cos(0.5) - 1
        other = math.sin(theta)
        other = other * (t + other) if other > own else other
        slope = arcface_slope(theta, 0.5) if theta + 0.5 <= math.pi else 1.0
        wanted.append((chance(own, other, SCALE) - 1) * SCALE * slope)
    assert_near(scaling_term(MARGINS["arcface"](), ANGLES, negatives=negatives), wanted)


@given(
    kind=st.sampled_from(sorted(MARGINS)),
    degrees=st.floats(5, 175),
    norm=st.floats(5, 100),
    scale=st.floats(1, 64),
)
def test_every_margin_against_finite_differences(kind: str, degrees: float, norm: float, scale: float) -> None:
    """Of -log P_y by the cosine, with the other class held where it is; kinks of a margin lie between two steps."""
    margin = MARGINS[kind]().double()
    quality = norm if margin.quality == "norm" else None
    theta, step = math.radians(degrees), 1e-6
    found = float(scaling_term(margin, torch.tensor([theta], dtype=torch.float64), quality, scale=scale))
    values = []
    for moved in (-step, step):
        cosine = torch.tensor([math.cos(theta) + moved], dtype=torch.float64)
        logit = float(margin(cosine, None if quality is None else torch.full_like(cosine, quality)))
        values.append(math.log1p(math.exp(scale * (math.sin(theta) - logit))))
    slope = (values[1] - values[0]) / (2 * step)
    one_sided = abs(found - slope) < 1e-4 * max(1.0, abs(slope))
    assert one_sided or near_a_kink(margin, theta, quality, step)


def near_a_kink(margin: Margin, theta: float, quality: float | None, step: float) -> bool:
    """Whether the margin's slope jumps within a few steps."""
    cosines = math.cos(theta) + 4 * step * torch.linspace(-1, 1, 9, dtype=torch.float64)
    cosines.requires_grad_()
    logit = margin(cosines, None if quality is None else torch.full_like(cosines, quality).detach())
    slopes = torch.autograd.grad(logit.sum(), cosines)[0]
    return bool((slopes.max() - slopes.min()) > 1e-3)


def test_boundaries() -> None:
    """Where cos(theta + m) - c = sin(theta): a softmax at 45 degrees, an ArcFace half its margin before that."""
    angles = torch.deg2rad(torch.arange(0.1, 180, 0.1, dtype=torch.float64))
    plain: Negatives = Plain()
    assert boundary(MARGINS["softmax"](), angles) == pytest.approx(math.pi / 4, abs=0.002)
    assert boundary(MARGINS["arcface"](), angles, None, plain) == pytest.approx(math.pi / 4 - 0.25, abs=0.002)
    found = boundary(MARGINS["cosface"](), angles)
    assert found is not None
    assert math.cos(found) - 0.35 == pytest.approx(math.sin(found), abs=0.003)
    assert boundary(MARGINS["softmax"](), angles[:100]) is None


def test_the_figure_holds_every_margin_that_there_is() -> None:
    drawn = {type(curve.margin) for curves in panels().values() for curve in curves}
    assert drawn == set(MARGINS.values())
    numbers = scaling_terms()
    assert len(numbers["degrees"]) == 359
    for curves in numbers["panels"].values():
        assert 1 <= len(curves) <= 3
        for curve in curves:
            assert len(curve["g"]) == 359
            assert max(curve["g"]) <= 0
            assert 0 < curve["boundary_degrees"] < 90


def test_what_the_paper_says_of_the_figure() -> None:
    """Section 3.1: a positive angle peaks at its boundary and falls, a negative one rises; AdaFace has both."""
    panel = scaling_terms()["panels"]
    (exact, straight), (low, middle, high) = panel["ArcFace"], panel["AdaFace"]
    for curve in (exact, low, *panel["MagFace"]):
        g = -np.array(curve["g"])
        assert 0 < curve["peak_degrees"] - curve["boundary_degrees"] < 5
        assert g[2 * 120] < g[2 * 60] < g.max()
    assert max(-np.array(straight["g"])) == pytest.approx(SCALE)
    assert np.all(np.diff(-np.array(high["g"])[2 * 30 : 2 * 150]) > 0)
    assert np.ptp(np.array(middle["g"])[2 * 45 : 2 * 170]) < 1e-3
