"""An ONNX graph in int8: static, QDQ, ranges from real crops."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.int8 import Int8

WEIGHTED = ("Conv", "Gemm", "MatMul")
FOLLOWING = ("Add", "Mul", "Relu", "LeakyRelu", "GlobalAveragePool")  # in int8 where what they take is
SLOPES = ".less"  # what the weights of `activations.ConvForm` are called: part of a PReLU, which only follows
BATCH = 8  # crops that ranges are taken from at once


def quantise(model: Any, int8: Int8) -> Any:
    """The graph (an onnx.ModelProto whose nodes are named by `export.to_onnx._name_nodes`) with int8 layers.

    Weights are int8, one scale for each output channel (largest |w| / 127); biases int32; values between layers
    uint8, one scale and zero point each, from the least and the largest that the crops give.
    """
    from onnx import load
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    _pool(model.graph)
    nodes = quantised_nodes(model.graph, int8.keep)
    if not nodes:  # to the library an empty list means all
        return model
    add_pre_process_metadata(model)  # there is nothing left to fold, and no warning is wanted
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "int8.onnx"
        quantize_static(
            model,
            file,
            _Reader(int8.crops),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*WEIGHTED, *FOLLOWING],
            nodes_to_quantize=nodes,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return load(file)


def quantised_nodes(graph: Any, keep: frozenset[str]) -> list[str]:
    """Names of the nodes that compute in int8: the layers that are not kept, and what follows an int8 node.

    What nothing in int8 leads to stays float, the normalisation of the pixels; and the normalisation of the embedding,
    whose operators are not listed.
    """
    chosen: list[str] = []
    values: set[str] = set()  # what int8 nodes give
    for node in graph.node:
        inputs = set(node.input)
        weighted = node.op_type in WEIGHTED
        own = weighted and not node.input[1].endswith(SLOPES)
        follows = (weighted or node.op_type in FOLLOWING) and values & inputs
        if node.name.partition("/")[0] not in keep and (own or follows):
            chosen.append(node.name)
            values.update(node.output)
    return chosen


def _pool(graph: Any) -> None:
    """Write means over whole maps as GlobalAveragePool: ReduceMean has no kernel in int8."""
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "ReduceMean":
            continue
        kept = [helper.get_attribute_value(entry) for entry in node.attribute if entry.name == "keepdims"]
        if set(numpy_helper.to_array(constants[node.input[1]]).tolist()) in ({2, 3}, {-2, -1}) and kept == [1]:
            node.op_type, node.name = "GlobalAveragePool", node.name.replace("ReduceMean", "GlobalAveragePool")
            del node.input[1:], node.attribute[:]
    read = {value for node in graph.node for value in node.input}
    for tensor in [tensor for name, tensor in constants.items() if name not in read]:
        graph.initializer.remove(tensor)


class _Reader:
    """The crops as onnxruntime.quantization asks for them."""

    def __init__(self, crops: NDArray[np.uint8]) -> None:
        pixels = crops.transpose(0, 3, 1, 2)
        starts = range(0, len(crops), BATCH)
        self._batches: Iterator[dict[str, NDArray[np.float32]]] = (
            {"input": pixels[start : start + BATCH].astype(np.float32)} for start in starts
        )

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next batch, None after the last."""
        return next(self._batches, None)
