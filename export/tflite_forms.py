"""Operators of a converted network in the forms that LiteRT runs fastest, where the converter writes others.

Found by `benchmarks/tflite_forms.py`; each form gives the same values but for rounding.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from export.tflite_graph import is_constant, operators, packed, read

MAP = [1, 2]  # the dimensions of a map (B, H, W, C) that a global convolution sums over


def split_global_depthwise(content: bytes) -> bytes:
    """The file where a depthwise convolution that covers its whole map is a product, a sum over the map and a bias.

    XNNPACK's kernel for 49 taps is slow. Values are named after the convolution.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = read(content)
    graph, done = model.subgraphs[0], list[Any]()
    for kind, op in operators(model):
        if kind != "DEPTHWISE_CONV_2D" or not _is_global(graph, op, schema):
            done.append(op)
            continue
        x, kernel, bias = op.inputs
        last = schema.AddOptionsT()
        last.fusedActivationFunction = op.builtinOptions.fusedActivationFunction
        result = graph.tensors[op.outputs[0]]
        product = _value(graph, result, "mul", list(graph.tensors[kernel].shape))
        total, axes = _value(graph, result, "sum", list(result.shape)), _constant(model, result, "axes", MAP)
        done += [
            _operator(model, "MUL", [x, kernel], product, schema.MulOptionsT()),
            _operator(model, "SUM", [product, axes], total, _keeping(schema.ReducerOptionsT())),
            _operator(model, "ADD", [total, bias], op.outputs[0], last),
        ]
    graph.operators = done
    return packed(model)


def split_hard_swish(content: bytes) -> bytes:
    """The file where hard-swish is x times relu6(x + 3) / 6, for int8: LiteRT's own operator is fast in float alone."""
    from ai_edge_litert import schema_py_generated as schema

    model = read(content)
    graph, done = model.subgraphs[0], list[Any]()
    for kind, op in operators(model):
        if kind != "HARD_SWISH":
            done.append(op)
            continue
        (x,), clipped = op.inputs, schema.AddOptionsT()
        clipped.fusedActivationFunction = schema.ActivationFunctionType.RELU6
        result = graph.tensors[op.outputs[0]]
        gate, share = (_value(graph, result, name, list(result.shape)) for name in ("gate", "share"))
        three, sixth = (_constant(model, result, name, value) for name, value in (("three", 3), ("sixth", 1 / 6)))
        done += [
            _operator(model, "ADD", [x, three], gate, clipped),
            _operator(model, "MUL", [gate, sixth], share, schema.MulOptionsT()),
            _operator(model, "MUL", [x, share], op.outputs[0], schema.MulOptionsT()),
        ]
    graph.operators = done
    return packed(model)


def join_prelu(content: bytes) -> bytes:
    """The file where PReLU's max(x, a x) is one operator, which is fast in float alone: int8 keeps the two.

    Where a slope belongs to each value of the last dimension, and nothing else reads a x, or has a part in it.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = read(content)
    graph, steps = model.subgraphs[0], operators(model)
    makers = {i: op for kind, op in steps if kind == "MUL" for i in op.outputs}
    readers = Counter([*(i for _, op in steps for i in op.inputs), *graph.outputs])
    plain = schema.ActivationFunctionType.NONE
    gone = set()
    for kind, op in steps:
        products = [makers[i] for i in op.inputs if kind == "MAXIMUM" and i in makers and readers[i] == 1]
        for product in products[:1]:
            x, slope = sorted(product.inputs, key=lambda i: is_constant(model, i))
            fits = is_constant(model, slope) and _by_channel(graph.tensors[slope], graph.tensors[x])
            if fits and x in op.inputs and product.builtinOptions.fusedActivationFunction == plain:
                op.inputs, op.opcodeIndex = [x, slope], _code(model, "PRELU")
                op.builtinOptions, op.builtinOptionsType = None, schema.BuiltinOptions.NONE
                gone.add(id(product))
    graph.operators = [op for op in graph.operators if id(op) not in gone]
    return packed(model)


def _is_global(graph: Any, op: Any, schema: Any) -> bool:
    """Whether there is one output place, no padding, one filter a channel, and a bias."""
    x, kernel = (graph.tensors[i].shape for i in op.inputs[:2])
    options = op.builtinOptions
    simple = (options.padding, options.depthMultiplier) == (schema.Padding.VALID, 1)
    simple &= options.dilationWFactor == options.dilationHFactor == 1
    return simple and len(op.inputs) == 3 and min(op.inputs) >= 0 and list(x[1:]) == list(kernel[1:])


def _by_channel(slope: Any, x: Any) -> bool:
    shape = [] if slope.shape is None else list(slope.shape)
    return len(x.shape) == 4 and shape[-1:] == [x.shape[3]] and np.prod(shape) == x.shape[3]


def _code(model: Any, kind: str) -> int:
    """The place of an operator's code among the model's; added where it is not there."""
    from ai_edge_litert import schema_py_generated as schema

    wanted = getattr(schema.BuiltinOperator, kind)
    for place, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == wanted:
            return place
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = wanted
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _operator(model: Any, kind: str, inputs: list[int], output: int, options: Any) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    op = schema.OperatorT()
    op.opcodeIndex, op.inputs, op.outputs = _code(model, kind), inputs, [output]
    op.builtinOptions = options
    op.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
    return op


def _keeping(options: Any) -> Any:
    options.keepDims = True
    return options


def _value(graph: Any, like: Any, kind: str, shape: list[int]) -> int:
    """A new value beside `like`, of the same type; its number."""
    from ai_edge_litert import schema_py_generated as schema

    tensor = schema.TensorT()
    tensor.name = like.name + f"/{kind}".encode()
    tensor.shape, tensor.type, tensor.buffer = np.asarray(shape, np.int32), like.type, 0
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _constant(model: Any, like: Any, kind: str, data: float | list[int]) -> int:
    """A constant beside `like`: a float, or whole numbers; its number."""
    from ai_edge_litert import schema_py_generated as schema

    whole = isinstance(data, list)
    values = np.asarray(data, np.int32 if whole else np.float32).reshape(-1)
    graph, buffer = model.subgraphs[0], schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    number = _value(graph, like, kind, [len(values)])
    tensor = graph.tensors[number]
    tensor.type, tensor.buffer = getattr(schema.TensorType, "INT32" if whole else "FLOAT32"), len(model.buffers) - 1
    return number
