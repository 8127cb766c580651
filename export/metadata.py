"""What an exported file says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mobileface.arch import load_arch
from mobileface.card import versions
from mobileface.data.align import TEMPLATE
from mobileface.embedders.contract import InputContract
from mobileface.embedders.file import CONTRACT_KEY
from mobileface.evaluation.verification import FARS
from mobileface.files import sha256
from mobileface.report.read import number, read_json, string
from mobileface.training.plan import Plan

ALIGNMENT = "arcface-112"  # the five points of mobileface.data.align.TEMPLATE
NOT_STATED = "not stated"
WEIGHTS_KEY = "mobileface.weights_sha256"
THRESHOLDS_KEY = "mobileface.thresholds"  # JSON: {"1e-3": {"threshold": 0.31, "set": "lfw", "pairs": 5000000}}


def file_metadata(run: Path, card: dict[str, Any], plan: Plan | None, weights: str) -> dict[str, str]:
    """What a file says of itself: how to feed it, what it is, and what it was made from and by."""
    texts = {
        CONTRACT_KEY: json.dumps(InputContract().to_dict()),
        "mobileface.color": "RGB",
        "mobileface.alignment": ALIGNMENT,
        "mobileface.alignment_points": json.dumps(TEMPLATE.tolist()),
        "mobileface.arch": json.dumps(load_arch(run / "arch.json").to_dict()),
        WEIGHTS_KEY: weights,
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
