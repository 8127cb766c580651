"""Distillation: the student's embedding is pulled to the teacher's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobileface.errors import InputError
from mobileface.losses.forward import Forward


class CosineDistillation(nn.Module):
    """Term: 1 - cos(student, teacher), per sample; the teacher is a constant.

    Errors: InputError where the step has no teacher's embeddings, or theirs are of another width.
    """

    def __init__(self, view: str = "clean") -> None:
        super().__init__()
        self.view = view

    def forward(self, forward: Forward) -> tuple[Tensor, Tensor]:
        """Values (B,) in 0..2 and weights (B,), all one."""
        student = forward.embeddings[self.view]
        if forward.teacher is None:
            raise InputError("distillation needs the teacher's embeddings; the plan names no teacher")
        if forward.teacher.shape[1] != student.shape[1]:
            widths = f"student {student.shape[1]}, teacher {forward.teacher.shape[1]}"
            raise InputError(f"{widths}: another width needs a projection")
        teacher = F.normalize(forward.teacher.detach())  # unit already, but for a cache's rounding
        values = 1 - (forward.unit(self.view) * teacher).sum(1)
        return values, torch.ones_like(values)
