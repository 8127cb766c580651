"""The page: plain data for the template report/understanding.html, in the report's own style."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from mobileface.data.images import Image, encode
from mobileface.report import text
from mobileface.report.html import template
from mobileface.report.read import Json
from mobileface.training.watch import LADDERS, LEVELS
from mobileface.understanding import figures
from mobileface.understanding.inside import Images
from mobileface.understanding.norms import Crops

WORDS = {"norm": "feature norm", "probability": "probability of the own class"}
SHORT = {"norm": "norm", "probability": "P_y"}
MAPS_QUALITY = 85  # of the JPEG files of maps
TRAJECTORIES = 6  # images whose way is drawn


def render(numbers: Json, crops: Crops | None, maps: Sequence[Sequence[Images]], mixed: Json | None) -> str:
    """The page as text. maps: of each run its crops (B, 112, 112, 3), and each of its maps over them. mixed: the
    section that `mixed_page` makes, None without one."""
    runs = [one_run(i, run, crops, drawn) for i, (run, drawn) in enumerate(zip(numbers["runs"], maps, strict=True))]
    return template("understanding.html").render(
        scaling=scaling(numbers["gradients"]),
        data=numbers["data"],
        versions=list(numbers["versions"].items()),
        runs=runs,
        mixed=mixed,
    )


def one_run(i: int, run: Json, crops: Crops | None, drawn: Sequence[Images]) -> Json:
    """What the template prints of run number `i`."""
    return {
        "name": run["name"],
        "arch": run["arch"],
        "losses": " + ".join(run["losses"]) or text.NONE,
        "correlations": correlations(run["factors"]),
        "watched": None if run["watched"] is None else watched(f"w{i}", run["watched"]),
        "factors": [factor(f"f{i}{name}", name, found) for name, found in run["factors"].items()],
        "norms": [] if crops is None else [norms(f"n{i}{b}", b, found, crops) for b, found in run["norms"].items()],
        "mapped": run["mapped"],
        "maps": [
            {"label": label, "uri": strip(images)}
            for label, images in zip(["the crops", *map(map_label, run["maps"])], drawn, strict=True)
        ],
    }


def figure(title: str, note: str, svg: str, legend: Sequence[str] = ()) -> Json:
    """A plot as the template takes it; its words for those who do not see it are title and note."""
    return {
        "title": title,
        "note": note,
        "alt": f"{title}: {note}" if note else title,
        "svg": Markup(svg),
        "legend": list(legend),
    }


def scaling(gradients: Json) -> Json:
    """A plot and rows for each margin."""
    panels, degrees, scale = gradients["panels"], gradients["degrees"], gradients["scale"]
    plain = panels["Softmax"][0]["g"]
    plots, rows = [], []
    for number, (name, curves) in enumerate(panels.items()):
        drawn = [(curve["g"], curve["boundary_degrees"]) for curve in curves]
        svg = figures.scaling(f"g{number}", degrees, drawn, plain, scale)
        note = "; ".join(filter(None, (above(curve, degrees, scale) for curve in curves)))
        plots.append(figure(name, note, svg, [curve["label"] for curve in curves]))
        rows += [
            {
                "margin": name,
                "label": curve["label"],
                "boundary": angle(curve["boundary_degrees"]),
                "peak": angle(curve["peak_degrees"]),
                "values": [f"{-np.interp(at, degrees, curve['g']) / scale:.2f}" for at in (30, 60, 90, 120)],
            }
            for curve in curves
        ]
    return {"plots": plots, "rows": rows, "scale": f"{scale:g}"}


def above(curve: Json, degrees: Sequence[float], scale: float) -> str:
    """How far a curve rises above its plot, in words; empty where it does not."""
    pulls = -np.array(curve["g"]) / scale
    highest = int(pulls.argmax())
    if pulls[highest] <= figures.HIGHEST:
        return ""
    return f"{curve['label'].partition(',')[0]} rises off the plot, to {pulls[highest]:.1f} at {degrees[highest]:.0f}°"


def angle(degrees: float | None) -> str:
    return text.NONE if degrees is None else f"{degrees:.1f}°"


def signed(value: float | None) -> str:
    """A correlation: +0.52, −0.10."""
    return text.NONE if value is None else f"{value:+.2f}".replace("-", "−")


def correlations(factors: Json) -> list[Json]:
    """A row for each branch: by head Pearson and, in brackets, Spearman; Pearson alone within a smaller range."""
    branches = next(iter(factors.values()))["branches"]
    return [{"branch": branch, "cells": cells(factors, branch)} for branch in branches]


def cells(factors: Json, branch: str) -> dict[str, str]:
    found = {}
    for name, factor in factors.items():
        row = factor["branches"][branch]
        found[name] = f"{signed(row['pearson'])} ({signed(row['spearman'])})"
        if factor["within"] is not None:
            found[f"{name} to {factor['within']:g}"] = signed(row["pearson_within"])
    return found


def watched(key: str, found: Json) -> Json:
    """Correlations over the training, levels of its last row, trajectories."""
    plots = []
    for kind, measures in found["correlations"].items():
        named = [name for name, values in measures.items() if any(value is not None for value in values)]
        if named:
            last = ", ".join(f"{SHORT[name]} {signed(measures[name][-1])}" for name in named)
            curves = [measures[name] for name in named]
            svg = figures.correlations(f"{key}c{kind}", found["images"], curves, found["edges"])
            plots.append(figure(f"Correlation with {kind}", f"at the end {last}", svg, [WORDS[name] for name in named]))
    plots += [plot for name in WORDS if (plot := ladders(f"{key}l{name}", name, found["levels"]))]
    return {"plots": plots + trajectories(f"{key}t", found["tracked"]), "rows": len(found["images"])}


def ladders(key: str, name: str, levels: Sequence[Json]) -> Json | None:
    """Mean and deviation of one measure at each level of both ladders; None where the log lacks any."""
    if len(levels) != len(LEVELS) or any(level[part] is None for level in levels for part in (name, f"{name}_std")):
        return None
    values = [(level[name], level[f"{name}_std"]) for level in levels]
    places = {kind: [at for at, (own, _) in enumerate(LEVELS) if own in ("clean", kind)] for kind in LADDERS}
    curves = [([values[at][0] for at in own], [values[at][1] for at in own]) for own in places.values()]
    steps = zip(*(ladder.steps for ladder in LADDERS.values()), strict=True)
    names = ["clean", *(" | ".join(map(str, both)) for both in steps)]
    svg = figures.levels(key, names, curves, WORDS[name], "side of the picture | length of movement, px")
    return figure(f"{WORDS[name].capitalize()} by quality", "at the end; mean and deviation", svg, list(LADDERS))


def trajectories(key: str, tracked: Json) -> list[Json]:
    """The ways of a few images, clean and at the worst level of each ladder; empty where the log lacks any."""
    norms, chances = (np.array(tracked[name]) for name in WORDS)  # (rows, images, levels)
    if norms.ndim != 3 or norms.shape != chances.shape:
        return []
    worst = {
        f"{kind} {ladder.steps[-1]} px": LEVELS.index((kind, ladder.steps[-1])) for kind, ladder in LADDERS.items()
    }
    groups = {"clean": 0} | worst
    images = range(min(TRAJECTORIES, norms.shape[1]))
    drawn = [[(norms[:, i, at], chances[:, i, at]) for i in images] for at in groups.values()]
    note = f"{len(images)} images, three levels each; the mark is the end of the training"
    return [figure("Ways of single images", note, figures.trajectories(key, drawn), list(groups))]


def factor(key: str, name: str, found: Json) -> Json:
    """Each branch's norm over the levels of a factor, as a share of its mean at rest."""
    branches = found["branches"]
    curves = [
        (np.array(branch["mean"]) / branch["mean"][0], np.array(branch["std"]) / branch["mean"][0])
        for branch in branches.values()
    ]
    svg = figures.levels(key, [f"{level:g}" for level in found["levels"]], curves, "norm, at rest = 1", found["unit"])
    note = ", ".join(f"{branch} {signed(row['pearson'])}" for branch, row in branches.items())
    return figure(name.capitalize(), f"Pearson {note}", svg, list(branches))


def norms(key: str, branch: str, found: Json, crops: Crops) -> Json:
    """The histogram of a branch's norms, and the crops at its ends and in its middle."""
    histogram, middle = found["histogram"], found["quantiles"]["0.5"]
    marks = [found["quantiles"][share] for share in ("0.05", "0.5", "0.95")]
    svg = figures.histogram(key, histogram["edges"], histogram["counts"], marks)
    place = {name: i for i, name in enumerate(crops.keys)}
    return {
        "plot": figure(f"Norm of the {branch} feature", f"median {middle:.3g}, deviation {found['std']:.3g}", svg),
        "shown": {
            where: [{**row, "norm": f"{row['norm']:.3g}", "uri": jpeg(crops.images[place[row["key"]]])} for row in rows]
            for where, rows in found["shown"].items()
        },
    }


def map_label(found: Json) -> str:
    """What a map is, and its range."""
    return f"{found['label']}, {found['least']:.3g} to {found['most']:.3g}"


def strip(images: Images) -> str:
    """Crops side by side as a data: address."""
    return jpeg(np.concatenate(list(images), axis=1), MAPS_QUALITY)


def jpeg(image: Image, quality: int = 95) -> str:
    """An image as a data: address."""
    return f"data:image/jpeg;base64,{base64.b64encode(encode(image, quality)).decode()}"
