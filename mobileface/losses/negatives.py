"""Negatives: what happens to the cosine of an embedding and a class that is not its own, before the softmax.

All work on a chunk of classes: cos (B, K) and target (B, 1), the margin-adjusted logit of the own class in units
of cosine, a constant. A class is hard for a sample where cos > target. The mask is a constant too: it has no
gradient. The classifier takes the own class out itself, before or after: an entry of -inf stays -inf. Nothing
here keeps a graph or changes its input. `NEGATIVES` maps a name to a class.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mobileface.errors import InputError
from mobileface.statistics import Stepped, Sums


class Negatives(nn.Module):
    """The common calls. A subclass gives `forward` and `slope`, and `observe` where it has a state."""

    def forward(self, cos: Tensor, target: Tensor) -> Tensor:
        """(B, K), (B, 1) -> (B, K): what stands in the softmax, in units of cosine."""
        raise NotImplementedError

    def slope(self, cos: Tensor, target: Tensor) -> Tensor:
        """(B, K), (B, 1) -> (B, K): d forward / d cos of each entry."""
        raise NotImplementedError

    def observe(self, cos_target: Tensor) -> None:
        """Take in the cosines (N,) of this rank's samples to their own centres, without the margin, for the steps to
        come. Nothing here; Curricular keeps a mean of them."""


def _where_hard(values: Tensor, cos: Tensor, target: Tensor) -> Tensor:
    """`values` where cos > target, else 0: torch.where, whose masks torch does not vectorise on a CPU."""
    return torch.ops.aten.threshold_backward(values, cos - target, 0)


class Plain(Negatives):
    """The cosine as it is."""

    def forward(self, cos: Tensor, target: Tensor) -> Tensor:
        return cos

    def slope(self, cos: Tensor, target: Tensor) -> Tensor:
        return torch.ones_like(cos)


class SupportVector(Negatives):
    """Support-vector guided softmax, equations 5 and 6 of the progressive framework: hard -> t cos + t - 1.

    That is cos + (t - 1)(cos + 1), the printed exponents added up. t is at least 1; 1 is Plain. The public code's
    own t is ours minus 1 (its 0.2 is 1.2 here). With a CosFace target this is MV-AM, with ArcFace MV-Arc.
    InputError for t below 1 or not finite.
    """

    def __init__(self, *, t: float = 1.2) -> None:
        super().__init__()
        if not 1 <= t < float("inf"):  # NaN fails as well
            raise InputError(f"SupportVector's t is {t:g}; wanted at least 1 and finite")
        self.t = float(t)

    def forward(self, cos: Tensor, target: Tensor) -> Tensor:
        return cos.add(_where_hard(cos + 1, cos, target), alpha=self.t - 1)

    def slope(self, cos: Tensor, target: Tensor) -> Tensor:
        more = cos.new_full((1, 1), self.t - 1)
        return _where_hard(more.expand_as(cos), cos, target).add_(1)


class Curricular(Negatives, Stepped):
    """CurricularFace, AdaFace equations 5 and 6: hard -> cos (t + cos), with cos of the *other* class (the print
    has the own one's).

    t is a moving mean of the cosine to the own centre, from 0, the new step with weight 0.01: low at first, so
    that hard classes count less, and rising with training. It is a buffer. Hard is decided by the target that
    the margin gives, beyond theta + m = pi too, where the public code compares with cos(theta + m): ours.
    The slope t + 2 cos is below 0 where a hard class has cos < -t / 2, as in the published loss.
    """

    MOMENTUM = 0.01  # the weight of the new step, as in the public code

    t: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("t", torch.tensor(0.0))
        self.step = Sums()

    def forward(self, cos: Tensor, target: Tensor) -> Tensor:
        return _where_hard((cos + (self.t - 1)).mul_(cos), cos, target).add_(cos)

    def slope(self, cos: Tensor, target: Tensor) -> Tensor:
        return _where_hard((2 * cos).add_(self.t - 1), cos, target).add_(1)

    def observe(self, cos_target: Tensor) -> None:
        """As above; in eval mode t stays."""
        self.step.add(cos_target)

    @torch.no_grad()
    def end_step(self) -> None:
        """Move t by the mean of what was observed; without samples it stays."""
        count, mean, _ = self.step.take()
        self.t.lerp_(torch.where(count > 0, mean.to(self.t.dtype), self.t), self.MOMENTUM)


NEGATIVES: dict[str, type[Negatives]] = {
    "plain": Plain,
    "support_vector": SupportVector,
    "curricular": Curricular,
}
