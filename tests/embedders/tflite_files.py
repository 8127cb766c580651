"""Small TFLite files for tests, made by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mobileface.embedders.tflite_file import METADATA

NHWC, NCHW = (1, 112, 112, 3), (1, 3, 112, 112)
FLOAT, UINT8, INT8, INT32 = 0, 3, 9, 2
SCALE, ZERO = 0.02, 7  # of quantised values


def tensor(name: str, shape: tuple[int, ...], kind: int, buffer: int = 0) -> Any:
    made = schema.TensorT()
    made.name, made.shape, made.type, made.buffer = name, list(shape), kind, buffer
    if kind in (UINT8, INT8):
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale, made.quantization.zeroPoint = [SCALE], [ZERO]
    return made


def buffer(data: bytes = b"") -> Any:
    made = schema.BufferT()
    made.data = np.frombuffer(data, np.uint8) if data else None
    return made


def mean_file(
    path: Path,
    kind: int = FLOAT,
    shape: tuple[int, ...] = NHWC,
    texts: object = None,
    outputs: tuple[str, ...] = ("out",),
    code: int = schema.BuiltinOperator.MEAN,
    change: Callable[[Any], None] = lambda model: None,
) -> Path:
    """The mean of each channel as `out` (N, 3), which shows what the network was fed. `change` spoils the ModelT."""
    axes = (1, 2) if shape[-1] == 3 else (2, 3)
    model, graph, op, opcode = schema.ModelT(), schema.SubGraphT(), schema.OperatorT(), schema.OperatorCodeT()
    opcode.builtinCode = opcode.deprecatedBuiltinCode = code
    opcode.version = 2
    result = tensor(outputs[0], (shape[0], 3), kind)
    graph.tensors = [
        tensor("input", shape, kind),
        tensor("axes", (2,), INT32, 1),
        result,
    ]
    op.inputs, op.outputs = [0, 1], [2]
    op.opcodeIndex = 0
    op.builtinOptionsType, op.builtinOptions = schema.BuiltinOptions.ReducerOptions, schema.ReducerOptionsT()
    op.builtinOptions.keepDims = False
    graph.operators, graph.inputs, graph.outputs = [op], [0], [2]
    model.version, model.operatorCodes, model.subgraphs = 3, [opcode], [graph]
    model.buffers = [buffer(), buffer(np.array(axes, np.int32).tobytes())]
    if texts is not None:
        entry = schema.MetadataT()
        entry.name, entry.buffer = METADATA, 2
        model.metadata = [entry]
        model.buffers.append(buffer(json.dumps(texts).encode()))
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


class Shared:
    """A part that is written once, and named wherever it stands in a list."""

    def __init__(self, part: Any) -> None:
        self.part, self.place = part, None

    def Pack(self, builder: Any) -> Any:
        """As the schema's classes do."""
        if self.place is None:
            self.place = self.part.Pack(builder)
        return self.place
