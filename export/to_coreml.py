"""A network of ours as a Core ML package (ML Program) that an app on iOS 16 or macOS 13 can show photos to."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export.deployed import Deployed, folded
from export.int8 import Int8
from mobileface.arch import INPUT_SIZE
from mobileface.embedders.contract import InputContract
from mobileface.embedders.coreml_package import MANIFEST, MODEL, quiet
from mobileface.embedders.file import CONTRACT_KEY

DATED = "com.github.apple.coremltools.conversion_date"  # a key of the converter's own
FLOAT16 = ("linear", "reshape")  # what is computed in float16 on vectors too
INPUT_TEXT = "aligned face, 112x112 RGB; the normalisation is inside the network"
EMBEDDING_TEXT = "embedding of unit length: the dot product of two is their cosine similarity"
QUALITY_TEXT = "norm of the embedding before it was normalised"


def export_coreml(
    network: nn.Module,
    path: Path,
    metadata: dict[str, str],
    precision: str = "fp32",
    int8: Int8 | None = None,
) -> None:
    """Write `network` (float RGB pixels 0..255 -> raw embeddings) as a package, a folder, to `path`.

    The program takes one image `input` and gives `embedding` (1, D) and `quality` (1,), both float32. Batch norms
    are folded; PReLU stays an operation of its own. fp16: weights and maps are float16,
    vectors (the norm, an attention between two features) float32, for the square of a norm above 256 overflows.
    int8: as fp16, but the weights of convolutions and linear layers that `int8.keep` does not name are int8, linear,
    symmetric, one scale for each output channel (a weight of less than ten numbers stays float16); activations are
    float16, so the crops of `int8` are not looked at.

    iOS 16 is the oldest system that takes int8 weights; with one target all three files run on the same phones.
    `path` ends in .mlpackage and is not there yet. InputError for int8 without crops and for layers to keep that the
    network does not have.
    """
    fused = folded(network, path, precision, int8)
    with quiet(), torch.no_grad():
        program = _trace(Deployed(fused).eval())
        model = _convert(program, precision)
        if int8 is not None:
            model = _quantised(model, program, int8.keep)
        _describe(model, metadata)
        _save(model, path)


def _trace(network: nn.Module) -> torch.export.ExportedProgram:
    example = torch.full((1, 3, INPUT_SIZE, INPUT_SIZE), 127.5)
    return torch.export.export(network, (example,)).run_decompositions({torch.ops.aten.where.ScalarOther: _where})


def _where(condition: Tensor, value: Tensor, other: float) -> Tensor:
    """torch.where with a number, which coremltools 9 does not know, in terms that it knows."""
    return torch.where(condition, value, torch.full_like(value, float(other)))


def _convert(program: torch.export.ExportedProgram, precision: str) -> Any:
    """The converted model, a coremltools MLModel that was not compiled."""
    import coremltools as ct

    half = ct.transform.FP16ComputePrecision(op_selector=_in_half)
    return ct.convert(
        program,
        convert_to="mlprogram",
        inputs=[ct.ImageType(name="input", shape=(1, 3, INPUT_SIZE, INPUT_SIZE), color_layout=ct.colorlayout.RGB)],
        outputs=[ct.TensorType(name=name, dtype=np.float32) for name in ("embedding", "quality")],
        minimum_deployment_target=ct.target.iOS16,
        compute_precision=ct.precision.FLOAT32 if precision == "fp32" else half,
        skip_model_load=True,
    )


def _in_half(operation: Any) -> bool:
    """Maps (B, C, H, W) are computed in float16; vectors are not, but for the ones with many weights."""
    return operation.op_type in FLOAT16 or all(output.rank > 2 for output in operation.outputs)


def _quantised(model: Any, program: torch.export.ExportedProgram, keep: frozenset[str]) -> Any:
    """`model` with int8 weights, but for those of the layers in `keep`."""
    from coremltools.optimize import coreml as compress

    kept = {f"network.{name}.weight" for name in keep}
    layers = {name for name, origin in program.graph_signature.inputs_to_parameters.items() if origin in kept}
    names = [
        operation.weight.op.name
        for operation in model._mil_program.functions["main"].operations
        if operation.op_type in ("conv", "linear")
    ]
    linear = compress.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", weight_threshold=0)
    chosen = {name: linear for name in names if name.removesuffix("_to_fp16") not in layers}
    return compress.linear_quantize_weights(model, compress.OptimizationConfig(op_name_configs=chosen))


def _describe(model: Any, metadata: dict[str, str]) -> None:
    """What Xcode shows of the file, and our metadata; the date of the conversion goes, so that files compare."""
    model.author = "mobileface"
    model.license = metadata.get("mobileface.weights_licence", "not stated")
    model.short_description = "Face embedding of an aligned crop, and its quality"
    model.input_description["input"] = INPUT_TEXT
    model.output_description["embedding"] = EMBEDDING_TEXT
    model.output_description["quality"] = QUALITY_TEXT
    model.user_defined_metadata[CONTRACT_KEY] = json.dumps(InputContract().to_dict())
    model.user_defined_metadata.update(metadata)


def _save(model: Any, path: Path) -> None:
    """The package, with what coremltools draws by lot, dates or notes for debugging made plain or left out."""
    model.save(str(path))
    (path / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)
    manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    entries = manifest["itemInfoEntries"]
    names = {old: str(uuid.uuid5(uuid.NAMESPACE_URL, entry["path"])) for old, entry in entries.items()}
    manifest["itemInfoEntries"] = {new: entries[old] for old, new in sorted(names.items(), key=lambda pair: pair[1])}
    manifest["rootModelIdentifier"] = names[manifest["rootModelIdentifier"]]
    (path / MANIFEST).write_text(json.dumps(manifest, indent=4) + "\n", encoding="utf-8")
    specification = model.get_spec()
    specification.description.metadata.userDefined.pop(DATED, None)
    [file] = path.rglob(MODEL)
    file.write_bytes(specification.SerializeToString(deterministic=True))
    for part in [path, *path.rglob("*")]:
        part.chmod(0o755 if part.is_dir() else 0o644)
