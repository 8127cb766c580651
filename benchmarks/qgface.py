"""QGFace by its parts, with a small network: the analogue of its Tables I, II and III.

    python -m benchmarks.qgface DATA [--out DIR] [--seeds 3]

Table I: `baseline` (AdaFace, flips only), `A` (AdaFace's augmentation), `B` (A, poor images not classified), `C`
(QGFace with AdaFace's augmentation), `D` (QGFace's augmentation, AdaFace's loss on both views) and `E` (QGFace,
recipes/qgface-small.yaml). `baseline`, `A` and `B` embed one view of an image, all others two, so these see twice as
many pictures of as many images and take about twice the time. Table II: E without the contrastive term, with the batch
in the queue's place, with a momentum queue. Table III: E with other thresholds and with none. All from scratch, on as
many images. Judged on LFW and on CFP-FP's folds 9-10, as they are, with both images at 14 px, and with the second one
at 14 px.

36 runs, together under two hours on two cores. A run that is in DIR is not made again; the result file is written
behind each.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import typer

from benchmarks.environment import write_result
from benchmarks.runs import Job, Row, make_rows, recipe, spread
from mobileface.data.pairs import open_pairs
from mobileface.embedders.opening import open_embedder
from mobileface.evaluation.resolutions import measure

RECIPE = "qgface-small.yaml"
SIDE = 14
SETS = {"lfw": "lfw", "cfp-fp:9-10": "cfp_fp"}
JUDGED = ("clean", "same", "cross")


def plan_of(setting: str, seed: int) -> dict[str, Any]:
    """The plan of one setting, as plain data."""
    plan = recipe(RECIPE)
    phase = plan["phases"][0]
    classification, contrastive = phase["terms"]
    both = phase["views"]
    plain = {key: value for key, value in classification.items() if key not in ("views", "threshold")}
    adaface = {"clean": ["flip"], "degraded": "adaface"}
    alone: dict[str, tuple[Any, list[Any]]] = {
        "baseline": ({"clean": ["flip"]}, [plain]),
        "A": ({"clean": [*ADAFACE, "flip"]}, [plain]),
        "B": ({"clean": [*ADAFACE, "flip"]}, [{**plain, "threshold": 0.2}]),
        "C": (adaface, [classification, contrastive]),
        "D": (both, [{**plain, "views": ["clean", "degraded"]}]),
        "E": (both, [classification, contrastive]),
        "no queue": (both, [classification]),
        **{f"{q} queue": (both, [classification, {**contrastive, "queue": q}]) for q in ("batch", "momentum")},
        **{
            f"threshold {b}": (both, [{**classification, "threshold": b}, {**contrastive, "threshold": b}])
            for b in ("none", 0.1, 0.3)
        },
    }
    views, terms = alone[setting]
    plan["phases"] = [{**phase, "views": views, "terms": terms}]
    return {**plan, "name": "qgface", "seed": seed, "evaluate": [], "export": {"formats": []}}


ADAFACE = [
    "crop_paste",
    {"kind": "low_resolution", "least": 0.2, "interpolations": ["nearest", "linear", "area", "cubic", "lanczos4"]},
    "photometric",
]
SETTINGS = (
    "baseline", "A", "B", "C", "D", "E", "no queue", "batch queue", "momentum queue",
    "threshold none", "threshold 0.1", "threshold 0.3",
)  # fmt: skip


def row_of(setting: str, seed: int, data: Path, folder: Path, card: dict[str, Any]) -> Row:
    """What one run reached."""
    row: Row = {"setting": setting, "seed": seed}
    embedder = open_embedder(folder)
    for spec, name in SETS.items():
        found = measure(embedder, open_pairs(spec, data), (SIDE, 112), "sum")
        for judged in found["rows"]:
            if judged["side"] == SIDE or judged["kind"] == "cross":
                row[f"{name}_{judged['kind'] if judged['side'] == SIDE else 'clean'}"] = judged["accuracy"]
    training = {key: card["training"][key] for key in ("held_out_auc", "images_seen", "seconds")}
    return {**row, **training}


def summary(rows: list[Row]) -> dict[str, Any]:
    """Mean and spread over seeds of each setting."""
    found: dict[str, Any] = {}
    for setting in dict.fromkeys(row["setting"] for row in rows):
        own = [row for row in rows if row["setting"] == setting]
        found[setting] = {}
        for name, kind in product(SETS.values(), JUDGED):
            found[setting] |= spread([row[f"{name}_{kind}"] for row in own], f"{name}_{kind}")
    return found


def publish(rows: list[Row]) -> None:
    """Write the result file."""
    write_result("qgface", {"recipe": RECIPE, "poor_px": SIDE, "runs": rows, "summary": summary(rows)})


def main(data: Path, out: Path = Path("runs/qgface"), seeds: int = 3) -> None:
    """All runs, seed by seed, so that what is there is compared equally often."""
    jobs = []
    for seed, setting in product(range(seeds), SETTINGS):
        folder = out / f"{setting}-{seed}".replace(" ", "-")
        jobs.append(Job(folder, plan_of(setting, seed), partial(row_of, setting, seed, data, folder)))
    make_rows(jobs, data, publish)


if __name__ == "__main__":
    typer.run(main)
