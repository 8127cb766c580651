"""One rank of several: `python rank.py RANK WORLD STORE OUT`. Writes what the classifier and the
distillation terms give it in each case."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mobileface.distributed import gather_rows
from mobileface.errors import InputError
from mobileface.losses.classifier import Classifier
from mobileface.losses.forward import Forward
from mobileface.losses.margins import MARGINS
from mobileface.losses.negatives import NEGATIVES
from mobileface.statistics import end_step
from tests.losses import distilled, poor


@dataclass(frozen=True)
class Case:
    """One random problem, the same on every rank."""

    embeddings: Tensor  # (world * B, D)
    centres: Tensor
    labels: Tensor
    scores: Tensor
    margin: str
    options: dict[str, Any]  # of the margin
    negatives: str
    chunk: int


def cases(world: int, count: int = 24) -> list[Case]:
    draw = random.Random(world)
    made = []
    for seed in range(count):
        classes = draw.choice([2, 3, 5, 17, 40])  # some shares are empty when there are fewer than ranks
        batch, dim = draw.randint(1, 5), draw.randint(2, 6)
        generator = torch.Generator().manual_seed(seed)
        margin = sorted(MARGINS)[seed % len(MARGINS)]
        made.append(
            Case(
                torch.randn(world * batch, dim, generator=generator, dtype=torch.float64) * 15,
                torch.randn(classes, dim, generator=generator, dtype=torch.float64),
                torch.randint(0, classes, (world * batch,), generator=generator),
                torch.rand(world * batch, generator=generator, dtype=torch.float64),
                margin,
                {"quality": ("norm", "probability", "score")[seed // 7 % 3]} if margin == "adaface" else {},
                sorted(NEGATIVES)[draw.randrange(len(NEGATIVES))],
                draw.randint(1, 20),
            )
        )
    return made


def run(case: Case, rows: slice) -> dict[str, Tensor]:
    """Values, gradients and state of the samples `rows`."""
    margin, negatives = MARGINS[case.margin](**case.options), NEGATIVES[case.negatives]()
    term = Classifier(*case.centres.shape, margin, 16.0, negatives, chunk=case.chunk).double()
    term.centres.data.copy_(case.centres[term.shard.start : term.shard.stop])
    embeddings = case.embeddings[rows].clone().requires_grad_()
    values, _ = term(Forward({"clean": embeddings}, case.labels[rows], scores=case.scores[rows]))
    spread = torch.arange(1, len(case.labels) + 1, dtype=values.dtype)[rows]  # no two samples weigh the same
    (values * spread).sum().backward()
    assert embeddings.grad is not None
    assert term.centres.grad is not None
    found = {"values": values.detach(), "embeddings": embeddings.grad}
    end_step(term)
    found["centres"] = gather_rows(term.centres.grad, len(case.centres))
    return found | {name: t for name, t in term.state_dict().items() if name != "centres"}


def unequal() -> str:
    """What is said where one rank has a larger batch."""
    term = Classifier(4, 2, MARGINS["arcface"]())
    count = 2 + dist.get_rank()
    try:
        term(Forward({"clean": torch.ones(count, 2)}, torch.zeros(count, dtype=torch.int64)))
    except InputError as error:
        return str(error)
    return "nothing"


def main(rank: int, world: int, store: str, out: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    results = []
    for case in cases(world):
        batch = len(case.labels) // world
        results.append(run(case, slice(rank * batch, (rank + 1) * batch)))
    taught = []
    for problem in distilled.cases(world):
        batch = len(problem.student) // world
        taught.append(distilled.run(problem, slice(rank * batch, (rank + 1) * batch)))
    views = [poor.run(problem, world, rank) for problem in poor.cases(world)]
    torch.save({"cases": results, "taught": taught, "views": views, "unequal": unequal()}, out / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
