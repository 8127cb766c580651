"""The model card: what was asked and built, how it was judged, on what data, by which versions."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mobileface.data.faceset import FaceSet
from mobileface.embedders.contract import Embedder
from mobileface.files import sha256

TRAINING = ("mobileface", "torch", "numpy", "opencv-python-headless", "safetensors")
EXPORT = ("onnx", "onnxscript", "onnxruntime", "coremltools", "litert-torch", "ai-edge-litert", "ai-edge-quantizer")
LIBRARIES = (*TRAINING, *EXPORT)


def versions(libraries: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Python's version and those of the libraries that are installed."""
    found = {"python": platform.python_version()}
    for library in libraries:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def describe_data(faces: FaceSet, licence: str, skipped: list[str]) -> dict[str, Any]:
    """The training set: sources with hashes, counts, licence, images that were skipped."""
    return {
        "sha256": faces.fingerprint(),
        "images": len(faces),
        "identities": faces.num_identities,
        "sources": [
            {
                "name": source.name,
                "images": len(source),
                "identities": int(source.labels.max(initial=-1)) + 1,
                "sha256": source.fingerprint(),
            }
            for source in faces.sources
        ],
        "skipped": skipped,
        "licence": licence,
    }


def describe_start(folder: Path) -> dict[str, Any]:
    """The run folder that a training began with: its name, and the hash of its weights."""
    return {"path": folder.name, "sha256": sha256(folder / "model.safetensors")}


def describe_teacher(teacher: Embedder | None) -> dict[str, Any] | None:
    """The teacher's file, hash and input contract."""
    if teacher is None:
        return None
    return {"path": teacher.path.name, "sha256": teacher.sha256, "contract": teacher.contract.to_dict()}
