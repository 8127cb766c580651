"""The flatbuffer of a converted network: names that say which layer, a free batch, our texts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import nn

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
MOST_TAPS = 25  # of XNNPACK's fast int8 depthwise kernels; a larger one is faster in float
FLOAT = "float/"  # what the names of values begin with that stay float in an int8 file


def read(content: bytes) -> Any:
    """The file as the schema's object (ModelT)."""
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model_from_bytearray(content)


def packed(model: Any) -> bytes:
    """The object as a file."""
    from ai_edge_litert.tools import flatbuffer_utils

    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def operators(model: Any) -> list[tuple[str, Any]]:
    """The main graph's operators in their order, each with its kind, e.g. CONV_2D."""
    from ai_edge_litert.tools import flatbuffer_utils

    return [(flatbuffer_utils.opcode_to_name(model, op.opcodeIndex), op) for op in model.subgraphs[0].operators]


def name_values(model: Any, root: nn.Module, network: str, keep: frozenset[str]) -> set[str]:
    """Name every value after the layer that it comes from; returns the layers found.

    root: the module that was converted; network: the path in it of the network that `keep` names layers of. The
    converter's own names tell layers with weights reliably, those of other operators not: theirs is the name of the
    layer before them and their kind, e.g. stages.2.0.se.reduce/leaky_relu.

    The names of what stays float in an int8 file begin with FLOAT: the layers with weights in `keep`, depthwise
    convolutions of more than MOST_TAPS taps, operators without weights where all that they read is float (but for the
    frame around the pixels, which int8 holds exactly), and what comes behind the last layer: the normalisation of the
    embedding. Other names in `keep`, of activations, sums and products, say nothing here.
    """
    graph, layers = model.subgraphs[0], _layers(root, network)
    steps = operators(model)
    tail, floats, found, names = _tail(steps), set(graph.inputs), set(), set[str]()
    layer = "input"
    for place, (kind, op) in enumerate(steps):
        values = [i for i in op.inputs if i >= 0 and not is_constant(model, i)]
        named = next((layers[n] for i in op.inputs[1:] for n in _origin(graph.tensors[i]) if n in layers), None)
        weighted = kind in WEIGHTED and named is not None
        if weighted:
            layer = str(named)
            found.add(layer)
        kept = weighted and layer in keep
        slow = kind == "DEPTHWISE_CONV_2D" and np.prod(graph.tensors[op.inputs[1]].shape[1:3]) > MOST_TAPS
        follows = not weighted and set(values) <= floats and (layer, kind) != ("input", "PAD")
        is_float = kept or slow or follows or place >= tail
        floats.update(op.outputs if is_float else ())
        base = f"{FLOAT if is_float else ''}{layer if weighted else f'{layer}/{kind.lower()}'}"
        for i in op.outputs:
            graph.tensors[i].name = _unused(base, names).encode()
        for i in op.inputs:
            if i >= 0 and is_constant(model, i) and graph.tensors[i].name.decode() not in names:
                graph.tensors[i].name = _unused(f"{layer}/constant", names).encode()
    for signature in (*model.signatureDefs[0].inputs, *model.signatureDefs[0].outputs):
        graph.tensors[signature.tensorIndex].name = signature.name
    return found


def free_batch(model: Any) -> None:
    """Let the first dimension be any: traced with a batch of 1, reshapes hold that 1."""
    graph = model.subgraphs[0]
    for kind, op in operators(model):
        if kind == "RESHAPE":
            buffer = model.buffers[graph.tensors[op.inputs[1]].buffer]
            shape = np.frombuffer(bytes(buffer.data), np.int32).copy()
            if shape[0] == 1 and -1 not in shape:
                shape[0] = -1
                buffer.data = np.frombuffer(shape.tobytes(), np.uint8)
                if op.builtinOptions is not None:
                    op.builtinOptions.newShape = shape.tolist()
    for i in graph.inputs:
        graph.tensors[i].shapeSignature = [-1, *graph.tensors[i].shape[1:]]


def put_texts(model: Any, key: str, texts: dict[str, str]) -> None:
    """Put texts into the file's metadata, as JSON under `key`."""
    from ai_edge_litert import schema_py_generated as schema

    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(json.dumps(texts).encode(), np.uint8)
    entry.name, entry.buffer = key, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]


def _layers(root: nn.Module, network: str) -> dict[str, str]:
    """How the converter calls each module inside of the network -> its path in the network."""

    def kind(module: nn.Module) -> str:
        return f"{type(module).__module__}.{type(module).__qualname__}"

    called = {"": kind(root)}
    for path, module in root.named_modules():
        if path:
            parent, _, name = path.rpartition(".")
            called[path] = f"{called[parent]}/{kind(module)}_{name}"
    return {name: path[len(network) + 1 :] for path, name in called.items() if path.startswith(f"{network}.")}


def _origin(tensor: Any) -> Iterator[str]:
    """The converter's names of the modules that a tensor comes from: it separates them, and numbers, by semicolons."""
    return (part for part in tensor.name.decode().split(";") if part)


def is_constant(model: Any, index: int) -> bool:
    """Whether a value of the main graph is data of the file."""
    data = model.buffers[model.subgraphs[0].tensors[index].buffer].data
    return data is not None and len(data) > 0


def _tail(steps: list[tuple[str, Any]]) -> int:
    """The number of operators up to the last layer with weights."""
    return 1 + max((place for place, (kind, _) in enumerate(steps) if kind in WEIGHTED), default=-1)


def _unused(name: str, names: set[str]) -> str:
    """`name`, numbered where there is one already; and note it."""
    number, result = 1, name
    while result in names:
        number, result = number + 1, f"{name}:{number + 1}"
    names.add(result)
    return result
