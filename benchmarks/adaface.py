"""AdaFace against ArcFace and CurricularFace, with more and more augmentation: the analogue of AdaFace's Table 2.

    python -m benchmarks.adaface DATA [--out DIR] [--seeds 3]

Each loss with AdaFace's augmentation at p = 0, 0.2 and 0.3, on the data, network and optimizer of
recipes/progressive-small.yaml's first phase, 60,000 images a run; the margin is 0.3 and the scale 32 for all three, as
there (the papers' 0.4, 0.5 and 64 are for millions of images). Judged on LFW as it is and on LFW with both images of a
pair shrunk to 28 px and enlarged again.

27 runs, together under two hours on two cores. A run that is in DIR is not made again; the result file is written after
each, so it can be stopped and taken up again.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.environment import write_result
from benchmarks.runs import make_run, recipe, spread
from mobileface.data.pairs import open_pairs
from mobileface.embedders.contract import Embedder
from mobileface.embedders.opening import open_embedder
from mobileface.evaluation.verification import evaluate

IMAGES, SIDE = 60_000, 28
ARCFACE = {"kind": "arcface", "radians": 0.3}
LOSSES: dict[str, dict[str, Any]] = {
    "arcface": {"margin": ARCFACE},
    "curricular": {"margin": ARCFACE, "negatives": "curricular"},
    "adaface": {"margin": {"kind": "adaface", "margin": 0.3}},
}
PROBABILITIES = (0.0, 0.2, 0.3)


class Shrunk:
    """An embedder that sees crops of SIDE px, enlarged."""

    def __init__(self, inner: Embedder) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        size = pixels.shape[2], pixels.shape[1]
        small = (cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for image in pixels)
        return self.inner(np.stack([cv2.resize(image, size, interpolation=cv2.INTER_CUBIC) for image in small]))


def plan_of(loss: str, p: float, seed: int) -> dict[str, Any]:
    """One run, as plain data."""
    plan = recipe("progressive-small.yaml")
    views = [
        {"kind": "crop_paste", "p": p},
        {"kind": "low_resolution", "p": p, "least": 0.2},
        {"kind": "photometric", "p": p},
        "flip",
    ]
    terms = [{"kind": "classification", "scale": 32, **LOSSES[loss]}]
    phase = {**plan["phases"][0], "name": loss, "images": IMAGES, "views": {"clean": views}, "terms": terms}
    return {**plan, "name": f"{loss}-{p}", "phases": [phase], "seed": seed, "export": {"formats": []}}


def run(loss: str, p: float, seed: int, data: Path, out: Path) -> dict[str, Any]:
    """Make one run, unless it is there; returns what it reached."""
    folder = out / f"{loss}-{p}-{seed}"
    card = make_run(plan_of(loss, p, seed), data, folder)
    shrunk = evaluate(Shrunk(open_embedder(folder)), open_pairs("lfw", data)).result
    return {
        "loss": loss,
        "p": p,
        "seed": seed,
        "lfw": card["results"][0]["accuracy"],
        "lfw_shrunk": shrunk["accuracy"],
        "held_out_auc": card["training"]["held_out_auc"],
        "seconds": card["training"]["seconds"],
    }


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and spread over seeds of each loss and probability."""
    found = []
    for loss, p in product(LOSSES, PROBABILITIES):
        own = [row for row in rows if (row["loss"], row["p"]) == (loss, p)]
        if own:
            whole = spread([row["lfw"] for row in own]) | spread([row["lfw_shrunk"] for row in own], "lfw_shrunk")
            found.append({"loss": loss, "p": p, **whole})
    return found


def main(data: Path, out: Path = Path("runs/adaface"), seeds: int = 3) -> None:
    """All runs, seed by seed, so that what is there is compared equally often."""
    rows = []
    for seed in range(seeds):
        for loss, p in product(LOSSES, PROBABILITIES):
            rows.append(run(loss, p, seed, data, out))
            facts = {"images": IMAGES, "shrunk_to_px": SIDE}
            write_result("adaface", {**facts, "runs": rows, "summary": summary(rows)})
            print(json.dumps(rows[-1]))


if __name__ == "__main__":
    typer.run(main)
