"""ONNX in int8: what is in the file, and what it answers, against the same rounding done in float64 by torch."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from export.int8 import LEAST_CROPS, Int8
from export.onnx_int8 import quantised_nodes
from export.to_onnx import OPSET, export_onnx
from mobileface.embedders.onnx import OnnxEmbedder
from mobileface.errors import InputError
from mobileface.models.fuse import fuse
from mobileface.models.quantised import int8_points
from mobileface.zoo import ZOO

Make = Callable[..., nn.Module]
Pixels = NDArray[np.uint8]
Ranges = dict[str, tuple[float, float]]
KEPT = frozenset({"stages.0.0.expand.conv", "stages.0.0.expand.act", "embedding.conv"})


class File:
    """A QDQ file with its initialisers and the node behind each value."""

    def __init__(self, path: Path) -> None:
        self.model = onnx.load(path)
        self.nodes = {node.name: node for node in self.model.graph.node}
        self.made = {value: node for node in self.model.graph.node for value in node.output}
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer}

    def rounded(self, value: str) -> tuple[Any, NDArray[Any], NDArray[Any]]:
        """What a DequantizeLinear takes to make a value: a constant or a name, its scale and its zero point."""
        node = self.made[value]
        assert node.op_type == "DequantizeLinear"
        source, scale, zero = node.input
        return self.constants.get(source, source), self.constants[scale], self.constants[zero]


def crops() -> Pixels:
    """Smooth patterns, each of its own contrast."""
    generator = np.random.default_rng(1)
    y, x = np.mgrid[:112, :112][..., None] / 112
    waves = [np.sin(6 * (x * generator.normal(size=3) + y * generator.normal(size=3)) + i) for i in range(32)]
    return np.stack([127.5 + (30 + 3 * i) * wave for i, wave in enumerate(waves)]).astype(np.uint8)


@pytest.fixture(scope="module")
def network(make: Make) -> nn.Module:
    return make()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, network: nn.Module) -> Path:
    """All layers in int8."""
    path = tmp_path_factory.mktemp("int8") / "net.onnx"
    export_onnx(network, path, {"licence": "“café”"}, "int8", Int8(crops()))
    return path


@pytest.fixture(scope="module")
def partly(tmp_path_factory: pytest.TempPathFactory, network: nn.Module) -> Path:
    """KEPT stay float."""
    path = tmp_path_factory.mktemp("int8") / "net.onnx"
    export_onnx(network, path, {}, "int8", Int8(crops(), KEPT))
    return path


def convolutions(network: nn.Module) -> dict[str, nn.Conv2d]:
    return {name: part for name, part in fuse(network).named_modules() if isinstance(part, nn.Conv2d)}


def forward(network: nn.Module, images: Pixels, hook: Callable[[str, Tensor], Tensor]) -> NDArray[np.float64]:
    """Raw embeddings in float64; `hook` gives what goes on from each operation, and from the normalised pixels.

    A PReLU is two: the positive part of x times the slopes less one (weights that int8 holds exactly, each with a scale
    of its own), and the sum of that and x. One slope for a single channel is a product as any other, and a maximum.
    """
    fused = fuse(network).double()

    def sloped(part: nn.Module, args: tuple[Tensor], out: Tensor, name: str) -> Tensor:
        [x], slope = args, part.weight[:, None, None]
        if len(slope) == 1:
            return hook(name, torch.maximum(x, hook(f"{name}.product", x * hook(f"{name}.slope", slope))))
        return hook(name, x + hook(f"{name}.product", (x * (slope - 1)).clamp(min=0)))

    for name, part in fused.named_modules():
        if isinstance(part, nn.PReLU):
            part.register_forward_hook(partial(sloped, name=name))
        elif not list(part.children()) or name.endswith(".se") or getattr(part, "residual", False):
            part.register_forward_hook(lambda part, args, out, name=name: hook(name, out))
    fused.stem.conv.register_forward_pre_hook(lambda part, args: hook("pixels", args[0]))
    with torch.no_grad():
        return fused(torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float64))).numpy()


def ranges(network: nn.Module) -> Ranges:
    """Least and most of every value on the crops, zero included."""
    found: Ranges = {}

    def look(name: str, value: Tensor) -> Tensor:
        found[name] = (min(0.0, value.min().item()), max(0.0, value.max().item()))
        return value

    forward(network, crops(), look)
    return found


def test_weights_and_biases_are_rounded_by_channel(whole: Path, network: nn.Module) -> None:
    """Weights: the largest of a channel becomes 127; biases: on the grid of the products that they are added to."""
    file, layers = File(whole), convolutions(network)
    assert len(layers) > 8
    for name, layer in layers.items():
        node = file.nodes[f"{name}/Conv"]
        weights, scales, zeros = file.rounded(node.input[1])
        exact = layer.weight.detach().double().numpy()
        wanted = np.abs(exact).reshape(len(exact), -1).max(axis=1) / 127
        assert (weights.dtype, zeros.any()) == (np.int8, np.False_)
        np.testing.assert_allclose(scales, wanted, rtol=1e-6)
        apart = np.abs(weights * wanted.reshape(-1, 1, 1, 1) - exact).reshape(len(exact), -1)
        assert (apart <= 0.5001 * wanted[:, None]).all()
        assert layer.bias is not None
        biases, steps, _ = file.rounded(node.input[2])
        assert biases.dtype == np.int32
        np.testing.assert_allclose(steps, scales * file.rounded(node.input[0])[1], rtol=1e-6)
        assert (np.abs(biases * steps.astype(np.float64) - layer.bias.detach().double().numpy()) <= 0.51 * steps).all()


def test_ranges_are_those_of_the_crops(whole: Path, network: nn.Module) -> None:
    file, seen = File(whole), ranges(network)
    inputs = {"stem.conv": "pixels", "stages.0.0.expand.conv": "stem.act", "gdc.conv": "head.act"}
    for layer, source in inputs.items():
        _, scale, zero = file.rounded(file.nodes[f"{layer}/Conv"].input[0])
        low, high = seen[source]
        assert zero.dtype == np.uint8
        assert scale == pytest.approx((high - low) / 255, rel=1e-4)
        assert int(zero) == pytest.approx(-low * 255 / (high - low), abs=0.51)


def test_answers_are_those_of_the_rounded_network(whole: Path, network: nn.Module) -> None:
    """Every value is rounded by torch, in float64 with ranges of its own; a few, half way, go the other way."""
    seen, images = ranges(network), crops()[::2]
    for layer in (rounded := fuse(network).double()).modules():
        if isinstance(layer, nn.Conv2d):
            scale = layer.weight.detach().abs().amax((1, 2, 3), keepdim=True) / 127
            layer.weight.data = (layer.weight / scale).round() * scale

    def step(name: str, value: Tensor) -> Tensor:
        low, high = seen[name]
        scale = max((high - low) / 255, 1e-30)
        zero = round(-low / scale)
        return ((value / scale).round() + zero).clamp(0, 255).sub(zero) * scale

    exact = forward(network, images, lambda name, value: value)
    wanted = forward(rounded, images, step)
    found = OnnxEmbedder(whole)(images).astype(np.float64)
    assert cosines(found, exact).mean() > 0.995
    assert cosines(found, wanted).mean() > 0.9995
    cost = np.linalg.norm(found - exact, axis=1).mean()
    assert cost > 0.02 * np.linalg.norm(exact, axis=1).mean()  # it is in int8 indeed
    assert np.linalg.norm(found - wanted, axis=1).mean() < 0.5 * cost


def cosines(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_kept_layers_are_float(partly: Path, network: nn.Module) -> None:
    file = File(partly)
    for name, layer in convolutions(network).items():
        weights = file.nodes[f"{name}/Conv"].input[1]
        if name in KEPT:
            assert file.constants[weights].dtype == np.float32
            np.testing.assert_array_equal(file.constants[weights], layer.weight.detach().numpy())
        else:
            assert file.rounded(weights)[0].dtype == np.int8
    kinds = {name: {file.made[v].op_type for v in node.input if v in file.made} for name, node in file.nodes.items()}
    assert kinds["stages.0.0.expand.act/Add"] == {"Conv", "Relu"}  # no rounding between the layer and its activation
    assert "Conv" in kinds["network/Reshape"]  # nor behind the last layer
    assert kinds["/ReduceL2"] == {"Reshape"}
    assert "QuantizeLinear" not in {kind for name in ("/Clip", "/Div", "/Squeeze") for kind in kinds[name]}


def test_with_everything_kept_nothing_is_rounded(network: nn.Module, tmp_path: Path) -> None:
    export_onnx(network, tmp_path / "net.onnx", {}, "int8", Int8(crops(), frozenset(int8_points(fuse(network)))))
    assert not [node for node in onnx.load(tmp_path / "net.onnx").graph.node if "QuantizeLinear" in node.op_type]


def test_the_file_itself(whole: Path, network: nn.Module, tmp_path: Path) -> None:
    images = crops()[:8]
    embedder = OnnxEmbedder(whole)
    together = embedder(images)
    alone = np.concatenate([embedder(image[None]) for image in images])
    np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-5)
    file = File(whole)
    assert {entry.key for entry in file.model.metadata_props} == {"licence", "mobileface.contract"}
    assert [(entry.domain, entry.version) for entry in file.model.opset_import] == [("", OPSET)]
    shape = file.model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in shape] == ["batch", 3, 112, 112]
    content = whole.read_bytes()
    assert b".py" not in content
    assert tempfile.gettempdir().encode() not in content


def test_the_same_bytes_again_and_nothing_beside(
    whole: Path,
    network: nn.Module,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    export_onnx(network, tmp_path / "net.onnx", {"licence": "“café”"}, "int8", Int8(crops()))
    assert (tmp_path / "net.onnx").read_bytes() == whole.read_bytes()
    assert list((tmp_path / "temporary").iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["iresnet-micro", "lgaf-micro"])
def test_other_families(make: Make, tmp_path: Path, name: str) -> None:
    """Batch norms in front of convolutions and LGAF's quality indicators stay float."""
    network = make(ZOO[name])
    export_onnx(network, tmp_path / "net.onnx", {}, "int8", Int8(crops()))
    found = OnnxEmbedder(tmp_path / "net.onnx")(crops()[::2]).astype(np.float64)
    assert cosines(found, forward(network, crops()[::2], lambda name, value: value)).mean() > 0.97
    file = File(tmp_path / "net.onnx")
    layers = [node for node in file.nodes.values() if node.op_type in ("Conv", "Gemm")]
    assert len(layers) > 8
    assert {file.rounded(node.input[1])[0].dtype.name for node in layers} == {"int8"}


def test_what_cannot_be_used(network: nn.Module, tmp_path: Path) -> None:
    good = crops()
    with pytest.raises(InputError, match=r"crops are float32 \(32, 112, 112, 3\), wanted uint8 \(N, 112, 112, 3\)"):
        Int8(good.astype(np.float32))
    with pytest.raises(InputError, match=r"calibration: crops are uint8 \(32, 3, 112, 112\), wanted"):
        Int8(good.transpose(0, 3, 1, 2))
    with pytest.raises(InputError, match=rf"calibration: 15 crops, wanted at least {LEAST_CROPS}"):
        Int8(good[:15])
    good[:16] = good[:16, :1, :1]
    Int8(good)
    good[16] = 0
    with pytest.raises(InputError, match="calibration: 17 of 32 crops are of one colour, wanted faces"):
        Int8(good)
    with pytest.raises(InputError, match="precision int8 without crops to calibrate on"):
        export_onnx(network, tmp_path / "net.onnx", {}, "int8")
    with pytest.raises(InputError, match=r"'head.cov' \(did you mean 'head.conv'\?\)"):
        export_onnx(network, tmp_path / "net.onnx", {}, "int8", Int8(crops(), frozenset({"head.cov"})))
    assert list(tmp_path.iterdir()) == []


def test_a_prelu_behind_a_layer_that_stays_float_does_so_too(tmp_path: Path, network: nn.Module) -> None:
    """Its convolution is no layer of its own."""
    export_onnx(network, tmp_path / "net.onnx", {})
    graph = onnx.load(tmp_path / "net.onnx").graph
    all_int8 = set(quantised_nodes(graph, frozenset()))
    kept = set(quantised_nodes(graph, frozenset({"stages.0.0.expand.conv"})))
    act = {f"stages.0.0.expand.act/{kind}" for kind in ("Conv", "Relu", "Add")}
    assert all_int8 - kept == {"stages.0.0.expand.conv/Conv", *act}
