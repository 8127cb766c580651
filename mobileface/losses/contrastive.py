"""QGFace's contrastive learning of poor images (Song and Wang 2023): a degraded image against its clean one."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mobileface.errors import InputError
from mobileface.losses.forward import Forward, unit
from mobileface.losses.quality_gate import QualityGate
from mobileface.losses.queues import Batch, Pieces


class Contrastive(nn.Module):
    """Term: -log e^(s cos(q, k)) / (e^(s cos(q, k)) + sum_j e^(s cos(q, n_j))), per pair of views.

    q is the degraded view, k the clean one, a constant: the loss moves poor images to good ones, not the other way.
    n_j are the queue's features, constants too; those of q's own identity are left out (the paper's supervised
    contrastive mask; its code leaves e^0 of each in the sum). Equation 14 prints the sum without the positive, which
    has no lower bound; the public code has it. A pair counts where the gate calls it low. Both its features enter the
    queue, side by side: it holds the same however a batch is cut over ranks. encoder: a `MomentumEncoder`; then k, and
    what enters the queue, are its embeddings of the clean view, for the paper's Table II.
    Errors: InputError for a scale not above 0 and finite, and for a step without a momentum encoder's embeddings.
    """

    def __init__(
        self,
        queue: Batch,
        gate: QualityGate,
        scale: float = 64.0,
        encoder: nn.Module | None = None,
        views: tuple[str, str] = ("degraded", "clean"),
    ) -> None:
        super().__init__()
        if not 0 < scale < math.inf:
            raise InputError(f"contrastive's scale is {scale:g}; wanted above 0 and finite")
        self.queue, self.gate, self.encoder = queue, gate, encoder
        self.scale, self.views = scale, views

    def forward(self, forward: Forward) -> tuple[Tensor, Tensor]:
        """Values (B,) and weights (B,): one for each pair that the gate calls low."""
        query, key = self.views
        norms = torch.cat([forward.norms(query), forward.norms(key)]).detach()
        indicators = self.gate.indicators(norms).chunk(2)
        with torch.autocast(norms.device.type, enabled=False):
            queries, keys, labels = forward.unit(query), self._keys(forward, key), forward.labels
            fresh = keys if self.encoder is not None else torch.stack([queries.detach(), keys], 1).flatten(0, 1)
            theirs = labels if self.encoder is not None else labels.repeat_interleave(2)
            others = log_sum(queries, labels, self.queue.negatives(fresh, theirs), self.scale)
            values = nn.functional.softplus(others - self.scale * (queries * keys).sum(1))
        return values, self.gate.low(*indicators).to(values.dtype)

    def _keys(self, forward: Forward, view: str) -> Tensor:
        """(B, D) of length one, constants."""
        if self.encoder is None:
            return forward.unit(view).detach()
        if forward.momentum is None:
            raise InputError("contrastive learning with a momentum queue needs a momentum encoder's embeddings")
        return unit(forward.momentum).detach()


def log_sum(queries: Tensor, labels: Tensor, others: Pieces, scale: float) -> Tensor:
    """(B,) log sum_j e^(scale cos) over the others, pieces of (M, D) and their labels (M,), that have another label;
    very low where there is none.

    Gradient of the queries, which is the softmax's mean of the others: it is made with the sum, so that no more than a
    piece of the others and its cosines is ever in memory, and no piece is asked for twice.
    """
    result: Tensor = _LogSum.apply(queries, labels, others, scale)
    return result


class _LogSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, labels: Tensor, others: Pieces, scale: float) -> Tensor:
        low = torch.finfo(queries.dtype).min / 4  # stands for -inf: -inf minus -inf is NaN
        peak = queries.new_full((len(queries),), low)
        total, mean = torch.zeros_like(peak), torch.zeros_like(queries)  # sums of e^(logit - peak), and that times rows
        for rows, theirs in (piece for piece in others if len(piece[0])):  # a maximum over none is an error
            out = (labels[:, None] == theirs) | (theirs < 0)
            logits = (queries @ rows.T).mul_(scale).masked_fill_(out, low)
            higher = torch.maximum(peak, logits.amax(1))
            share = logits.sub_(higher[:, None]).exp_().masked_fill_(out, 0)
            before = torch.exp(peak - higher)
            total = total * before + share.sum(1)
            mean = torch.addmm(mean * before[:, None], share, rows)
            peak = higher
        ctx.save_for_backward(mean.div_(total.clamp(min=1)[:, None]).mul_(scale))  # the peak alone gives 1
        return torch.where(total > 0, peak + total.log(), low)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (mean,) = ctx.saved_tensors
        return mean * grad[:, None], None, None, None
