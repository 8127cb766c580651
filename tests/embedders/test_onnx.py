"""ONNX files as embedders, against plain float64 arithmetic on the pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mobileface.embedders.contract import InputContract
from mobileface.embedders.file import pick_embedding
from mobileface.embedders.onnx import OnnxEmbedder
from mobileface.embedders.opening import open_embedder
from mobileface.errors import InputError
from mobileface.files import sha256

IMAGENET = InputContract(255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NCHW: tuple[Any, ...] = ("N", 3, 112, 112)


def node(kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, outputs, **attributes)


def mean_of(axes: tuple[int, ...] = (2, 3), output: str = "out") -> list[onnx.NodeProto]:
    """The mean of each channel: a (N, 3) embedding that shows what the network was fed."""
    axes_node = node("Constant", [], ["axes"], value=numpy_helper.from_array(np.array(axes, np.int64)))
    return [axes_node, node("ReduceMean", ["input", "axes"], [output], keepdims=0)]


def write(
    path: Path,
    nodes: list[onnx.NodeProto],
    outputs: tuple[str, ...] = ("out",),
    shape: tuple[Any, ...] = NCHW,
    inputs: tuple[str, ...] = ("input",),
    kind: int = TensorProto.FLOAT,
    metadata: dict[str, str] | None = None,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, kind, list(shape)) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_pixels_arrive_as_the_contract_says(tmp_path: Path, images: np.ndarray, color: str, layout: str) -> None:
    contract = InputContract(200.0, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), layout=layout, color=color)
    shape, axes = (NCHW, (2, 3)) if layout == "nchw" else (("N", 112, 112, 3), (1, 2))
    path = write(tmp_path / "mean.onnx", mean_of(axes), shape=shape)
    found = OnnxEmbedder(path, contract)(images)
    channels = images.astype(np.float64).mean(axis=(1, 2))
    channels = channels[:, ::-1] if color == "bgr" else channels
    np.testing.assert_allclose(found, (channels / 200 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7], rtol=1e-5)
    assert found.dtype == np.float32


def test_normalise_against_float64(images: np.ndarray) -> None:
    wanted = (images / 255 - np.array(IMAGENET.mean)) / np.array(IMAGENET.std)
    found = IMAGENET.normalise(images)
    assert (found.dtype, found.shape, found.flags.c_contiguous) == (np.float32, (5, 3, 112, 112), True)
    np.testing.assert_allclose(found, wanted.transpose(0, 3, 1, 2), atol=1e-6)
    np.testing.assert_array_equal(InputContract().normalise(images), images.transpose(0, 3, 1, 2))


def test_what_an_embedder_says_of_itself(tmp_path: Path) -> None:
    path = write(tmp_path / "mean.onnx", mean_of())
    embedder = open_embedder(path, IMAGENET, threads=1)
    assert (embedder.dim, embedder.sha256, embedder.contract) == (3, sha256(path), IMAGENET)
    assert embedder(np.empty((0, 112, 112, 3), np.uint8)).shape == (0, 3)


def test_fixed_batch_is_met_by_pieces_and_padding(tmp_path: Path, images: np.ndarray) -> None:
    free = OnnxEmbedder(write(tmp_path / "free.onnx", mean_of()), IMAGENET)
    for batch in (1, 2, 8):
        fixed = write(tmp_path / f"fixed{batch}.onnx", mean_of(), shape=(batch, 3, 112, 112))
        np.testing.assert_allclose(OnnxEmbedder(fixed, IMAGENET)(images), free(images), rtol=1e-6)


def test_half_precision_input(tmp_path: Path, images: np.ndarray) -> None:
    cast = node("Cast", ["half"], ["input"], to=TensorProto.FLOAT)
    path = write(tmp_path / "half.onnx", [cast, *mean_of()], inputs=("half",), kind=TensorProto.FLOAT16)
    full = OnnxEmbedder(write(tmp_path / "full.onnx", mean_of()), IMAGENET)
    np.testing.assert_allclose(OnnxEmbedder(path, IMAGENET)(images), full(images), atol=1e-2)


def own_export() -> list[onnx.NodeProto]:
    """A graph with the outputs of our exports: the unit embedding and its norm before."""
    one = node("Constant", [], ["one"], value=numpy_helper.from_array(np.array([1], np.int64)))
    norm = node("ReduceL2", ["raw", "one"], ["norm"], keepdims=1)
    quality = node("Squeeze", ["norm", "one"], ["quality"])
    return [*mean_of(output="raw"), one, norm, quality, node("Div", ["raw", "norm"], ["embedding"])]


def test_our_exports_need_no_flags_and_give_raw_embeddings(tmp_path: Path, images: np.ndarray) -> None:
    metadata = {"mobileface.contract": json.dumps(InputContract(flip="none").to_dict())}
    path = write(tmp_path / "own.onnx", own_export(), ("embedding", "quality"), metadata=metadata)
    embedder = open_embedder(path)
    assert embedder.contract == InputContract(flip="none")
    np.testing.assert_allclose(embedder(images), images.mean(axis=(1, 2)), rtol=1e-5)


def test_a_foreign_output_named_embedding_is_taken_as_it_is(tmp_path: Path, images: np.ndarray) -> None:
    path = write(tmp_path / "foreign.onnx", own_export(), ("quality", "embedding", "raw"))
    found = OnnxEmbedder(path, InputContract())(images)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)


def test_a_quality_of_another_number_than_the_images(tmp_path: Path, images: np.ndarray) -> None:
    three = node("Constant", [], ["quality"], value=numpy_helper.from_array(np.ones(3, np.float32)))
    nodes = [*own_export()[:-2], three, own_export()[-1]]
    metadata = {"mobileface.contract": json.dumps(InputContract().to_dict())}
    embedder = open_embedder(write(tmp_path / "own.onnx", nodes, ("embedding", "quality"), metadata=metadata))
    assert embedder(images[:3]).shape == (3, 3)
    with pytest.raises(InputError, match=r"own\.onnx: output 'quality' is \(3,\) for 5 images, wanted \(5,\)"):
        embedder(images)


def test_only_two_dimensional_output_is_picked(tmp_path: Path) -> None:
    path = write(tmp_path / "two.onnx", [*mean_of(), node("Relu", ["input"], ["map"])], ("map", "out"))
    assert OnnxEmbedder(path, IMAGENET).dim == 3
    words = np.array([["a", "b"]], object)
    assert pick_embedding(path, {"embedding": words, "out": np.ones((1, 3))}) == "out"
    path = write(tmp_path / "three.onnx", [*mean_of(), node("Relu", ["out"], ["more"])], ("more", "out"))
    with pytest.raises(InputError, match=r"three\.onnx: outputs are .*'more': \[1, 3\].*wanted `embedding`"):
        OnnxEmbedder(path, IMAGENET)


def test_nan_is_named(tmp_path: Path, images: np.ndarray) -> None:
    path = write(tmp_path / "log.onnx", [*mean_of(output="mean"), node("Log", ["mean"], ["out"])])
    images[1:3] = 0
    with pytest.raises(InputError, match=r"log\.onnx: gives NaN or infinity for 2 of 5 images"):
        OnnxEmbedder(path, InputContract())(images)


def test_graph_that_breaks_at_larger_batches(tmp_path: Path, images: np.ndarray) -> None:
    """As insightface issue 2406: the batch size is baked into a reshape."""
    size = node("Constant", [], ["size"], value=numpy_helper.from_array(np.array([1, 3], np.int64)))
    path = write(tmp_path / "b1.onnx", [*mean_of(output="m"), size, node("Reshape", ["m", "size"], ["out"])])
    embedder = OnnxEmbedder(path, IMAGENET)
    assert embedder(images[:1]).shape == (1, 3)
    with pytest.raises(InputError, match=r"b1\.onnx: does not run on 5 images"):
        embedder(images)


def test_bad_files(tmp_path: Path) -> None:
    good = write(tmp_path / "good.onnx", mean_of())
    bad = {
        "empty.onnx": b"",
        "text.onnx": b"<html>not found</html>",
        "cut.onnx": good.read_bytes()[:-40],
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name) as caught:
            open_embedder(tmp_path / name, IMAGENET)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"gone\.onnx: not found"):
        open_embedder(tmp_path / "gone.onnx", IMAGENET)
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(InputError, match=r"model\.pt: is of no known kind, wanted a run folder.*\.onnx"):
        open_embedder(tmp_path / "model.pt")


def test_bad_inputs_and_contracts(tmp_path: Path) -> None:
    path = write(tmp_path / "mean.onnx", mean_of())
    with pytest.raises(InputError, match="does not say how its input is normalised, wanted --scale, --mean"):
        open_embedder(path)
    with pytest.raises(InputError, match=r"wanted \[N, 112, 112, 3\] for layout nhwc"):
        open_embedder(path, InputContract(layout="nhwc"))
    small = write(tmp_path / "small.onnx", mean_of(), shape=("N", 3, 96, 112))
    with pytest.raises(InputError, match=r"input 'input' is \['N', 3, 96, 112\], wanted \[N, 3, 112, 112\]"):
        open_embedder(small, IMAGENET)
    add = node("Add", ["a", "b"], ["input"])
    two = write(tmp_path / "two.onnx", [add, *mean_of()], inputs=("a", "b"))
    with pytest.raises(InputError, match=r"has 2 inputs \['a', 'b'\], wanted one"):
        open_embedder(two, IMAGENET)
    cast = node("Cast", ["bytes"], ["input"], to=TensorProto.FLOAT)
    whole = write(tmp_path / "int.onnx", [cast, *mean_of()], inputs=("bytes",), kind=TensorProto.INT32)
    with pytest.raises(InputError, match=r"input 'bytes' is tensor\(int32\), wanted one of"):
        open_embedder(whole, IMAGENET)
    for text in ("{", "[]", '{"scale": 0}', '{"scael": 1}', "[" * 100_000, f'{{"scale": 1{400 * "0"}}}'):
        broken = write(tmp_path / "meta.onnx", mean_of(), metadata={"mobileface.contract": text})
        with pytest.raises(InputError, match=r"meta\.onnx: metadata 'mobileface\.contract' cannot be used"):
            open_embedder(broken)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scale": 0.0}, "scale holds 0, wanted numbers above 0"),
        ({"std": [1, 0, 1]}, "std holds 0"),
        ({"std": [1, 1]}, "std is .* wanted three numbers"),
        ({"mean": "0.1"}, "mean is '0.1', wanted three numbers"),
        ({"mean": [0, float("nan"), 0]}, "mean holds nan, wanted a finite number"),
        ({"scale": True}, "scale holds True"),
        ({"std": [1, 10**400, 1]}, r"std holds a number beyond 2e\+308, wanted less"),
        ({"layout": "chw"}, "layout is 'chw', wanted one of nchw, nhwc"),
        ({"color": "grey"}, "color is 'grey'"),
        ({"flip": "both"}, "flip is 'both', wanted one of sum, none"),
        ({"colour": "rgb"}, r"unknown key 'colour' \(did you mean 'color'\?\)"),
    ],
)
def test_contract_is_validated_at_birth(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        InputContract.from_dict(values)


def test_contract_survives_json() -> None:
    contract = InputContract(255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "nhwc", "bgr", "none")
    assert InputContract.from_dict(json.loads(json.dumps(contract.to_dict()))) == contract


def test_external_weights_are_part_of_the_hash(tmp_path: Path) -> None:
    path = write(tmp_path / "mean.onnx", mean_of())
    plain = OnnxEmbedder(path, IMAGENET).sha256
    (tmp_path / "mean.onnx.data").write_bytes(b"weights")
    first = OnnxEmbedder(path, IMAGENET).sha256
    (tmp_path / "mean.onnx.data").write_bytes(b"other weights")
    assert len({plain, first, OnnxEmbedder(path, IMAGENET).sha256}) == 3
