"""Cosines to millions of centres, a chunk of classes at a time: forward with a running log-sum-exp, backward by
computing the cosines again. Works on one rank's share of the centres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mobileface.losses.negatives import Negatives, Plain

CHUNK_BYTES = 8 * 2**20  # the most that a chunk's logits, or its centres, take, unless the caller names a chunk
GPU_CHUNK_BYTES = 64 * 2**20  # there every chunk costs a dozen kernel launches
LIVE_CHUNKS = 8  # tensors of that size that are alive at once, at the most


@dataclass(frozen=True)
class Classes:
    """Which of a share's classes count: `rows` in rising order (None: all), `chunk` of them at a time (None: ours)."""

    rows: Tensor | None = None
    chunk: int | None = None

    def pieces(self, units: Tensor, centres: Tensor) -> list[slice | Tensor]:
        """Indices into the centres, piece by piece. With one image or none a chunk of centres sets the size."""
        count = len(centres) if self.rows is None else len(self.rows)
        widest = max(1, len(units), centres.shape[1]) * units.element_size()
        size = self.chunk or max(1, (GPU_CHUNK_BYTES if units.is_cuda else CHUNK_BYTES) // widest)
        starts = range(0, count, size)
        if self.rows is None:
            return [slice(start, min(start + size, count)) for start in starts]
        return [self.rows[start : start + size] for start in starts]


def own_cosines(units: Tensor, centres: Tensor, labels: Tensor) -> Tensor:
    """(N,) cosine of units (N, D) to the raw centre of their label; 0 where the label lies outside this share."""
    if len(centres) == 0:
        return units.new_zeros(len(units))
    inside = (labels >= 0) & (labels < len(centres))
    rows = centres.index_select(0, labels.clamp(0, len(centres) - 1))
    return (units * F.normalize(rows)).sum(1).masked_fill(~inside, 0)


def others_and_own(
    units: Tensor,
    centres: Tensor,
    labels: Tensor,
    target: Tensor,
    negatives: Negatives | None = None,
    scale: float = 1.0,
    classes: Classes | None = None,
) -> tuple[Tensor, Tensor]:
    """What a sample's loss is made of, (N,) each: the cosine to its own centre, or 0 where that is not in this
    share, and log sum e^(scale * negative) over all other classes (-inf where there is none).

    units (N, D) of length one; centres (C, D) as they are: they are normalised here; labels (N,), counted from the
    share's first class; target (N,): the margin's logit, a constant that decides which negatives are hard.
    Gradients of `units` and `centres`, once differentiable. Memory beside them: a few chunks, forward and backward.
    """
    result: tuple[Tensor, Tensor] = _Streamed.apply(
        units, centres, labels, target.detach(), negatives or Plain(), scale, classes or Classes()
    )
    return result


class _Streamed(torch.autograd.Function):
    """A single chunk is kept for the backward pass: it is no larger than what that would make again.

    The centres are never written normalised: their lengths divide the cosines' columns, and with
    r_k = sum_n g_nk cos_nk the gradient of a centre w_k = l_k u_k is (sum_n g_nk x_n - r_k u_k) / l_k.
    """

    @staticmethod
    def forward(
        ctx: Any,
        units: Tensor,
        centres: Tensor,
        labels: Tensor,
        target: Tensor,
        negatives: Negatives,
        scale: float,
        classes: Classes,
    ) -> tuple[Tensor, Tensor]:
        ctx.pieces, ctx.negatives, ctx.scale = classes.pieces(units, centres), negatives, scale
        limits = torch.finfo(units.dtype)  # its least number stands for -inf: -inf minus -inf is NaN
        peak = units.new_full((len(units),), limits.min)
        total = torch.zeros_like(peak)  # sum of e^(logit - peak)
        kept = None
        for piece in ctx.pieces:
            cosines = _cosines(units, centres[piece])[0]
            logits = _logits(ctx, cosines, target, labels, piece)
            higher = torch.maximum(peak, logits.amax(1))
            logits.sub_(higher[:, None]).exp_()
            total = total * torch.exp(peak - higher) + logits.sum(1)
            peak = higher
            if len(ctx.pieces) == 1:
                kept = logits.div_(total.clamp(min=limits.tiny)[:, None])
        others = peak + total.log()  # -inf where no other class is in this share
        ctx.save_for_backward(units, centres, labels, target, others.clamp(min=limits.min), kept)
        return own_cosines(units, centres, labels), others

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_own: Tensor, grad_others: Tensor) -> tuple[Tensor | None, ...]:
        units, centres, labels, target, others, kept = ctx.saved_tensors
        grad_units = torch.zeros_like(units)
        whole = all(isinstance(piece, slice) for piece in ctx.pieces)
        grad_centres = torch.empty_like(centres) if whole else torch.zeros_like(centres)
        weight = (ctx.scale * grad_others)[:, None]
        with torch.autocast(units.device.type, enabled=False):  # backward() may be called under autocast
            for piece in ctx.pieces:
                part = centres[piece]
                cosines, inverse = _cosines(units, part)
                if kept is None:
                    share = _logits(ctx, cosines, target, labels, piece).sub_(others[:, None]).exp_().mul_(weight)
                else:
                    share = kept * weight
                if not isinstance(ctx.negatives, Plain):
                    share.mul_(ctx.negatives.slope(cosines, target[:, None]))
                place, inside = _own_place(labels, piece)
                share.scatter_add_(1, place, grad_own[:, None].masked_fill(~inside, 0))
                radial = torch.mul(share, cosines, out=cosines).sum(0)
                grad = torch.mm(share.T, units, out=grad_centres[piece] if isinstance(piece, slice) else None)
                grad.mul_(inverse[:, None]).addcmul_(part, (radial * inverse.square())[:, None], value=-1)
                if not isinstance(piece, slice):
                    grad_centres[piece] = grad
                grad_units.addmm_(share.mul_(inverse), part)
        return grad_units, grad_centres, None, None, None, None, None


def _cosines(units: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
    """(N, K) cosines to raw centres (K, D), and 1 / their lengths (K,), as F.normalize takes them."""
    inverse = torch.linalg.vector_norm(part, dim=1).clamp_(min=1e-12).reciprocal_()
    return (units @ part.T).mul_(inverse), inverse


def _logits(ctx: Any, cosines: Tensor, target: Tensor, labels: Tensor, piece: slice | Tensor) -> Tensor:
    """(N, K): scale times the negatives, -inf at the own class; a new tensor."""
    if isinstance(ctx.negatives, Plain):
        return _without_own(cosines * ctx.scale, labels, piece)
    return _without_own(ctx.negatives(cosines, target[:, None]) * ctx.scale, labels, piece)


def _without_own(logits: Tensor, labels: Tensor, piece: slice | Tensor) -> Tensor:
    """-inf at each sample's own class, in place."""
    place, inside = _own_place(labels, piece)
    return logits.scatter_(1, place, logits.gather(1, place).masked_fill(inside, -torch.inf))


def _own_place(labels: Tensor, piece: slice | Tensor) -> tuple[Tensor, Tensor]:
    """(N, 1) each: where a sample's own class would stand in the piece, and whether it does. No wait for a GPU."""
    if isinstance(piece, slice):
        place = (labels - piece.start).clamp(0, piece.stop - piece.start - 1)
        return place[:, None], (place + piece.start == labels)[:, None]
    place = torch.searchsorted(piece, labels).clamp(max=len(piece) - 1)
    return place[:, None], (piece[place] == labels)[:, None]
