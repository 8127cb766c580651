"""Several runs looked at side by side: their numbers as JSON, and the page that shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobileface.arch import load_arch
from mobileface.card import TRAINING, versions
from mobileface.data.info import open_source
from mobileface.embedders.contract import InputContract
from mobileface.embedders.network import NetworkEmbedder, open_run
from mobileface.files import atomic_path, write_json
from mobileface.report.read import read_run
from mobileface.training.plan import Plan, read_plan
from mobileface.training.plan_phases import losses
from mobileface.understanding.factors import FACTORS, PEOPLE, factor_norms, pictures
from mobileface.understanding.gradients import scaling_terms
from mobileface.understanding.inside import Images, in_batches, norms_of
from mobileface.understanding.maps import drawn_over, maps_of
from mobileface.understanding.mixed import look_mixed
from mobileface.understanding.mixed_page import mixed_quality
from mobileface.understanding.norms import Crops, distribution, picks, read_crops
from mobileface.understanding.page import render
from mobileface.understanding.watched import read_watched

NAME = "understanding"
MAPPED = 2  # crops of the lowest, middlemost and highest norms whose maps are drawn


@dataclass(frozen=True)
class Opened:
    """A run folder and its network."""

    name: str
    folder: Path
    embedder: NetworkEmbedder


def understand(folders: Sequence[Path], data: Path | None, out: Path, say: Callable[[str], None]) -> Path:
    """Write out/understanding.json and out/understanding.html; returns the latter.

    folders: run folders, at least one. data: an image folder or a .rec; without one, norms of real faces are left out.
    What a run makes of mixed quality is looked at on its own training faces, on `data` where they cannot be read.
    InputError, before anything is computed, for what is no run folder and for a set without a usable image.
    """
    runs = [open_named(folder, folders) for folder in folders]
    crops = None if data is None else read_crops(open_source(data))
    say("drawing procedural faces")
    faces = {name: pictures(factor, PEOPLE) for name, factor in FACTORS.items()}
    found, maps, couples = [], [], []
    for run in runs:
        say(f"looking at {run.name}")
        plan = read_plan(run.folder / "plan.yaml") if (run.folder / "plan.yaml").is_file() else None
        row, drawn = look(run, plan, faces, crops)
        mixed, pairs = look_mixed(run.name, run.folder, run.embedder, plan, data)
        found.append({**row, "mixed": mixed})
        maps.append(drawn)
        couples.append(pairs)
    numbers = {
        "gradients": scaling_terms(),
        "data": None if crops is None else crops.to_dict(),
        "runs": found,
        "versions": versions(TRAINING),
    }
    write_json(out / f"{NAME}.json", numbers)
    page = out / f"{NAME}.html"
    with atomic_path(page) as temporary:
        temporary.write_text(render(numbers, crops, maps, mixed_quality(found, couples)), encoding="utf-8")
    return page


def open_named(folder: Path, folders: Sequence[Path]) -> Opened:
    """A run by the name of its folder; by the whole path where another one of `folders` has that name too."""
    read_run(folder)  # InputError for what is none
    name = folder.resolve().name
    alone = [other.resolve().name for other in folders].count(name) == 1
    return Opened(name if alone else str(folder), folder, open_run(folder, InputContract()))


def look(
    run: Opened, plan: Plan | None, faces: dict[str, Images], crops: Crops | None
) -> tuple[dict[str, Any], list[Images]]:
    """The numbers of one run; a few crops, of the set or procedural ones, and each of its maps drawn over them."""
    measure = norms_of(run.embedder)
    norms = {} if crops is None else in_batches(measure, crops.images)
    captions, mapped = at_rest_and_worst(faces) if crops is None else at_the_ends(crops, norms["embedding"])
    maps = maps_of(run.embedder, mapped)
    numbers = {
        "name": run.name,
        "arch": load_arch(run.folder / "arch.json").name,
        "losses": [] if plan is None else losses(plan.phases[-1]),
        "sha256": run.embedder.sha256,
        "watched": read_watched(run.folder / "log.jsonl"),
        "factors": {name: factor_norms(measure, FACTORS[name], images) for name, images in faces.items()},
        "norms": {branch: distribution(values, crops.keys) for branch, values in norms.items()} if crops else None,
        "mapped": captions,
        "maps": [{"label": m.label, "least": float(m.values.min()), "most": float(m.values.max())} for m in maps],
    }
    return numbers, [mapped, *(drawn_over(mapped, found) for found in maps)]


def at_rest_and_worst(faces: dict[str, Images]) -> tuple[list[str], Images]:
    """The first of the procedural people at rest and at the worst level of each factor, with captions."""
    worst = [(f"{name} {FACTORS[name].values[-1]:g}", images[-1, 0]) for name, images in faces.items()]
    captions, chosen = zip(("at rest", next(iter(faces.values()))[0, 0]), *worst, strict=True)
    return list(captions), np.stack(chosen)


def at_the_ends(crops: Crops, norms: NDArray[np.float64]) -> tuple[list[str], Images]:
    """The crops of the lowest, middlemost and highest norms (N,), MAPPED each, with captions."""
    chosen = [i for place in picks(norms, MAPPED).values() for i in place]
    return [f"norm {norms[i]:.1f}" for i in chosen], crops.images[chosen]
