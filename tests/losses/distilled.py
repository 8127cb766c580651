"""Cases for the ranks of rank.py: the distillation terms that see other ranks."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mobileface.distributed import shard, sum_gradients
from mobileface.losses.distill import RelationalDistillation, projection
from mobileface.losses.distill_logits import LogitDistillation
from mobileface.losses.forward import Forward


@dataclass(frozen=True)
class Case:
    """One random problem, the same on every rank."""

    student: Tensor  # (world * B, D)
    teacher: Tensor
    centres: Tensor
    chunk: int


def cases(world: int, count: int = 12) -> list[Case]:
    draw = random.Random(world)
    made = []
    for seed in range(count):
        classes = draw.choice([2, 5, 40])  # some shares are empty when there are fewer than ranks
        batch, dim, teacher_dim = 1 if seed == 0 else draw.randint(1, 5), draw.randint(2, 6), draw.randint(2, 6)
        generator = torch.Generator().manual_seed(seed)
        shapes = ((world * batch, dim), (world * batch, teacher_dim), (classes, teacher_dim))
        drawn = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
        made.append(Case(*drawn, chunk=draw.randint(1, 20)))
    return made


def run(case: Case, rows: slice) -> dict[str, Tensor]:
    """Values, weights and gradients of the samples `rows`; that of the projection over all ranks."""
    own = shard(len(case.centres))
    link = projection(case.student.shape[1], case.teacher.shape[1], 3)
    terms: dict[str, nn.Module] = {
        "relational": RelationalDistillation(),
        "logits": LogitDistillation(case.centres[own.start : own.stop], link, 16.0, 2.0, chunk=case.chunk).double(),
    }
    found = {}
    for name, term in terms.items():
        student = case.student[rows].clone().requires_grad_()
        values, weights = term(Forward({"clean": student}, torch.full((len(student),), -1), case.teacher[rows]))
        spread = torch.arange(1, len(case.student) + 1, dtype=values.dtype)[rows]  # no two samples weigh the same
        (values * spread).sum().backward()
        assert student.grad is not None
        found |= {f"{name} values": values.detach(), f"{name} weights": weights, f"{name} gradient": student.grad}
    if link is not None:
        sum_gradients([link.weight])
        assert link.weight.grad is not None
        found["projection"] = link.weight.grad
    return found
