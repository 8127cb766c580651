"""A training as `mobileface make` prepares it, on synthetic faces and with a made-up teacher: for benchmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mobileface.data.faceset import FaceSet
from mobileface.data.images import encode
from mobileface.data.loading import Batch, batches
from mobileface.data.recordio import RecordFaces, write_pack
from mobileface.data.synthetic import sample
from mobileface.training.plan import read_plan
from mobileface.training.trainer import Trainer, prepare
from mobileface.zoo import find_arch

RECIPE = Path(__file__).parent.parent / "recipes/distill-real.yaml"
PEOPLE, EACH = 64, 10


def synthetic_faces(folder: Path) -> FaceSet:
    """PEOPLE x EACH synthetic faces in a .rec in `folder`."""
    images = ((person, encode(sample(0, person, i)[0])) for person in range(PEOPLE) for i in range(EACH))
    write_pack(folder / "train.rec", images)
    return FaceSet([RecordFaces(folder / "train.rec", folder / "cache")])


def distilling(name: str, faces: FaceSet, run: Path, precision: str, compile_: str) -> tuple[Trainer, bool]:
    """The trainer of recipes/distill-real.yaml for the architecture `name`, and whether it is compiled.

    The teacher's embeddings are random unit vectors of the network's width: the work of a step is the same.
    """
    arch = find_arch(name)
    settings = [f"arch={name}", "budget=null", f"precision={precision}", f"compile={compile_}"]
    plan = read_plan(RECIPE, [*settings, "data.validate.identities=0"])
    targets = np.random.default_rng(0).normal(size=(len(faces), arch.embedding_dim)).astype(np.float32)
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    run.mkdir(parents=True, exist_ok=True)
    trainer, facts = prepare(plan, arch, run, faces, targets, print)
    return trainer, bool(facts["compile"])


def in_memory(trainer: Trainer, count: int) -> list[Batch]:
    """The first `count` batches of the trainer's stream, read, decoded and augmented."""
    size = trainer.phase.batch
    return list(batches(trainer.stream, 0, count * size, size, workers=0))
