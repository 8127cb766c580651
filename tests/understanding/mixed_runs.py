"""Runs of half a second that were trained with each queue, a partition alone, and neither; what they were fed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from mobileface.data.augment import apply, generator
from mobileface.data.faceset import split_identities
from mobileface.data.images import decode
from mobileface.data.loading import AUGMENT_STREAM, DEGRADE_STREAM, SAMPLER_STREAM, stream_seed
from mobileface.embedders.contract import InputContract
from mobileface.embedders.network import NetworkEmbedder, open_run
from mobileface.factory import find_plan_arch
from mobileface.files import write_json
from mobileface.training import checkpoint, loop
from mobileface.training.plan import parse_plan, read_plan
from mobileface.training.plan_views import steps
from mobileface.training.sources import open_faces
from mobileface.understanding.drawn import draw
from mobileface.understanding.mixed import look_mixed

Json = dict[str, Any]
CLASSIFIED: Json = {"kind": "classification", "margin": "adaface", "scale": 16, "threshold": 0.45}
BOTH = {**CLASSIFIED, "views": ["clean", "degraded"]}
CONTRASTIVE: Json = {"kind": "contrastive", "threshold": 0.5, "scale": 16, "size": 12, "momentum": 0.5}
DEGRADED = {"clean": ["flip"], "degraded": "qgface"}
QUEUES = ("proxy", "momentum", "batch")
PHASES: dict[str, Json] = {
    **{queue: {"views": DEGRADED, "terms": [BOTH, {**CONTRASTIVE, "queue": queue}]} for queue in QUEUES},
    "everything": {"views": DEGRADED, "terms": [{**BOTH, "threshold": "none"}, {**CONTRASTIVE, "threshold": "none"}]},
    "partition": {"views": {"clean": ["flip"]}, "terms": [CLASSIFIED]},
    "plain": {"views": {"clean": ["flip"]}, "terms": ["classification"]},
}


def write_runs(top: Path, faces: Path, make_plan_data: Any) -> Path:
    """`top` with a run of each of PHASES, on six people of ten, whose gates are set so that some images are low."""
    for name, phase in PHASES.items():
        plan = parse_plan(make_plan_data(faces, phase={"images": 24, "batch": 8, **phase}), name)
        folder, arch = top / name, find_plan_arch(plan)
        folder.mkdir()
        write_json(folder / "arch.json", arch.to_dict())
        (folder / "plan.yaml").write_text(plan.to_yaml())
        loop.train(plan, arch, folder, open_faces(plan), None, Console(quiet=True), workers=0)
        best = folder / "checkpoints" / "best.safetensors"
        tensors, state = checkpoint.load(best)
        drawn = draw(plan, None, name)
        assert drawn is not None
        norms = np.linalg.norm(opened(folder)(np.concatenate(list(drawn.views.values()))), axis=1)
        for key in tensors:
            if "gate.statistics" in key:
                tensors[key] = torch.tensor(float(norms.mean() if key.endswith("mean") else norms.std()))
        checkpoint.save(best, tensors, state)
    return top


def opened(folder: Path) -> NetworkEmbedder:
    return open_run(folder, InputContract())


def looked(runs: Path, name: str, data: Path | None = None) -> tuple[Json, Any]:
    folder = runs / name
    numbers, pictures = look_mixed(name, folder, opened(folder), read_plan(folder / "plan.yaml"), data)
    assert numbers is not None
    return numbers, pictures


def pairs(runs: Path, name: str) -> Iterator[tuple[Any, Any, int]]:
    """(clean view, degraded view or none, class) of each training image, one after another."""
    plan = read_plan(runs / name / "plan.yaml")
    faces, phase = open_faces(plan), plan.phases[0]
    split = split_identities(faces, 0.4, plan.seed)
    order = generator(stream_seed(plan.seed, 0, SAMPLER_STREAM), 0).permutation(split.train)
    clean_seed, poor_seed = (stream_seed(plan.seed, 0, stream) for stream in (AUGMENT_STREAM, DEGRADE_STREAM))
    for position, i in enumerate(order):
        image = decode(faces.read(int(i)), "")
        clean = apply(image, steps(phase.views.clean), generator(clean_seed, position))
        poor = phase.views.degraded
        degraded = None if poor is None else apply(clean, steps(poor), generator(poor_seed, position))
        yield clean, degraded, int(split.classes[i])


def moved(runs: Path, tmp_path: Path, name: str) -> Path:
    """A copy of a run whose training faces are elsewhere."""
    shutil.copytree(runs / name, tmp_path / name)
    plan = tmp_path / name / "plan.yaml"
    plan.write_text(plan.read_text().replace(str(runs), str(tmp_path / "gone")))
    return tmp_path / name
