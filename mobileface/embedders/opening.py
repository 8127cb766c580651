"""The one place that opens embedders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mobileface.embedders.contract import Embedder, InputContract
from mobileface.errors import InputError

WEIGHTS = "model.safetensors"


def open_embedder(path: Path, contract: InputContract | None = None, threads: int | None = None) -> Embedder:
    """Open a run folder (or its model.safetensors) or an ONNX file as an embedder.

    `contract` is needed for a foreign ONNX file; our own files and run folders carry theirs. `threads` None
    means all cores. Raises InputError for what is missing, damaged or of no known kind.
    """
    if not path.exists():
        raise InputError(f"{path}: not found, wanted a run folder or an .onnx file")
    if path.suffix == ".onnx" and path.is_file():
        from mobileface.embedders.onnx import OnnxEmbedder

        return OnnxEmbedder(path, contract, threads)
    folder = path.parent if path.name == WEIGHTS else path
    if not folder.is_dir():
        raise InputError(f"{path}: is of no known kind, wanted a run folder, its {WEIGHTS} or an .onnx file")
    if contract is not None and replace(contract, flip="sum") != InputContract():
        raise InputError(f"{path}: a run folder takes RGB in 0..255, wanted no scale, mean, std or layout")
    from mobileface.embedders.network import open_run

    return open_run(folder, contract or InputContract(), threads)
