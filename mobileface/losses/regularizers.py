"""Regularizers over class centres: intra and inter of the progressive framework, and the centre loss.

Intra and Inter read the classifier's centres, wherever these lie (losses/centres.py): Intra the rows of its own
labels, Inter all of them, in every step. CentreLoss has centres of its own, the same on every rank.

Equations 7 and 8 print no weights; the plan's weights are ours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobileface.distributed import gather, rank
from mobileface.errors import InputError, nearest
from mobileface.losses.centres import Centres
from mobileface.losses.forward import Forward, check_labels, unit
from mobileface.losses.margins import EPS

OVER = ("batch", "all")


class Intra(nn.Module):
    """Term: the angle between a sample and the centre of its class, as a share of pi (ours: angle / pi, 0..1).

    Equation 7 of the progressive framework. The cosine is held EPS inside [-1, 1], as in the margins: a sample
    within sqrt(2 EPS) = 0.0014 radians of its centre (or of the opposite point) gets no gradient. Gradients go
    to embeddings and centres. Computed in the centres' type, autocast or not.
    Errors: InputError for a label that is not in 0..C-1, for a wrong width.
    """

    def __init__(self, centres: Centres, view: str = "clean") -> None:
        super().__init__()
        self.centres = centres
        self.view = view

    def forward(self, forward: Forward) -> tuple[Tensor, Tensor]:
        """Values (B,) in 0..1 and weights (B,), all one."""
        embeddings, labels = forward.embeddings[self.view], forward.labels
        _check(embeddings, self.centres.dim, labels, self.centres.total)
        own = self.centres.rows(gather(labels))[rank() * len(labels) : (rank() + 1) * len(labels)]
        with torch.autocast(embeddings.device.type, enabled=False):
            cosines = (unit(embeddings.to(own.dtype)) * F.normalize(own)).sum(1)
            values = torch.arccos(cosines.clamp(-1 + EPS, 1 - EPS)) / math.pi
        return values, torch.ones_like(values)


class Inter(nn.Module):
    """Term: a class centre's largest cosine to any other class's centre, per class.

    Equation 8 of the progressive framework. over = "batch": the distinct classes of this batch, each against
    all centres (ours); under several ranks those of all ranks' batches. "all": every class against all, the
    printed sum; its time grows with the square of C. Gradients go to both centres of each pair; of several nearest
    centres to any one. Every rank gives the same values, so the mean over ranks is the mean over classes.

    Memory beside the centres: a few blocks of at most 64 MiB, and the (K, D) rows of the K classes considered.
    Errors: InputError for a single class, for a label of the batch that is not in 0..C-1, for another `over`.
    """

    def __init__(self, centres: Centres, over: str = "batch") -> None:
        super().__init__()
        if over not in OVER:
            raise InputError(f"inter is over {over!r}{nearest(over, OVER)}; wanted {' or '.join(OVER)}")
        self.centres = centres
        self.over = over

    def forward(self, forward: Forward) -> tuple[Tensor, Tensor]:
        """Values (K,) in -1..1 and weights (K,), all one: K = the number of classes considered."""
        count = self.centres.total
        if count < 2:
            raise InputError(f"inter has {count} classes; wanted at least 2")
        labels = forward.labels
        if self.over == "all":
            classes = torch.arange(count, device=labels.device)
        else:
            check_labels(labels, count)
            classes = gather(labels).unique()
        with torch.autocast(labels.device.type, enabled=False):
            own = F.normalize(self.centres.rows(classes))
            other = F.normalize(self.centres.rows(self.centres.nearest(classes)))
            values = (own * other).sum(1)
        return values, torch.ones_like(values)


class CentreLoss(nn.Module):
    """Term: 0.5 |x - c_y|^2 per sample, on raw embeddings (Wen et al. 2016, equation 2).

    centres: parameter (C, D) float32, from zero. It is learned by the optimizer from the same gradient, with
    its rate, the term's weight and its weight decay (ours). The paper moves a centre apart from the optimizer,
    by alpha * sum(c - x) / (1 + n) over the n samples of its class in the batch. Computed in float32, autocast
    or not. Errors: InputError for a label that is not in 0..C-1, for a wrong width, for no class.
    """

    def __init__(self, num_classes: int, dim: int, view: str = "clean") -> None:
        super().__init__()
        if num_classes < 1:
            raise InputError(f"centre loss has {num_classes} classes; wanted at least 1")
        self.centres = nn.Parameter(torch.zeros(num_classes, dim))
        self.view = view

    def forward(self, forward: Forward) -> tuple[Tensor, Tensor]:
        """Values (B,), at least 0, in the embeddings' units squared, and weights (B,), all one."""
        embeddings = forward.embeddings[self.view]
        _check(embeddings, self.centres.shape[1], forward.labels, len(self.centres))
        own = self.centres.index_select(0, forward.labels)  # on a CPU its backward adds in a fixed order
        values = 0.5 * (embeddings.to(own.dtype) - own).square().sum(1)
        return values, torch.ones_like(values)


def _check(embeddings: Tensor, dim: int, labels: Tensor, classes: int) -> None:
    if embeddings.shape[1] != dim:
        raise InputError(f"embeddings are {embeddings.shape[1]} wide; the class centres are {dim}")
    check_labels(labels, classes)
