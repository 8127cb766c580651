"""Timing of exported files and its command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from export import bench
from export.bench import main
from export.formats import FORMATS
from export.timing import LEAST, Timing, profile, runner, take_turns

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
    assert [len(timing.milliseconds) for timing in found] == [LEAST, LEAST]
    counted = order[-2 * LEAST :]
    assert counted == ["b", "a", "a", "b"] * 2 + ["b", "a"]


def test_a_call_runs_the_file(file: Path) -> None:
    embedding, quality = runner(file, 1)()  # type: ignore[misc]
    assert embedding.shape == (1, 8)
    assert quality.shape == (1,)
    spent = profile(file, calls=3)
    assert spent["Conv"] > 0


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
        (tmp_path, "is of no known kind, wanted an .onnx or a .tflite file"),
    ):
        assert main([str(bad), "--seconds", "0.02"]) == 2
        assert said in capsys.readouterr().err
    (tmp_path / "cut.onnx").write_bytes(file.read_bytes()[:100])
    assert main([str(tmp_path / "cut.onnx"), "--seconds", "0.02", "--reference", str(file)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
