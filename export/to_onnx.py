"""A network of ours as an ONNX file that ONNX Runtime runs fast."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export.prelu import rewrite_prelu
from mobileface.arch import INPUT_SIZE
from mobileface.embedders.contract import InputContract
from mobileface.embedders.onnx import CONTRACT_KEY, OnnxEmbedder
from mobileface.errors import CheckFailed, InputError
from mobileface.files import atomic_path
from mobileface.models.fuse import fuse

OPSET = 20
NEEDED = ("onnx", "onnxscript", "onnxruntime")
LEAST_NORM = 1e-12  # as torch.nn.functional.normalize: a zero embedding stays zero instead of becoming NaN
UNIT = 1e-4  # how far an embedding's length may be from 1


class Deployed(nn.Module):
    """What an exported file computes: pixels (B, 3, 112, 112), float RGB 0..255 -> embedding, quality.

    embedding (B, D) has unit length; quality (B,) is the norm before normalisation, so that their product is
    the raw embedding. A zero embedding stays zero, with quality 0.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """`input` is the graph's name for the pixels."""
        raw = self.network(input)
        norm = torch.linalg.vector_norm(raw, dim=1, keepdim=True)
        return raw / norm.clamp_min(LEAST_NORM), norm.squeeze(1)


def export_onnx(network: nn.Module, path: Path, metadata: dict[str, str]) -> OnnxEmbedder:
    """Write `network` (float RGB pixels 0..255 -> raw embeddings) to `path` and open what was written.

    Batch norms are folded and PReLU is rewritten in a copy; the batch dimension is free. `metadata` goes into
    the file's metadata_props, with our input contract under `mobileface.contract` unless it says otherwise.
    The file is written whole or not at all. InputError for slopes that are not finite and where the packages
    for ONNX are missing, CheckFailed if the file's outputs are not what `Deployed` says.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise InputError(f"{path}: {missing[0]} is missing, wanted: pip install 'mobileface[onnx]'")
    prepared = rewrite_prelu(fuse(network)).to("cpu", torch.float32)
    with atomic_path(path) as temporary:
        write_onnx(prepared, temporary, metadata)
        check_outputs(temporary, path.name)
    return OnnxEmbedder(path)


def write_onnx(network: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Trace `network` as it is, on the CPU and in eval mode, no fold and no rewrite, and write the file."""
    from onnx import checker, helper

    model = _trace(Deployed(network.eval()))
    _strip(model)
    contract = json.dumps(InputContract().to_dict())
    helper.set_model_props(model, {CONTRACT_KEY: contract, **metadata})
    checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def check_outputs(path: Path, name: str) -> None:
    """Run three plain images: CheckFailed unless the file gives unit embeddings (3, D) and quality (3,)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images = np.full((INPUT_SIZE, INPUT_SIZE, 3, 3), (30, 127, 220), np.float32).T  # dark, grey, bright
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(None, {"input": images}), strict=True))
    shapes = {key: value.shape for key, value in found.items()}
    if names != ["embedding", "quality"] or [len(s) for s in shapes.values()] != [2, 1]:
        raise CheckFailed(f"{name}: outputs are {shapes}, wanted embedding (B, D) and quality (B,)")
    lengths = np.linalg.norm(found["embedding"].astype(np.float64), axis=1)
    off = np.where(found["quality"] <= LEAST_NORM, 0.0, np.abs(lengths - 1))
    if not (off <= UNIT).all():  # nor for NaN
        raise CheckFailed(f"{name}: embeddings have lengths {lengths.tolist()}, wanted 1 within {UNIT}")


def _trace(network: nn.Module) -> Any:
    """The graph as an onnx.ModelProto."""
    example = torch.full((2, 3, INPUT_SIZE, INPUT_SIZE), 127.5)  # a batch of 1 would be taken for a constant
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["input"],
            output_names=["embedding", "quality"],
            dynamic_shapes={"input": {0: torch.export.Dim("batch", min=1)}},
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _strip(model: Any) -> None:
    """Take out what the tracer notes of this machine: stack traces with paths, and names of modules."""
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for part in (model, graph, *graph.node, *values):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's remarks on itself: deprecations, a torchvision that nothing here needs."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
