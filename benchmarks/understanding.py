"""What margin and norm do on our own small networks: the numbers and pictures of docs/understanding.md.

    python -m benchmarks.understanding [--out DIR] [--data FACES]

Four trainings on the procedural faces of recipes/demo.yaml, one seed each, each watched (`watch: 64`): on `tiny`
ArcFace with the demo's augmentation, ArcFace and AdaFace with AdaFace's; CosFace on a small LGAF. Then
`mobileface understand` over all of them. Writes benchmarks/results/understanding.json and docs/understanding/.
FACES, an image folder or a .rec of real crops: their norms, as numbers only. A quarter of an hour of one CPU
core, nearly all of it training; a run that is there is not made again. All pictures show procedural people.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import typer
import yaml
from numpy.typing import NDArray

from benchmarks.environment import write_result
from benchmarks.pictures import sheet
from benchmarks.runs import recipe
from benchmarks.understanding_measures import (
    gates,
    local_share,
    margin_statistics,
    spread,
    watched,
    watching_cost,
)
from benchmarks.understanding_tables import render

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
# the demo's first two, and AdaFace's own three as its public code has them
ADAFACE_VIEW = [
    "flip",
    "affine",
    "crop_paste",
    {"kind": "low_resolution", "least": 0.2, "interpolations": ["nearest", "linear", "area", "cubic", "lanczos4"]},
    "photometric",
]


def plans() -> dict[str, Json]:
    """The trainings by name, as plain data: the demo's plan, another loss, network, augmentation or length."""
    ways: dict[str, Json] = {
        "arcface": {},
        "arcface-augmented": {"view": ADAFACE_VIEW},
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
    from mobileface.understanding import figures, page

    real: list[Json] = []
    plots = {"gradients": page.scaling(numbers["gradients"])["plots"]}
    for i, run in enumerate(numbers["runs"]):
        plots[f"training-{run['name']}"] = page.watched(f"w{i}", run["watched"])["plots"]
        plots[f"factors-{run['name']}"] = [page.factor(f"f{i}{k}", k, found) for k, found in run["factors"].items()]
        for branch, found in (run["norms"] or {}).items():
            marks = [found["quantiles"][share] for share in ("0.05", "0.5", "0.95")]
            svg = figures.histogram(f"r{i}{branch}", found["histogram"]["edges"], found["histogram"]["counts"], marks)
            real.append(page.figure(f"{run['name']}, {branch}", "", svg))
    if real:
        plots["norms-real"] = real
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


def numbers_alone(found: Json) -> Json:
    """The norms of one branch without the names of the images that the page shows."""
    return {key: value for key, value in found.items() if key != "shown"}


def summary(run: Json, plan: Json, folder: Path) -> Json:
    """What the document prints of one run."""
    training = json.loads((folder / "card.json").read_text())["training"]
    return {
        "name": run["name"],
        "arch": run["arch"],
        "losses": run["losses"],
        "augmentation": "AdaFace's" if plan["phases"][0]["views"] == {"clean": ADAFACE_VIEW} else "the demo's",
        "images": training["images_seen"],
        "held_out_auc": training["held_out_auc"],
        "margin_statistics": margin_statistics(folder),
        "watched": {key: run["watched"][key] for key in ("images", "correlations", "levels")},
        "factors": run["factors"],
        "norms": {branch: numbers_alone(found) for branch, found in (run["norms"] or {}).items()},
    }


def main(out: Path = Path("runs/understanding"), data: Path | None = None) -> None:
    """Train, look, draw, write the tables."""
    from mobileface.data.info import open_source
    from mobileface.embedders.contract import InputContract
    from mobileface.embedders.network import open_run
    from mobileface.understanding.factors import FACTORS, PEOPLE, factor_norms, pictures
    from mobileface.understanding.inside import in_batches
    from mobileface.understanding.norms import read_crops

    for name, plan in plans().items():
        train(plan, out / name)
    runs = [str(out / name) for name in plans()]
    command = [sys.executable, "-m", "mobileface", "understand", *runs, "--out", str(out)]
    subprocess.run([*command, *(["--data", str(data)] if data else [])], check=True)
    numbers = json.loads((out / "understanding.json").read_text())
    for run in numbers["runs"]:
        run["watched"] = watched(plans()[run["name"]], out / run["name"])
    draw(numbers, PICTURES)
    draw_maps(out / "lgaf", PICTURES / "maps-lgaf.jpg")
    lgaf = open_run(out / "lgaf", InputContract())
    drawn = {name: pictures(factor, PEOPLE) for name, factor in FACTORS.items()}
    for name, found in numbers["runs"][-1]["factors"].items():
        found["branches"] |= factor_norms(local_share(lgaf), FACTORS[name], drawn[name])["branches"]
    faces = {"procedural": np.concatenate([images.reshape(-1, *images.shape[2:]) for images in drawn.values()])}
    if data is not None:
        faces["real"] = read_crops(open_source(data)).images
    attention = {
        kind: {name: spread(v) for f in (local_share, gates) for name, v in in_batches(f(lgaf), images).items()}
        for kind, images in faces.items()
    }
    found = [summary(run, plans()[run["name"]], out / run["name"]) for run in numbers["runs"]]
    write_result(
        "understanding", {"watching": watching_cost(), "data": numbers["data"], "attention": attention, "runs": found}
    )
    DOCUMENT.write_text(render(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
