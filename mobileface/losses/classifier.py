"""The margin classifier: normalised embeddings against normalised class centres, without a B x C tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mobileface.errors import InputError
from mobileface.losses.forward import Forward
from mobileface.losses.margins import Margin

CHUNK_BYTES = 64 * 2**20  # the most that one chunk of logits takes, unless the caller names a chunk


class Classifier(nn.Module):
    """Term: -log softmax over [scale * margin(target cosine), scale * the other cosines], per sample.

    centres: parameter (C, D) float32; rows drawn from a normal distribution by `generator` and scaled to
    length one (uniform on the sphere). Both sides are normalised in every forward, gradients go through both.
    `chunk` = classes handled at once (None: as many as make 64 MiB of logits). Everything is computed in the
    centres' type, autocast or not. Errors: InputError for a label that is not in 0..C-1, for a wrong width.
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        margin: Margin,
        scale: float = 64.0,
        view: str = "clean",
        chunk: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise InputError(f"classifier has {num_classes} classes; wanted at least 2")
        if chunk is not None and chunk < 1:
            raise InputError(f"classifier's chunk is {chunk}; wanted at least 1")
        if not 0 < scale < float("inf"):
            raise InputError(f"classifier's scale is {scale:g}; wanted above 0 and finite")
        self.centres = nn.Parameter(F.normalize(torch.randn(num_classes, dim, generator=generator)))
        self.margin = margin
        self.scale = scale
        self.view = view
        self.chunk = chunk

    def forward(self, forward: Forward) -> tuple[Tensor, Tensor]:
        """Values (B,) and weights (B,), all one."""
        embeddings, labels = forward.embeddings[self.view], forward.labels
        self._check(embeddings, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            units = F.normalize(embeddings.to(self.centres.dtype))
            centres = F.normalize(self.centres)
            cos_target, others = target_and_others(units, centres, labels, self.scale, self.chunk)
            target = self.scale * self.margin(cos_target)
            values = -F.logsigmoid(target - others)  # log(e^target + e^others) - target, uncancelled
        return values, torch.ones_like(values)

    def _check(self, embeddings: Tensor, labels: Tensor) -> None:
        classes, dim = self.centres.shape
        if embeddings.shape[1] != dim:
            raise InputError(f"embeddings are {embeddings.shape[1]} wide; the classifier's centres are {dim}")
        wrong = (labels < 0) | (labels >= classes)
        if wrong.any():
            sample = int(wrong.nonzero()[0])
            label = int(labels[sample])
            hint = " (-1 = unlabelled)" if label == -1 else ""
            raise InputError(f"sample {sample} of the batch has label {label}{hint}; wanted 0..{classes - 1}")


def target_and_others(
    units: Tensor, centres: Tensor, labels: Tensor, scale: float, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """What a sample's loss is made of, (B,) each: the cosine to its own centre, and log sum e^(scale cos)
    over all other classes (-inf where there is no other).

    units (B, D) and centres (C, D) of length one, labels (B,) in 0..C-1. Gradients of `units` and `centres`,
    once differentiable. Memory beside them: one chunk of logits (B, chunk) at a time, forward and backward.
    """
    size = chunk or max(1, CHUNK_BYTES // (max(1, len(units)) * units.element_size()))
    cos_target, others = _Streamed.apply(units, centres, labels, scale, min(size, len(centres)))
    return cos_target, others


class _Streamed(torch.autograd.Function):
    """Chunks of classes with a running maximum and sum; the backward pass computes the logits again.

    A single chunk is kept for the backward pass instead: it is no larger than what that would make again.
    """

    @staticmethod
    def forward(
        ctx: Any, units: Tensor, centres: Tensor, labels: Tensor, scale: float, chunk: int
    ) -> tuple[Tensor, Tensor]:
        scaled = units * scale
        limits = torch.finfo(units.dtype)  # its least number stands for -inf: -inf minus -inf is NaN
        peak = units.new_full((len(units),), limits.min)
        total = torch.zeros_like(peak)  # sum of e^(logit - peak)
        for start in range(0, len(centres), chunk):
            powers = _other_logits(scaled, centres[start : start + chunk], labels - start)
            higher = torch.maximum(peak, powers.amax(1))
            powers.sub_(higher[:, None]).exp_()
            total = total * torch.exp(peak - higher) + powers.sum(1)
            peak = higher
        others = peak + total.log()
        kept = powers.div_(total.clamp(min=limits.tiny)[:, None]) if chunk >= len(centres) else None
        ctx.save_for_backward(units, centres, labels, others.clamp(min=limits.min), kept)
        ctx.scale, ctx.chunk = scale, chunk
        return (units * centres.index_select(0, labels)).sum(1), others

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_target: Tensor, grad_others: Tensor) -> tuple[Tensor | None, ...]:
        units, centres, labels, others, kept = ctx.saved_tensors
        scaled = units * ctx.scale
        grad_units = centres.index_select(0, labels) * grad_target[:, None]
        grad_centres = torch.empty_like(centres)
        with torch.autocast(units.device.type, enabled=False):  # backward() may be called under autocast
            for start in range(0, len(centres), ctx.chunk):
                part = centres[start : start + ctx.chunk]
                if kept is None:
                    share = _other_logits(scaled, part, labels - start).sub_(others[:, None]).exp_()
                    share.mul_(grad_others[:, None])
                else:
                    share = kept * grad_others[:, None]
                grad_units.addmm_(share, part, alpha=ctx.scale)
                torch.mm(share.T, scaled, out=grad_centres[start : start + ctx.chunk])
        # index_add_, not grad_centres[labels] +=: on a CPU it adds in a fixed order, so that runs repeat
        grad_centres.index_add_(0, labels, units * grad_target[:, None])
        return grad_units, grad_centres, None, None, None


def _other_logits(scaled: Tensor, centres: Tensor, labels: Tensor) -> Tensor:
    """(B, K) logits of a chunk of centres (K, D), -inf at the own class where `labels` (B,) is in 0..K-1."""
    logits = scaled @ centres.T
    column = labels.clamp(0, len(centres) - 1)[:, None]
    here = column == labels[:, None]
    return logits.scatter_(1, column, logits.gather(1, column).masked_fill(here, -torch.inf))
