"""Does wrapping losses help? The ladder against ArcFace alone and against all losses from the start.

    python -m benchmarks.progressive DATA [--out DIR] [--seeds 3]

Three ways to spend the same images on recipes/progressive-small.yaml's data and network, by three seeds: `ladder` is
the recipe; `arcface` is its first phase for all the images; `all` is its last phase's losses and batches from the
start, at the first phase's rate, for all the images. Each is judged on LFW by its best weights on held-out people.
The last phase by phase as well.

Nine runs, together under two hours on two cores. A run that is in DIR is not made again; the result file is
written after each, so it can be stopped and taken up again.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import typer

from benchmarks.environment import write_result
from benchmarks.runs import Job, Row, make_rows, recipe, spread

RECIPE = "progressive-small.yaml"
WAYS = ("arcface", "all", "ladder")


def plan_of(way: str, seed: int) -> dict[str, Any]:
    """The recipe of one way, as plain data."""
    plan = recipe(RECIPE)
    phases = plan["phases"]
    images = sum(phase["images"] for phase in phases)
    if way != "ladder":
        first, last = phases[0], phases[-1]
        chosen = first if way == "arcface" else {**first, "terms": last["terms"], "sampler": last["sampler"]}
        plan["phases"] = [{**chosen, "name": way, "images": images}]
    return {**plan, "name": f"progressive-{way}", "seed": seed, "export": {"formats": []}}


def row_of(way: str, seed: int, card: dict[str, Any]) -> Row:
    """What one run reached."""
    training = card["training"]
    return {
        "way": way,
        "seed": seed,
        "lfw": card["results"][0]["accuracy"],
        "held_out_auc": training["held_out_auc"],
        "images": training["images_seen"],
        "seconds": training["seconds"],
        "phases": [
            {
                "name": phase["name"],
                "losses": phase["losses"],
                "held_out_auc": phase["held_out_auc"],
                "lfw": phase["results"][0]["accuracy"],
            }
            for phase in training.get("phases", [])
        ],
    }


def summary(rows: list[Row]) -> Row:
    """Mean and spread over seeds: of each way, and of each phase of the ladder."""
    found: Row = {}
    for way in WAYS:
        own = [row for row in rows if row["way"] == way]
        if own:
            found[way] = spread([row["lfw"] for row in own])
    ladders = [row["phases"] for row in rows if row["way"] == "ladder"]
    for steps in zip(*ladders, strict=True):
        found[f"ladder: {steps[0]['name']}"] = spread([step["lfw"] for step in steps])
    return found


def publish(rows: list[Row]) -> None:
    """Write the result file."""
    write_result("progressive", {"recipe": RECIPE, "runs": rows, "summary": summary(rows)})


def main(data: Path, out: Path = Path("runs/progressive"), seeds: int = 3) -> None:
    """All runs, seed by seed, so that a run that is stopped has compared all ways equally often."""
    jobs = [
        Job(out / f"{way}-{seed}", plan_of(way, seed), partial(row_of, way, seed))
        for seed, way in product(range(seeds), WAYS)
    ]
    make_rows(jobs, data, publish)


if __name__ == "__main__":
    typer.run(main)
