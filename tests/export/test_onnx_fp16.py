"""ONNX in float16, where float16 ends: embeddings longer than 256, values of a thousand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from torch import nn

from export.to_onnx import OPSET, export_onnx
from mobileface.embedders.onnx import OnnxEmbedder
from mobileface.zoo import ZOO

Make = Callable[..., nn.Module]
Pixels = NDArray[np.uint8]
LENGTH = 400  # of an embedding; its square is over float16's 65504
HIGH = 1000  # of values inside


def exact(network: nn.Module, images: Pixels) -> NDArray[np.float64]:
    with torch.no_grad():
        return network.double()(torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float64))).numpy()


@pytest.fixture(scope="module")
def wide(make: Make, images: Pixels) -> nn.Module:
    """A network with values of HIGH behind its first layer and embeddings of LENGTH."""
    network = make()
    network.stem.bn.weight.data *= HIGH / 3
    network.stem.bn.bias.data *= HIGH / 3
    network.stages[0][0].expand.bn.running_mean *= HIGH / 3
    network.stages[0][0].expand.bn.running_var *= (HIGH / 3) ** 2
    factor = LENGTH / np.linalg.norm(exact(network, images), axis=1).min()
    network.float()
    network.embedding.bn.weight.data *= factor
    network.embedding.bn.bias.data *= factor
    return network


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, wide: nn.Module) -> Path:
    path = tmp_path_factory.mktemp("fp16") / "net.onnx"
    export_onnx(wide, path, {"licence": "CC0"}, "fp16")
    return path


def check(path: Path, network: nn.Module, images: Pixels) -> None:
    wanted = exact(network, images)
    network.float()
    found = OnnxEmbedder(path)(images).astype(np.float64)
    lengths = np.linalg.norm(wanted, axis=1)
    assert ((found * wanted).sum(axis=1) >= 0.9999 * np.linalg.norm(found, axis=1) * lengths).all()
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), lengths, rtol=5e-3)


def test_answers_are_those_of_the_network(path: Path, wide: nn.Module, images: Pixels) -> None:
    check(path, wide, images)
    stem = after_stem(wide, images)
    assert stem.max() > HIGH
    assert np.linalg.norm(exact(wide, images), axis=1).min() > 256
    wide.float()


def after_stem(network: nn.Module, images: Pixels) -> NDArray[np.float32]:
    """What the first layer gives."""
    with torch.no_grad():
        pixels = torch.from_numpy(images[:1].transpose(0, 3, 1, 2).astype(np.float32))
        return network.stem((pixels - 127.5) / 127.5).numpy()


def test_where_arithmetic_itself_is_float16(path: Path, wide: nn.Module, images: Pixels) -> None:
    """ONNX Runtime computes in float32 on a CPU; the reference evaluator rounds every value to what the file says."""
    pixels = images[:1].transpose(0, 3, 1, 2).astype(np.float32)
    unit, length = ReferenceEvaluator(onnx.load(path)).run(None, {"input": pixels})
    wanted = exact(wide, images[:1])[0]
    wide.float()
    assert (unit.dtype, length.dtype) == (np.float32, np.float32)
    assert np.linalg.norm(unit.astype(np.float64)) == pytest.approx(1, abs=1e-6)
    assert (unit[0] @ wanted) / np.linalg.norm(wanted) > 0.9999
    assert float(length[0]) == pytest.approx(np.linalg.norm(wanted), rel=5e-3)


def test_what_is_float16_and_what_is_not(path: Path, wide: nn.Module, tmp_path: Path) -> None:
    model = onnx.load(path)
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    nodes = {node.name: node for node in model.graph.node}
    weights = [kinds[node.input[1]] for node in model.graph.node if node.op_type == "Conv"]
    assert set(weights) == {TensorProto.FLOAT16}
    assert len(weights) > 8
    made = {value: node for node in model.graph.node for value in node.output}
    cast = made[nodes["/ReduceL2"].input[0]]
    assert cast.op_type == "Cast"
    assert [entry.i for entry in cast.attribute] == [TensorProto.FLOAT]
    assert made["embedding"].name == "/Div"  # in float32 to the end
    assert made["quality"].name == "/Squeeze"
    ends = [*model.graph.input, *model.graph.output]
    assert [entry.type.tensor_type.elem_type for entry in ends] == [TensorProto.FLOAT] * 3
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert {entry.key for entry in model.metadata_props} == {"licence", "mobileface.contract"}
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    export_onnx(wide, tmp_path / "again.onnx", {"licence": "CC0"}, "fp16")
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()
    assert b".py" not in path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["iresnet-micro", "lgaf-micro"])
def test_other_families(tmp_path: Path, make: Make, images: Pixels, name: str) -> None:
    """LGAF's quality indicators (norms, entropies) stay float32."""
    network = make(ZOO[name])
    export_onnx(network, tmp_path / "net.onnx", {}, "fp16")
    check(tmp_path / "net.onnx", network, images)
    assert (tmp_path / "net.onnx").stat().st_size < 0.6 * 4 * sum(p.numel() for p in network.parameters()) + 1e5
