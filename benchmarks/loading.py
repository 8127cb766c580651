"""Images a second that one core reads, decodes, flips and makes a tensor of: `python -m benchmarks.loading`.

    python -m benchmarks.loading [FOLDER]     (about a minute; writes results/loading.json)

The images are packed into a .rec first: those of FOLDER (a folder for each identity, as DATA/bolly100), or, without
it, synthetic faces, whose JPEG files are larger. Every figure is the median of passes over all images in random
order, after one that is not counted, so the file is in memory; OpenCV works with one thread. Seed 0.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.environment import write_result
from mobileface.data.augment import apply, generator
from mobileface.data.faceset import FaceSet
from mobileface.data.folder import FolderFaces
from mobileface.data.images import decode, encode
from mobileface.data.loading import SAMPLER_STREAM, FaceStream, Steps, batches, stream_seed
from mobileface.data.recordio import RecordFaces, write_pack
from mobileface.data.samplers import PlainSampler
from mobileface.data.synthetic import sample
from mobileface.training.plan import read_plan
from mobileface.training.plan_views import steps

RECIPE = Path(__file__).parent.parent / "recipes/distill-real.yaml"
IMAGES, PASSES, BATCH = 4000, 9, 64
LIMIT = 6000  # images a second


def encoded(folder: Path | None, count: int) -> Iterator[tuple[int, bytes]]:
    """(label, JPEG): the first `count` images of the folder by identity, or synthetic ones, 20 of a person."""
    if folder is None:
        for i in range(count):
            yield i // 20, encode(sample(0, i // 20, i % 20)[0])
        return
    faces = FolderFaces(folder)
    for i in np.argsort(faces.labels, kind="stable")[:count].tolist():
        yield int(faces.labels[i]), bytes(faces.read(i))


def recipe_steps() -> Steps:
    """The augmentation of recipes/distill-real.yaml."""
    return steps(read_plan(RECIPE).phases[0].views.clean)


def works(faces: RecordFaces) -> dict[str, Callable[[int], object]]:
    """What is done with one image, from little to much."""
    steps = recipe_steps()

    def pixels(i: int) -> Any:
        return decode(faces.read(i), faces.key(i))

    return {
        "read": faces.read,
        "read, decode": pixels,
        "read, decode, flip, to tensor": lambda i: torch.from_numpy(cv2.flip(pixels(i), 1)),
        "read, decode, augment, to tensor": lambda i: torch.from_numpy(apply(pixels(i), steps, generator(0, i))),
    }


def rates(results: Callable[[], Iterable[object]], count: int, passes: int) -> dict[str, float]:
    """Images a second by wall and by CPU time of this process; median, least and most of the passes."""
    wall, cpu = [], []
    for _ in range(passes + 1):
        began = time.perf_counter(), time.process_time()
        deque(results(), maxlen=0)  # each result is dropped when the next one comes
        wall.append(count / (time.perf_counter() - began[0]))
        cpu.append(count / (time.process_time() - began[1]))
    found = {
        "images_per_s": statistics.median(wall[1:]),
        "least": min(wall[1:]),
        "most": max(wall[1:]),
        "images_per_cpu_s": statistics.median(cpu[1:]),
    }
    return {name: round(rate, 1) for name, rate in found.items()}


def rows(faces: RecordFaces, order: list[int], passes: int) -> dict[str, dict[str, float]]:
    """Each kind of work, and the batches of the training's loader in this process."""
    found = {name: rates(partial(map, work, order), len(order), passes) for name, work in works(faces).items()}
    sampler = PlainSampler(np.arange(len(faces)), faces.labels, BATCH, stream_seed(0, 0, SAMPLER_STREAM))
    stream = FaceStream(FaceSet([faces]), sampler, recipe_steps(), seed=0, phase=0)
    whole = len(faces) // BATCH * BATCH
    found["batches of the training's loader, augmented"] = rates(
        lambda: batches(stream, 0, whole, BATCH, workers=0), whole, passes
    )
    return found


def measure(folder: Path | None, count: int = IMAGES, passes: int = PASSES) -> dict[str, Any]:
    """Pack, open, time."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        rec = Path(temporary) / "train.rec"
        write_pack(rec, encoded(folder, count))
        faces = RecordFaces(rec, Path(temporary) / "cache")
        order = np.random.default_rng(0).permutation(len(faces)).tolist()
        found = rows(faces, order, passes)
        mean_bytes = sum(len(faces.read(i)) for i in order) / len(order)
    asked = found["read, decode, flip, to tensor"]
    return {
        "images": len(order),
        "source": "synthetic faces" if folder is None else folder.name,
        "mean_jpeg_bytes": round(mean_bytes),
        "passes": passes,
        "threads": 1,
        "batch": BATCH,
        "images_per_s": asked["images_per_s"],
        "images_per_cpu_s": asked["images_per_cpu_s"],
        "rows": found,
        "limit": LIMIT,
        "within_limit": asked["images_per_s"] >= LIMIT,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="a folder for each identity; synthetic faces without it")
    result = measure(parser.parse_args().folder)
    print(json.dumps(result, indent=2))
    print(write_result("loading", result))
    return 0 if result["within_limit"] else 1


if __name__ == "__main__":
    sys.exit(main())
