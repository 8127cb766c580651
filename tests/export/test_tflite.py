"""Exported TFLite files, run by LiteRT, against the network in float64."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

pytest.importorskip("litert_torch")

from export.int8 import Int8
from export.tflite_forms import split_hard_swish
from export.to_tflite import convert, export_tflite, silent
from mobileface.arch import ACTIVATIONS
from mobileface.embedders.contract import InputContract
from mobileface.embedders.tflite import TFLiteEmbedder
from mobileface.errors import CheckFailed, InputError
from mobileface.zoo import ZOO

pytestmark = pytest.mark.slow

Make = Callable[..., nn.Module]
Pixels = NDArray[np.uint8]
METADATA = {"mobileface.arch": "{}", "licence": "“café”, not stated"}
KEPT = "stages.0.0.project.conv"


def exact(network: nn.Module, images: Pixels) -> NDArray[np.float64]:
    """Raw embeddings in float64."""
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float64))
    with torch.no_grad():
        return copy.deepcopy(network).double()(pixels).numpy()


def graph(path: Path) -> list[tuple[str, str, str]]:
    """Each operator of the file: kind, name of its result, type of its result."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    kinds = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    types = {code: name for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
    tensors = model.subgraphs[0].tensors
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    return [
        (kinds[codes[op.opcodeIndex]], tensors[op.outputs[0]].name.decode(), types[tensors[op.outputs[0]].type])
        for op in model.subgraphs[0].operators
    ]


def run(path: Path, images: Pixels) -> dict[str, NDArray[np.float32]]:
    """All outputs by name, as an application sees them."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
    found: dict[str, NDArray[np.float32]] = runner(input=images.astype(np.float32))
    return found


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory, make: Make) -> dict[str, Path]:
    """NANO in the three precisions; in int8 with a layer and the sum of a block, not the block, in float."""
    folder = tmp_path_factory.mktemp("tflite")
    noise = np.random.default_rng(1).integers(0, 256, (16, 112, 112, 3), dtype=np.uint8)
    network = make()
    for precision in ("fp32", "fp16"):
        export_tflite(network, folder / f"{precision}.tflite", METADATA, precision)
    export_tflite(network, folder / "int8.tflite", METADATA, "int8", Int8(noise, frozenset({KEPT, "stages.1.0"})))
    return {path.stem: path for path in folder.iterdir()}


def cosines(found: NDArray[Any], wanted: NDArray[Any]) -> NDArray[Any]:
    return (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)


@pytest.mark.parametrize("batch", [1, 5])
def test_fp32_gives_what_the_network_gives(files: dict[str, Path], make: Make, images: Pixels, batch: int) -> None:
    raw = exact(make(), images[:batch])
    norm = np.linalg.norm(raw, axis=1)
    found = run(files["fp32"], images[:batch])
    assert (found["embedding"].shape, found["quality"].shape) == (raw.shape, (batch,))
    np.testing.assert_allclose(found["embedding"], raw / norm[:, None], atol=2e-5)
    np.testing.assert_allclose(found["quality"], norm, rtol=2e-5)
    np.testing.assert_allclose(TFLiteEmbedder(files["fp32"])(images[:batch]), raw, atol=2e-5 * norm.max())


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize(("precision", "least"), [("fp16", 0.99999), ("int8", 0.98)])
def test_smaller_precisions_are_near(
    files: dict[str, Path], make: Make, images: Pixels, precision: str, least: float, batch: int
) -> None:
    embedder = TFLiteEmbedder(files[precision])
    found = np.concatenate([embedder(images[i : i + batch]) for i in range(0, len(images), batch)])
    assert cosines(found, exact(make(), images)).min() > least


def test_what_the_graphs_are_made_of(files: dict[str, Path]) -> None:
    kinds = {precision: Counter(kind for kind, _, _ in graph(path)) for precision, path in files.items()}
    for found in kinds.values():
        assert found["CONV_2D"] + found["DEPTHWISE_CONV_2D"] == 14 - 1  # the global one is a product and a sum
        assert found["SQRT"] == found["DIV"] == 1
        assert found["SUM"] == 2
        assert not {"TRANSPOSE", "CUSTOM", "RELU"} & found.keys()
        assert found["PRELU"] + found["MAXIMUM"] == 8 + 1  # PReLUs, and the least norm
    assert kinds["fp32"]["PRELU"] == kinds["fp16"]["PRELU"] >= 6  # but for those of SE, one value to a channel
    assert kinds["int8"]["PRELU"] == 0
    assert kinds["fp16"]["DEQUANTIZE"] == 13
    assert not {"HARD_SWISH", "LEAKY_RELU"} & kinds["int8"].keys()


def test_what_stays_float_in_int8(files: dict[str, Path]) -> None:
    found = {name: kind for _, name, kind in graph(files["int8"])}
    assert found[f"float/{KEPT}"] == found["float/gdc.conv"] == found["embedding"] == found["quality"] == "FLOAT32"
    assert found["stem.conv"] == found["stages.1.0.se.reduce"] == found["embedding.conv"] == "INT8"
    assert KEPT not in found


def test_what_the_file_says_of_itself(files: dict[str, Path]) -> None:
    for path in files.values():
        from mobileface.embedders.tflite_file import read_file

        texts = read_file(path).texts
        assert texts is not None
        contract = InputContract.from_dict(json.loads(texts.pop("mobileface.contract")))
        assert texts == METADATA
        assert contract == TFLiteEmbedder(path).contract == InputContract(layout="nhwc")
        for word in (b"site-packages", b".py", b"__main__", str(Path(__file__).parents[2]).encode()):
            assert word not in path.read_bytes()


def test_nothing_is_printed_and_the_same_file_is_written_again(
    files: dict[str, Path], tmp_path: Path, make: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    network = make().train()
    before = copy.deepcopy(network.state_dict())
    export_tflite(network, tmp_path / "net.tflite", METADATA)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert (tmp_path / "net.tflite").read_bytes() == files["fp32"].read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["net.tflite"]
    TFLiteEmbedder(tmp_path / "net.tflite")
    assert capfd.readouterr() == ("", "")


def test_a_converter_that_names_layers_in_another_way_is_noticed(
    files: dict[str, Path], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = files["fp32"].read_bytes()  # has our names, not the converter's
    monkeypatch.setattr("litert_torch.convert", lambda *given: SimpleNamespace(model_content=lambda: content))
    with pytest.raises(CheckFailed, match=r"stages\.0\.0\.project\.conv: shall stay float, but the converter left no"):
        convert(make(), frozenset({KEPT, "stages.0.0", "stem.act"}))
    convert(make(), frozenset({"stages.0.0", "stem.act"}))  # no layers with weights


def test_errors(tmp_path: Path, make: Make) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (16, 112, 112, 3), dtype=np.uint8)
    with pytest.raises(InputError, match=r"no layer is called 'stages\.9'"):
        export_tflite(make(), tmp_path / "net.tflite", {}, "int8", Int8(noise, frozenset({"stages.9"})))
    with pytest.raises(InputError, match=r"net\.tflite: precision int8 without crops to calibrate on"):
        export_tflite(make(), tmp_path / "net.tflite", {}, "int8")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_file_that_gives_nan_is_refused(tmp_path: Path, make: Make) -> None:
    network = make()
    network.embedding.bn.bias.data[0] = float("nan")
    with pytest.raises(CheckFailed, match=r"net\.tflite: gives NaN or infinity for 3 of 3"):
        export_tflite(network, tmp_path / "net.tflite", {})


@pytest.mark.slow
@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "prelu"])
def test_other_activations(tmp_path: Path, make: Make, images: Pixels, activation: str) -> None:
    network = make(replace(make().arch, activation=activation))
    raw = exact(network, images)
    kind = {"leaky_relu": "LEAKY_RELU", "hard_swish": "HARD_SWISH"}[activation]
    for precision, int8, least in (("fp32", None, 0.9999999), ("int8", Int8(np.tile(images, (2, 1, 1, 1))), 0.98)):
        path = tmp_path / f"{precision}.tflite"
        export_tflite(network, path, {}, precision, int8)
        assert cosines(TFLiteEmbedder(path)(images), raw).min() > least
        split = (activation, precision) == ("hard_swish", "int8")  # its operator is fast in float alone
        assert Counter(kind for kind, _, _ in graph(path))[kind] == (0 if split else 8)


@pytest.mark.slow
def test_hard_swish_by_three_operators_is_hard_swish(tmp_path: Path) -> None:
    import litert_torch

    x = np.linspace(-8, 8, 48, dtype=np.float32).reshape(1, 4, 4, 3)
    with silent():
        model = litert_torch.convert(torch.nn.Hardswish().eval(), None, {"input": torch.from_numpy(x)})
    path = tmp_path / "net.tflite"
    path.write_bytes(split_hard_swish(model.model_content()))
    assert [kind for kind, _, _ in graph(path)] == ["ADD", "MUL", "MUL"]
    (found,) = run(path, x).values()
    exact = x.astype(np.float64)
    np.testing.assert_allclose(found, exact * np.clip(exact + 3, 0, 6) / 6, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_slopes_above_one_and_below_zero(tmp_path: Path, make: Make, images: Pixels) -> None:
    network = make(slopes=(-1.0, 3.0))
    export_tflite(network, tmp_path / "net.tflite", {})
    raw = exact(network, images)
    assert cosines(TFLiteEmbedder(tmp_path / "net.tflite")(images), raw).min() > 1 - 1e-6
    assert "TRANSPOSE" not in [kind for kind, _, _ in graph(tmp_path / "net.tflite")]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "flattened"), [("iresnet-micro", 1), ("lgaf-micro", 6)])
def test_other_families(tmp_path: Path, make: Make, images: Pixels, name: str, flattened: int) -> None:
    """A map that is flattened, or averaged over its channels, is turned around for it."""
    network = make(ZOO[name])
    export_tflite(network, tmp_path / "net.tflite", {})
    raw = exact(network, images)
    norm = np.linalg.norm(raw, axis=1, keepdims=True)
    for batch in (1, 5):
        found = run(tmp_path / "net.tflite", images[:batch])
        np.testing.assert_allclose(found["embedding"], (raw / norm)[:batch], atol=1e-4)
    assert [kind for kind, _, _ in graph(tmp_path / "net.tflite")].count("TRANSPOSE") == flattened
