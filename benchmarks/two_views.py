"""What a second view costs: `python -m benchmarks.two_views`.

Whole training steps on images in memory, batch 64, ArcFace over 1,000 classes: on the clean view alone, and on both
views in one pass; the ways take turns. Wanted: at most 2.1 times. `loading`: reading, decoding and augmenting a batch
on one core, with the octuplet loss's and QGFace's degraded views and without.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.environment import write_result
from benchmarks.timing import in_turns
from benchmarks.train_speed import SameFaces
from mobileface.data.faceset import FaceSet
from mobileface.data.loading import batches
from mobileface.training.loop import step
from mobileface.training.plan import parse_plan
from mobileface.training.trainer import Trainer, prepare
from mobileface.zoo import find_arch

ARCHS, CLASSES, BATCH, ROUNDS, LIMIT = ("tiny", "student-real", "mobilefacenet"), 1000, 64, 12, 2.1
DEGRADED = (None, "octuplet", "qgface")


def trainer_of(arch: str, degraded: str | None, run: Path) -> Trainer:
    """A training on one view, or on both."""
    views: dict[str, Any] = {"clean": ["flip"]} | ({"degraded": degraded} if degraded else {})
    names = ["clean", "degraded"] if degraded else ["clean"]
    phase = {
        "images": 100 * BATCH, "batch": BATCH, "views": views, "terms": [{"kind": "classification", "views": names}],
    }  # fmt: skip
    plan = parse_plan(
        {
            "name": "views", "arch": arch, "compile": "off", "phases": [phase],
            "data": {"train": [{"folder": "same"}], "validate": {"identities": 0}},
        },
        "benchmark",
    )  # fmt: skip
    run.mkdir(parents=True)
    return prepare(plan, find_arch(arch), run, FaceSet([SameFaces(CLASSES)]), None, lambda text: None)[0]


def measure(arch: str, folder: Path) -> dict[str, Any]:
    """Seconds of a step on one view and on both, and of loading a batch of each kind."""
    trainers = {str(name): trainer_of(arch, name, folder / f"{arch}-{name}") for name in DEGRADED}
    batch = {name: next(batches(t.stream, 0, BATCH, BATCH, workers=0)) for name, t in trainers.items()}
    steps = {name: partial(step, trainers[name], [batch[name]], 0.01) for name in ("None", "octuplet")}
    seconds = in_turns(steps, ROUNDS)
    loading = in_turns({name: partial(_load, t) for name, t in trainers.items()}, ROUNDS)
    ratio = seconds["octuplet"] / seconds["None"]
    return {
        "arch": arch, "precision": trainers["None"].precision, "one_view_s": round(seconds["None"], 4),
        "two_views_s": round(seconds["octuplet"], 4), "ratio": round(ratio, 3), "limit": LIMIT,
        "loading_s": {name: round(value, 4) for name, value in loading.items()},
    }  # fmt: skip


def _load(trainer: Trainer) -> None:
    list(batches(trainer.stream, 0, BATCH, BATCH, workers=0))


def main() -> None:
    """All networks."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(arch, Path(folder)) for arch in ARCHS]
    result = {"threads": torch.get_num_threads(), "batch": BATCH, "rows": rows}
    print(result)
    if "NO_RESULT" not in os.environ:
        write_result("two_views", result)


if __name__ == "__main__":
    main()
