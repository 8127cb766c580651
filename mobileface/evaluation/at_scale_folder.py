"""What scoring at scale leaves in its folder, to go on from: what is counted, each pass, the counts of each block."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from mobileface.errors import InputError, visible
from mobileface.evaluation.at_scale_count import Task
from mobileface.evaluation.at_scale_windows import Tally, Window
from mobileface.files import atomic_path, write_json

DIGEST = hashlib.sha256().digest_size

log = logging.getLogger(__name__)


def write_counts(path: Path, key: bytes, tallies: list[Tally]) -> None:
    """The counts of a block of probes, behind a hash over them, the pass and the block's name."""
    arrays: dict[str, NDArray[Any]] = {}
    for n, tally in enumerate(tallies):
        arrays |= {f"above{n}": tally.above, f"keys{n}": tally.keys, f"binned{n}": np.array([tally.binned])}
        arrays[f"counts{n}"] = np.ascontiguousarray(tally.counts)
    payload = safetensors.numpy.save(arrays)
    with atomic_path(path) as temporary:
        temporary.write_bytes(_digest(path, key, payload) + payload)


def read_counts(path: Path, key: bytes, task: Task) -> list[Tally] | None:
    """What `write_counts` wrote, or None where it is missing, damaged, or of another pass."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if content[:DIGEST] != _digest(path, key, content[DIGEST:]):
        log.warning("%s", visible(f"{path}: damaged, counted anew"))
        return None
    arrays = safetensors.numpy.load(content[DIGEST:])
    return [
        Tally(
            window, task.most, arrays[f"above{n}"], arrays[f"keys{n}"], arrays[f"counts{n}"],
            bool(arrays[f"binned{n}"][0]),
        )
        for n, window in enumerate(task.windows)
    ]  # fmt: skip


def _digest(path: Path, key: bytes, payload: bytes) -> bytes:
    return hashlib.sha256(b"\0".join((key, path.name.encode(), payload))).digest()


def read_task(path: Path) -> Task:
    try:
        found = json.loads(path.read_text())
        windows = tuple(Window(**{**window, "ks": tuple(window["ks"])}) for window in found.pop("windows"))
        return Task(windows=windows, **found)
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: is damaged; remove the folder, or give another --out") from None


def check_new(folder: Path) -> None:
    """InputError for a folder of something else: counts have one of their own."""
    names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    if "inputs.json" not in names and (others := [name for name in names if not name.startswith(".")]):
        raise InputError(f"{folder}: holds {visible(others[0])}, and no counts; wanted a new folder for --out")


def check_folder(folder: Path, inputs: dict[str, Any]) -> None:
    """InputError unless the folder's counts are of the same inputs, or there are none."""
    path = folder / "inputs.json"
    if not path.is_file():
        write_json(path, inputs)
        return
    try:
        found = json.loads(path.read_text())
        differs = [name for name in {**inputs, **found} if found.get(name) != inputs.get(name)]
    except (ValueError, AttributeError, TypeError):
        differs = ["inputs.json"]
    if differs:
        raise InputError(f"{folder}: holds counts of other inputs ({differs[0]} differs); wanted another --out")
