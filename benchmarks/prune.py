"""Does a pruned student beat the same architecture from scratch? At half of its FLOPs, by LFW.

    python -m benchmarks.prune DATA STUDENT [--out DIR]

STUDENT is the run folder of recipes/distill-real.yaml. `python -m search.prune` halves its FLOPs (lfrc rule) with
recipes/prune-real.yaml, 102,000 images in three steps. The control is the architecture that comes out, trained from
scratch as recipes/distill-real.yaml trains the student, for as many seconds as all steps trained: how many images
that is, a training of PROBE images measures first. (What the control's teacher takes to embed its images, in front of
the training, is not counted: to the control's advantage.) Both are judged on LFW by their best weights on held-out
people. It passes if the pruned network is within 1.0 point of the student, and better than the control.

About 55 minutes on one core that trains the student with 85 images/s; on a busy core, or without the teacher's
embeddings in the cache, more. What is in DIR is not made again, and what was stopped goes on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import typer

from benchmarks.environment import write_result
from benchmarks.runs import RECIPES, lfw, make_run, recipe, run, run_row
from mobileface.arch import load_arch
from search.cost import cost

SCRATCH, STEPS, PROBE, ALLOWED = "distill-real.yaml", 3, 6_400, 0.01


def scratch_plan(arch: dict[str, Any], images: int, validations: int) -> dict[str, Any]:
    """The student's own recipe for the pruned architecture, as plain data."""
    plan = recipe(SCRATCH)
    phase = {**plan["phases"][0], "images": images}
    changes = {"arch": arch, "evaluate": [], "checkpoint": {"every_images": images // validations}}
    return {**plan, **changes, "name": "scratch", "phases": [phase], "export": {"formats": []}}


def main(data: Path, student: Path, out: Path = Path("runs/prune")) -> None:
    """Prune, measure the control's speed, train it, judge, write."""
    half = cost(load_arch(student / "arch.json")).flops_lfrc / 2
    options = ["--max-flops", str(half), "--steps", str(STEPS), "--recipe", str(RECIPES / "prune-real.yaml")]
    run("search.prune", str(student), *options, "--data", str(data), "--out", str(out / "pruned"))
    folders = [out / "pruned" / str(step) for step in range(1, STEPS + 1)]
    steps = [run_row(folder) for folder in folders]
    seconds = sum(step["seconds"] for step in steps)

    arch = load_arch(folders[-1] / "arch.json").to_dict()
    probe = make_run(scratch_plan(arch, PROBE, 1), data, out / "probe")["training"]
    images = round(seconds * probe["images_seen"] / probe["seconds"])
    make_run(scratch_plan(arch, images, 10), data, out / "scratch")

    reached = {
        "student": lfw(student, data, out / "lfw-student"),
        "pruned": lfw(folders[-1], data, out / "lfw-pruned"),
        "scratch": lfw(out / "scratch", data, out / "lfw-scratch"),
    }
    found = {
        "arch": arch,
        "student": {"flops_lfrc": round(2 * half), "lfw": reached["student"]},
        "pruned": {"steps": steps, "seconds": round(seconds, 1), "lfw": reached["pruned"]},
        "scratch": {**run_row(out / "scratch"), "lfw": reached["scratch"]},
        "within_a_point": reached["pruned"] >= reached["student"] - ALLOWED,
        "better_than_scratch": reached["pruned"] > reached["scratch"],
    }
    write_result("prune", found)
    print(json.dumps(found))
    if not (found["within_a_point"] and found["better_than_scratch"]):
        sys.exit("missed: wanted within 1.0 point of the student, and better than from scratch")


if __name__ == "__main__":
    typer.run(main)
