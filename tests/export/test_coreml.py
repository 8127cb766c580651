"""Exported Core ML packages, interpreted from what was saved, against the network in float64."""

from __future__ import annotations

import copy
import json
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from export.int8 import Int8
from export.to_coreml import export_coreml
from mobileface.embedders.contract import InputContract
from mobileface.embedders.coreml import CoreMLEmbedder
from mobileface.embedders.coreml_package import package_files, read_package
from mobileface.embedders.coreml_program import Program
from mobileface.errors import InputError
from mobileface.files import size_of
from mobileface.models.fuse import fuse
from mobileface.zoo import ZOO
from tests.strategies import LGAF_OPERATORS, lgaf_setting

pytestmark = pytest.mark.slow

Make = Callable[..., nn.Module]
Pixels = NDArray[np.uint8]
PRECISIONS = ("fp32", "fp16", "int8")
SLOW = pytest.mark.slow
LEAST = {"fp32": 1 - 1e-6, "fp16": 0.9999, "int8": 0.99}  # cosine with the network in float64
DEEPEST = {**LEAST, "fp16": 0.9995, "int8": 0.97}  # lfrc-step5, random weights: 51 blocks add up their rounding
MOST = {"fp32": 1e-4, "fp16": 0.01, "int8": 0.1}  # how far norms may be apart, relative


def exact(network: nn.Module, images: Pixels) -> NDArray[np.float64]:
    """Raw embeddings in float64."""
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float64))
    with torch.no_grad():
        return copy.deepcopy(network).double()(pixels).numpy()


def write(network: nn.Module, path: Path, precision: str = "fp32", keep: frozenset[str] = frozenset()) -> Path:
    crops = np.random.default_rng(1).integers(0, 256, (16, 112, 112, 3), dtype=np.uint8)
    export_coreml(network, path, {}, precision, Int8(crops, keep) if precision == "int8" else None)
    return path


def operations(path: Path) -> list[Any]:
    """The operations of the program as the file holds them, as protobufs."""
    function = read_package(path).specification.mlProgram.functions["main"]
    return list(function.block_specializations[function.opset].operations)


def kinds(path: Path) -> Counter[str]:
    return Counter(operation.type for operation in operations(path))


def check(
    path: Path, network: nn.Module, images: Pixels, precision: str = "fp32", least: dict[str, float] = LEAST
) -> None:
    wanted, found = exact(network, images), CoreMLEmbedder(path)(images).astype(np.float64)
    norms = np.linalg.norm(wanted, axis=1), np.linalg.norm(found, axis=1)
    cosines = (wanted * found).sum(axis=1) / norms[0] / norms[1]
    assert (cosines.mean() if precision == "int8" else cosines.min()) > least[precision]
    np.testing.assert_allclose(norms[1], norms[0], rtol=MOST[precision])
    if precision == "fp32":
        np.testing.assert_allclose(found / norms[1][:, None], wanted / norms[0][:, None], atol=1e-4)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory, make: Make) -> dict[str, Path]:
    """One network in the three precisions."""
    folder = tmp_path_factory.mktemp("coreml")
    return {precision: write(make(), folder / f"{precision}.mlpackage", precision) for precision in PRECISIONS}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_package_gives_what_the_network_gives(
    packages: dict[str, Path], make: Make, images: Pixels, precision: str
) -> None:
    path = packages[precision]
    check(path, make(), images, precision)
    found = kinds(path)
    assert not {"batch_norm", "constexpr_lut_to_dense"} & found.keys()
    slopes = sum(isinstance(part, nn.PReLU) for part in make().modules())
    assert found["prelu"] + found["leaky_relu"] == slopes > 5  # one channel: coremltools makes it leaky_relu
    sizes = [part.weight.numel() for part in make().modules() if isinstance(part, nn.Conv2d)]
    assert found["conv"] == len(sizes)
    large = sum(size >= 10 for size in sizes)
    assert found["constexpr_affine_dequantize"] == (large if precision == "int8" else 0)
    assert large > 5


def test_smaller_with_each_precision(packages: dict[str, Path]) -> None:
    sizes = [sum(size_of(file) for file in path.rglob("weight.bin")) for path in packages.values()]
    assert sizes[0] > sizes[1] > sizes[2] > 0


@pytest.mark.parametrize("activation", ["hard_swish", pytest.param("leaky_relu", marks=SLOW)])
def test_other_activations(tmp_path: Path, make: Make, images: Pixels, activation: str) -> None:
    network = make(replace(make().arch, activation=activation))
    path = write(network, tmp_path / "net.mlpackage")
    check(path, network, images)
    name = {"leaky_relu": "leaky_relu", "hard_swish": "sigmoid_hard"}[activation]
    assert kinds(path)[name] == 8


@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=SLOW), pytest.param("int8", marks=SLOW)])
@pytest.mark.parametrize("name", ["iresnet-micro", pytest.param("lgaf-micro", marks=SLOW)])
def test_residual_networks(tmp_path: Path, make: Make, images: Pixels, name: str, precision: str) -> None:
    network = make(ZOO[name])
    path = write(network, tmp_path / "net.mlpackage", precision)
    check(path, network, images, precision)
    layers = [layer for block in network.arch.walk() for layer in block.layers * block.repeat]
    assert kinds(path)["batch_norm"] == sum(layer.kind == "pre_norm" for layer in layers)


@SLOW
@pytest.mark.parametrize("name", LGAF_OPERATORS)
def test_every_operator_of_lgaf(tmp_path: Path, make: Make, images: Pixels, name: str) -> None:
    network = make(lgaf_setting(name))
    check(write(network, tmp_path / "net.mlpackage", "fp16"), network, images, "fp16")


@SLOW
@pytest.mark.parametrize(
    ("name", "precision"),
    [*product(["student-real", "mobilefacenet"], PRECISIONS), ("lfrc-step5", "fp32"), ("lfrc-step5", "fp16")],
)
def test_large_networks(tmp_path: Path, make: Make, images: Pixels, name: str, precision: str) -> None:
    network = make(ZOO[name])
    path = write(network, tmp_path / "net.mlpackage", precision)
    check(path, network, images[:4], precision, DEEPEST if name == "lfrc-step5" else LEAST)
    assert CoreMLEmbedder(path).dim == ZOO[name].embedding_dim
    assert "batch_norm" not in kinds(path)


def test_slopes_above_one_and_below_zero(tmp_path: Path, make: Make, images: Pixels) -> None:
    network = make(slopes=(-1.0, 3.0))
    check(write(network, tmp_path / "net.mlpackage"), network, images)


@pytest.mark.parametrize("norm", [400.0, pytest.param(2e-3, marks=SLOW)])
def test_norms_that_float16_cannot_square(tmp_path: Path, make: Make, images: Pixels, norm: float) -> None:
    """400 squared is above float16's largest number, 0.002 squared below half of its smallest one for most parts."""
    network = make()
    factor = norm / np.linalg.norm(exact(network, images), axis=1).mean()
    network.embedding.bn.weight.data *= factor
    network.embedding.bn.bias.data *= factor
    check(write(network, tmp_path / "net.mlpackage", "fp16"), network, images, "fp16")


@SLOW
def test_zero_embedding_is_no_nan(tmp_path: Path, make: Make, images: Pixels) -> None:
    network = make()
    network.embedding.bn.weight.data.zero_()
    network.embedding.bn.bias.data.zero_()
    path = write(network, tmp_path / "net.mlpackage", "fp16")
    assert not CoreMLEmbedder(path)(images).any()


def test_layers_to_keep_stay_float(tmp_path: Path, make: Make) -> None:
    keep = frozenset({"stem.conv", "stages.0.0.se.reduce", "stages.0.0.se", "embedding.conv"})
    named = {op.outputs[0].name: op for op in operations(write(make(), tmp_path / "net.mlpackage", "int8", keep))}
    convolutions = [operation for operation in named.values() if operation.type == "conv"]
    weights = [operation.inputs["weight"].arguments[0].name for operation in convolutions]
    floats = {name for name in weights if named[name].type == "const"}
    small = {f"stages_{stage}_0_se_{part}" for stage in (0, 1) for part in ("reduce", "expand")}  # four numbers each
    assert floats == {f"p_network_{name}_weight_to_fp16" for name in {"stem_conv", "embedding_conv", *small}}
    assert {named[name].type for name in set(weights) - floats} == {"constexpr_affine_dequantize"}


def test_int8_weights_are_the_nearest_multiples(packages: dict[str, Path], make: Make) -> None:
    """Symmetric, one scale for each output channel: max|w| / 127, all of it float16."""
    constants = Program(read_package(packages["int8"])).constants
    checked = 0
    for name, part in fuse(make()).named_modules():
        if isinstance(part, nn.Conv2d) and part.weight.numel() >= 10:
            weight = part.weight.detach().half().double()
            scale = weight.abs().flatten(1).amax(1).reshape(-1, 1, 1, 1) / 127
            found = constants[f"p_network_{name.replace('.', '_')}_weight_to_fp16_quantized"].double()
            assert ((found - weight).abs() <= 0.52 * scale + 1e-3 * weight.abs()).all()
            steps = found / scale
            assert (steps - steps.round()).abs().max() < 0.15  # the scale itself is rounded to float16
            checked += 1
    assert checked == 10


def test_what_the_package_says_of_itself(tmp_path: Path, make: Make) -> None:
    metadata = {"mobileface.weights_licence": "research only", "mobileface.arch": "{}", "odd": "“café”"}
    path = tmp_path / "net.mlpackage"
    export_coreml(make(), path, metadata)
    description = read_package(path).specification.description
    found = dict(description.metadata.userDefined)
    assert {key: found[key] for key in metadata} == metadata
    assert InputContract.from_dict(json.loads(found["mobileface.contract"])) == InputContract()
    assert (description.metadata.license, description.metadata.author) == ("research only", "mobileface")
    assert description.metadata.shortDescription.startswith("Face embedding")
    [entry] = description.input
    image = entry.type.imageType
    assert (entry.name, image.width, image.height, image.colorSpace) == ("input", 112, 112, image.RGB)
    assert "112x112 RGB" in entry.shortDescription
    outputs = {output.name: output for output in description.output}
    assert list(outputs) == ["embedding", "quality"]
    for output in outputs.values():
        assert output.type.multiArrayType.dataType == output.type.multiArrayType.FLOAT32
        assert output.shortDescription
    assert list(outputs["embedding"].type.multiArrayType.shape) == [1, 8]
    assert list(outputs["quality"].type.multiArrayType.shape) == [1]
    assert read_package(path).specification.specificationVersion == 7  # iOS 16
    contents = {file.relative_to(path).as_posix(): file.read_bytes() for file in package_files(path)}
    folder = "Data/com.apple.CoreML"
    assert contents.keys() == {"Manifest.json", f"{folder}/model.mlmodel", f"{folder}/weights/weight.bin"}
    for content in contents.values():
        assert b".py" not in content
        assert b"site-packages" not in content
        assert str(Path(__file__).parents[2]).encode() not in content
    modes = {part.relative_to(path).as_posix(): part.stat().st_mode & 0o777 for part in [path, *path.rglob("*")]}
    assert modes == {
        **dict.fromkeys((".", "Data", folder, f"{folder}/weights"), 0o755),
        **dict.fromkeys(contents, 0o644),
    }
    again = tmp_path / "again.mlpackage"
    export_coreml(make(), again, metadata)
    assert {file.relative_to(again).as_posix(): file.read_bytes() for file in package_files(again)} == contents


def test_the_network_stays_as_it_was_and_nothing_is_printed(
    tmp_path: Path, make: Make, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    network = make().train().to(memory_format=torch.channels_last)
    before = copy.deepcopy(network.state_dict())
    CoreMLEmbedder(write(network, tmp_path / "net.mlpackage", "fp16"))
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert logging.root.manager.disable == logging.NOTSET


def test_bad_calls(tmp_path: Path, make: Make) -> None:
    path = tmp_path / "net.mlpackage"
    with pytest.raises(InputError, match=r"keep: no layer is called 'stages\.9'"):
        write(make(), path, "int8", frozenset({"stages.9"}))
    faces = Int8(np.arange(16 * 112 * 112 * 3, dtype=np.uint32).astype(np.uint8).reshape(16, 112, 112, 3))
    for precision, int8 in (("int8", None), ("fp16", faces)):
        with pytest.raises(InputError, match=rf"precision {precision} (without|with) crops to calibrate on"):
            export_coreml(make(), path, {}, precision, int8)
    assert not path.exists()
