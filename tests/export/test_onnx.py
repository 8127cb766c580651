"""Exported ONNX files, run by ONNX Runtime, against the network in float64."""

from __future__ import annotations

import copy
import json
import logging
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from export.to_onnx import OPSET, export_onnx, write_onnx
from mobileface.arch import ACTIVATIONS
from mobileface.embedders.contract import InputContract
from mobileface.embedders.onnx import OnnxEmbedder
from mobileface.embedders.opening import open_embedder
from mobileface.errors import CheckFailed
from mobileface.zoo import ZOO
from search.cost import cost
from tests.strategies import LGAF_OPERATORS, lgaf_setting

pytestmark = pytest.mark.slow

Make = Callable[..., nn.Module]
Pixels = NDArray[np.uint8]
SMALL = ["micro", pytest.param("tiny", marks=pytest.mark.slow)]
RESIDUAL = ["iresnet-micro", "lgaf-micro"]
LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in ("mobilefacenet", "lfrc-step5")]


def exact(network: nn.Module, images: Pixels) -> NDArray[np.float64]:
    """Raw embeddings in float64."""
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float64))
    with torch.no_grad():
        return copy.deepcopy(network).double()(pixels).numpy()


def run(path: Path, images: Pixels) -> dict[str, NDArray[np.float32]]:
    """All outputs by name, as an application sees them."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    pixels = images.transpose(0, 3, 1, 2).astype(np.float32)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"input": pixels}), strict=True))


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def check(path: Path, network: nn.Module, images: Pixels, batches: tuple[int, ...]) -> None:
    raw = exact(network, images)
    norm = np.linalg.norm(raw, axis=1)
    for batch in batches:
        found = run(path, images[:batch])
        assert found["embedding"].shape == (batch, raw.shape[1])
        assert found["quality"].shape == (batch,)
        np.testing.assert_allclose(found["embedding"], raw[:batch] / norm[:batch, None], atol=2e-5)
        np.testing.assert_allclose(found["quality"], norm[:batch], rtol=2e-5)
        np.testing.assert_allclose(np.linalg.norm(found["embedding"], axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_file_gives_what_the_network_gives(tmp_path: Path, make: Make, images: Pixels, name: str) -> None:
    network = make(ZOO[name])
    export_onnx(network, tmp_path / "net.onnx", {})
    embedder = OnnxEmbedder(tmp_path / "net.onnx")
    check(tmp_path / "net.onnx", network, images, (1, 3, 8))
    raw = exact(network, images)
    np.testing.assert_allclose(embedder(images), raw, atol=2e-5 * np.linalg.norm(raw, axis=1).max())
    assert embedder.dim == ZOO[name].embedding_dim
    assert (tmp_path / "net.onnx").stat().st_size < 20 * 2**20
    assert not {"BatchNormalization", "PRelu"} & operators(tmp_path / "net.onnx").keys()
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]  # no weights beside it, no leftovers


def check_residual(path: Path, network: nn.Module, images: Pixels) -> None:
    """The same answers, and what a file of this architecture holds: its batch norms in front of convolutions stay."""
    export_onnx(network, path, {})
    check(path, network, images, (1, 3, 8))
    layers = [layer for block in network.arch.walk() for layer in block.layers * block.repeat]
    found = operators(path)
    assert found["BatchNormalization"] == sum(layer.kind == "pre_norm" for layer in layers)
    assert not {"PRelu", "Dropout"} & found.keys()
    graph = onnx.load(path).graph
    values = sum(math.prod(tensor.dims) for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT)
    assert 0 <= values - cost(network.arch).folded < 100  # numbers of the graph itself: 127.5, ...


@pytest.mark.slow
@pytest.mark.parametrize("name", RESIDUAL)
def test_residual_networks_and_their_heads(tmp_path: Path, make: Make, images: Pixels, name: str) -> None:
    check_residual(tmp_path / "net.onnx", make(ZOO[name]), images)


@pytest.mark.slow
@pytest.mark.parametrize("name", LGAF_OPERATORS)
def test_every_operator_of_lgaf(tmp_path: Path, make: Make, images: Pixels, name: str) -> None:
    check_residual(tmp_path / "net.onnx", make(lgaf_setting(name)), images)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(tmp_path: Path, make: Make, images: Pixels, activation: str) -> None:
    arch = replace(make().arch, activation=activation)
    network = make(arch)
    path = tmp_path / "net.onnx"
    export_onnx(network, path, {})
    check(path, network, images, (1, 3))
    kinds = {"prelu": ("Relu", "Max"), "leaky_relu": ("LeakyRelu",), "hard_swish": ("HardSwish",)}[activation]
    layers = sum(layer.kind == activation for block in arch.walk() for layer in block.layers)
    assert sum(operators(path)[kind] for kind in kinds) == layers  # a single channel takes the maximum


def test_slopes_above_one_and_below_zero(tmp_path: Path, make: Make, images: Pixels) -> None:
    network = make(slopes=(-1.0, 3.0))
    export_onnx(network, tmp_path / "net.onnx", {})
    check(tmp_path / "net.onnx", network, images, (1, 8))
    assert "PRelu" not in operators(tmp_path / "net.onnx")


def test_zero_embedding_is_no_nan(tmp_path: Path, make: Make, images: Pixels) -> None:
    network = make()
    network.embedding.bn.weight.data.zero_()
    network.embedding.bn.bias.data.zero_()
    export_onnx(network, tmp_path / "net.onnx", {})
    embedder = OnnxEmbedder(tmp_path / "net.onnx")
    found = run(tmp_path / "net.onnx", images)
    assert not found["embedding"].any()
    assert not found["quality"].any()
    assert not embedder(images).any()


def test_what_the_file_says_of_itself(tmp_path: Path, make: Make) -> None:
    metadata = {"mobileface.arch": json.dumps(make().arch.to_dict()), "licence": "“café”, not stated"}
    path = tmp_path / "net.onnx"
    export_onnx(make(), path, metadata)
    embedder = OnnxEmbedder(path)
    model = onnx.load(path)
    found = {entry.key: entry.value for entry in model.metadata_props}
    contract = found.pop("mobileface.contract")
    assert found == metadata
    assert InputContract.from_dict(json.loads(contract)) == InputContract() == embedder.contract
    assert isinstance(open_embedder(path), OnnxEmbedder)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert [entry.name for entry in model.graph.input] == ["input"]
    assert [entry.name for entry in model.graph.output] == ["embedding", "quality"]
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in shape] == ["batch", 3, 112, 112]
    content = path.read_bytes()
    assert b"site-packages" not in content  # the tracer's notes hold paths of the machine
    assert b".py" not in content
    assert str(Path(__file__).parents[2]).encode() not in content
    export_onnx(make(), tmp_path / "again.onnx", metadata)
    assert (tmp_path / "again.onnx").read_bytes() == content


def test_nodes_are_named_by_their_modules(tmp_path: Path, make: Make) -> None:
    """What stays float in int8 is told by these names."""
    network = make()
    export_onnx(network, tmp_path / "net.onnx", {})
    names = [node.name for node in onnx.load(tmp_path / "net.onnx").graph.node]
    assert len(set(names)) == len(names)
    for name, part in network.named_modules():
        by_conv = isinstance(part, nn.PReLU) and part.weight.numel() > 1
        assert (f"{name}/Conv" in names) == (isinstance(part, nn.Conv2d) or by_conv)
        assert (f"{name}/Add" in names) == (bool(getattr(part, "residual", False)) or by_conv)
    assert {"network/Sub", "network/Div", "stem.act/Conv", "stem.act/Relu", "stem.act/Add"} < set(names)
    assert [name for name in names if name.startswith("/")] == ["/ReduceL2", "/Clip", "/Div", "/Squeeze"]


def test_the_network_stays_as_it_was_and_nothing_is_printed(
    tmp_path: Path, make: Make, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    network = make().train().to(memory_format=torch.channels_last)
    before = copy.deepcopy(network.state_dict())
    modules = str(network)
    export_onnx(network, tmp_path / "net.onnx", {})
    assert network.training
    assert str(network) == modules
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_file_that_fails_is_not_left(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.onnx"
    network = make()
    network.embedding.bn.bias.data[0] = float("nan")
    with pytest.raises(CheckFailed, match=r"net\.onnx: embeddings have lengths \[nan, nan, nan\], wanted 1"):
        export_onnx(network, path, {})
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("export.to_onnx.Deployed.forward", lambda self, input: (self.network(input),) * 2)
    with pytest.raises(CheckFailed, match=r"outputs are .* wanted embedding \(B, D\) and quality \(B,\)"):
        export_onnx(make(), path, {})
    assert list(tmp_path.iterdir()) == []


def test_prelu_can_be_kept_for_comparison(tmp_path: Path, make: Make, images: Pixels) -> None:
    """`benchmarks/onnx_forms.py` times this file against the rewritten one."""
    network = make()
    write_onnx(network, tmp_path / "net.onnx", {})
    assert operators(tmp_path / "net.onnx")["PRelu"] > 5
    check(tmp_path / "net.onnx", network, images, (2,))
