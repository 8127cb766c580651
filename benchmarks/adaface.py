"""AdaFace against ArcFace and CurricularFace under more and more augmentation, and its own parts one by one.

    python -m benchmarks.adaface DATA [--out DIR] [--seeds 3]

The analogue of AdaFace's Tables 1 and 2, on the data, network and optimizer of recipes/progressive-small.yaml's first
phase. `losses`: three losses with AdaFace's augmentation at p = 0, 0.2 and 0.3. `parts`: AdaFace at p = 0.2 with the
probability of the own class in the norm's place, with other concentrations h, and with margin 0.4. Margin 0.3 and
scale 32 otherwise, as in that recipe (the papers' 0.4, 0.5 and 64 are for millions of images). Judged on LFW as it is
and on LFW with both images of a pair shrunk to 28 px and enlarged again.

39 runs, about 100 minutes on two cores, one run on each, and more than that on one. A run that is in DIR is not made
again; the result file is written behind each.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.environment import write_result
from benchmarks.runs import Job, Row, make_rows, recipe, spread
from mobileface.data.pairs import open_pairs
from mobileface.embedders.contract import Embedder
from mobileface.embedders.opening import open_embedder
from mobileface.evaluation.verification import evaluate

IMAGES, SIDE = 48_000, 28
ARCFACE, ADAFACE = {"kind": "arcface", "radians": 0.3}, {"kind": "adaface", "margin": 0.3}
LOSSES: dict[str, dict[str, Any]] = {
    "arcface": {"margin": ARCFACE},
    "curricular": {"margin": ARCFACE, "negatives": "curricular"},
    "adaface": {"margin": ADAFACE},
}
PROBABILITIES = (0.0, 0.2, 0.3)
PARTS: dict[str, dict[str, Any]] = {
    "adaface by probability": {"margin": {**ADAFACE, "quality": "probability"}},
    "adaface h 0.22": {"margin": {**ADAFACE, "concentration": 0.22}},
    "adaface h 0.66": {"margin": {**ADAFACE, "concentration": 0.66}},
    "adaface m 0.4": {"margin": {**ADAFACE, "margin": 0.4}},
}
RUNS = [*product(LOSSES, PROBABILITIES), *((name, 0.2) for name in PARTS)]
INTERPOLATIONS = ["nearest", "linear", "area", "cubic", "lanczos4"]


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
        {"kind": "low_resolution", "p": p, "least": 0.2, "interpolations": INTERPOLATIONS},
        {"kind": "photometric", "p": p},
        "flip",
    ]
    terms = [{"kind": "classification", "scale": 32, **{**LOSSES, **PARTS}[loss]}]
    phase = {**plan["phases"][0], "images": IMAGES, "views": {"clean": views}, "terms": terms}
    return {**plan, "name": "adaface", "phases": [phase], "seed": seed, "export": {"formats": []}}


def row_of(loss: str, p: float, seed: int, data: Path, folder: Path, card: dict[str, Any]) -> Row:
    """What one run reached."""
    shrunk = evaluate(Shrunk(open_embedder(folder)), open_pairs("lfw", data)).result
    return {
        "loss": loss,
        "p": p,
        "seed": seed,
        "lfw": card["results"][0]["accuracy"],
        "lfw_shrunk": shrunk["accuracy"],
        "held_out_auc": card["training"]["held_out_auc"],
        "images": card["training"]["images_seen"],
        "seconds": card["training"]["seconds"],
    }


def summary(rows: list[Row]) -> list[Row]:
    """Mean and spread over seeds of each loss and probability."""
    found = []
    for loss, p in RUNS:
        own = [row for row in rows if (row["loss"], row["p"]) == (loss, p)]
        if own:
            whole = spread([row["lfw"] for row in own]) | spread([row["lfw_shrunk"] for row in own], "lfw_shrunk")
            found.append({"loss": loss, "p": p, **whole})
    return found


def publish(rows: list[Row]) -> None:
    """Write the result file."""
    write_result("adaface", {"images": IMAGES, "shrunk_to_px": SIDE, "runs": rows, "summary": summary(rows)})


def main(data: Path, out: Path = Path("runs/adaface"), seeds: int = 3) -> None:
    """All runs, seed by seed, so that what is there is compared equally often."""
    jobs = []
    for seed, (loss, p) in product(range(seeds), RUNS):
        folder = out / f"{loss}-{p}-{seed}".replace(" ", "-")
        jobs.append(Job(folder, plan_of(loss, p, seed), partial(row_of, loss, p, seed, data, folder)))
    make_rows(jobs, data, publish)


if __name__ == "__main__":
    typer.run(main)
