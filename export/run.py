"""A run folder's network becomes files, each proven equal to it before it takes its name."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.equalise import equalise
from export.formats import FORMATS, WEB, file_name, label, require
from export.int8 import Int8
from export.keep_float import choose
from export.parity import TOLERANCES, ParityReport, gate
from export.to_web import THRESHOLDS_KEY, export_web
from mobileface.arch import load_arch
from mobileface.card import versions
from mobileface.data.align import TEMPLATE
from mobileface.embedders.contract import Embedder, InputContract
from mobileface.embedders.file import CONTRACT_KEY
from mobileface.embedders.network import WEIGHTS, NetworkEmbedder, load_network
from mobileface.errors import CheckFailed, InputError, MobileFaceError, one_line
from mobileface.files import atomic_folder, atomic_path, remove, sha256, size_of, write_json
from mobileface.models.fuse import fuse
from mobileface.report.read import number, read_json, string
from mobileface.training.plan import BudgetLimits, Plan, read_plan

ALIGNMENT = "arcface-112"  # the five points of mobileface.data.align.TEMPLATE
NOT_STATED = "not stated"
FARS = ("1e-3", "1e-4")  # of mobileface.evaluation.verification
FLOAT_IMAGES = 32  # the differences are rounding, which more images show no better
WANTED = (0.995, 0.998, 0.9995)  # mean cosine that int8 shall keep: by simulation; a file that misses tries the next


@dataclass(frozen=True)
class Way:
    """How int8 is made: of which network (the same function, see `equalise`), with what kept, and the report on why."""

    network: nn.Module
    int8: Int8
    report: dict[str, Any]


def export_run(
    run: Path,
    formats: Sequence[str],
    images: NDArray[np.uint8],
    out: Path | None = None,
    max_size_mib: float | None = None,
    precisions: Sequence[str] = ("fp32",),
) -> list[dict[str, Any]]:
    """Export a run folder (arch.json + model.safetensors) into `out`, by default RUN/export.

    Each format and precision gives a file named by `formats.file_name` (NAME: the plan's name, else the architecture's)
    and FORMAT[-PRECISION].json, whose content is returned: file, format, precision, bytes, sha256, parity, metadata,
    and for int8 what stayed float and why. `images` (N, 112, 112, 3) uint8 RGB, at least 8, are what the files are
    compared on; int8 takes its ranges from every second one and is compared on the others. The format "web" is a page
    around the first ONNX file, in the folder `web`, and its entry the last, without parity. `max_size_mib` None means
    the limit of the budget that the run's card or plan names, if any. Raises CheckFailed for a file that is not the
    network, is too large or cannot be made; then nothing is left under its name. InputError for a run folder or images
    that cannot be used, for unknown formats, and for packages that are missing.
    """
    require(formats, precisions)
    reference = NetworkEmbedder(load_network(run), run, sha256(run / WEIGHTS))
    plan = read_plan(run / "plan.yaml") if (run / "plan.yaml").is_file() else None
    card = read_json(run / "card.json") if (run / "card.json").is_file() else {}
    limit = max_size_mib if max_size_mib is not None else _size_limit(card, plan)
    name, folder = _name(run, plan), out or run / "export"
    metadata = file_metadata(run, card, plan, reference.sha256)

    @cache
    def way(attempt: int) -> Way:
        crops = images[::2]
        Int8(crops)  # refuses crops of no use before the search
        network = equalise(fuse(reference.network).to("cpu", torch.float32), crops)
        keep, report = choose(network, crops, WANTED[attempt])
        return Way(network, Int8(crops, keep), report.to_dict())

    results = []
    if WEB in formats:
        remove(folder / WEB)  # its model would be taken for this network's, should anything below fail
    for kind in dict.fromkeys("onnx" if asked == WEB else asked for asked in formats):
        for precision in dict.fromkeys(precisions):
            file = folder / file_name(name, kind, precision)
            described = {**metadata, "mobileface.precision": precision}
            if precision == "int8":
                found = _export_int8(kind, reference, file, described, images, limit, way)
            else:
                found = _export(kind, precision, reference, file, described, _spread(images), limit)
            results.append(found)
    if WEB in formats:
        first = next(result for result in results if result["format"] == "onnx")
        export_web(folder / first["file"], folder / WEB)
        results.append({"file": WEB, "format": WEB, "precision": first["precision"], "bytes": size_of(folder / WEB)})
    return results


def described(result: dict[str, Any], folder: Path) -> str:
    """What was exported, in one line."""
    size_mib = result["bytes"] / (1 << 20)
    if result["format"] == WEB:
        return f"{folder / WEB}: {size_mib:.2f} MiB, a page for any static server: python -m http.server"
    parity = result["parity"]
    batches = " and ".join(map(str, parity["batches"]))
    kept = len(result.get("int8", {}).get("kept", []))
    return (
        f"{folder / result['file']}: {size_mib:.2f} MiB; against the network on {parity['images']} images at batch "
        f"{batches}: largest difference {parity['max_abs']:.1e}, cosine at least {parity['min_cosine']:.9g}, "
        f"mean {parity['mean_cosine']:.9g}" + (f"; {kept} layers stay float" if kept else "")
    )


def _export_int8(
    kind: str,
    reference: NetworkEmbedder,
    file: Path,
    metadata: dict[str, str],
    images: NDArray[np.uint8],
    limit: float | None,
    way: Callable[[int], Way],
) -> dict[str, Any]:
    """With as much in int8 as the gate lets through; where only weights are rounded, all of it comes first."""
    common = (kind, "int8", reference, file, metadata, images[1::2], limit)
    ways = [partial(way, attempt) for attempt in range(len(WANTED))]
    if not FORMATS[kind].searched:
        ways.insert(0, lambda: Way(reference.network, Int8(images[::2]), {}))
    for make in ways[:-1]:
        with suppress(CheckFailed):
            return _export(*common, make())
    return _export(*common, ways[-1]())


def _export(
    kind: str,
    precision: str,
    reference: NetworkEmbedder,
    file: Path,
    metadata: dict[str, str],
    images: NDArray[np.uint8],
    limit: float | None,
    way: Way | None = None,
) -> dict[str, Any]:
    """One file: write, judge, then give it its name and describe it in FORMAT[-PRECISION].json."""
    record = file.with_name(f"{label(kind, precision)}.json")
    whole = atomic_folder if file.suffix == ".mlpackage" else atomic_path
    try:
        with whole(file) as unproven:
            candidate = _written(kind, precision, reference.network, unproven, file.name, metadata, way)
            parity: ParityReport = gate(
                reference, candidate, images, TOLERANCES[precision], file.name, FORMATS[kind].batches
            )
            _check_size(unproven, file.name, limit)
    except CheckFailed:
        for stale in (file, record):  # an older export would be taken for this network's
            remove(stale)
        raise
    result = {
        "file": file.name,
        "format": kind,
        "precision": precision,
        "bytes": size_of(file),
        "sha256": candidate.sha256,
        "parity": parity.to_dict(),
        "metadata": metadata,
    }
    if way and way.report:
        result["int8"] = way.report
    write_json(record, result)
    return result


def _written(
    kind: str,
    precision: str,
    network: nn.Module,
    path: Path,
    name: str,
    metadata: dict[str, str],
    way: Way | None,
) -> Embedder:
    """What the format's writer wrote, opened again. CheckFailed where it cannot be written or read back."""
    own = copy.deepcopy(way.network if way else network)  # so that no exporter can change what it is held to
    try:
        FORMATS[kind].write(own, path, metadata, precision, way.int8 if way else None)
    except MobileFaceError:
        raise
    except Exception as error:  # converters raise whatever they like
        raise CheckFailed(f"{name}: cannot be written ({type(error).__name__}: {one_line(error)})") from error
    try:
        return FORMATS[kind].open(path)
    except InputError as error:
        raise CheckFailed(f"{name}: cannot be read back, and is not kept ({one_line(error)})") from None


def _spread(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """At most FLOAT_IMAGES of them."""
    places = np.linspace(0, len(images) - 1, min(len(images), FLOAT_IMAGES)).astype(int)
    return images[places]


def file_metadata(run: Path, card: dict[str, Any], plan: Plan | None, weights: str) -> dict[str, str]:
    """What a file says of itself: how to feed it, what it is, and what it was made from and by."""
    texts = {
        CONTRACT_KEY: json.dumps(InputContract().to_dict()),
        "mobileface.color": "RGB",
        "mobileface.alignment": ALIGNMENT,
        "mobileface.alignment_points": json.dumps(TEMPLATE.tolist()),
        "mobileface.arch": json.dumps(load_arch(run / "arch.json").to_dict()),
        "mobileface.weights_sha256": weights,
        "mobileface.plan_sha256": sha256(run / "plan.yaml") if plan else None,
        "mobileface.data_sha256": string(card, "data", "sha256"),
        "mobileface.data_licence": string(card, "data", "licence") or (plan.data.licence if plan else None),
        "mobileface.weights_licence": string(card, "licence"),
        "mobileface.versions": json.dumps(versions()),
    }
    stated = {key: text or NOT_STATED for key, text in texts.items()}
    thresholds = _thresholds(run, weights)
    return {**stated, THRESHOLDS_KEY: json.dumps(thresholds)} if thresholds else stated


def _thresholds(run: Path, weights: str) -> dict[str, Any]:
    """By FAR: the threshold for two single embeddings, from the set of this run with the most impostor pairs."""
    found: dict[str, Any] = {}
    files = sorted((run / "evaluation").glob("*.json")) if (run / "evaluation").is_dir() else []
    for result in (read_json(file) for file in files if not file.name.endswith(".worst.json")):
        pairs = number(result, "tar_impostors", "pairs") or 0
        if string(result, "model_sha256") != weights:
            continue
        for far in FARS:
            threshold = number(result, "single_thresholds", far)
            if threshold is not None and pairs > found.get(far, {"pairs": -1})["pairs"]:
                found[far] = {"threshold": threshold, "set": string(result, "set"), "pairs": int(pairs)}
    return found


def _name(run: Path, plan: Plan | None) -> str:
    """The plan's name, else the architecture's; only what is safe in a file name stays of it."""
    name = plan.name if plan else load_arch(run / "arch.json").name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", str(name)).strip(".-")[:100] or "model"


def _size_limit(card: dict[str, Any], plan: Plan | None) -> float | None:
    """max_size_mib of the budget in card.json, else of a budget that the plan spells out."""
    found = number(card, "budget", "budget", "max_size_mib")
    if found is None and plan and isinstance(plan.budget, BudgetLimits):
        return plan.budget.max_size_mib
    return found


def _check_size(file: Path, name: str, limit: float | None) -> None:
    size = size_of(file) / (1 << 20)
    if limit is not None and size > limit:
        raise CheckFailed(f"{name}: has {size:.2f} MiB and is not kept, the budget allows {limit:g} MiB")
