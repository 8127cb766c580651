"""What a newcomer meets: a fresh clone and `make demo`, timed; and the same pairs judged by raw pixels.

    python -m benchmarks.demo

Needs pip's usual access to packages (a CPU build of torch in its cache or index). Writes results/demo.json.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.environment import write_result
from mobileface.data.images import decode
from mobileface.data.pairs import open_pairs
from mobileface.evaluation import scores

ROOT = Path(__file__).parent.parent


def main() -> None:
    """Clone, `make demo`, collect."""
    with tempfile.TemporaryDirectory() as folder:
        clone, cache = Path(folder) / "clone", Path(folder) / "cache"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        environment = {**os.environ, "MOBILEFACE_CACHE": str(cache)}
        began = time.monotonic()
        subprocess.run(["make", ".venv/.export"], cwd=clone, check=True, env=environment)
        installed = time.monotonic()
        pipe = subprocess.PIPE
        done = subprocess.run(["make", "demo"], cwd=clone, check=True, env=environment, stdout=pipe, text=True)
        ended = time.monotonic()
        print(done.stdout)
        report = re.search(r"report: (\S+)", done.stdout)
        if not report or not (clone / report[1]).is_file():
            raise SystemExit("make demo printed no report that exists")
        result = json.loads((clone / "runs/demo/evaluation/held_out.json").read_text())
        exported = json.loads((clone / "runs/demo/evaluation/held_out.onnx.json").read_text())
        held_out = next(cache.glob("synthetic/*/held_out.bin"))
        raw = {name: raw_pixels(held_out, centred) for name, centred in (("cosine", False), ("centred", True))}
    write_result(
        "demo",
        {
            "command": "make demo",
            "wall_seconds": round(ended - began, 1),
            "job_seconds": round(ended - installed, 1),
            "accuracy": result["accuracy"],
            "std": result["std"],
            "accuracy_of_the_onnx_file": exported["accuracy"],
            "pairs": result["pairs"],
            "raw_pixels": max(raw.values()),
            "raw_pixels_by_kind": raw,
        },
    )


def raw_pixels(file: Path, centred: bool) -> float:
    """10-fold accuracy of the cosine between images as vectors, each with its mean taken off if `centred`."""
    pairs = open_pairs(str(file), file.parent)
    vectors = np.stack([decode(pairs.read(i), pairs.key(i)).reshape(-1) for i in range(len(pairs.images))])
    units = vectors.astype(np.float32)
    units = scores.unit(units - units.mean(axis=1, keepdims=True) if centred else units)
    return float(scores.k_fold(scores.cosines(units, pairs.first, pairs.second), pairs.same, pairs.fold)[0].mean())


if __name__ == "__main__":
    main()
