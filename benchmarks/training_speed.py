"""Images a second in training, by network, precision and compilation: `python -m benchmarks.training_speed`.

Forward, backward and optimizer step by `mobileface.training.loop.step`, batch 64, on batches in memory (what loading
adds is measured by `loop_overhead.py`): distillation as in recipes/distill-real.yaml, against random targets. Ten
seconds a row behind two steps that are not counted; compiling takes one to three minutes a row on two cores. Rows
that results/training_speed.json holds from this machine and these versions are not run again; it is written behind
each row, so the script may be stopped and started anew.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from itertools import cycle, product
from pathlib import Path
from typing import Any

import torch

from benchmarks.environment import RESULTS, describe, write_result
from benchmarks.training_setup import distilling, in_memory, synthetic_faces
from mobileface.data.faceset import FaceSet
from mobileface.errors import InputError
from mobileface.training.loop import step

ARCHS = ("student-real", "mobilefacenet", "lfrc-step5")
PRECISIONS, COMPILE = ("fp32", "bf16"), ("off", "on")
WARM_UP, IN_MEMORY = 2, 4  # steps, batches
SECONDS, COMPILE_SECONDS, OTHER_SECONDS = 10, 120, 5  # of a row
RATE = 1e-4
SAME = ("cpu", "cores", "python", "torch")  # of the environment, for rows to stand in one table
Row = dict[str, Any]


def known_rows() -> list[Row]:
    """The rows of the result file, if it is of this machine and these versions."""
    path = RESULTS / "training_speed.json"
    if not path.exists():
        return []
    found, here = json.loads(path.read_text(encoding="utf-8")), describe()
    same = all(found["environment"][key] == here[key] for key in SAME)
    return list(found["rows"]) if same and found["torch_threads"] == torch.get_num_threads() else []


def measure(arch: str, precision: str, compile_: str, faces: FaceSet, folder: Path, seconds: float) -> Row:
    """One row; where torch.compile fails, `failed` says why."""
    row: Row = {"arch": arch, "precision": precision, "compile": compile_}
    torch._dynamo.reset()
    began = time.perf_counter()
    try:
        trainer, _ = distilling(arch, faces, folder / f"{arch}-{precision}-{compile_}", precision, compile_)
    except InputError as error:
        return {**row, "failed": str(error)}
    batches = cycle(in_memory(trainer, IN_MEMORY))
    for _ in range(WARM_UP):
        step(trainer, [next(batches)], RATE)
    ready = time.perf_counter()
    times: list[float] = []
    while sum(times) < seconds:
        start = time.perf_counter()
        step(trainer, [next(batches)], RATE)
        times.append(time.perf_counter() - start)
    size = trainer.phase.batch
    return {
        **row,
        "batch": size,
        "device": trainer.device.type,
        "images_per_s": round(size * len(times) / sum(times), 1),
        "fastest_images_per_s": round(size / min(times), 1),
        "steps": len(times),
        "seconds_before": round(ready - began, 1),  # building, compiling, warming up
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archs", nargs="*", default=list(ARCHS), help="names of the zoo")
    chosen = parser.parse_args().archs
    rows = known_rows()
    there = {(row["arch"], row["precision"], row["compile"]) for row in rows}
    wanted = [key for key in product(chosen, PRECISIONS, COMPILE) if key not in there]
    guess = sum(SECONDS + OTHER_SECONDS + (COMPILE_SECONDS if compile_ == "on" else 0) for *_, compile_ in wanted)
    print(f"{len(wanted)} rows to run, {len(rows)} are there; about {guess / 60:.0f} minutes", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        faces = synthetic_faces(Path(folder))
        for arch, precision, compile_ in wanted:
            rows.append(measure(arch, precision, compile_, faces, Path(folder), SECONDS))
            print(json.dumps(rows[-1]), flush=True)
            write_result(
                "training_speed", {"torch_threads": torch.get_num_threads(), "seconds_a_row": SECONDS, "rows": rows}
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
