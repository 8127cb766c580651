"""The page's section on mixed quality: what a partition calls low (QGFace, Fig. 5), and pair distances (Fig. 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mobileface.report import text
from mobileface.report.read import Json
from mobileface.understanding import figures
from mobileface.understanding.inside import Images
from mobileface.understanding.page import figure, strip

LEGEND = ("degraded to its own key", "degraded to features of other people")


def mixed_quality(runs: Sequence[Json], couples: Sequence[Images | None]) -> Json | None:
    """What the template prints of the runs that have the numbers of `look_mixed`, with its pictures; None where none
    has."""
    looked = [(run["name"], run["mixed"], images) for run, images in zip(runs, couples, strict=True) if run["mixed"]]
    found = [(name, numbers, images) for name, numbers, images in looked if not numbers["missing"]]
    if not looked:
        return None
    return {
        "missing": [{"name": name, "why": numbers["missing"]} for name, numbers, _ in looked if numbers["missing"]],
        "partitions": [sheet(name, numbers, images) for name, numbers, images in found if images is not None],
        "distances": distances([(name, numbers) for name, numbers, _ in found if numbers["distances"]]),
    }


def sheet(name: str, numbers: Json, images: Images) -> Json:
    """One run's partition: its caption, and the pairs at each place. images: (pairs, views, 112, 112, 3)."""
    partition = numbers["partition"]
    pictures = iter(images)
    places = {
        place: [{**couple(row), "uri": strip(next(pictures))} for row in rows]
        for place, rows in partition["shown"].items()
    }
    red = "learned by contrast"
    if partition["by"] == "classification":
        red = "left out of the classification" if len(partition["views"]) == 1 else "one view or both not classified"
    return {"name": name, "caption": caption(numbers), "red": f"low: {red}", "places": places}


def couple(row: Json) -> Json:
    """A pair's indicators by view, and on which side of the threshold it is."""
    values = {view: f"{row[view]:.3f}" for view in ("clean", "degraded") if view in row}
    alt = "a face crop, " + ", ".join(f"{view} {value}" for view, value in values.items())
    return {"low": row["low"], "note": " | ".join(values.values()), "alt": alt}


def caption(numbers: Json) -> str:
    """Which images, by which gate, and the shares that are low."""
    found = numbers["partition"]
    by_view = ", ".join(f"{view} {text.percent(share, 1)}" for view, share in found["samples_low"].items())
    samples = text.percent(float(np.mean(list(found["samples_low"].values()))), 1)
    other = "" if found["samples_threshold"] == found["threshold"] else f" (b = {found['samples_threshold']:g})"
    pairs = "" if len(found["views"]) == 1 else f" and {text.percent(found['pairs_low'], 1)} of the pairs"
    return (
        f"{source(numbers)}. b = {found['threshold']:g}, against the norms of the {found['by']} term, "
        f"{found['mean']:.3g} ± {found['std']:.3g} (those here: {found['drawn_mean']:.3g} ± {found['drawn_std']:.3g}). "
        f"Low: {samples} of the samples{other} ({by_view}){pairs}."
    )


def source(numbers: Json) -> str:
    """Which images were drawn, in words."""
    count, whole = text.count(numbers["images"]), text.count(numbers["whole"])
    some = f"all {count}" if count == whole else f"{count} of {whole}"
    if numbers["own"]:
        return f"{some} training faces".capitalize()
    return f"Its training faces cannot be read where its plan says; {some} faces of --data in their place"


def distances(runs: Sequence[tuple[str, Json]]) -> Json:
    """A plot and a row for each (name, numbers), all plots over one range."""
    limits = shared([numbers["distances"] for _, numbers in runs])
    plots, rows = [], []
    for i, (name, numbers) in enumerate(runs):
        found = numbers["distances"]
        kinds = [found["positive"], found["negative"]]
        what = "the batch, no queue" if found["queue"] == "batch" else f"{found['queue']} queue"
        note = f"{what}: to the key {spread(kinds[0])}, to others {spread(kinds[1])}"
        svg = figures.distances(f"q{i}", found["edges"], kinds[0]["counts"], kinds[1]["counts"], limits)
        plots.append(figure(name, note, svg, LEGEND))
        cells = [cell for row in kinds for cell in (text.count(row["count"]), spread(row))]
        known = "" if numbers["own"] or found["queue"] == "batch" else "faces of --data: all count as other people"
        rows.append({"name": name, "queue": found["queue"], "cells": [*cells, gap(*kinds)], "known": known})
    return {"plots": plots, "rows": rows}


def shared(found: Sequence[Json]) -> tuple[float, float]:
    """The range of all bins that are filled in any of them."""
    filled = [np.flatnonzero(np.add(row["positive"]["counts"], row["negative"]["counts"])) for row in found]
    places = np.concatenate([np.zeros(0, np.int64), *filled])
    edges: list[float] = found[0]["edges"] if found else [0.0, 1.0]
    return (edges[places.min()], edges[places.max() + 1]) if len(places) else (edges[0], edges[-1])


def spread(found: Json) -> str:
    """Mean and deviation: 0.31 ± 0.08."""
    return text.NONE if found["mean"] is None else f"{found['mean']:.3f} ± {found['std']:.3f}"


def gap(positive: Json, negative: Json) -> Any:
    """The difference of the means."""
    if positive["mean"] is None or negative["mean"] is None:
        return text.NONE
    return f"{negative['mean'] - positive['mean']:.3f}".replace("-", "−")
