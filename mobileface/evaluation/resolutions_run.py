"""One or two models across resolutions on some pair sets: what `mobileface resolutions` writes as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mobileface.card import versions
from mobileface.data.pairs import PairSet, open_pairs
from mobileface.embedders.contract import CHOICES, Embedder, InputContract
from mobileface.embedders.opening import open_embedder
from mobileface.errors import InputError, nearest
from mobileface.evaluation.resolutions import DEGRADATION, measure, parse_sides
from mobileface.evaluation.verification import Progress, check_names

PROTOCOL = (
    "K-fold verification by cosine, a fold's threshold from all other folds; cross: the second image of each pair at "
    "the side, the first whole; same: both at the side; matrix: first image by row, second by column"
)
SMALL = "the second image (cross), of both images (same)"
DEGRADED_BY = ("opencv-python-headless", "torch")


def compare(
    models: Sequence[Path],
    on: Sequence[str],
    data: Path,
    sides: str,
    contract: InputContract | None,
    flip: str | None,
    threads: int | None,
    out: Path,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Measure each of `models` (one or two) on each of the sets `on`; makes the folder `out`, writes nothing.

    `contract` is for the ONNX files that do not carry their own; `flip` None means that of each model's contract.
    InputError, before anything is embedded, for whatever cannot be used.
    """
    if flip not in (None, *CHOICES["flip"]):
        raise InputError(f"--flip is {flip!r}{nearest(str(flip), CHOICES['flip'])}, wanted sum or none")
    wanted = parse_sides(sides)
    names = model_names(models)
    pair_sets = [open_pairs(spec, data) for spec in on]
    check_names(pair_sets, "--on")
    embedders = dict(zip(names, open_all(models, contract, threads), strict=True))
    out.mkdir(parents=True, exist_ok=True)
    results = []
    for pair_set in pair_sets:
        for name, embedder in embedders.items():
            used = embedder.contract.flip if flip is None else flip
            found = measure(embedder, pair_set, wanted, used, counted(say, f"{name} on {pair_set.name}"))
            results.append({"model": name, "set": pair_set.name, "flip": used, **found})
    return {
        "protocol": PROTOCOL,
        "degradation": DEGRADATION,
        "sides": wanted,
        "models": [_model(name, embedder) for name, embedder in embedders.items()],
        "sets": [_set(pair_set) for pair_set in pair_sets],
        "results": results,
        "versions": versions((*sorted({lib for e in embedders.values() for lib in e.libraries}), *DEGRADED_BY)),
    }


def counted(say: Callable[[str], None], what: str) -> Progress:
    """Progress that says how many images of `what` were embedded, each at every side."""
    say(what)
    return lambda done, total: say(f"{what}: {done:,} of {total:,} images, all sides")


def model_names(models: Sequence[Path]) -> list[str]:
    """The names of their files or folders, the whole paths where two are called alike."""
    if len(models) > 2:
        raise InputError(f"found {len(models)} models, wanted one, or two to compare")
    whole = [model.resolve() for model in models]
    if len(set(whole)) < len(whole):
        raise InputError(f"{models[0]}: is given twice, wanted two models to compare")
    names = [path.name for path in whole]
    return names if len(set(names)) == len(names) else [str(model) for model in models]


def open_all(models: Sequence[Path], contract: InputContract | None, threads: int | None) -> list[Embedder]:
    """Each by the contract that it carries; an ONNX file that carries none by the given one."""
    opened, taken = [], False
    for model in models:
        try:
            opened.append(open_embedder(model, None, threads))
        except InputError:
            if contract is None or model.suffix != ".onnx":
                raise
            opened.append(open_embedder(model, contract, threads))  # finds again what else is wrong with it
            taken = True
    if contract is not None and not taken:
        raise InputError(f"{models[0]}: carries its own input contract; leave --scale, --mean and --std out")
    return opened


def summary(numbers: dict[str, Any]) -> list[str]:
    """For each model and set a heading, and the accuracy of each kind in a line for each side and one for the mean."""
    lines = []
    for result in numbers["results"]:
        lines.append(f"{result['set']}, {result['model']}: accuracy by side of {SMALL}")
        found = {(row["kind"], f"{row['side']} px"): row["accuracy"] for row in result["rows"]}
        found |= {(kind, "mean"): mean for kind, mean in result["mean"].items()}
        for name in dict.fromkeys(name for _, name in found):
            lines.append(f"  {name:>6}  " + "  ".join(f"{kind} {found[kind, name]:.4f}" for kind in result["mean"]))
    return lines


def _model(name: str, embedder: Embedder) -> dict[str, Any]:
    return {"name": name, "model_sha256": embedder.sha256, "contract": embedder.contract.to_dict()}


def _set(pair_set: PairSet) -> dict[str, Any]:
    return {
        "name": pair_set.name,
        "data_sha256": pair_set.sha256,
        "pairs": len(pair_set.same),
        "images": len(pair_set.images),
        "folds": len(set(pair_set.fold.tolist())),
    }
