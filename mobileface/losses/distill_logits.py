"""Distillation by logits: student and teacher against the teacher's class centres, without a B x C tensor."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mobileface.distributed import gather, max_over_ranks, rank, sum_over_ranks
from mobileface.errors import InputError
from mobileface.losses.distill import in_one_space
from mobileface.losses.forward import Forward
from mobileface.losses.streamed import Classes

BLOCK = 1 << 16  # images whose targets are added up at once


class LogitDistillation(nn.Module):
    """Term: T^2 KL(teacher | student) of softmax(scale / T * cosines to the class centres), per sample.

    T is the temperature; T^2 keeps the gradient's size when T changes (Hinton et al. 2015, section 2). The KL
    divergence has the cross-entropy's gradient, and is 0 where both agree. Asks for no labels: images without one
    learn as well. Computed in the centres' type, autocast or not.

    centres: (this rank's share of C, D) as `class_centres` makes them, constants: a buffer that no checkpoint holds,
    for they are made again from the data. projection: as in CosineDistillation. chunk: classes handled at once
    (None: as many as a fixed number of bytes allows). Scale 64 and temperature 4 are ours.
    Errors: InputError for a scale or temperature that is not above 0 and finite, for other widths.
    """

    centres: Tensor

    def __init__(
        self,
        centres: Tensor,
        projection: nn.Linear | None = None,
        scale: float = 64.0,
        temperature: float = 4.0,
        view: str = "clean",
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        for what, value in (("scale", scale), ("temperature", temperature)):
            if not 0 < value < math.inf:
                raise InputError(f"logit distillation's {what} is {value:g}; wanted above 0 and finite")
        self.register_buffer("centres", centres, persistent=False)
        self.projection = projection
        self.scale, self.temperature, self.view, self.chunk = scale, temperature, view, chunk

    def forward(self, forward: Forward) -> tuple[Tensor, Tensor]:
        """Values (B,), at least 0 but for rounding, and weights (B,), all one."""
        student, teacher = in_one_space(forward, self.view, self.projection)
        if teacher.shape[1] != self.centres.shape[1]:
            raise InputError(f"teacher's embeddings are {teacher.shape[1]} wide; its centres {self.centres.shape[1]}")
        units = (part.to(self.centres.dtype) for part in (student, teacher))
        values: Tensor = _Divergence.apply(*units, self.centres, self.scale / self.temperature, self.chunk)
        values = self.temperature**2 * values
        return values, torch.ones_like(values)


def class_centres(targets: Tensor, classes: Tensor, share: range) -> Tensor:
    """(len(share), D) mean direction, of length one, of the teacher's embeddings of each class of `share`.

    So any teacher has a classifier of the student's classes (ours): few bring one, and that is of other people.
    targets (N, D) unit embeddings, zeros for images that cannot be read; classes (N,), below 0 for images that are
    not of the training. A class without any image to read gets zeros: a cosine of 0 for student and teacher alike.
    """
    sums = targets.new_zeros(len(share), targets.shape[1])
    for part, labels in zip(targets.split(BLOCK), classes.split(BLOCK), strict=True):
        place = labels - share.start
        inside = (place >= 0) & (place < len(share))
        sums.index_add_(0, place[inside], part[inside])
    return F.normalize(sums)


def soft_means(units: Tensor, centres: Tensor, scale: float, chunk: int | None = None) -> tuple[Tensor, Tensor]:
    """Under the weights e^(scale * cosine) over the classes of all ranks: the log of their sum (N,), and the mean of
    the centres (N, D). It is the gradient of the first by the units, but for the factor `scale`.

    units (N, D), the same on every rank; centres (C, D), this rank's share. No gradient. Memory: a few chunks.
    """
    limits = torch.finfo(units.dtype)
    peak = units.new_full((len(units),), limits.min)
    total, mean = torch.zeros_like(peak), torch.zeros_like(units)
    with torch.no_grad(), torch.autocast(units.device.type, enabled=False):
        for piece in Classes(None, chunk).pieces(units, centres):
            logits = (units @ centres[piece].T).mul_(scale)
            higher = torch.maximum(peak, logits.amax(1))
            weights, faded = logits.sub_(higher[:, None]).exp_(), torch.exp(peak - higher)
            total = total * faded + weights.sum(1)
            mean = (mean * faded[:, None]).addmm_(weights, centres[piece])
            peak = higher
        highest = max_over_ranks(peak)
        share = torch.exp(peak - highest)
        total = sum_over_ranks(total * share)
        return highest + total.log(), sum_over_ranks(mean * share[:, None]) / total[:, None]


class _Divergence(torch.autograd.Function):
    """(B,) KL of the teacher's softmax to the student's, q to p, both over scale * cosines to the centres w:

        sum_c q_c log(q_c / p_c) = scale * (teacher - student) . m_q + log Z_p - log Z_q,    m_q = sum_c q_c w_c

    and its gradient by the student is scale * (m_p - m_q): with constant centres one pass over the classes gives
    both, so the backward pass visits none.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, centres: Tensor, scale: float, chunk: int | None) -> Tensor:
        both = gather(torch.cat([student, teacher]))
        log_sums, means = soft_means(both, centres, scale, chunk)
        own = slice(rank() * 2 * len(student), (rank() + 1) * 2 * len(student))
        (log_p, log_q), (mean_p, mean_q) = log_sums[own].chunk(2), means[own].chunk(2)
        ctx.save_for_backward(scale * (mean_p - mean_q))
        return scale * ((teacher - student) * mean_q).sum(1) + log_p - log_q

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return grad[:, None] * slope, None, None, None, None
