"""A page that compares two faces in the browser: one folder for any static server, nothing leaves the device."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.metadata import THRESHOLDS_KEY
from export.npm import npm_files
from mobileface.arch import INPUT_SIZE
from mobileface.data.align import TEMPLATE
from mobileface.embedders.contract import InputContract
from mobileface.embedders.onnx import OnnxEmbedder
from mobileface.errors import InputError
from mobileface.files import atomic_path, write_json

PAGE = Path(__file__).parent / "web"
MODEL = "model.onnx"
RUNTIME = ("onnxruntime-web", "1.30.0")
# The smallest build: WebAssembly with SIMD, CPU only, 0.07 and 13.6 MiB (3.5 MiB with gzip). It has a build with
# threads only, which runs with one where the server sends no COOP and COEP headers.
RUNTIME_FILES = {
    "dist/ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "dist/ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
LICENCES = {"data": "mobileface.data_licence", "weights": "mobileface.weights_licence"}
TEXT_LIMIT = 200  # characters of what a file says of itself


def export_web(onnx_file: Path, folder: Path, thresholds: dict[str, float] | None = None) -> dict[str, Any]:
    """Write the page for an ONNX export of ours into `folder`; returns the content of its meta.json.

    `thresholds`: false match rate ("1e-3") -> least cosine of one person; None means those in the file's
    metadata, if any. ONNX Runtime Web is fetched with npm once and kept in our cache. Files in `folder` that
    are not of the page stay. Raises InputError for a file that is no ONNX export of ours with float input, for
    thresholds that cannot be used, and where the runtime cannot be fetched.
    """
    embedder = OnnxEmbedder(onnx_file, threads=1)
    if replace(embedder.contract, flip="sum") != InputContract():
        raise InputError(f"{onnx_file}: wants its input normalised, wanted an export of ours, which does it itself")
    said = _metadata(onnx_file)
    meta = {
        "name": onnx_file.stem,
        "model": MODEL,
        "bytes": onnx_file.stat().st_size,
        "sha256": embedder.sha256,
        "dim": embedder.dim,
        "licence": {name: said.get(key, "not stated")[:TEXT_LIMIT] for name, key in LICENCES.items()},
        "runtime": f"ONNX Runtime Web {RUNTIME[1]} (MIT licence)",
        "eyes": TEMPLATE[:2].tolist(),
        "thresholds": _thresholds(onnx_file, said.get(THRESHOLDS_KEY), thresholds),
        "check": _check(embedder),
    }
    runtime = npm_files(*RUNTIME, RUNTIME_FILES)
    sources = [*sorted(PAGE.glob("*.*")), *(runtime / Path(path).name for path in RUNTIME_FILES)]
    for source in sources:
        _copy(source, (folder / "ort" if source.parent == runtime else folder) / source.name)
    _copy(onnx_file, folder / MODEL)
    write_json(folder / "meta.json", meta)
    return meta


def pattern() -> NDArray[np.uint8]:
    """(1, 112, 112, 3): the picture on which a browser is held to Python's answer; web/model.js draws the same."""
    y, x, channel = np.indices((INPUT_SIZE, INPUT_SIZE, 3))
    return ((3 * x + 5 * y + 70 * channel + ((x * y) >> 3)) & 255).astype(np.uint8)[None]


def _check(embedder: OnnxEmbedder) -> dict[str, Any]:
    """Unit embedding and quality of the pattern, to seven digits."""
    raw = embedder(pattern())[0].astype(np.float64)
    quality = float(np.linalg.norm(raw))
    if not quality:
        raise InputError(f"{embedder.path}: gives a zero embedding, wanted a trained network")
    return {"embedding": [round(value, 7) for value in (raw / quality).tolist()], "quality": round(quality, 7)}


def _metadata(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file with our inputs and outputs; InputError for another file."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    names = [value.name for value in (*model.graph.input, *model.graph.output)]
    kind = model.graph.input[0].type.tensor_type.elem_type
    if names != ["input", "embedding", "quality"] or kind != onnx.TensorProto.FLOAT:
        raise InputError(f"{path}: has {names}, wanted an export of ours: float input, embedding and quality")
    return {entry.key: entry.value for entry in model.metadata_props}


def _thresholds(path: Path, stored: str | None, given: dict[str, float] | None) -> list[dict[str, Any]]:
    """[{rate, threshold, set, pairs}], the largest rate first; what is given counts before what is stored."""
    if given is not None:
        found: object = {rate: {"threshold": value} for rate, value in given.items()}
    else:
        try:
            found = json.loads(stored or "{}")
        except ValueError:
            found = None
    if not isinstance(found, dict) or not all(isinstance(row, dict) for row in found.values()):
        raise InputError(f"{path}: metadata {THRESHOLDS_KEY!r} is no JSON object of objects")
    rows = [_threshold(path, rate, row) for rate, row in found.items()]
    return sorted(rows, key=lambda row: -row["rate"])


def _threshold(path: Path, name: str, row: dict[str, Any]) -> dict[str, Any]:
    try:
        rate, threshold, pairs = float(name), float(row["threshold"]), int(row.get("pairs") or 0)
    except (KeyError, TypeError, ValueError, OverflowError):
        rate = threshold = math.nan
    if not (0 < rate < 1 and -1 <= threshold <= 1):
        raise InputError(f"{path}: threshold {name!r} is {str(row)[:80]}, wanted a rate in 0..1 and a cosine in -1..1")
    return {"rate": rate, "threshold": threshold, "set": str(row.get("set") or "")[:TEXT_LIMIT], "pairs": pairs}


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
