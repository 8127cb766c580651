"""Running mean and deviation of a per-sample number, as AdaFace, QGFace and LGAF use those of the feature norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class NormStatistics(nn.Module):
    """A moving mean and standard deviation, in the unit of the values that are fed in. Both are buffers.

    momentum: the weight of the *new* batch, so mean <- momentum * batch + (1 - momentum) * mean. (AdaFace's
    equation 17 prints "+ (1 - alpha) old" with alpha = 0.99: the new batch has 0.01, as in the public code.)
    The starting values are AdaFace's, for feature norms.
    """

    EPS = 1e-3  # AdaFace's: added to the deviation

    mean: Tensor
    std: Tensor

    def __init__(self, momentum: float = 0.01, mean: float = 20.0, std: float = 100.0) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    @torch.no_grad()
    def update(self, values: Tensor) -> None:
        """Take in one batch, (N,): the values of all ranks, gathered by the caller, so that all ranks agree.

        The deviation is the unbiased one, so a batch of one (or none) changes nothing. Nothing changes in eval
        mode either: the statistics are frozen there.
        """
        if not self.training or values.numel() < 2:
            return
        std, mean = torch.std_mean(values.to(self.mean.dtype), correction=1)
        self.mean.lerp_(mean, self.momentum)
        self.std.lerp_(std, self.momentum)

    @torch.no_grad()
    def indicator(self, values: Tensor, concentration: float) -> Tensor:
        """(B,) -> (B,) in -1..1, a constant: clip((v - mean) / (std + 0.001) * h), AdaFace equation 16.

        `concentration` = h. With 0.333, values within three deviations are not clipped.
        """
        return ((values.to(self.mean.dtype) - self.mean) / (self.std + self.EPS) * concentration).clamp(-1, 1)
