"""What margin and norm do on our own small networks: the numbers and pictures of docs/understanding.md.

    python -m benchmarks.understanding [--out DIR]

Three trainings on the procedural faces of recipes/demo.yaml, each watched (`watch: 64`): ArcFace and AdaFace on `tiny`,
the second with AdaFace's augmentation; CosFace on a small LGAF. Then `mobileface understand` over all of them. Writes
benchmarks/results/understanding.json and docs/understanding/. Nine minutes of one CPU core, nearly all of it
training; a run that is there is not made again. All pictures show procedural people.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
import yaml
from numpy.typing import NDArray

from benchmarks.environment import RESULTS, write_result
from benchmarks.pictures import sheet
from benchmarks.runs import recipe
from benchmarks.tables import BLOCK

DOCUMENT = Path(__file__).parent.parent / "docs" / "understanding.md"
PICTURES = DOCUMENT.with_suffix("")
Json = dict[str, Any]
# 66 MMACs; the paper's LGAF has a ResNet100 below its heads
SMALL_LGAF = {
    "family": "lgaf",
    "name": "lgaf-small",
    "depths": [1, 1, 1, 1],
    "widths": [16, 16, 32, 64],
    "embedding_dim": 64,
    "shortcut": "subsample",
}
ADAFACE_VIEW = ["flip", "affine", "crop_paste", {"kind": "low_resolution", "least": 0.2}, "photometric"]


def plans() -> dict[str, Json]:
    """The trainings by name, as plain data: the demo's plan, another loss, network, augmentation or length."""
    ways: dict[str, Json] = {
        "arcface": {},
        "adaface": {"margin": {"kind": "adaface", "margin": 0.3}, "view": ADAFACE_VIEW},
        "lgaf": {"margin": {"kind": "cosface", "cosine": 0.2}, "arch": SMALL_LGAF, "images": 8_000},
    }
    return {name: _plan(name, **way) for name, way in ways.items()}


def _plan(name: str, **way: Any) -> Json:
    plan = recipe("demo.yaml")
    phase = plan["phases"][0]
    term = {**phase["terms"][0], "margin": way.get("margin", phase["terms"][0]["margin"])}
    views = {"clean": way["view"]} if "view" in way else phase["views"]
    images = way.get("images", 24_000)
    plan["phases"] = [{**phase, "name": name, "images": images, "views": views, "terms": [term]}]
    plan |= {"name": name, "arch": way.get("arch", plan["arch"]), "evaluate": [], "export": {"formats": []}}
    return {**plan, "checkpoint": {"every_images": images // 6}, "watch": 64}


def train(plan: Json, folder: Path) -> None:
    """`mobileface train`; a run that is there is left as it is."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = folder.with_name(f"{folder.name}.yaml")
    file.write_text(yaml.safe_dump(plan))
    subprocess.run([sys.executable, "-m", "mobileface", "train", str(file), "--out", str(folder)], check=True)


def draw(numbers: Json, folder: Path) -> None:
    """The document's pictures, from the JSON that `mobileface understand` has written."""
    from mobileface.understanding import page

    plots = {"gradients": page.scaling(numbers["gradients"])["plots"]}
    for i, run in enumerate(numbers["runs"]):
        if run["watched"] is not None:
            plots[f"training-{run['name']}"] = page.watched(f"w{i}", run["watched"])["plots"]
        plots[f"factors-{run['name']}"] = [page.factor(f"f{i}{k}", k, found) for k, found in run["factors"].items()]
    folder.mkdir(exist_ok=True)
    for name, chosen in plots.items():
        (folder / f"{name}.svg").write_text(sheet(chosen), encoding="utf-8")


def draw_maps(run: Path, path: Path) -> None:
    """Some maps of an LGAF over procedural people: the last map, the global feature, one gate of each head."""
    from mobileface.data.images import SIZE, encode
    from mobileface.data.sheet import Cell, draw_rows
    from mobileface.embedders.contract import InputContract
    from mobileface.embedders.network import open_run
    from mobileface.understanding.factors import FACTORS, pictures
    from mobileface.understanding.maps import drawn_over, maps_of
    from mobileface.understanding.run import at_rest_and_worst

    captions, crops = at_rest_and_worst({name: pictures(factor, 1) for name, factor in FACTORS.items()})
    found = [m for m in maps_of(open_run(run, InputContract()), crops) if "gate" not in m.label or "3 x 3" in m.label]

    def cells(images: NDArray[np.uint8]) -> list[Cell]:
        return [Cell(i * SIZE, image, text) for i, (image, text) in enumerate(zip(images, captions, strict=True))]

    rows = [("", cells(crops))]
    rows += [(f"{m.label}, {m.values.min():.3g} to {m.values.max():.3g}", cells(drawn_over(crops, m))) for m in found]
    path.write_bytes(encode(draw_rows(rows), quality=85))


def summary(run: Json, folder: Path) -> Json:
    """What the document prints of one run."""
    training = json.loads((folder / "card.json").read_text())["training"]
    return {
        "name": run["name"],
        "arch": run["arch"],
        "losses": run["losses"],
        "images": training["images_seen"],
        "held_out_auc": training["held_out_auc"],
        "watched": {key: run["watched"][key] for key in ("images", "correlations", "levels")},
        "factors": run["factors"],
    }


def watching_cost(images: int = 256) -> Json:
    """Processor seconds of one row of the log on `tiny`, and of the images that it embeds alone."""
    from mobileface.models import build
    from mobileface.training.watch import LEVELS, Watched, watch
    from mobileface.zoo import find_arch

    torch.set_num_threads(1)
    network = build(find_arch("tiny")).eval()
    crops = np.random.default_rng(0).integers(0, 256, (images, 112, 112, 3), np.uint8)
    began = time.process_time()
    watch(network, torch.nn.ModuleDict(), Watched(crops, torch.zeros(images, dtype=torch.int64)), torch.device("cpu"))
    return {"images": images, "embedded": images * len(LEVELS), "cpu_seconds": round(time.process_time() - began, 2)}


# -- the document's tables


def tables(result: Json) -> dict[str, list[list[str]]]:
    """By name, the head first."""
    from mobileface.understanding.page import correlations, signed

    factors, watched = [], []
    for run in result["runs"]:
        for row in correlations(run["factors"]):
            factors = factors or [["run", "norm of", *row["cells"]]]
            factors.append([run["name"], row["branch"], *row["cells"].values()])
        found = run["watched"]["correlations"]
        columns = [(kind, measure) for kind in found for measure in found[kind]]
        watched = watched or [["run", "images seen", *(f"{kind}: {measure}" for kind, measure in columns)]]
        for at, images in enumerate(run["watched"]["images"]):
            values = [signed(found[kind][measure][at]) for kind, measure in columns]
            watched.append([run["name"], f"{images:,.0f}", *values])
    return {"factors": factors, "watched": watched}


def render(text: str) -> str:
    """The document with each of its tables made anew from the result file."""
    made = tables(json.loads((RESULTS / "understanding.json").read_text()))

    def table(match: re.Match[str]) -> str:
        head, *rows = made[match[2]]
        return (
            match[1]
            + "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
            + "\n"
            + match[3]
        )

    return BLOCK.sub(table, text)


def main(out: Path = Path("runs/understanding")) -> None:
    """Train, look, draw, write the tables."""
    for name, plan in plans().items():
        train(plan, out / name)
    runs = [str(out / name) for name in plans()]
    subprocess.run([sys.executable, "-m", "mobileface", "understand", *runs, "--out", str(out)], check=True)
    numbers = json.loads((out / "understanding.json").read_text())
    draw(numbers, PICTURES)
    draw_maps(out / "lgaf", PICTURES / "maps-lgaf.jpg")
    found = [summary(run, out / run["name"]) for run in numbers["runs"]]
    write_result("understanding", {"watching": watching_cost(), "runs": found})
    DOCUMENT.write_text(render(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
