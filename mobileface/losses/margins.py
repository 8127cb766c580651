"""Margins: what happens to the cosine of an embedding and its own class centre before the softmax.

A margin is a plain function `margin(cos_target (B,)) -> logit (B,)`, in cosine units (the classifier
multiplies by its scale afterwards), never rising with the angle over [0, pi]. Gradients are exact: autograd
goes through the arccos. `MARGINS` maps a name to a factory that takes the margin's numbers, by keyword.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from mobileface.errors import InputError

Margin = Callable[[Tensor], Tensor]

# arccos has an infinite slope at +-1. Its argument is held this far inside, which bounds the slope by
# 1 / sqrt(2 EPS) = 707 and moves an angle by at most sqrt(2 EPS) = 0.0014 radians.
EPS = 1e-6


def identity_logit(cos_target: Tensor) -> Tensor:
    """(B,) -> (B,): no margin."""
    return cos_target


def cosface_logit(cos_target: Tensor, cosine: float) -> Tensor:
    """(B,) -> (B,): cos(theta) - m, `cosine` = m."""
    return cos_target - cosine


def combined_logit(cos_target: Tensor, factor: float, radians: float, cosine: float) -> Tensor:
    """(B,) -> (B,): cos(m1 theta + m2) - m3 with `factor` = m1, `radians` = m2, `cosine` = m3.

    That is equation 4 of the progressive framework with m3 inside the scale (printed outside, where 0.2 would
    be nothing beside 64).

    Where m1 theta + m2 > pi the cosine would rise again and reward a worse angle. There the logit goes on as
    cos(theta), shifted so that it meets the curve at its lowest point:

        cos(theta) - cos(theta0) - 1 - m3,    theta0 = (pi - m2) / m1

    Continuous, falling over the whole of [0, pi], and of slope 1 in the cosine, so the samples that are most
    wrong are pulled as in plain softmax. (The usual fallback, cos(theta) - m sin(m), jumps at theta0.)
    """
    turn = math.cos((math.pi - radians) / factor)
    theta = torch.arccos(cos_target.clamp(-1 + EPS, 1 - EPS))
    beyond = cos_target - (1 + turn)
    return torch.where(cos_target < turn, beyond, torch.cos(factor * theta + radians)) - cosine


def softmax() -> Margin:
    """Plain normalised softmax."""
    return identity_logit


def cosface(*, cosine: float = 0.35) -> Margin:
    """CosFace: an additive margin in units of cosine, at least 0."""
    return partial(cosface_logit, cosine=_number("cosine", cosine, 0.0))


def arcface(*, radians: float = 0.5) -> Margin:
    """ArcFace, equation 1 of the progressive framework: an additive margin in radians, 0 up to below pi."""
    return combined(factor=1.0, radians=radians, cosine=0.0)


def combined(*, factor: float = 1.0, radians: float = 0.3, cosine: float = 0.2) -> Margin:
    """All three margins at once: angle times `factor` (at least 1), plus `radians`, minus `cosine`.

    The default (1, 0.3, 0.2) is the one of insightface's sample configuration. InputError outside the ranges:
    a smaller factor or a negative angle would not be monotone, or no margin at all.
    """
    return partial(
        combined_logit,
        factor=_number("factor", factor, 1.0),
        radians=_number("radians", radians, 0.0, below=math.pi),
        cosine=_number("cosine", cosine, 0.0),
    )


MARGINS: dict[str, Callable[..., Margin]] = {
    "softmax": softmax,
    "cosface": cosface,
    "arcface": arcface,
    "combined": combined,
}


def _number(name: str, value: float, least: float, below: float = math.inf) -> float:
    if not least <= value < below:  # NaN fails as well
        limit = f" and less than {below:.6g}" if below < math.inf else " and finite"
        raise InputError(f"margin's {name} is {value:g}; wanted at least {least:g}{limit}")
    return float(value)
