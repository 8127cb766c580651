"""The classifier's memory at a million classes and its time, against the same loss written with a full matrix.

    python -m benchmarks.classifier [--classes 1000000] [--large 100000]

* memory: one process trains one SGD step (momentum) at C = 1,000,000, D = 282, B = 256; its peak is compared with
  what centres, gradient and momentum take. Limit: 256 MiB more.
* step: forward and backward at C = 100,000, the classifier against plain PyTorch (normalise, one matrix product,
  margin on the target column, cross entropy), in turns. Limit: no more time.
* losses: every margin and every kind of negatives at C = 100,000 against ArcFace, as a share of ArcFace's whole
  training step of lfrc-step5 (network forward and backward at the same batch). Limit: 5 %.

About two minutes on two cores.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import typer
from torch import Tensor
from torch.nn import functional as F

from benchmarks.environment import write_result
from benchmarks.memory import peak_mib, resident_mib
from benchmarks.timing import in_turns
from mobileface.losses.classifier import Classifier
from mobileface.losses.forward import Forward
from mobileface.losses.margins import MARGINS
from mobileface.losses.negatives import NEGATIVES
from mobileface.models import build
from mobileface.training.device import autocast, keep_freed_memory, pick_precision
from mobileface.zoo import find_arch

DIM, BATCH, SCALE = 282, 256, 64.0
MEMORY_LIMIT_MIB, LOSS_LIMIT = 256.0, 5.0


def problem(classes: int) -> Forward:
    """A batch as lfrc-step5 would give it."""
    generator = torch.Generator().manual_seed(0)
    embeddings = 20 * F.normalize(torch.randn(BATCH, DIM, generator=generator))
    labels = torch.randint(0, classes, (BATCH,), generator=generator)
    return Forward({"clean": embeddings.requires_grad_()}, labels)


def one_step(classes: int) -> None:
    """For a process of its own: one SGD step; prints its peak above what it held before, in MiB."""
    forward = problem(classes)
    small = Classifier(1000, DIM, MARGINS["arcface"](), SCALE)  # what the libraries allocate once is not the point
    small(Forward(forward.embeddings, forward.labels % 1000))[0].mean().backward()
    before = resident_mib()
    term = Classifier(classes, DIM, MARGINS["arcface"](), SCALE)
    optimizer = torch.optim.SGD(term.parameters(), 0.1, momentum=0.9, fused=True)
    for _ in range(2):
        term(forward)[0].mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)  # as the training loop
    print(peak_mib() - before)


def memory(classes: int) -> dict[str, Any]:
    """Peak of `one_step` against centres + gradient + momentum."""
    code = f"from benchmarks.classifier import one_step; one_step({classes})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    peak, needed = float(done.stdout), 3 * 4 * classes * DIM / 2**20
    over = peak - needed
    return {
        "classes": classes, "dim": DIM, "batch": BATCH, "peak_mib": round(peak, 1),
        "centres_gradient_momentum_mib": round(needed, 1), "over_mib": round(over, 1), "limit_mib": MEMORY_LIMIT_MIB,
        "within": over <= MEMORY_LIMIT_MIB,
    }  # fmt: skip


def full_matrix(centres: Tensor, forward: Forward) -> Tensor:
    """ArcFace, radians 0.5, as it is usually written."""
    cosines = F.normalize(forward.embeddings["clean"]) @ F.normalize(centres).T
    rows = torch.arange(len(cosines))
    target = cosines[rows, forward.labels].clamp(-1 + 1e-6, 1 - 1e-6)
    logits = cosines.clone()
    logits[rows, forward.labels] = torch.cos(torch.arccos(target) + 0.5)
    return F.cross_entropy(SCALE * logits, forward.labels)


def step_of(term: Classifier, forward: Forward) -> Callable[[], None]:
    """Forward and backward of a classifier."""

    def run() -> None:
        term.centres.grad = None
        term(forward)[0].mean().backward()

    return run


def against_full_matrix(classes: int) -> dict[str, Any]:
    """Seconds of a step, ours and the plain one."""
    forward = problem(classes)
    term = Classifier(classes, DIM, MARGINS["arcface"](), SCALE)
    plain = term.centres.detach().clone().requires_grad_()

    def dense() -> None:
        plain.grad = None
        full_matrix(plain, forward).backward()

    seconds = in_turns({"streamed": step_of(term, forward), "full_matrix": dense})
    share = seconds["streamed"] / seconds["full_matrix"]
    return {"classes": classes, **{k: round(v, 4) for k, v in seconds.items()}, "share": round(share, 3), "limit": 1.0}


def network_step(precision: str) -> float:
    """Median seconds of lfrc-step5's forward and backward at BATCH, in parts of 32 as memory allows."""
    cpu = torch.device("cpu")
    network = build(find_arch("lfrc-step5"), 0).to(memory_format=torch.channels_last)
    network.train()
    pixels = torch.randint(0, 256, (32, 3, 112, 112)).float().to(memory_format=torch.channels_last)
    times = []
    for _ in range(4):
        began = time.perf_counter()
        with autocast(cpu, precision):
            embeddings = network(pixels)
        embeddings.float().square().mean().backward()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:]) * BATCH / 32


def every_loss(classes: int) -> dict[str, Any]:
    """Each margin with plain negatives, and ArcFace with each kind of negatives, against ArcFace."""
    keep_freed_memory()  # as a training does
    forward = problem(classes)
    shapes = [(m, "plain") for m in MARGINS] + [("arcface", n) for n in NEGATIVES if n != "plain"]
    ways = {
        f"{m} + {n}" if n != "plain" else m: step_of(
            Classifier(classes, DIM, MARGINS[m](), SCALE, NEGATIVES[n]()), forward
        )
        for m, n in shapes
    }
    seconds = in_turns(ways)
    precision = pick_precision("auto", torch.device("cpu"))
    whole = network_step(precision) + seconds["arcface"]
    extra = {name: round(100 * (time - seconds["arcface"]) / whole, 2) for name, time in seconds.items()}
    return {
        "classes": classes, "seconds": {name: round(time, 4) for name, time in seconds.items()},
        "precision": precision, "arcface_training_step_seconds": round(whole, 3), "extra_percent_of_it": extra,
        "limit_percent": LOSS_LIMIT,
    }  # fmt: skip


def main(classes: int = 1_000_000, large: int = 100_000) -> None:
    """All three, written to results/classifier.json."""
    result = {
        "threads": torch.get_num_threads(),
        "memory": memory(classes),
        "step": against_full_matrix(large),
        "losses": every_loss(large),
    }
    print(result)
    if "NO_RESULT" not in os.environ:
        write_result("classifier", result)


if __name__ == "__main__":
    typer.run(main)
