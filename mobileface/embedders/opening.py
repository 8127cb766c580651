"""The one place that opens embedders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mobileface.embedders.contract import Embedder, InputContract
from mobileface.errors import InputError

WEIGHTS = "model.safetensors"


def open_embedder(path: Path, contract: InputContract | None = None, threads: int | None = None) -> Embedder:
    """Open a run folder (or its model.safetensors), an ONNX or TFLite file or a Core ML package as an embedder.

    `contract` is needed for a foreign file; our own files and run folders carry theirs. `threads` None means all
    cores. Raises InputError for what is missing, damaged or of no known kind.
    """
    wanted = "a run folder, an .onnx, .tflite or .mlpackage"
    if not path.exists():
        raise InputError(f"{path}: not found, wanted {wanted}")
    if path.suffix == ".onnx" and path.is_file():
        from mobileface.embedders.onnx import OnnxEmbedder

        return OnnxEmbedder(path, contract, threads)
    if path.suffix == ".tflite" and path.is_file():
        from mobileface.embedders.tflite import TFLiteEmbedder

        return TFLiteEmbedder(path, contract, threads)
    if path.suffix == ".mlpackage" and path.is_dir():
        from mobileface.embedders.coreml import CoreMLEmbedder

        return CoreMLEmbedder(path, contract, threads)
    folder = path.parent if path.name == WEIGHTS else path
    if not folder.is_dir():
        raise InputError(f"{path}: is of no known kind, wanted {wanted}, or a run's {WEIGHTS}")
    if contract is not None and replace(contract, flip="sum") != InputContract():
        raise InputError(f"{path}: a run folder takes RGB in 0..255, wanted no scale, mean, std or layout")
    from mobileface.embedders.network import open_run

    return open_run(folder, contract or InputContract(), threads)
