"""TFLite files as embedders, against plain float64 arithmetic on the pixels. The files are made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from mobileface.embedders.contract import InputContract
from mobileface.embedders.opening import open_embedder
from mobileface.embedders.tflite import TFLiteEmbedder
from mobileface.embedders.tflite_file import METADATA
from mobileface.errors import InputError
from mobileface.files import sha256

IMAGENET = InputContract(255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), layout="nhwc")
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
    **places: int,
) -> Path:
    """The mean of each channel as `out` (N, 3), which shows what the network was fed. `places` spoil it."""
    axes = (1, 2) if shape[-1] == 3 else (2, 3)
    model, graph, op, opcode = schema.ModelT(), schema.SubGraphT(), schema.OperatorT(), schema.OperatorCodeT()
    opcode.builtinCode = opcode.deprecatedBuiltinCode = code
    opcode.version = 2
    result = tensor(outputs[0], (shape[0], 3), kind)
    graph.tensors = [
        tensor("input", shape, kind, places.get("buffer", 0)),
        tensor("axes", (2,), INT32, 1),
        result,
    ]
    op.inputs, op.outputs = [0, 1], [places.get("tensor", 2)]
    op.opcodeIndex = places.get("opcode", 0)
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
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


@pytest.fixture
def images() -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), dtype=np.uint8)
    images[..., 0] //= 2  # red, green and blue differ in their means
    images[..., 2] //= 4
    return images


@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_pixels_arrive_as_the_contract_says(tmp_path: Path, images: np.ndarray, color: str, layout: str) -> None:
    contract = InputContract(200.0, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), layout=layout, color=color)
    path = mean_file(tmp_path / "mean.tflite", shape=NHWC if layout == "nhwc" else NCHW)
    embedder = open_embedder(path, contract, threads=1)
    channels = images.astype(np.float64).mean(axis=(1, 2))
    channels = channels[:, ::-1] if color == "bgr" else channels
    np.testing.assert_allclose(embedder(images), (channels / 200 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7], rtol=1e-4)
    assert (embedder.dim, embedder.sha256, embedder.contract) == (3, sha256(path), contract)
    assert embedder(np.empty((0, 112, 112, 3), np.uint8)).shape == (0, 3)


@pytest.mark.parametrize("kind", [UINT8, INT8])
def test_quantised_inputs_and_outputs(tmp_path: Path, images: np.ndarray, kind: int) -> None:
    found = TFLiteEmbedder(mean_file(tmp_path / "int.tflite", kind), IMAGENET)(images)
    limits = np.iinfo(np.uint8 if kind == UINT8 else np.int8)
    values = (images / 255 - np.array(IMAGENET.mean)) / np.array(IMAGENET.std)
    held = np.clip(np.rint(values / SCALE) + ZERO, limits.min, limits.max)
    np.testing.assert_allclose(found, (held.mean(axis=(1, 2)) - ZERO) * SCALE, atol=SCALE)  # the mean is rounded too
    assert found.dtype == np.float32


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_a_fixed_batch_is_met_by_pieces_and_padding(tmp_path: Path, images: np.ndarray, batch: int) -> None:
    path = mean_file(tmp_path / "mean.tflite", shape=(batch, 112, 112, 3))
    wanted = (images.mean(axis=(1, 2)) / 255 - IMAGENET.mean) / IMAGENET.std
    np.testing.assert_allclose(TFLiteEmbedder(path, IMAGENET)(images), wanted, rtol=1e-4, atol=1e-5)


def test_bad_inputs_and_contracts(tmp_path: Path) -> None:
    path = mean_file(tmp_path / "mean.tflite")
    with pytest.raises(InputError, match="does not say how its input is normalised, wanted --scale, --mean"):
        open_embedder(path)
    with pytest.raises(InputError, match=r"input 'input' is \[1, 112, 112, 3\], wanted \[N, 3, 112, 112\] for layout"):
        open_embedder(path, InputContract())
    with pytest.raises(InputError, match=r"is int32, wanted one of \['float32', 'int8', 'uint8'\]"):
        open_embedder(mean_file(tmp_path / "int.tflite", INT32), IMAGENET)
    for contract in ("{", "[]", '{"scale": 0}'):
        broken = mean_file(tmp_path / "meta.tflite", texts={"mobileface.contract": contract})
        with pytest.raises(InputError, match=r"meta\.tflite: metadata 'mobileface\.contract' cannot be used"):
            open_embedder(broken)
    for texts in ([], {"a": 1}):
        with pytest.raises(InputError, match=r"meta\.tflite: is damaged.*metadata 'mobileface' are not texts"):
            open_embedder(mean_file(tmp_path / "meta.tflite", texts=texts))


def test_infinity_is_named(tmp_path: Path) -> None:
    contract = InputContract(4e-37, layout="nhwc")  # each pixel is finite, their sum is not
    with pytest.raises(InputError, match=r"gives NaN or infinity for 5 of 5 images"):
        TFLiteEmbedder(mean_file(tmp_path / "mean.tflite"), contract)(np.full((5, 112, 112, 3), 100, np.uint8))


def test_files_that_are_none(tmp_path: Path) -> None:
    good = mean_file(tmp_path / "good.tflite").read_bytes()
    bad = {"empty": b"", "text": b"<html>not found</html>", "other": good[:4] + b"TFL2" + good[8:]}
    for name, content in bad.items():
        (tmp_path / f"{name}.tflite").write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}\.tflite: is no TFLite file .*wanted TFL3 at byte 4"):
            open_embedder(tmp_path / f"{name}.tflite", IMAGENET)
    with pytest.raises(InputError, match=r"gone\.tflite: not found"):
        TFLiteEmbedder(tmp_path / "gone.tflite", IMAGENET)


def test_truncated_files(tmp_path: Path) -> None:
    good = mean_file(tmp_path / "good.tflite", texts={"a": "b"}).read_bytes()
    for length in range(8, len(good), 7):
        (tmp_path / "cut.tflite").write_bytes(good[:length])
        with pytest.raises(InputError, match=r"cut\.tflite: ") as caught:
            TFLiteEmbedder(tmp_path / "cut.tflite", IMAGENET)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"buffer": 99}, "buffer 99 is not there, 2 are"),
        ({"tensor": 50}, "tensor 50 is not there, 3 are"),
        ({"opcode": 4}, "operator 4 is not there, 1 are"),
    ],
)
def test_numbers_that_stand_for_nothing(tmp_path: Path, places: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=rf"bad\.tflite: is damaged or no TFLite file \({message}\)"):
        TFLiteEmbedder(mean_file(tmp_path / "bad.tflite", **places), IMAGENET)


def test_an_operator_that_the_runtime_lacks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = mean_file(tmp_path / "new.tflite", code=schema.BuiltinOperator.CUSTOM)
    with pytest.raises(InputError, match=r"new\.tflite: is no TFLite file that can be loaded \(.*") as caught:
        TFLiteEmbedder(path, IMAGENET)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
