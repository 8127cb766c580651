"""Running statistics that move once a training step: of feature norms (AdaFace, QGFace, LGAF), of cosines (Curricular).

In a step they are what the steps before have made them. The step's own samples, of all its micro-batches and of all
ranks, are added up by `observe` and taken in by `end_step`, which the training loop calls behind the optimizer. So
they do not depend on how a batch is cut. (The public codes take a batch in before they use it: one step earlier.)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mobileface.distributed import sum_over_ranks


class Stepped(nn.Module):
    """A module with a state that moves once a training step, not once a forward."""

    def end_step(self) -> None:
        """The step is over. Under several ranks all must call it at the same time."""
        raise NotImplementedError


def end_step(*modules: nn.Module) -> None:
    """Every `Stepped` module inside moves on by one training step."""
    for module in modules:
        for part in module.modules():
            if isinstance(part, Stepped):
                part.end_step()


class Sums(nn.Module):
    """Count, sum and sum of squares of the numbers of a step so far, on this rank; no part of the state dict."""

    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(3, dtype=torch.float64), persistent=False)

    @torch.no_grad()
    def add(self, values: Tensor) -> None:
        """Take in (N,) numbers of this rank. Nothing changes in eval mode."""
        if self.training:
            numbers = values.to(self.sums.dtype)
            self.sums += torch.stack([torch.ones_like(numbers).sum(), numbers.sum(), numbers.square().sum()])

    @torch.no_grad()
    def take(self) -> tuple[Tensor, Tensor, Tensor]:
        """(count, mean, unbiased deviation) over all ranks, and from zero again. Without numbers: zeros."""
        count, total, squares = sum_over_ranks(self.sums.clone()).unbind()
        self.sums.zero_()
        mean = total / count.clamp(min=1)
        variance = (squares - count * mean.square()) / (count - 1).clamp(min=1)
        return count, mean, variance.clamp(min=0).sqrt()


class NormStatistics(Stepped):
    """A moving mean and standard deviation, in the unit of the values that are fed in. Both are buffers.

    momentum: the weight of the *new* step, so mean <- momentum * step + (1 - momentum) * mean. (AdaFace's
    equation 17 prints "+ (1 - alpha) old" with alpha = 0.99: the new batch has 0.01, as in the public code.)
    eps is added to the deviation. All defaults are AdaFace's, for feature norms.

    std = 0: they begin with the data. Step t then has the weight (1 - b) / (1 - b^t), b = 1 - momentum: Adam's bias
    correction (Kingma and Ba 2015, section 3), so the first step counts whole and all so far as a moving mean weighs
    them. t counts the steps taken in, and is a buffer there.
    """

    mean: Tensor
    std: Tensor
    steps: Tensor | None

    def __init__(self, momentum: float = 0.01, mean: float = 20.0, std: float = 100.0, eps: float = 1e-3) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))
        self.register_buffer("steps", None if std else torch.zeros((), dtype=torch.int64))
        self.step = Sums()

    def observe(self, values: Tensor) -> None:
        """Take in (N,) values of this rank's samples; they count at the step's end. Eval mode freezes everything."""
        self.step.add(values)

    @torch.no_grad()
    def end_step(self) -> None:
        """Move by what was observed. The deviation is the unbiased one, so one sample (or none) moves nothing."""
        count, mean, std = self.step.take()
        weight = torch.where(count >= 2, self._weight(count >= 2), 0).to(self.mean.dtype)
        self.mean.lerp_(torch.where(count >= 2, mean.to(self.mean.dtype), self.mean), weight)
        self.std.lerp_(torch.where(count >= 2, std.to(self.std.dtype), self.std), weight)

    def _weight(self, counts: Tensor) -> Tensor:
        """That of the new step, where it counts."""
        if self.steps is None:
            return torch.full_like(self.mean, self.momentum)
        self.steps += counts
        past = (1 - self.momentum) ** self.steps.double()
        return self.momentum / (1 - past)

    @torch.no_grad()
    def indicator(self, values: Tensor, concentration: float) -> Tensor:
        """(B,) -> (B,) in -1..1, a constant: clip((v - mean) / (std + eps) * h), AdaFace equation 16.

        `concentration` = h. With 0.333, values within three deviations are not clipped.
        """
        return ((values.to(self.mean.dtype) - self.mean) / (self.std + self.eps) * concentration).clamp(-1, 1)
