"""Gradient scaling terms: how hard each margin pulls at a sample, by its angle to its own class centre.

    g = (P_y - 1) df / dcos(theta)        AdaFace, equation 12; f = s * margin(cos(theta))

Setting of its Fig. 3: two classes. Ours: their centres stand at a right angle, as those of random classes nearly do,
and the embedding turns in their plane from its own centre (0 degrees) past the other one (90) to its own's far side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mobileface.losses.margins import MARGINS, AdaFace, Margin
from mobileface.losses.negatives import Curricular, Negatives, Plain

BETWEEN = math.pi / 2  # radians from one centre to the other
SCALE = 64.0  # the paper's s
STEP = 0.5  # degrees between two points of a curve


@dataclass(frozen=True)
class Curve:
    """One line of a panel: a margin, what stands against it, and the quality that the margin is given."""

    label: str
    margin: Margin
    negatives: Negatives
    quality: float | None = None


def scaling_term(
    margin: Margin,
    angles: Tensor,
    quality: float | None = None,
    negatives: Negatives | None = None,
    scale: float = SCALE,
) -> Tensor:
    """(N,) angles to the own centre, radians -> (N,) g, at most 0: autograd through our own margin.

    g is the gradient of -log P_y by the cosine to the own centre, the cosine to the other one held.
    """
    cosines = torch.cos(angles).requires_grad_()
    logit, other = _logits(margin, cosines, angles, quality, negatives or Plain())
    loss = -F.logsigmoid(scale * (logit - other))
    return torch.autograd.grad(loss.sum(), cosines)[0]


def boundary(
    margin: Margin, angles: Tensor, quality: float | None = None, negatives: Negatives | None = None
) -> float | None:
    """The first of the rising angles, in radians, at which P_y is one half or less; None where there is none."""
    logit, other = _logits(margin, torch.cos(angles), angles, quality, negatives or Plain())
    behind = (logit <= other).nonzero()
    return float(angles[behind[0, 0]]) if len(behind) else None


def _logits(
    margin: Margin, cosines: Tensor, angles: Tensor, quality: float | None, negatives: Negatives
) -> tuple[Tensor, Tensor]:
    """(N,) each, in units of cosine: of the own class with its margin, of the other class."""
    logit = margin(cosines, None if quality is None else torch.full_like(cosines, quality).detach())
    other = negatives(torch.cos(BETWEEN - angles)[:, None], logit.detach()[:, None])
    return logit, other[:, 0]


def panels() -> dict[str, list[Curve]]:
    """The margins of the figure by name, each with its default numbers (AdaFace's statistics: ours, any would do)."""
    return {
        "Softmax": [_curve("no margin", "softmax")],
        "CosFace": [_curve("m = 0.35", "cosface")],
        "ArcFace": [_curve("exact", "arcface"), _curve("straight_through", "arcface", gradient="straight_through")],
        "SphereFace": [_curve("m = 1.35", "sphereface")],
        "Combined": [_curve("1, 0.3, 0.2", "combined")],
        "MagFace": [Curve(f"norm {norm:.0f}", MARGINS["magface"](), Plain(), norm) for norm in (10.0, 60.0, 110.0)],
        "AdaFace": [
            Curve(name, _adaface(), Plain(), norm)
            for name, norm in (("low norm, z = -1", 10.0), ("middle, z = 0", 20.0), ("high norm, z = 1", 30.0))
        ],
        "CurricularFace": [
            Curve(f"{name}, t = {t:g}", MARGINS["arcface"](), _curricular(t))
            for name, t in (("start", 0.0), ("middle", 0.3), ("late", 0.6))
        ],
    }


def _curve(label: str, kind: str, **numbers: Any) -> Curve:
    return Curve(label, MARGINS[kind](**numbers), Plain())


def _adaface() -> AdaFace:
    """AdaFace whose indicator is (norm - 20) / 10."""
    margin = AdaFace(concentration=1.0).double()
    margin.statistics.mean.fill_(20.0)
    margin.statistics.std.fill_(10.0 - margin.statistics.eps)
    return margin


def _curricular(t: float) -> Curricular:
    negatives = Curricular().double()
    negatives.t.fill_(t)
    return negatives


def scaling_terms() -> dict[str, Any]:
    """The curves of all panels as plain numbers: angles in degrees, g, the boundary (where P_y falls to one half), the
    peak (the first angle with 99.9 % of the largest |g|)."""
    degrees = torch.arange(STEP, 180, STEP, dtype=torch.float64)
    named = {name: [_numbers(curve, degrees) for curve in curves] for name, curves in panels().items()}
    return {"scale": SCALE, "degrees": degrees.tolist(), "panels": named}


def _numbers(curve: Curve, degrees: Tensor) -> dict[str, Any]:
    angles = torch.deg2rad(degrees)
    g = scaling_term(curve.margin, angles, curve.quality, curve.negatives)
    at = boundary(curve.margin, angles, curve.quality, curve.negatives)
    peak = int((g <= 0.999 * g.min()).nonzero()[0, 0])
    return {
        "label": curve.label,
        "boundary_degrees": None if at is None else round(math.degrees(at), 1),
        "peak_degrees": float(degrees[peak]),
        "g": [round(value, 4) for value in g.tolist()],
    }
