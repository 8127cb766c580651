"""What docs/devices.md tells applications, against real exports and against what the training data went through."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

from export.formats import FORMATS
from export.metadata import THRESHOLDS_KEY
from mobileface.data.align import TEMPLATE, similarity
from mobileface.zoo import find_arch

Make = Callable[..., nn.Module]
GUIDE = Path(__file__).parents[2] / "docs" / "devices.md"
TEXT = GUIDE.read_text(encoding="utf-8")
BLOCKS = {
    name: "\n".join(re.findall(rf"^```{name}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
    for name in ("swift", "kotlin", "javascript")
}
WIDTH = 64  # of the demo
POINTS = np.array([(310.0, 205.5), (382.25, 196.0), (352.0, 251.0), (322.5, 287.75), (379.0, 281.0)])


def row(file: str) -> str:
    """A file's line of the table."""
    [found] = [line for line in TEXT.splitlines() if line.startswith(f"| `{file}` |")]
    return found


def test_the_demo_has_the_width_of_the_document() -> None:
    recipe = (GUIDE.parents[1] / "recipes" / "demo.yaml").read_text(encoding="utf-8")
    assert re.search(r"^arch: tiny$", recipe, re.MULTILINE)
    assert re.search(r"^name: demo$", recipe, re.MULTILINE)
    assert find_arch("tiny").embedding_dim == WIDTH
    assert f"const val WIDTH = {WIDTH} " in BLOCKS["kotlin"]
    assert f"[Float]  // {WIDTH} numbers" in BLOCKS["swift"]


def test_the_template_is_ours() -> None:
    numbers = r"38\.2946.*?92\.2041"
    for name, block in BLOCKS.items():
        [stated] = re.findall(numbers, block, re.DOTALL)
        found = [float(number) for number in re.findall(r"\d+\.\d+", stated)]
        np.testing.assert_array_equal(np.reshape(found, (5, 2)), TEMPLATE, err_msg=name)


def test_the_onnx_file_is_as_said(tmp_path: Path, make: Make) -> None:
    import onnxruntime

    FORMATS["onnx"].write(make(), tmp_path / "nano.onnx", {}, "fp32", None)
    session = onnxruntime.InferenceSession(tmp_path / "nano.onnx", providers=["CPUExecutionProvider"])
    [fed] = session.get_inputs()
    assert (fed.name, fed.type, fed.shape[1:]) == ("input", "tensor(float)", [3, 112, 112])
    assert "| (N, 3, 112, 112) float32, RGB, 0..255 |" in row("demo.onnx")
    assert 'new ort.Tensor("float32", pixels, [1, 3, SIDE, SIDE])' in BLOCKS["javascript"]
    assert "session.run({ input })" in BLOCKS["javascript"]
    outputs = {output.name: len(output.shape) for output in session.get_outputs()}
    assert outputs == {"embedding": 2, "quality": 1}
    assert f"`embedding` (N, {WIDTH}) and `quality` (N), float32" in row("demo.onnx")
    assert "const { embedding, quality } = await session.run" in BLOCKS["javascript"]


@pytest.mark.slow
def test_the_tflite_file_is_as_said(tmp_path: Path, make: Make) -> None:
    pytest.importorskip("litert_torch")
    from mobileface.embedders.tflite import open_interpreter

    FORMATS["tflite"].write(make(), tmp_path / "nano.tflite", {}, "fp32", None)
    interpreter = open_interpreter(tmp_path / "nano.tflite", 1)
    runner = interpreter.get_signature_runner("serving_default")
    given, told = runner.get_input_details(), runner.get_output_details()
    shapes = {name: (entry["shape"].tolist(), entry["dtype"]) for name, entry in {**given, **told}.items()}
    size = make().arch.embedding_dim
    assert shapes == {
        "input": ([1, 112, 112, 3], np.float32),
        "embedding": ([1, size], np.float32),
        "quality": ([1], np.float32),
    }
    assert "| (1, 112, 112, 3) float32, RGB, 0..255 |" in row("demo.tflite")
    assert f"`embedding` (1, {WIDTH}) and `quality` (1), float32" in row("demo.tflite")
    call = 'mapOf("input" to input), mapOf("embedding" to embedding, "quality" to quality), "serving_default"'
    assert call in BLOCKS["kotlin"]


@pytest.mark.slow
def test_the_coreml_package_is_as_said(tmp_path: Path, make: Make) -> None:
    pytest.importorskip("coremltools")
    from mobileface.embedders.coreml_package import quiet

    with quiet():
        import coremltools as ct

    FORMATS["coreml"].write(make(), tmp_path / "nano.mlpackage", {}, "fp32", None)
    spec = ct.utils.load_spec(str(tmp_path / "nano.mlpackage"))
    [fed] = spec.description.input
    image = fed.type.imageType
    assert (fed.name, image.width, image.height) == ("input", 112, 112)
    assert image.colorSpace == ct.proto.FeatureTypes_pb2.ImageFeatureType.RGB
    assert "iOS 16" in row("demo.mlpackage")
    assert spec.specificationVersion == ct.target.iOS16.value
    assert "| an image, 112 x 112, RGB |" in row("demo.mlpackage")
    shapes = {entry.name: list(entry.type.multiArrayType.shape) for entry in spec.description.output}
    assert shapes == {"embedding": [1, make().arch.embedding_dim], "quality": [1]}
    assert f"`embedding` (1, {WIDTH}) and `quality` (1), Float32" in row("demo.mlpackage")
    for name in ('["input": ', 'featureValue(for: "embedding")', 'featureValue(for: "quality")'):
        assert name in BLOCKS["swift"]


def test_thresholds_are_read_by_their_name() -> None:
    for block in BLOCKS.values():
        assert f'"{THRESHOLDS_KEY}"' in block


def test_the_javascript_places_pixels_as_the_training_did(tmp_path: Path) -> None:
    """A canvas has the centre of pixel (i, j) at (i + 0.5, j + 0.5), OpenCV at (i, j)."""
    found = node(tmp_path, f"const matrix = similarity({POINTS.tolist()});", "[matrix, drawn(matrix)]")
    wanted = similarity(POINTS)
    np.testing.assert_allclose(matrix(found[0]), wanted, rtol=1e-9)
    pixels = np.random.default_rng(0).uniform(0, 500, (20, 2))
    centres = cv2.transform(pixels[None], wanted)[0]
    np.testing.assert_allclose(cv2.transform(pixels[None] + 0.5, matrix(found[1]))[0], centres + 0.5, rtol=1e-9)


def test_the_javascript_halves_as_pixels_lie(tmp_path: Path) -> None:
    """Half as large, an even picture's pixel centre x lies at x / 2 - 0.25, where cv2.resize has it; odd sizes too."""
    canvas = (
        "globalThis.OffscreenCanvas = class { constructor(width, height) { Object.assign(this, { width, height }); }"
    )
    canvas += " getContext() { return { drawImage() {} }; } };"
    halves = (
        "[halved({ width: 640, height: 481 }, [[100, 100]])].map(([half, points]) => [half.width, half.height, points])"
    )
    [[width, height, [point]]] = node(tmp_path, canvas, halves)
    assert (width, height) == (320, 240)
    assert point[0] == 100 / 2 - 0.25
    assert point[1] == pytest.approx((100 + 0.5) * 240 / 481 - 0.5, rel=1e-12)


def test_the_javascript_reads_thresholds(tmp_path: Path) -> None:
    told = {"1e-3": {"threshold": 0.31, "set": "lfw", "pairs": 5}}
    record = {"metadata": {THRESHOLDS_KEY: json.dumps(told)}}
    assert node(tmp_path, "", f"thresholds({json.dumps(record)})") == {"1e-3": 0.31}
    assert node(tmp_path, "", 'thresholds({"metadata": {}})') == {}


def node(folder: Path, before: str, expression: str) -> Any:
    """The value of an expression behind the document's JavaScript (but for its import), run by Node."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("Node is not installed")
    source = re.sub(r"^import .*$", "", BLOCKS["javascript"], flags=re.MULTILINE)
    (folder / "run.mjs").write_text(
        f"{source}\n{before}\nconsole.log(JSON.stringify({expression}));\n", encoding="utf-8"
    )
    result = subprocess.run([program, folder / "run.mjs"], capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


def matrix(values: list[float]) -> NDArray[np.float64]:
    """[a, b, tx, ty] as (2, 3)."""
    a, b, x, y = values
    return np.array([(a, -b, x), (b, a, y)])
