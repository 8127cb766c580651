"""Margins: what happens to the cosine of an embedding and its own class centre before the softmax.

A margin is a module: `margin(cos_target (B,), quality (B,)) -> logit (B,)`, in units of cosine (the classifier
multiplies by its scale). For each sample's quality it never rises with the angle over [0, pi]. `MARGINS` maps a
name to a class; every class takes its numbers by keyword and raises InputError for one out of range.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mobileface.errors import InputError
from mobileface.statistics import NormStatistics

# arccos has an infinite slope at +-1. Its argument is held this far inside, which bounds the slope by
# 1 / sqrt(2 EPS) = 707 and moves an angle by at most sqrt(2 EPS) = 0.0014 radians.
EPS = 1e-6

GRADIENTS = ("exact", "straight_through")


class Margin(nn.Module):
    """The common part: which gradient the logit has. A subclass gives `logit`.

    gradient: "exact" lets autograd go through the margin, arccos included. "straight_through" keeps the value of
    the margin and the slope of the plain cosine: 1 in the cosine, 0 in the quality. That is what the public
    ArcFace code trains with, whose margin is computed without a graph. Softmax and CosFace have slope 1 anyway.
    """

    quality: str = "none"  # what the classifier hands in: "none", "norm", "probability" or "score"

    def __init__(self, *, gradient: str = "exact") -> None:
        super().__init__()
        if gradient not in GRADIENTS:
            raise InputError(f"{self._name()}'s gradient is {gradient!r}; wanted {' or '.join(GRADIENTS)}")
        self.gradient = gradient

    def forward(self, cos_target: Tensor, quality: Tensor | None = None) -> Tensor:
        """(B,), (B,) -> (B,). A quality that the margin does not use is ignored; InputError where one is missing
        or of another shape."""
        logit = self.logit(cos_target, quality)
        if self.gradient == "straight_through":
            # the same as cos + (logit - cos).detach(), without its rounding
            return logit.detach() + (cos_target - cos_target.detach())
        return logit

    def logit(self, cos_target: Tensor, quality: Tensor | None) -> Tensor:
        """(B,), (B,) -> (B,): the margin's formula, with its exact gradient."""
        raise NotImplementedError

    def penalty(self, norms: Tensor) -> Tensor | None:
        """(B,) lengths of the raw embeddings -> (B,), added to each sample's loss, not scaled; or None."""
        return None

    def observe(self, quality: Tensor) -> None:
        """Take in the quality (N,) of this rank's samples, for the steps to come. Nothing here."""

    def _name(self) -> str:
        return type(self).__name__

    def _needed(self, cos_target: Tensor, quality: Tensor | None) -> Tensor:
        """The quality, where the margin cannot do without; (B, 1) would make (B, B) of the logit."""
        if quality is None or quality.shape != cos_target.shape:
            found = "missing" if quality is None else f"of shape {tuple(quality.shape)}"
            raise InputError(f"{self._name()}'s quality is {found}; wanted {self.quality}, {tuple(cos_target.shape)}")
        return quality

    def _number(self, name: str, value: float, least: float, below: float = math.inf) -> float:
        if not least <= value < below:  # NaN fails as well
            limit = f" and less than {below:.6g}" if below < math.inf else " and finite"
            raise InputError(f"{self._name()}'s {name} is {value:g}; wanted at least {least:g}{limit}")
        return float(value)


def combined_logit(cos_target: Tensor, factor: float, radians: float | Tensor, cosine: float) -> Tensor:
    """(B,) -> (B,): cos(m1 theta + m2) - m3 with `factor` = m1, `radians` = m2 (or one for each sample, (B,)),
    `cosine` = m3.

    That is equation 4 of the progressive framework with m3 inside the scale (printed outside, where 0.2 would
    be nothing beside 64).

    Where m1 theta + m2 > pi the cosine would rise again and reward a worse angle. There the logit goes on as
    cos(theta), shifted so that it meets the curve at its lowest point:

        cos(theta) - cos(theta0) - 1 - m3,    theta0 = (pi - m2) / m1

    Continuous, falling over the whole of [0, pi], and of slope 1 in the cosine, so the samples that are most
    wrong are pulled as in plain softmax. Ours. (The usual fallback, cos(theta) - m sin(m), jumps at theta0.)
    """
    last = (math.pi - radians) / factor
    turn = torch.cos(last) if isinstance(last, Tensor) else math.cos(last)
    theta = torch.arccos(cos_target.clamp(-1 + EPS, 1 - EPS))
    beyond = cos_target - (1 + turn)
    return torch.where(cos_target < turn, beyond, torch.cos(factor * theta + radians)) - cosine


class Softmax(Margin):
    """Plain normalised softmax."""

    def logit(self, cos_target: Tensor, quality: Tensor | None) -> Tensor:
        return cos_target


class CosFace(Margin):
    """cos(theta) - m. `cosine` = m, in units of cosine, at least 0."""

    def __init__(self, *, cosine: float = 0.35, gradient: str = "exact") -> None:
        super().__init__(gradient=gradient)
        self.cosine = self._number("cosine", cosine, 0.0)

    def logit(self, cos_target: Tensor, quality: Tensor | None) -> Tensor:
        return cos_target - self.cosine


class Combined(Margin):
    """All three margins at once: angle times `factor` (at least 1), plus `radians` (0 up to below pi), minus
    `cosine` (at least 0). See `combined_logit`.

    The default (1, 0.3, 0.2) is the one of insightface's sample configuration. A smaller factor or a negative
    angle would not be monotone, or no margin at all.
    """

    def __init__(
        self, *, factor: float = 1.0, radians: float = 0.3, cosine: float = 0.2, gradient: str = "exact"
    ) -> None:
        super().__init__(gradient=gradient)
        self.factor = self._number("factor", factor, 1.0)
        self.radians = self._number("radians", radians, 0.0, below=math.pi)
        self.cosine = self._number("cosine", cosine, 0.0)

    def logit(self, cos_target: Tensor, quality: Tensor | None) -> Tensor:
        return combined_logit(cos_target, self.factor, self.radians, self.cosine)


class ArcFace(Combined):
    """cos(theta + m), equation 1 of the progressive framework: Combined(1, m, 0) with `radians` = m."""

    def __init__(self, *, radians: float = 0.5, gradient: str = "exact") -> None:
        super().__init__(factor=1.0, radians=radians, cosine=0.0, gradient=gradient)


class SphereFace(Combined):
    """cos(m theta): Combined(m, 0, 0) with `factor` = m, a multiplicative angle (AdaFace's equation 2 prints
    cos(theta - m)). The default 1.35 is ours."""

    def __init__(self, *, factor: float = 1.35, gradient: str = "exact") -> None:
        super().__init__(factor=factor, radians=0.0, cosine=0.0, gradient=gradient)


class MagFace(Margin):
    """cos(theta + m(a)) and a penalty lambda g(a), both of the embedding's norm a (Meng et al. 2021).

        m(a) = l_m + (u_m - l_m) (a - l_a) / (u_a - l_a),    g(a) = a / u_a^2 + 1 / a

    norm_low, norm_high = l_a, u_a; radians_low, radians_high = l_m, u_m; penalty_weight = lambda. The numbers are
    the paper's. Gradients reach the norm through both: the margin wants it short, the penalty long. As in the
    public code a norm outside [l_a, u_a] counts as the nearest bound and has no gradient: embeddings that are all
    shorter than l_a stay so. With `straight_through` only the penalty moves the norm. Beyond theta + m(a) = pi
    the logit goes on as that of ArcFace here.
    """

    quality = "norm"

    def __init__(
        self,
        *,
        norm_low: float = 10.0,
        norm_high: float = 110.0,
        radians_low: float = 0.45,
        radians_high: float = 0.8,
        penalty_weight: float = 35.0,
        gradient: str = "exact",
    ) -> None:
        super().__init__(gradient=gradient)
        self.norm_low = self._number("norm_low", norm_low, 0.0)
        self.norm_high = self._number("norm_high", norm_high, 0.0)
        if not 0 < self.norm_low < self.norm_high:
            raise InputError(f"MagFace's norms are {norm_low:g} to {norm_high:g}; wanted above 0 and rising")
        self.radians_low = self._number("radians_low", radians_low, 0.0, below=math.pi)
        self.radians_high = self._number("radians_high", radians_high, self.radians_low, below=math.pi)
        self.penalty_weight = self._number("penalty_weight", penalty_weight, 0.0)

    def logit(self, cos_target: Tensor, quality: Tensor | None) -> Tensor:
        norms = self._needed(cos_target, quality).clamp(self.norm_low, self.norm_high)
        rise = (self.radians_high - self.radians_low) / (self.norm_high - self.norm_low)
        return combined_logit(cos_target, 1.0, self.radians_low + rise * (norms - self.norm_low), 0.0)

    def penalty(self, norms: Tensor) -> Tensor:
        """(B,) -> (B,): lambda g(a), lowest at u_a."""
        norms = norms.clamp(self.norm_low, self.norm_high)
        return self.penalty_weight * (norms / self.norm_high**2 + 1 / norms)


# A proxy of the quality -> mean and deviation to start from. The norm's are AdaFace's; the others, ours, are the
# middle of 0..1 and half of the way to its ends.
QUALITIES = {"norm": (20.0, 100.0), "probability": (0.5, 0.25), "score": (0.5, 0.25)}


class AdaFace(Margin):
    """cos(theta - m z) - (m z + m) with z in -1..1, the sample's quality against its running statistics.

    Equations 16 to 19 of AdaFace, as its public code has them (the print loses the minus sign and the brackets).
    z = -1 is ArcFace, 0 is CosFace, 1 a negative angle with a shift. `margin` = m, used as radians and as cosine;
    `concentration` = h. Both defaults are the paper's. z is a constant: no gradient reaches the quality.

    quality: "norm" of the embedding, held to 0.001..100; "probability" of the own class or "score" of the data
    set, both in 0..1 and taken as they are (ours). Statistics: see `NormStatistics`; `observe` feeds them, in
    training mode only, and `forward` reads them.

    Its own clamps, not EPS: cos is held to +-(1 - 0.001), then theta - m z to [0.001, pi - 0.001]. So the logit
    does not rise with the angle, but it is flat, and of exact gradient 0, where a clamp holds: at cos beyond
    0.999, at theta < m z for a good image and at theta > pi - m |z| for a bad one. The cosines of the other classes are
    not clamped here: ours, the public code moves them by up to 0.001.
    """

    EPS = 1e-3
    NORMS = (0.001, 100.0)

    def __init__(
        self,
        *,
        margin: float = 0.4,
        concentration: float = 0.333,
        quality: str = "norm",
        gradient: str = "exact",
    ) -> None:
        super().__init__(gradient=gradient)
        if quality not in QUALITIES:
            raise InputError(f"AdaFace's quality is {quality!r}; wanted one of {', '.join(QUALITIES)}")
        self.quality = quality
        self.margin = self._number("margin", margin, 0.0, below=math.pi)
        self.concentration = self._number("concentration", concentration, 0.0)
        mean, std = QUALITIES[quality]
        self.statistics = NormStatistics(mean=mean, std=std)

    def logit(self, cos_target: Tensor, quality: Tensor | None) -> Tensor:
        values = self._held(self._needed(cos_target, quality))
        shift = self.margin * self.statistics.indicator(values, self.concentration)
        theta = torch.arccos(cos_target.clamp(-1 + self.EPS, 1 - self.EPS))
        return torch.cos((theta - shift).clamp(self.EPS, math.pi - self.EPS)) - (shift + self.margin)

    def observe(self, quality: Tensor) -> None:
        """Feed the statistics with the quality (N,) of this rank's samples."""
        self.statistics.observe(self._held(quality))

    def _held(self, quality: Tensor) -> Tensor:
        return quality.clamp(*self.NORMS) if self.quality == "norm" else quality


MARGINS: dict[str, type[Margin]] = {
    "softmax": Softmax,
    "cosface": CosFace,
    "arcface": ArcFace,
    "combined": Combined,
    "sphereface": SphereFace,
    "magface": MagFace,
    "adaface": AdaFace,
}
