"""How good a feature is, of itself: a scalar for each image, held against what the network has seen so far."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mobileface.statistics import NormStatistics

EPS = 1e-6  # on the deviation; that of an entropy is 0.01 and less
CONCENTRATION = 0.333  # h in equation 6 of LGAF: three deviations are not clipped


def energy(features: Tensor) -> Tensor:
    """(B, D) -> (B,): the norm (LGAF, equations 4 and 5)."""
    return torch.linalg.vector_norm(features, dim=1)


def entropy(features: Tensor) -> Tensor:
    """(B, D) -> (B,), 0 to log D: of the softmax over the absolute components. The paper prints no formula: ours."""
    logs = torch.log_softmax(features.abs(), dim=1)
    return -(logs.exp() * logs).sum(1)


MEASURES: dict[str, Callable[[Tensor], Tensor]] = {"energy": energy, "entropy": entropy}


class FeatureQuality(nn.Module):
    """Features (B, D) -> (B, 1) in 0..2, a constant: clip(h (z - mean) / deviation, -1, 1) + 1 (LGAF, equations 6-8).

    z is the measure, in float32 at least. Mean and deviation are `NormStatistics`, which training moves and eval mode
    freezes: weight 0.01 of the new step, more in the first hundreds, for they begin with the data (before the first,
    all features count alike). The paper leaves the start open: AdaFace's 20 and 100 are for other features and take 500
    steps to wear off. No gradient goes through a quality. Both are ours.
    """

    def __init__(self, measure: str) -> None:
        super().__init__()
        self.measure = measure
        self.statistics = NormStatistics(mean=0.0, std=0.0, eps=EPS)

    @torch.no_grad()
    def forward(self, features: Tensor) -> Tensor:
        """The indicator, plus one; in training the features are also taken into the statistics."""
        precise = features.to(torch.promote_types(features.dtype, torch.float32))
        values = MEASURES[self.measure](precise)
        self.statistics.observe(values)
        return self.statistics.indicator(values, CONCENTRATION)[:, None] + 1
