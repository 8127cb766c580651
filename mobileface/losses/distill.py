"""Distillation by embeddings: the student's are pulled to the teacher's, each alone or in their relations.

By logits: `distill_logits`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobileface.distributed import gather, rank
from mobileface.errors import InputError
from mobileface.losses.forward import Forward, unit


class CosineDistillation(nn.Module):
    """Term: 1 - cos(student, teacher), per sample; the teacher is a constant.

    projection: takes the student's embeddings to the teacher's width; None where they have it (see `projection`).
    The squared distance of the two unit vectors ("normalised MSE") is twice these values, so it is no other kind.
    Errors: InputError where the step has no teacher's embeddings, or theirs are of another width.
    """

    def __init__(self, projection: nn.Linear | None = None, view: str = "clean") -> None:
        super().__init__()
        self.projection = projection
        self.view = view

    def forward(self, forward: Forward) -> tuple[Tensor, Tensor]:
        """Values (B,) in 0..2 and weights (B,), all one."""
        student, teacher = in_one_space(forward, self.view, self.projection)
        values = 1 - (student * teacher).sum(1)
        return values, torch.ones_like(values)


class RelationalDistillation(nn.Module):
    """Term: mean over the other images j of (cos(student i, j) - cos(teacher i, j))^2, per sample i.

    The others are those of all ranks' batches (N images). Relations need no common space: any two widths go
    together, without a projection. Park et al. 2019 (relational knowledge distillation) match distances, as shares
    of the batch's mean one, and angles of triples, under Huber's loss. Cosines have one scale for both networks,
    and where they differ by less than 1 Huber's loss is half the square: the plain square of cosines is ours.
    Errors: InputError where the step has no teacher's embeddings.
    """

    def __init__(self, view: str = "clean") -> None:
        super().__init__()
        self.view = view

    def forward(self, forward: Forward) -> tuple[Tensor, Tensor]:
        """Values (B,) in 0..4 and weights (B,), all one; zeros for an image without another one (N = 1)."""
        student, teacher = forward.unit(self.view), teachers_units(forward)
        with torch.autocast(student.device.type, enabled=False):
            difference = student @ gather(student).T - teacher @ gather(teacher).T  # (B, N)
        own = rank() * len(student) + torch.arange(len(student), device=student.device)
        itself = own[:, None] == torch.arange(difference.shape[1], device=student.device)
        others = difference.shape[1] - 1
        values = difference.masked_fill(itself, 0).square().sum(1) / max(others, 1)
        return values, torch.full_like(values, float(others > 0))


def projection(dim: int, teacher_dim: int, seed: int) -> nn.Linear | None:
    """A linear map (B, dim) -> (B, teacher_dim) to be learned, without bias; None where the widths are equal.

    It starts, drawn by `seed`, with orthonormal columns (rows, where the teacher is the narrower one), so that a
    narrower student's cosines are kept. It serves the training only: the exported student has its own width.
    """
    if dim == teacher_dim:
        return None
    linear: nn.Linear = nn.utils.skip_init(nn.Linear, dim, teacher_dim, bias=False)  # no draw from torch's own stream
    nn.init.orthogonal_(linear.weight, generator=torch.Generator().manual_seed(seed))
    return linear


def in_one_space(forward: Forward, view: str, projection: nn.Linear | None) -> tuple[Tensor, Tensor]:
    """(B, D) of the student, projected, and of the teacher, both of length one; the second a constant."""
    teacher, student = teachers_units(forward), forward.embeddings[view]
    width = student.shape[1] if projection is None else projection.out_features
    if teacher.shape[1] != width:
        kind = "a" if projection is None else "another"
        raise InputError(
            f"student {student.shape[1]}, teacher {teacher.shape[1]}: another width needs {kind} projection"
        )
    if projection is None:
        return forward.unit(view), teacher
    with torch.autocast(student.device.type, enabled=False):
        return unit(projection(student.to(projection.weight.dtype))), teacher


def teachers_units(forward: Forward) -> Tensor:
    """(B, D) the teacher's embeddings as a constant: unit already, but for a cache's rounding."""
    if forward.teacher is None:
        raise InputError("distillation needs the teacher's embeddings; the plan names no teacher")
    return F.normalize(forward.teacher.detach())
