"""Does the octuplet loss make a student robust to resolution? LFW across resolutions, before and after fine-tuning.

    python -m benchmarks.cross_resolution DATA STUDENT [--out DIR] [--seeds 3]

STUDENT is the run folder of a trained network: runs/distill-real. By three seeds recipes/octuplet-small.yaml, and the
paper's four terms on a quarter of its images; on as few, by one seed, single terms (the paper's Table 4), other margins
(its Fig. 4) and distances, and without the term that holds clean embeddings near their old place (the paper's own
loss). Each is judged on LFW with the second image of each pair at 7, 14, 28, 56 and 112 px, and with both.

18 runs, two hours and a half on one core with bf16. A run that is in DIR is not made again; the result file is written
behind each.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import typer

from benchmarks.environment import write_result
from benchmarks.runs import Job, Row, make_rows, recipe, spread
from mobileface.data.pairs import open_pairs
from mobileface.embedders.opening import open_embedder
from mobileface.evaluation.resolutions import measure
from mobileface.files import sha256, write_json

RECIPE = "octuplet-small.yaml"
SIDES = (7, 14, 28, 56, 112)
OCTUPLET: dict[str, Any] = {"kind": "octuplet", "margin": 0.5, "relative": True}
HELD = {"kind": "distillation", "weight": 10}
SHORT = 12_000  # images of all ways but the recipe itself
WAYS: dict[str, list[dict[str, Any]]] = {
    "octuplet": [OCTUPLET, HELD],
    **{f"only {term}": [{**OCTUPLET, "terms": [term]}, HELD] for term in ("hhh", "hll", "lhh", "lll")},
    **{f"margin {m:g}": [{**OCTUPLET, "margin": m}, HELD] for m in (0.1, 0.25, 1.0, 2.0)},
    "squared, normalised": [{"kind": "octuplet", "distance": "squared", "normalised": True, "margin": 0.5}, HELD],
    "cosine": [{"kind": "octuplet", "distance": "cosine", "margin": 0.25}, HELD],
    "nothing held": [OCTUPLET],
    "no octuplet": [{**HELD, "view": "degraded"}],  # poor images are pulled to what the student made of clean ones
}


def plan_of(way: str, seed: int, student: Path) -> dict[str, Any]:
    """The plan of one way, as plain data; "recipe" is the recipe as it is."""
    plan = recipe(RECIPE)
    if way != "recipe":
        plan["phases"][0] |= {"terms": WAYS[way], "images": SHORT}
        plan["checkpoint"] = {"every_images": SHORT // 4}
    if way == "nothing held":
        plan["teacher"] = None
    else:
        plan["teacher"] = {"model": str(student.resolve()), "online": True}
    plan = {key: value for key, value in plan.items() if value is not None}
    changes = {"start": str(student.resolve()), "evaluate": [], "export": {"formats": []}}
    return {**plan, **changes, "name": "octuplet", "seed": seed}


def judged(folder: Path, data: Path) -> dict[str, Any]:
    """Accuracy on LFW by side: the second image degraded (cross), and both (same)."""
    found = measure(open_embedder(folder), open_pairs("lfw", data), SIDES, "sum")
    sides: dict[str, Any] = {kind: {} for kind in ("cross", "same")}
    for row in found["rows"]:
        sides[row["kind"]][str(row["side"])] = row["accuracy"]
    return {**sides, "mean_cross": found["mean"]["cross"], "mean_same": found["mean"]["same"]}


def before(student: Path, data: Path, out: Path) -> dict[str, Any]:
    """The student's own numbers, kept in `out`."""
    file = out / "before.json"
    if not file.exists():
        write_json(file, {**judged(student, data), "sha256": sha256(student / "model.safetensors")})
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if found["sha256"] != sha256(student / "model.safetensors"):
        sys.exit(f"{out}: was begun with another student; give another --out")
    return found


def row_of(way: str, seed: int, data: Path, folder: Path, card: dict[str, Any]) -> Row:
    """What one run reached."""
    training = {key: card["training"][key] for key in ("held_out_auc", "images_seen", "best_at", "seconds")}
    return {"way": way, "seed": seed, **judged(folder, data), **training}


def summary(rows: list[Row], start: dict[str, Any]) -> dict[str, Any]:
    """Of each way the mean over seeds by side, and what it gained over the student."""
    found: dict[str, Any] = {}
    for way in dict.fromkeys(row["way"] for row in rows):
        own = [row for row in rows if row["way"] == way]
        means = [row["mean_cross"] for row in own]
        found[way] = {
            **{f"cross_{side}": mean(row["cross"][str(side)] for row in own) for side in SIDES},
            **{
                f"gain_{side}": mean(row["cross"][str(side)] - start["cross"][str(side)] for row in own)
                for side in SIDES
            },
            **spread(means, "mean_cross"),
            "mean_cross_gain": mean(means) - start["mean_cross"],
            "mean_same": mean(row["mean_same"] for row in own),
        }
    return found


def main(data: Path, student: Path, out: Path = Path("runs/cross-resolution"), seeds: int = 3) -> None:
    """All runs: those of several seeds first."""
    start = before(student, data, out)
    jobs = []
    several = [(way, seed) for way in ("recipe", "octuplet") for seed in range(seeds)]
    for way, seed in [*several, *((way, 0) for way in list(WAYS)[1:])]:
        folder = out / f"{way}-{seed}".replace(" ", "-").replace(",", "")
        jobs.append(Job(folder, plan_of(way, seed, student), partial(row_of, way, seed, data, folder)))

    def publish(rows: list[Row]) -> None:
        result = {"recipe": RECIPE, "before": start, "runs": rows, "summary": summary(rows, start)}
        write_result("cross_resolution", result)

    make_rows(jobs, data, publish)


if __name__ == "__main__":
    typer.run(main)
