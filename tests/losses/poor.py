"""Cases for the ranks of rank.py: the terms that read two views and see other ranks."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mobileface.distributed import shard
from mobileface.losses.centres import Centres
from mobileface.losses.contrastive import Contrastive
from mobileface.losses.forward import Forward
from mobileface.losses.octuplet import Octuplet
from mobileface.losses.quality_gate import QualityGate
from mobileface.losses.queues import Batch, ProxyQueue, Queue
from mobileface.statistics import end_step

STEPS = 4


@dataclass(frozen=True)
class Case:
    """Some steps of one random problem, the same on every rank."""

    clean: Tensor  # (STEPS, world * B, D)
    degraded: Tensor
    labels: Tensor  # (STEPS, world * B)
    centres: Tensor  # (STEPS, C, D): they move from step to step
    kind: str


def cases(world: int) -> list[Case]:
    draw = random.Random(world)
    made = []
    for seed, kind in enumerate(("batch", "momentum", "proxy", "octuplet") * 3):
        classes, images, dim = draw.choice([2, 5, 20]), world * draw.randint(1, 4), draw.randint(2, 6)
        generator = torch.Generator().manual_seed(seed)
        drawn = [15 * torch.randn(STEPS, images, dim, generator=generator, dtype=torch.float64) for _ in range(2)]
        labels = torch.randint(0, classes, (STEPS, images), generator=generator)
        centres = torch.randn(STEPS, classes, dim, generator=generator, dtype=torch.float64)
        made.append(Case(*drawn, labels, centres, kind))
    return made


def term_of(case: Case, held: list[Tensor]) -> nn.Module:
    """The case's term; `held[0]` is this rank's share of the centres."""
    _, images, dim = case.clean.shape
    if case.kind == "octuplet":
        return Octuplet(margin=0.7, relative=True)
    centres = Centres(lambda: held[0], case.centres.shape[1])
    size = 2 * images + 1  # of the momentum queue; both hold a little more than two steps
    queue = {"batch": Batch, "momentum": lambda: Queue(size, dim), "proxy": lambda: ProxyQueue(2 * size, dim, centres)}
    encoder = nn.Identity() if case.kind == "momentum" else None
    return Contrastive(queue[case.kind](), QualityGate(0.5), 8.0, encoder).double()


def run(case: Case, world: int, rank: int | None) -> dict[str, Tensor]:
    """Values, weights and gradients of a rank's samples in every step, or of all (rank None); statistics at the end."""
    images = case.labels.shape[1]
    part = images // world
    rows = slice(None) if rank is None else slice(rank * part, (rank + 1) * part)
    own = shard(case.centres.shape[1])
    held = [case.centres[0, own.start : own.stop]]
    term, found = term_of(case, held), {}
    for step in range(STEPS):
        held[0] = case.centres[step, own.start : own.stop]
        views = {"clean": case.clean[step, rows].clone(), "degraded": case.degraded[step, rows].clone()}
        views = {name: view.requires_grad_() for name, view in views.items()}
        momentum = case.clean[step, rows].flip(1) if case.kind == "momentum" else None
        values, weights = term(Forward(views, case.labels[step, rows], momentum=momentum))
        spread = torch.arange(1, images + 1, dtype=values.dtype)[rows]  # no two samples weigh the same
        (values * spread).sum().backward()
        found |= {f"{step} values": values.detach(), f"{step} weights": weights.detach()}
        for name, view in views.items():
            found[f"{step} {name}"] = torch.zeros_like(view) if view.grad is None else view.grad
        end_step(term)
    state = term.state_dict()
    if "queue.features" in state:
        found["queue"] = state["queue.features"]
    return found | {name: tensor for name, tensor in state.items() if "statistics" in name}
