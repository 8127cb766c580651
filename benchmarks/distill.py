"""Does a teacher help a small student? Each kind of distillation against labels alone, at equal images.

    python -m benchmarks.distill DATA [--out DIR] [--seeds 3] [--images 64000]

Data, student (53 MFLOPs, 64-d) and teacher (128-d) are those of recipes/student-from-teacher.yaml. Five ways to spend
the same images, by three seeds: `scratch` is its classification term without a teacher; `cosine`, `relational` and
`logits` are that kind of distillation alone; `mixed` is the recipe's own terms. Each is judged on LFW and on CFP-FP's
folds 9-10, whose people none of them has seen, by its best weights on held-out people.

Fifteen runs, laid out for under two hours on two cores (1 M images at 150 a second or more, two minutes for the
teacher, half a minute of judging each). A run that is in DIR is not made again, one that was stopped goes on, and the
result file is written after each. NO_RESULT in the environment: nothing is written.
"""

from __future__ import annotations

import statistics
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import typer

from benchmarks.environment import write_result
from benchmarks.runs import Job, Row, make_rows, recipe, spread

RECIPE = "student-from-teacher.yaml"
ALONE = {"cosine": "distillation", "relational": "relational_distillation", "logits": "logit_distillation"}
WAYS = ("scratch", *ALONE, "mixed")
SETS = {"lfw": "lfw", "cfp-fp:9-10": "cfp_fp_9_10"}  # set -> its name in a row


def plan_of(way: str, seed: int, images: int) -> dict[str, Any]:
    """The recipe of one way, as plain data."""
    plan = recipe(RECIPE)
    phase = plan["phases"][0]
    if way == "scratch":
        terms = [{**term, "weight": 1.0} for term in phase["terms"] if term["kind"] == "classification"]
        del plan["teacher"]
    else:
        terms = phase["terms"] if way == "mixed" else [ALONE[way]]
    plan["phases"] = [{**phase, "images": images, "terms": terms}]
    changes = {"evaluate": list(SETS), "checkpoint": {"every_images": max(phase["batch"], images // 10)}}
    return {**plan, **changes, "name": f"distill-{way}", "seed": seed, "export": {"formats": []}}


def row_of(way: str, seed: int, card: dict[str, Any]) -> Row:
    """What one run reached."""
    reached = {SETS[result["set"]]: result["accuracy"] for result in card["results"]}
    kept = ("held_out_auc", "images_seen", "best_at", "seconds", "precision")
    training = {key: card["training"][key] for key in kept}
    return {"way": way, "seed": seed, "flops_lfrc": card["budget"]["flops_lfrc"], **reached, **training}


def summary(rows: list[Row]) -> Row:
    """Mean and spread over seeds of each way and set, and its mean gain over `scratch` of the same seeds."""
    found: Row = {}
    scratch = {row["seed"]: row for row in rows if row["way"] == "scratch"}
    for way in dict.fromkeys(row["way"] for row in rows):
        own = [row for row in rows if row["way"] == way]
        found[way] = {}
        for name in SETS.values():
            gains = [row[name] - scratch[row["seed"]][name] for row in own]
            found[way] |= spread([row[name] for row in own], name) | {f"{name}_over_scratch": statistics.mean(gains)}
    return found


def publish(rows: list[Row]) -> None:
    """Write the result file."""
    write_result("distill", {"recipe": RECIPE, "runs": rows, "summary": summary(rows)})


def main(data: Path, out: Path = Path("runs/distill"), seeds: int = 3, images: int = 64_000) -> None:
    """All runs, seed by seed, so that a benchmark that is stopped has compared all ways equally often."""
    jobs = [
        Job(out / f"{way}-{seed}", plan_of(way, seed, images), partial(row_of, way, seed))
        for seed, way in product(range(seeds), WAYS)
    ]
    make_rows(jobs, data, publish)


if __name__ == "__main__":
    typer.run(main)
