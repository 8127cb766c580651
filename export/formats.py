"""The formats that a network is exported to: who writes and opens each, and what must be installed for it."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from export.parity import BATCHES
from export.to_coreml import export_coreml
from export.to_onnx import export_onnx
from export.to_tflite import export_tflite
from mobileface.embedders.contract import Embedder
from mobileface.embedders.coreml import CoreMLEmbedder
from mobileface.embedders.onnx import OnnxEmbedder
from mobileface.embedders.tflite import TFLiteEmbedder
from mobileface.errors import InputError, nearest

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Format:
    """One format.

    write: (network, path, metadata, precision, int8) writes an unproven file (or folder); open: what it wrote, as an
    embedder on the format's own runtime; searched: whether int8 also rounds activations, so that some layers may have
    to stay float; packages: what both import; batches: the sizes at which a file is held to its network;
    layout: of its input; also: what it wrote on a second runtime that this machine has, held to the network as well.
    """

    suffix: str
    write: Callable[..., None]
    open: Callable[[Path], Embedder]
    packages: tuple[str, ...]
    searched: bool = True
    batches: tuple[int, ...] = BATCHES
    layout: str = "nchw"
    also: Callable[[Path], Embedder] | None = None


INTERPRETER = partial(CoreMLEmbedder, interpreted=True) if platform.system() == "Darwin" else None
LITERT = ("litert_torch", "ai_edge_litert", "ai_edge_quantizer")
FORMATS = {
    "onnx": Format(".onnx", export_onnx, OnnxEmbedder, ("onnx", "onnxscript", "onnxruntime")),
    "coreml": Format(
        ".mlpackage", export_coreml, CoreMLEmbedder, ("coremltools",), searched=False, batches=(1,), also=INTERPRETER
    ),
    "tflite": Format(".tflite", export_tflite, TFLiteEmbedder, LITERT, layout="nhwc"),
}


WEB = "web"  # a page around the ONNX file: `export.to_web`


def require(kinds: Iterable[str], precisions: Iterable[str] = ()) -> None:
    """InputError for a format or a precision that is not known, or whose packages are not installed."""
    kinds_known = (*FORMATS, WEB)
    for asked in kinds:
        if asked not in kinds_known:
            known = ", ".join(kinds_known)
            raise InputError(f"no format is called {asked!r}{nearest(asked, kinds_known)}; known: {known}")
        kind = "onnx" if asked == WEB else asked
        if asked == WEB and shutil.which("npm") is None:
            raise InputError("web: npm is missing, wanted to fetch ONNX Runtime Web, once")
        for package in FORMATS[kind].packages:
            if find_spec(package) is None:
                raise InputError(f"{asked}: {package} is missing, wanted: pip install 'mobileface[{kind}]'")
    for precision in precisions:
        if precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise InputError(f"no precision is called {precision!r}{nearest(precision, PRECISIONS)}; known: {known}")


def file_name(name: str, kind: str, precision: str) -> str:
    """NAME.onnx, NAME-fp16.onnx, NAME-int8.mlpackage."""
    return f"{name}{label('', precision)}{FORMATS[kind].suffix}"


def label(kind: str, precision: str) -> str:
    """onnx, onnx-fp16, onnx-int8: what an export is called in a run folder."""
    return kind if precision == "fp32" else f"{kind}-{precision}"
