"""A network of ours as an ONNX file that ONNX Runtime runs fast."""

from __future__ import annotations

import ast
import json
import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from export.activations import ConvForm, rewrite_activations
from export.deployed import LEAST_NORM, Deployed, folded
from export.int8 import Int8
from export.onnx_fp16 import halve
from export.onnx_int8 import quantise
from mobileface.arch import INPUT_SIZE
from mobileface.embedders.contract import InputContract
from mobileface.embedders.file import CONTRACT_KEY
from mobileface.errors import CheckFailed
from mobileface.files import atomic_path

OPSET = 20
SCOPES = "pkg.torch.onnx.name_scopes"  # where the tracer notes which modules a node comes from
UNIT = 1e-4  # how far an embedding's length may be from 1


def export_onnx(
    network: nn.Module, path: Path, metadata: dict[str, str], precision: str = "fp32", int8: Int8 | None = None
) -> None:
    """Write `network` (float RGB pixels 0..255 -> raw embeddings) to `path`, in fp32, fp16 or (with `int8`) int8.

    Batch norms are folded and activations are rewritten in a copy; the batch dimension is free. `metadata` goes into
    the file's metadata_props, with our input contract under `mobileface.contract` unless it says otherwise.
    The file is written whole or not at all. InputError for slopes that are not finite, for layers to keep that are not
    there and for int8 without crops, CheckFailed if the file's outputs are not what `Deployed` says.
    """
    fused = folded(network, path, precision, int8)
    with atomic_path(path) as temporary:
        write_onnx(rewrite_activations(fused, ConvForm), temporary, metadata, precision, int8)
        check_outputs(temporary, path.name)


def write_onnx(
    network: nn.Module, path: Path, metadata: dict[str, str], precision: str = "fp32", int8: Int8 | None = None
) -> None:
    """Trace `network` as it is, on the CPU and in eval mode, no fold and no rewrite, and write the file."""
    from onnx import checker, helper

    model = _trace(Deployed(network.eval()))
    if precision == "fp16":
        model = halve(model)
    elif int8 is not None:
        model = quantise(model, int8)
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
    model = program.model_proto
    _name_nodes(model.graph)
    _strip(model)
    return model


def _name_nodes(graph: Any) -> None:
    """Name each node by the module that it comes from: "stem.conv/Conv", "stem.act/Mul", "/ReduceL2", "/Div.1".

    What `Deployed` does itself has no module; the network's own operations have the module "network".
    """
    seen: Counter[str] = Counter()
    for node in graph.node:
        notes = {entry.key: entry.value for entry in node.metadata_props}
        scopes = ast.literal_eval(notes.get(SCOPES, "['']"))  # of the modules, outermost first, then of the node
        module = scopes[-2] if len(scopes) > 1 else ""
        name = f"{module.removeprefix('network.')}/{node.op_type}"
        node.name = f"{name}.{seen[name]}" if seen[name] else name
        seen[name] += 1


def _strip(model: Any) -> None:
    """Take out what the tracer notes of this machine: stack traces with paths."""
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
