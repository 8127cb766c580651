"""A run folder's network becomes files, each proven equal to it before it takes its name."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.parity import TOLERANCES, gate
from export.to_onnx import NEEDED, OPSET, export_onnx
from mobileface.arch import load_arch
from mobileface.card import versions
from mobileface.data.align import TEMPLATE
from mobileface.embedders.contract import InputContract
from mobileface.embedders.network import WEIGHTS, NetworkEmbedder, load_network
from mobileface.embedders.onnx import CONTRACT_KEY
from mobileface.errors import CheckFailed, InputError, nearest
from mobileface.files import atomic_path, sha256, write_json
from mobileface.report.read import number, read_json, string
from mobileface.training.plan import BudgetLimits, Plan, read_plan

EXPORTERS = {"onnx": export_onnx}
PACKAGES = {"onnx": NEEDED}  # by format: what its exporter imports
PRECISION = "fp32"
ALIGNMENT = "arcface-112"  # the five points of mobileface.data.align.TEMPLATE
NOT_STATED = "not stated"


def export_run(
    run: Path,
    formats: list[str],
    images: NDArray[np.uint8],
    out: Path | None = None,
    max_size_mib: float | None = None,
) -> list[dict[str, Any]]:
    """Export a run folder (arch.json + model.safetensors) into `out`, by default RUN/export.

    Each format gives NAME.FORMAT (NAME: the plan's name, else the architecture's) and FORMAT.json, whose
    content is returned: file, format, precision, bytes, sha256, opset, parity, metadata. `images`
    (N, 112, 112, 3) uint8 RGB, at least 8, are what the file is compared on. `max_size_mib` None means the
    limit of the budget that the run's card or plan names, if any. Raises CheckFailed for a file that is not
    the network or is too large; then nothing is left under its name. InputError for a run folder that cannot
    be used and for unknown formats.
    """
    for kind in formats:
        if kind not in EXPORTERS:
            known = ", ".join(EXPORTERS)
            raise InputError(f"no format is called {kind!r}{nearest(kind, EXPORTERS)}; known: {known}")
    reference = NetworkEmbedder(load_network(run), run, sha256(run / WEIGHTS))
    plan = read_plan(run / "plan.yaml") if (run / "plan.yaml").is_file() else None
    card = read_json(run / "card.json") if (run / "card.json").is_file() else {}
    limit = max_size_mib if max_size_mib is not None else _size_limit(card, plan)
    name, folder = _file_name(run, plan), out or run / "export"
    metadata = file_metadata(run, card, plan, reference.sha256)
    return [
        _export(kind, reference, folder / f"{name}.{kind}", metadata, images, limit) for kind in dict.fromkeys(formats)
    ]


def _export(
    kind: str,
    reference: NetworkEmbedder,
    file: Path,
    metadata: dict[str, str],
    images: NDArray[np.uint8],
    limit: float | None,
) -> dict[str, Any]:
    """One format: write, judge, then give the file its name and describe it in FORMAT.json."""
    record = file.with_name(f"{kind}.json")
    try:
        with atomic_path(file) as unproven:
            network = copy.deepcopy(reference.network)  # so that no exporter can change what it is held to
            candidate = EXPORTERS[kind](network, unproven, metadata)
            report = gate(reference, candidate, images, TOLERANCES[PRECISION], file.name)
            _check_size(unproven, file.name, limit)
    except CheckFailed:
        for stale in (file, record):  # an older export would be taken for this network's
            stale.unlink(missing_ok=True)
        raise
    result = {
        "file": file.name,
        "format": kind,
        "precision": PRECISION,
        "bytes": file.stat().st_size,
        "sha256": candidate.sha256,
        "opset": OPSET,
        "parity": report.to_dict(),
        "metadata": metadata,
    }
    write_json(record, result)
    return result


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
    return {key: text or NOT_STATED for key, text in texts.items()}


def _file_name(run: Path, plan: Plan | None) -> str:
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
    size = file.stat().st_size / (1 << 20)
    if limit is not None and size > limit:
        raise CheckFailed(f"{name}: has {size:.2f} MiB and is not kept, the budget allows {limit:g} MiB")
