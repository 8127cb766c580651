"""QGFace's partition by quality: which samples a classifier learns, and which pairs are learned by contrast."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mobileface.statistics import NormStatistics

CONCENTRATION = 1 / 3  # c in equation 1; AdaFace's h


class QualityGate(nn.Module):
    """Indicators of quality in 0..1 from norms, and what a threshold b makes of them.

    The indicator is AdaFace's (equation 1: within three deviations it is not clipped), taken from -1..1 to 0..1.
    Mean and deviation are `NormStatistics` over the norms of all views that a term reads; they begin with the data, and
    all steps so far count (ours: AdaFace's 20 and 100 take 400 steps to wear off, in which nothing is poor). The
    paper's b is 0.2.
    threshold None is the row "No" of the paper's Table III: everything counts.
    """

    def __init__(self, threshold: float | None) -> None:
        super().__init__()
        self.threshold = threshold
        self.statistics = NormStatistics(mean=0.0, std=0.0)

    @torch.no_grad()
    def indicators(self, norms: Tensor) -> Tensor:
        """(B,) -> (B,) in 0..1, a constant. In training they are also taken into the statistics."""
        if self.training:
            self.statistics.observe(norms)
        return (self.statistics.indicator(norms, CONCENTRATION) + 1) / 2

    def high(self, indicators: Tensor) -> Tensor:
        """(B,) bool: what the classification learns, above the threshold (equation 3)."""
        return torch.ones_like(indicators, dtype=torch.bool) if self.threshold is None else indicators > self.threshold

    def low(self, query: Tensor, key: Tensor) -> Tensor:
        """(B,) bool: pairs that are learned by contrast, where the lower of both is at most b (equations 2 and 4)."""
        lower = torch.minimum(query, key)
        return torch.ones_like(lower, dtype=torch.bool) if self.threshold is None else lower <= self.threshold
