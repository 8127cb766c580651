"""A TFLite file's weights in float16, or its layers in int8, by ai-edge-quantizer."""

from __future__ import annotations

from export.int8 import Int8
from export.tflite_graph import FLOAT, WEIGHTED, operators, packed, read

STAYS_FLOAT = rf"^({FLOAT}|input;|embedding;|quality;)"  # in a list of names, each with a semicolon behind it
SIGNATURE = "serving_default"


def halved(content: bytes) -> bytes:
    """The file with the weights of its layers in float16; they become float32 again when it is loaded."""
    from ai_edge_quantizer import qtyping, quantizer

    halving = quantizer.Quantizer(content)
    for kind in WEIGHTED:
        name = qtyping.TFLOperationName(kind)
        halving.add_weight_only_config(".*", name, num_bits=16, algorithm_key="float_casting")
    return bytes(halving.quantize(enable_progress_report=False, enable_progress_bar=False).quantized_model)


def quantised(content: bytes, int8: Int8) -> bytes:
    """The file with int8 layers; values whose names begin with FLOAT stay float, and so do input and outputs.

    Weights are int8, one scale for each output channel (largest |w| / 127); biases int32; values between layers
    int8, one scale and zero point each, from the least and the largest that the crops give.
    """
    from ai_edge_quantizer import calibrator, qtyping, quantizer, recipe, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    rules = recipe_manager.RecipeManager()
    rules.load_quantization_recipe(recipe.static_wi8_ai8())
    ranges = calibrator.Calibrator(content, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    ranges.calibrate({SIGNATURE: [{"input": crop[None].astype("float32")} for crop in int8.crops]}, rules)
    rules.add_quantization_config(STAYS_FLOAT, qtyping.TFLOperationName.ALL_SUPPORTED, algorithm_key="no_quantize")
    work = quantizer.Quantizer(_disguised(content), rules.get_quantization_recipe())
    found = work.quantize(ranges.get_model_qsvs(), enable_progress_report=False, enable_progress_bar=False)
    return _undisguised(bytes(found.quantized_model))


def _disguised(content: bytes) -> bytes:
    """LEAKY_RELU under the name of another function of one value: the quantizer (0.10) does not know it."""
    from ai_edge_litert import schema_py_generated as schema

    model, code = read(content), schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.HARD_SWISH
    model.operatorCodes.append(code)
    for kind, op in operators(model):
        if kind == "LEAKY_RELU":
            op.opcodeIndex = len(model.operatorCodes) - 1
    return packed(model)


def _undisguised(content: bytes) -> bytes:
    """The inverse of `_disguised`: the operators still hold their slopes, by which they are known."""
    from ai_edge_litert import schema_py_generated as schema

    model, code = read(content), schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.LEAKY_RELU
    code.version = 2  # the first with int8
    model.operatorCodes.append(code)
    for _, op in operators(model):
        if isinstance(op.builtinOptions, schema.LeakyReluOptionsT):
            op.opcodeIndex = len(model.operatorCodes) - 1
    return packed(model)
