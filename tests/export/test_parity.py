"""The gate between a network and its exported file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from export.parity import TOLERANCES, ParityReport, Tolerance, gate, parity
from export.to_onnx import export_onnx
from mobileface.embedders.contract import InputContract
from mobileface.embedders.network import NetworkEmbedder
from mobileface.embedders.onnx import OnnxEmbedder
from mobileface.errors import CheckFailed, InputError

Pixels = NDArray[np.uint8]


class Table:
    """An embedder that knows the answer for image i, which holds i in all its pixels."""

    libraries = ("numpy",)

    def __init__(self, answers: NDArray[np.float64], breaks_at: int = 99) -> None:
        self.answers, self.breaks_at = answers, breaks_at
        self.path, self.sha256, self.contract = Path("table.onnx"), "", InputContract()
        self.dim = answers.shape[1]
        self.asked: list[int] = []

    def __call__(self, images: Pixels) -> NDArray[np.float32]:
        self.asked.append(len(images))
        if len(images) >= self.breaks_at:
            raise InputError(f"does not run on {len(images)} images")
        return self.answers[images[:, 0, 0, 0]].astype(np.float32)


def numbered(count: int) -> Pixels:
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 112, 112, 3)).copy()


@pytest.fixture
def answers() -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(0, 5, (20, 16))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., nn.Module]) -> tuple[NetworkEmbedder, bytes]:
    """A network as an embedder, and its file."""
    network, path = make(), tmp_path_factory.mktemp("export") / "net.onnx"
    export_onnx(network, path, {})
    return NetworkEmbedder(network, path, ""), path.read_bytes()


def test_figures_against_a_slow_loop(answers: NDArray[np.float64]) -> None:
    other = answers + np.random.default_rng(1).normal(0, 0.1, answers.shape)
    report = parity(Table(answers), Table(other), numbered(20))
    largest, least, apart, total = 0.0, 1.0, 0.0, 0.0
    for a, b in zip(answers, other, strict=True):
        length_a, length_b = sum(v * v for v in a) ** 0.5, sum(v * v for v in b) ** 0.5
        largest = max(largest, *(abs(u / length_a - v / length_b) for u, v in zip(a, b, strict=True)))
        cosine = sum(u * v for u, v in zip(a, b, strict=True)) / length_a / length_b
        least, total = min(least, cosine), total + cosine
        apart = max(apart, abs(length_b - length_a) / length_a)
    assert (report.batches, report.images) == ((1, 8), 20)
    assert (report.max_abs, report.quality_error) == pytest.approx((largest, apart), rel=1e-5)
    assert (report.min_cosine, report.mean_cosine) == pytest.approx((least, total / 20), abs=1e-8)
    assert not report.passed


def test_the_candidate_is_asked_at_every_batch_size(answers: NDArray[np.float64]) -> None:
    candidate = Table(answers)
    report = parity(Table(answers), candidate, numbered(20), (1, 8))
    assert candidate.asked == [1] * 20 + [8, 8, 4]
    assert report.passed
    assert (report.max_abs, report.min_cosine, report.quality_error) == (0, 1, 0)


@pytest.mark.parametrize("scale", [1.0, 1.01])
def test_each_figure_has_its_limit(answers: NDArray[np.float64], scale: float) -> None:
    """A longer embedding has the same direction: only `quality` sees it."""
    report = parity(Table(answers), Table(answers * scale), numbered(8))
    assert report.min_cosine == pytest.approx(1, abs=1e-12)
    assert report.passed == (scale == 1)
    tight = TOLERANCES["fp32"]
    close = {
        "max_abs": tight.max_abs, "min_cosine": tight.min_cosine, "mean_cosine": tight.mean_cosine,
        "quality_error": tight.quality,
    }  # fmt: skip
    assert ParityReport((1,), 8, tolerance=tight, **close).passed
    for key, worse in (("max_abs", 2e-4), ("min_cosine", 0.9999), ("mean_cosine", 0.9999), ("quality_error", 2e-4)):
        assert not ParityReport((1,), 8, tolerance=tight, **{**close, key: worse}).passed
        assert not ParityReport((1,), 8, tolerance=tight, **{**close, key: float("nan")}).passed


def test_zero_embeddings_are_equal_to_zero_only(answers: NDArray[np.float64]) -> None:
    zeros = answers.copy()
    zeros[3] = 0
    assert parity(Table(zeros), Table(zeros), numbered(8)).passed
    assert not parity(Table(zeros), Table(answers), numbered(8)).passed
    assert not parity(Table(answers), Table(zeros), numbered(8)).passed


def test_report_as_plain_data(answers: NDArray[np.float64]) -> None:
    found = parity(Table(answers), Table(answers), numbered(8), tolerance=Tolerance(0.1, 0.9, 0.95, 0.2)).to_dict()
    assert found == {
        "batches": [1, 8],
        "images": 8,
        "max_abs": 0.0,
        "min_cosine": 1.0,
        "mean_cosine": 1.0,
        "quality_error": 0.0,
        "tolerance": {"max_abs": 0.1, "min_cosine": 0.9, "mean_cosine": 0.95, "quality": 0.2},
        "passed": True,
    }


def test_bad_images(answers: NDArray[np.float64]) -> None:
    with pytest.raises(InputError, match="parity: 5 images, wanted at least 8, the largest batch"):
        parity(Table(answers), Table(answers), numbered(5))
    for images in (numbered(8)[..., 0], numbered(8)[:, :96], numbered(8).astype(np.float32)):
        with pytest.raises(InputError, match=r"wanted uint8 \(N, 112, 112, 3\)"):
            parity(Table(answers), Table(answers), images)


def test_a_file_that_does_not_answer_has_failed(answers: NDArray[np.float64]) -> None:
    with pytest.raises(CheckFailed, match="at batch 8: does not run on 8 images"):
        parity(Table(answers), Table(answers, breaks_at=2), numbered(8))
    with pytest.raises(CheckFailed, match=r"at batch 1: embeddings are \(8, 15\), wanted \(8, 16\)"):
        parity(Table(answers), Table(answers[:, 1:]), numbered(8))


def test_the_file_itself_passes(tmp_path: Path, exported: tuple[NetworkEmbedder, bytes], images: Pixels) -> None:
    reference, content = exported
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    report = gate(reference, OnnxEmbedder(path), images)
    assert report.passed
    assert 0 < report.max_abs < 1e-5
    assert path.read_bytes() == content


def test_every_tampered_initializer_is_caught_and_the_file_removed(
    tmp_path: Path, exported: tuple[NetworkEmbedder, bytes], images: Pixels
) -> None:
    reference, content = exported
    tensors = list(enumerate(onnx.load_from_string(content).graph.initializer))
    # not the one slope inside an SE unit: the mean that it acts on may be positive in every image
    places = [i for i, w in tensors if w.name.startswith("network.") and "se.act" not in w.name and w.dims]
    assert len(places) > 25
    for place in places:
        model = onnx.load_from_string(content)
        tensor = model.graph.initializer[place]
        value = numpy_helper.to_array(tensor).copy()
        value += 0.02 * np.abs(value).max()
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        path = tmp_path / "net.onnx"
        onnx.save(model, path)
        message = r"student\.onnx: is not the network, and is not kept: largest .* on 9 images at batch 1 and 8"
        with pytest.raises(CheckFailed, match=message) as caught:
            gate(reference, OnnxEmbedder(path), images, name="student.onnx")
        assert caught.value.exit_code == 1
        assert not path.exists(), tensor.name


def test_a_file_that_breaks_is_removed(tmp_path: Path, exported: tuple[NetworkEmbedder, bytes], images: Pixels) -> None:
    """The batch size baked in (insightface issue 2406) and a NaN in the weights."""
    reference, content = exported
    path = tmp_path / "net.onnx"
    model = onnx.load_from_string(content)
    wanted = next(node.input[1] for node in model.graph.node if node.op_type == "Reshape")
    shape = next(tensor for tensor in model.graph.initializer if tensor.name == wanted)
    fixed = np.array([1, reference.dim], np.int64)
    shape.CopyFrom(numpy_helper.from_array(fixed, shape.name))
    onnx.save(model, path)
    with pytest.raises(CheckFailed, match=r"net\.onnx: is not the network.*at batch 8: .*does not run on 8"):
        gate(reference, OnnxEmbedder(path), images)
    assert not path.exists()
    model = onnx.load_from_string(content)
    tensor = next(w for w in model.graph.initializer if len(w.dims) == 4)
    value = np.full(tuple(tensor.dims), np.nan, np.float32)
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    onnx.save(model, path)
    with pytest.raises(CheckFailed, match=r"at batch 1: .*gives NaN or infinity"):
        gate(reference, OnnxEmbedder(path), images)
    assert not path.exists()
