"""A run folder's network becomes files, each proven equal to it before it takes its name."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from export.formats import FORMATS, WEB, file_name, label, require
from export.images import Crops
from export.int8 import LEAST_CROPS, Int8
from export.keep_float import choose
from export.metadata import WEIGHTS_KEY, file_metadata
from export.parity import TOLERANCES, ParityMissed, ParityReport, gate
from export.to_web import export_web
from mobileface.arch import load_arch
from mobileface.embedders.contract import Embedder, InputContract
from mobileface.embedders.file import CONTRACT_KEY
from mobileface.embedders.network import WEIGHTS, NetworkEmbedder, load_network
from mobileface.errors import CheckFailed, InputError, one_line
from mobileface.files import atomic_folder, atomic_path, remove, sha256, size_of, write_json
from mobileface.models.equalise import equalise
from mobileface.models.fuse import fuse
from mobileface.report.read import number, read_json, string
from mobileface.training.plan import BudgetLimits, Plan, read_plan

WANTED = (0.995, 0.998, 0.9995)  # mean cosine that int8 shall keep: by simulation; a file that misses tries the next
Result = dict[str, Any]


@dataclass(frozen=True)
class Way:
    """How int8 is made: of which network (the same function, see `equalise`), with what kept, and the report on why."""

    network: nn.Module
    int8: Int8
    report: dict[str, Any]


@dataclass
class Source:
    """What is exported: the network, what the files say of it, and the faces on which they are held to it."""

    reference: NetworkEmbedder
    metadata: dict[str, str]
    crops: Crops
    limit: float | None  # MiB
    ways: dict[float, Way] = field(default_factory=dict)

    @cached_property
    def equal(self) -> nn.Module:
        """The network folded, with equal channels."""
        return equalise(fuse(self.reference.network).to("cpu", torch.float32), self.crops.images[::2])

    def way(self, wanted: float) -> Way:
        """Int8 with so much in float that a simulation keeps this mean cosine; ranges from every second face."""
        if wanted not in self.ways:
            keep, report = choose(self.equal, self.crops.images[::2], wanted)
            self.ways[wanted] = Way(self.equal, Int8(self.crops.images[::2], keep), report.to_dict())
        return self.ways[wanted]

    def whole(self) -> Way:
        """Int8 with nothing in float, where no range is needed."""
        return Way(self.reference.network, Int8(self.crops.images), {})


def export_run(
    run: Path,
    formats: Sequence[str],
    crops: Crops,
    out: Path | None = None,
    precisions: Sequence[str] = ("fp32",),
    say: Callable[[Result], object] = lambda result: None,
) -> list[Result]:
    """Export a run folder (arch.json + model.safetensors) into `out`, by default RUN/export.

    Each format and precision gives a file named by `formats.file_name` (NAME: the plan's name, else the architecture's)
    and FORMAT[-PRECISION].json, whose content is given to `say` at once and returned: file, format, precision, bytes,
    sha256, parity, metadata, and for int8 what stayed float and why. The files are compared on the crops, at least 8;
    int8 in ONNX and TFLite takes its ranges from every second one and is compared on the others. The format "web" is a
    page around the first ONNX file, in the folder `web`, and its entry the last, without parity. No
    file may be larger than the budget allows that the run's card or plan names. Raises CheckFailed, when all is done,
    for files that are not the network, are too large or cannot be made: nothing is left under their names. InputError,
    before anything is written, for a run folder or crops that cannot be used, for unknown formats, and for packages
    that are missing.
    """
    require(formats, precisions)
    reference = NetworkEmbedder(load_network(run), run, sha256(run / WEIGHTS))
    plan = read_plan(run / "plan.yaml") if (run / "plan.yaml").is_file() else None
    card = read_json(run / "card.json") if (run / "card.json").is_file() else {}
    metadata = {**file_metadata(run, card, plan, reference.sha256), "mobileface.crops": crops.source}
    source = Source(reference, metadata, crops, _size_limit(card, plan))
    kinds = list(dict.fromkeys("onnx" if asked == WEB else asked for asked in formats))
    if "int8" in precisions:
        _check_crops(crops, any(FORMATS[kind].searched for kind in kinds))
    name, folder = _name(run, plan), out or run / "export"
    _forget_others(folder, name, reference.sha256)
    results: list[Result] = []
    missed: list[CheckFailed] = []
    for kind, precision in ((kind, precision) for kind in kinds for precision in dict.fromkeys(precisions)):
        try:
            results.append(_export(kind, precision, source, folder / file_name(name, kind, precision)))
            say(results[-1])
        except CheckFailed as error:
            missed.append(error)
    first = next((result for result in results if result["format"] == "onnx"), None)
    if WEB in formats and not first:
        remove(folder / WEB)  # an older page would be taken for this network's
    if WEB in formats and first:
        with atomic_folder(folder / WEB) as page_folder:
            export_web(folder / first["file"], page_folder)
        page = {"file": WEB, "format": WEB, "precision": first["precision"], "bytes": size_of(folder / WEB)}
        results.append(page)
        say(page)
    if missed:
        raise CheckFailed("; ".join(map(str, missed))) from missed[0]
    return results


def described(result: Result, folder: Path) -> str:
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
        f"mean {parity['mean_cosine']:.9g}" + (f"; {kept} part{'s' * (kept > 1)} kept in float" if kept else "")
    )


def _export(kind: str, precision: str, source: Source, file: Path) -> Result:
    """One file; int8 with as much in int8 as the gate lets through. After a miss nothing is left under its name."""
    record = file.with_name(f"{label(kind, precision)}.json")
    missed: CheckFailed | None = None
    try:
        for way in _ways(kind, precision, source):
            try:
                result = _proven(kind, precision, source, file, way)
            except ParityMissed as error:
                missed = error
                continue
            write_json(record, result)
            return result
        assert missed is not None
        raise missed
    except CheckFailed:
        for stale in (file, record):  # an older export would be taken for this network's
            remove(stale)
        raise


def _ways(kind: str, precision: str, source: Source) -> Iterator[Way | None]:
    """Ways to int8, each with more in float than the one before; for other precisions just None."""
    if precision != "int8":
        yield None
        return
    if not FORMATS[kind].searched:
        yield source.whole()
    tried: list[frozenset[str]] = []
    for wanted in WANTED:
        way = source.way(wanted)
        if way.int8.keep not in tried:
            tried.append(way.int8.keep)
            yield way


def _proven(kind: str, precision: str, source: Source, file: Path, way: Way | None) -> Result:
    """One file: write, judge, then give it its name; returns what there is to say of it."""
    contract = InputContract(layout=FORMATS[kind].layout)
    metadata = {
        **source.metadata,
        CONTRACT_KEY: json.dumps(contract.to_dict()),
        "mobileface.precision": precision,
    }
    whole = atomic_folder if file.suffix == ".mlpackage" else atomic_path
    held_back = way is not None and FORMATS[kind].searched
    images = source.crops.images[1::2] if held_back else source.crops.few()
    with whole(file) as unproven:
        candidate = _written(kind, precision, source.reference.network, unproven, file.name, metadata, way)
        batches = FORMATS[kind].batches
        parity: ParityReport = gate(source.reference, candidate, images, TOLERANCES[precision], file.name, batches)
        if also := FORMATS[kind].also:
            gate(source.reference, also(unproven), images, TOLERANCES[precision], file.name, batches)
        _check_size(unproven, file.name, source.limit)
    result = {
        "file": file.name,
        "format": kind,
        "precision": precision,
        "bytes": size_of(file),
        "sha256": candidate.sha256,
        "parity": parity.to_dict(),
        "metadata": metadata,
    }
    return {**result, "int8": way.report} if way and way.report else result


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
    except (InputError, OSError, MemoryError):
        raise
    except ImportError as error:
        raise InputError(f"{kind}: {one_line(error)}; wanted packages that can be imported") from error
    except Exception as error:  # converters raise whatever they like
        said = one_line(error) if isinstance(error, CheckFailed) else f"{type(error).__name__}: {one_line(error)}"
        raise CheckFailed(f"{name}: cannot be written ({_called(said, path, name)})") from error
    try:
        return FORMATS[kind].open(path)
    except InputError as error:
        said = _called(one_line(error), path, name)
        raise CheckFailed(f"{name}: cannot be read back, and is not kept ({said})") from None


def _called(text: str, path: Path, name: str) -> str:
    """The text with the name that the file shall have instead of its temporary one."""
    return text.replace(str(path), name).replace(path.name, name)


def _check_crops(crops: Crops, halved: bool) -> None:
    """InputError for crops that int8 cannot take its ranges from; halved: every second one is to judge by."""
    least = 2 * LEAST_CROPS - 1 if halved else LEAST_CROPS
    if len(crops.images) < least:
        why = ", every second one to judge by" if halved else ""
        raise InputError(f"calibration: {len(crops.images)} crops ({crops.source}), wanted at least {least}{why}")
    Int8(crops.images[::2] if halved else crops.images)


def _forget_others(folder: Path, name: str, weights: str) -> None:
    """Remove what was exported under this name from other weights: it would be taken for this network's."""
    for record in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        found = read_json(record)
        file = string(found, "file") or ""
        other = string(found, "metadata", WEIGHTS_KEY) not in (None, weights)
        if other and file in {file_name(name, kind, precision) for kind in FORMATS for precision in TOLERANCES}:
            remove(folder / file)
            remove(record)
            remove(folder / WEB)


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
