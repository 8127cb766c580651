"""Timing of exported files and its command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from export import bench
from export.bench import main
from export.formats import FORMATS
from export.timing import IN_A_TURN, LEAST, Timing, profile, runner, take_turns
from mobileface.errors import InputError

Make = Callable[..., nn.Module]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, make: Make) -> Path:
    path = tmp_path_factory.mktemp("bench") / "nano.onnx"
    FORMATS["onnx"].write(make(), path, {}, "fp32", None)
    return path


def test_summary_against_sorting() -> None:
    values = np.random.default_rng(0).uniform(1, 9, 101)
    timing, in_order = Timing(tuple(values)), np.sort(values)
    assert timing.median == in_order[50]
    assert timing.summary() == {
        "min_ms": round(in_order[0], 3), "lower_quartile_ms": round(in_order[25], 3),
        "median_ms": round(in_order[50], 3), "upper_quartile_ms": round(in_order[75], 3),
        "p90_ms": round(in_order[90], 3),
    }  # fmt: skip


def test_files_take_turns(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many calls of each; who begins changes from round to round."""
    order: list[str] = []
    monkeypatch.setattr("export.timing.runner", lambda path, threads: lambda: order.append(path.name))
    found = take_turns([Path("a"), Path("b")], 1, 1e-6)
    assert [len(timing.milliseconds) for timing in found] == [LEAST * IN_A_TURN] * 2
    calls = 1 + IN_A_TURN  # one to warm up
    turns = order[-2 * LEAST * calls :: calls]
    assert turns == ["b", "a", "a", "b"] * 2 + ["b", "a"]
    assert order[-2 * LEAST * calls :] == [name for name in turns for _ in range(calls)]


def test_a_call_runs_the_file(file: Path) -> None:
    embedding, quality = runner(file, 1)()  # type: ignore[misc]
    assert embedding.shape == (1, 8)
    assert quality.shape == (1,)
    spent = profile(file, 2, calls=3)
    assert spent["Conv"] > 0


def test_tflite_files(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    from tests.embedders.tflite_files import INT32, UINT8, mean_file

    for name, kind in (("float", 0), ("bytes", UINT8)):
        path = mean_file(tmp_path / f"{name}.tflite", kind)
        [timing] = take_turns([path], 1, 1e-6)
        assert len(timing.milliseconds) == LEAST * IN_A_TURN
        assert min(timing.milliseconds) > 0
        assert profile(path, 1) == {}
    with pytest.raises(InputError, match=r"whole\.tflite: input 'input' is int32, wanted one of \['float32', 'int8'"):
        runner(mean_file(tmp_path / "whole.tflite", INT32), 1)
    with pytest.raises(InputError, match=r"eight\.tflite: input 'input' is \[8, 112, 112, 3\], wanted one image at a"):
        runner(mean_file(tmp_path / "eight.tflite", shape=(8, 112, 112, 3)), 1)


def foreign(path: Path, kind: int, shapes: list[list[int | str]]) -> Path:
    """An ONNX file that writes each input, which must be of (3, 112, 112) an image, as a row."""
    names = [f"in{i}" for i in range(len(shapes))]
    made = [helper.make_tensor_value_info(name, kind, shape) for name, shape in zip(names, shapes, strict=True)]
    results = [helper.make_tensor_value_info(f"{name}out", kind, None) for name in names]
    nodes = [helper.make_node("Reshape", [name, "size"], [f"{name}out"]) for name in names]
    size = numpy_helper.from_array(np.array([-1, 3 * 112 * 112], np.int64), "size")
    model = helper.make_model(
        helper.make_graph(nodes, "foreign", made, results, [size]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("kind", "shapes", "message"),
    [
        (TensorProto.FLOAT, [["N", 3, 112, 112]] * 2, "has 2 inputs, wanted one that takes an image"),
        (TensorProto.INT64, [["N", 3, 112, 112]], r"input 'in0' is tensor\(int64\), wanted one of \['tensor\(float\)'"),
        (TensorProto.FLOAT, [[8, 3, 112, 112]], r"input 'in0' is \[8, 3, 112, 112\], wanted one image at a time"),
        (TensorProto.FLOAT, [["N", 3, 113, 112]], r"does not run on an image \(.*"),
    ],
)
def test_foreign_files_that_take_no_single_image(
    tmp_path: Path,
    kind: int,
    shapes: list[list[int | str]],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench, "plain_reference", lambda *given: pytest.fail("a reference was made in vain"))
    assert main([str(foreign(tmp_path / "foreign.onnx", kind, shapes)), "--seconds", "0.01"]) == 2
    assert re.fullmatch(rf"error: .*foreign\.onnx: {message}.*\n", capsys.readouterr().err)


def test_a_reference_that_cannot_be_made_says_what_to_do(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.formats.find_spec", lambda name: None)
    assert main([str(file), "--seconds", "0.01"]) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"error: the reference: onnx: onnx is missing, wanted: pip .*, or --reference FILE\n", said)


def test_a_profile_has_the_threads_of_its_row(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "profile", lambda path, threads: {"Conv": float(threads)})
    counts = ["--threads", "1", "--threads", "2"]
    assert main([str(file), "--reference", str(file), "--seconds", "0.01", *counts, "--profile", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    found = [(row["threads"], row.get("operators")) for row in rows]
    assert found == [(1, {"Conv": 1.0}), (1, None), (2, {"Conv": 2.0}), (2, None)]


def test_command_line(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "REFERENCE", "micro")
    call = [str(file), "--seconds", "0.02", "--threads", "1"]
    assert main([*call, "--json", "--profile"]) == 0
    own, reference = json.loads(capsys.readouterr().out)
    assert own["file"] == str(file)
    assert own["threads"] == 1
    assert own["operators"]["Conv"] > 0
    assert own["ratio"] == pytest.approx(own["median_ms"] / reference["median_ms"], rel=0.02)
    assert reference["file"] == "reference: micro.onnx"
    assert reference["ratio"] == 1
    assert main([*call, "--reference", str(file)]) == 0
    assert "ms (" in capsys.readouterr().out
    for bad, said in (
        (tmp_path / "none.onnx", "none.onnx: not found, wanted an .onnx or a .tflite file"),
        (tmp_path, "has no runtime here, wanted an .onnx or a .tflite file"),
    ):
        assert main([str(bad), "--seconds", "0.02"]) == 2
        assert said in capsys.readouterr().err
    (tmp_path / "cut.onnx").write_bytes(file.read_bytes()[:100])
    assert main([str(tmp_path / "cut.onnx"), "--seconds", "0.02", "--reference", str(file)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
