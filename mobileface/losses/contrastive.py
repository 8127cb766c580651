"""QGFace's contrastive learning of poor images (Song and Wang 2023): a degraded image against its clean one."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mobileface.errors import InputError
from mobileface.losses.forward import Forward, unit
from mobileface.losses.quality_gate import QualityGate
from mobileface.losses.queues import Batch

CHUNK_BYTES = 64 * 2**20  # the most that the cosines of one chunk of negatives take


class Contrastive(nn.Module):
    """Term: -log e^(s cos(q, k)) / (e^(s cos(q, k)) + sum_j e^(s cos(q, n_j))), per pair of views.

    q is the degraded view, k the clean one, a constant: the loss moves poor images to good ones, not the other way.
    n_j are the queue's features, constants too; those of q's own identity are left out (the paper's supervised
    contrastive mask; its code leaves e^0 of each in the sum). Equation 14 prints the sum without the positive, which
    has no lower bound; the public code has it. A pair counts where the gate calls it low. Both its features enter the
    queue. encoder: a `MomentumEncoder`; then k, and what enters the queue, are its embeddings of the clean view, for
    the paper's Table II.
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
            fresh = (
                (keys, labels) if self.encoder is not None else (torch.cat([queries.detach(), keys]), labels.repeat(2))
            )
            others = log_sum(queries, labels, *self.queue.negatives(*fresh), self.scale)
            values = nn.functional.softplus(others - self.scale * (queries * keys).sum(1))
        return values, self.gate.low(*indicators).to(values.dtype)

    def _keys(self, forward: Forward, view: str) -> Tensor:
        """(B, D) of length one, constants."""
        if self.encoder is None:
            return forward.unit(view).detach()
        if forward.momentum is None:
            raise InputError("contrastive learning with a momentum queue needs a momentum encoder's embeddings")
        return unit(forward.momentum).detach()


def log_sum(queries: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor, scale: float) -> Tensor:
    """(B,) log sum_j e^(scale cos) over the others (M, D) that have another label; very low where there is none.

    An own identity's entries get no gradient at all. A few chunks of B x M are in memory, in the backward pass too.
    """
    width = max(1, CHUNK_BYTES // (max(1, len(queries)) * queries.element_size()))
    part = partial(checkpoint, _log_sum, use_reentrant=False)
    parts = [
        part(queries, labels, rows, their, scale)
        for rows, their in zip(others.split(width), other_labels.split(width), strict=True)
    ]
    return torch.logsumexp(torch.stack(parts), 0)


def _log_sum(queries: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor, scale: float) -> Tensor:
    out = (labels[:, None] == other_labels) | (other_labels < 0)
    low = torch.finfo(queries.dtype).min / 4  # a sum of none would have NaN for a gradient with -inf
    return torch.logsumexp((scale * queries @ others.T).masked_fill(out, low), 1)
