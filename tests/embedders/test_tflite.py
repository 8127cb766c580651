"""TFLite files as embedders, against plain float64 arithmetic on the pixels."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from ai_edge_litert import schema_py_generated as schema

from mobileface.embedders.contract import InputContract
from mobileface.embedders.opening import open_embedder
from mobileface.embedders.tflite import TFLiteEmbedder, quiet
from mobileface.errors import InputError
from mobileface.files import sha256
from tests.embedders.tflite_files import INT8, INT32, NCHW, NHWC, SCALE, UINT8, ZERO, Shared, mean_file

IMAGENET = InputContract(255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), layout="nhwc")


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
    for contract in ("{", "[]", '{"scale": 0}', "[" * 100_000, f'{{"scale": 1{400 * "0"}}}'):
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


def signature(name: str, index: int) -> Any:
    """Of the main graph, with one output."""
    made, entry = schema.SignatureDefT(), schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    made.signatureKey, made.outputs = "serving_default", [entry]
    return made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: setattr(model.subgraphs[0].tensors[0], "buffer", 99), "buffer 99 is not there, 3 are"),
        (lambda model: setattr(model.subgraphs[0].operators[0], "outputs", [50]), "tensor 50 is not there, 3 are"),
        (lambda model: setattr(model.subgraphs[0].operators[0], "opcodeIndex", 4), "operator 4 is not there, 1 are"),
        (lambda model: setattr(model, "signatureDefs", [signature("far", 9)]), "tensor 9 is not there, 3 are"),
        (
            lambda model: setattr(model, "signatureDefs", [signature("axes", 1)]),
            "output 'axes' of the signature is none of the graph",
        ),
        (lambda model: setattr(model.subgraphs[0].tensors[0], "name", b"\xff"), r"the name b'\\xff' is no text"),
        (lambda model: setattr(model.subgraphs[0].tensors[2], "name", b"\xff"), r"the name b'\\xff' is no text"),
        (lambda model: setattr(model.buffers[2], "data", list(b"[" * 100_000)), "maximum recursion depth exceeded.*"),
        (lambda model: setattr(model.buffers[2], "data", None), "Expecting value.*"),
        (
            lambda model: setattr(model, "externalBuffers", [schema.ExternalBufferT()]),
            "weights lie outside of the file",
        ),
    ],
)
def test_what_stands_for_nothing(tmp_path: Path, change: Callable[[Any], None], message: str) -> None:
    with pytest.raises(InputError, match=rf"bad\.tflite: is damaged or no TFLite file \({message}\)"):
        TFLiteEmbedder(mean_file(tmp_path / "bad.tflite", texts={}, change=change), IMAGENET)


def again(model: Any, graphs: int, operators: int, tensors: int = 3) -> None:
    """Name the same parts again and again."""
    graph = model.subgraphs[0]
    graph.operators = [Shared(graph.operators[0])] * operators
    graph.tensors = [Shared(part) for part in graph.tensors] + [Shared(graph.tensors[0])] * (tensors - 3)
    model.subgraphs = [Shared(graph)] * graphs


def long_names(model: Any) -> None:
    model.subgraphs[0].tensors[0].name = "x" * 100_000
    again(model, 1, 1, 1000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: again(model, 100, 500), "100 graphs, at most 10 are read"),
        (lambda model: again(model, 10, 2500), "25,033 parts, at most 20,000 are read"),
        (lambda model: again(model, 1, 6000), "24,006 parts, at most 20,000 are read"),  # each takes two and gives one
        (long_names, "16,8.*,... bytes of names, at most 16,777,216 are read"),
    ],
)
def test_a_small_file_that_would_grow(tmp_path: Path, change: Callable[[Any], None], message: str) -> None:
    path = mean_file(tmp_path / "grows.tflite", change=change)
    assert path.stat().st_size < 300_000
    with pytest.raises(InputError, match=rf"grows\.tflite: is damaged or no TFLite file \({message}\)"):
        TFLiteEmbedder(path, IMAGENET)


def test_two_threads_that_are_quiet_leave_stderr_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    steps = {name: Event() for name in ("first in", "first may go", "second in", "second may go")}

    def first() -> None:
        with quiet():
            steps["first in"].set()
            steps["first may go"].wait(60)
            os.write(2, b"unheard")

    def second() -> None:
        with quiet():
            steps["second in"].set()
            steps["second may go"].wait(60)

    threads = [Thread(target=first), Thread(target=second)]
    threads[0].start()
    assert steps["first in"].wait(60)
    threads[1].start()
    assert not steps["second in"].wait(0.2)  # not both at once
    os.write(1, b"stdout is not touched")
    steps["first may go"].set()
    threads[0].join()
    assert steps["second in"].wait(60)
    steps["second may go"].set()
    threads[1].join()
    os.write(2, b"heard again")
    assert capfd.readouterr() == ("stdout is not touched", "heard again")


def test_only_opening_and_making_room_are_quiet(
    tmp_path: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = TFLiteEmbedder(mean_file(tmp_path / "mean.tflite"), IMAGENET)
    wanted = embedder(images)
    monkeypatch.setattr("mobileface.embedders.tflite.quiet", lambda: pytest.fail("the terminal was taken away"))
    np.testing.assert_array_equal(embedder(images), wanted)


def test_closed_streams_do_no_harm(tmp_path: Path) -> None:
    path = mean_file(tmp_path / "mean.tflite")
    code = (
        "import pathlib, mobileface.embedders.tflite as tflite\n"
        "from mobileface.embedders.contract import InputContract\n"
        f"print(tflite.TFLiteEmbedder(pathlib.Path({str(path)!r}), InputContract(layout='nhwc')).dim)"
    )
    closed = ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, code]
    root = Path(__file__).parents[2]
    assert subprocess.run(closed, stdout=subprocess.PIPE, cwd=root, check=True).stdout == b"3\n"


def test_an_operator_that_the_runtime_lacks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = mean_file(tmp_path / "new.tflite", code=schema.BuiltinOperator.CUSTOM)
    with pytest.raises(InputError, match=r"new\.tflite: is no TFLite file that can be loaded \(.*") as caught:
        TFLiteEmbedder(path, IMAGENET)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
