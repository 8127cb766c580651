"""An ONNX graph in float16."""

from __future__ import annotations

import copy
import warnings
from typing import Any

# What neither adds up squares nor takes numbers apart that float16 holds as equal; all else stays float32.
HALF = {
    *("Conv", "Gemm", "MatMul", "BatchNormalization", "MaxPool", "Add", "Sub", "Mul", "Div", "Max", "Clip"),
    *("LeakyRelu", "HardSwish", "Relu", "Sigmoid", "Concat", "Reshape", "Flatten"),
}


def halve(model: Any) -> Any:
    """The graph (an onnx.ModelProto, nodes named by `export.to_onnx`) with weights and values in float16.

    Input and outputs stay float32. So do the operators that are not in `HALF`, and the normalisation of the
    embedding: the squares of its numbers add up to more than 65504 from a length of 256 on.
    """
    import onnx_ir
    from onnxruntime.transformers.float16 import convert_float_to_float16

    whole = copy.deepcopy(model.graph)
    tail = [node for node in whole.node if node.name.startswith("/")]
    body = [node for node in whole.node if not node.name.startswith("/")]
    [raw] = {value for node in tail for value in node.input} & {value for node in body for value in node.output}
    _replace(model.graph.node, body)
    _replace(model.graph.output, [output for output in whole.output if output.name == "embedding"])
    model.graph.output[0].name = raw  # of the same shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on weights that are too small for float16 and are rounded
        blocked = sorted({node.op_type for node in body} - HALF)
        model = convert_float_to_float16(model, keep_io_types=True, op_block_list=blocked)
    _replace(model.graph.value_info, [])  # it has the types of the tail's values wrong
    # one cast for all who read a value: the converter writes the same one again for each
    _replace(model.graph.node, [*{node.output[0]: node for node in model.graph.node}.values(), *tail])
    _replace(model.graph.output, whole.output)
    sorted_model = onnx_ir.from_proto(model)
    sorted_model.graph.sort()
    return onnx_ir.to_proto(sorted_model)


def _replace(field: Any, values: Any) -> None:
    """Put `values` in a repeated field."""
    del field[:]
    field.extend(values)
