"""`evaluate`: what it prints and keeps, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mobileface.cli import main
from tests.cli.output import Captured, one_line
from tests.cli.pairs import pairs_folder


def test_evaluate_prints_one_object_or_one_line(
    trained: Path, shared_faces: Path, tmp_path: Path, capsys: Captured
) -> None:
    pairs = pairs_folder(tmp_path / "some", shared_faces, ("a", "b"))
    arguments = ["evaluate", str(trained), "--on", str(pairs), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    keys = "model model_sha256 set protocol pairs accuracy std tar eer auc threshold flip data_sha256"
    assert set(keys.split()) <= result.keys()
    assert (result["set"], result["pairs"], result["flip"]) == ("some", 8, "sum")
    assert json.loads((tmp_path / "out" / "some.json").read_text()) == result
    assert (tmp_path / "out" / "some.worst.json").exists()
    assert main([*arguments, "--json", "--on", str(pairs) + ":1-2", "--flip", "none"]) == 0
    both = json.loads(capsys.readouterr().out)
    assert [found["flip"] for found in both["results"]] == ["none", "none"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith(f"some: accuracy {result['accuracy']:.4f} +- ")


@pytest.mark.parametrize(
    ("arguments", "code", "wanted"),
    [
        (["--min-accuracy", "1"], 1, ["some: accuracy", "asked for 1.0"]),
        (["--min-accuracy", "99"], 2, ["--min-accuracy is 99, wanted 0..1"]),
        (["--min-accuracy", "-0.1"], 2, ["wanted 0..1"]),
        (["--min-accuracy", "nan"], 2, ["wanted 0..1"]),
        (["--scale", "255"], 2, ["a run folder takes RGB in 0..255 and needs no contract; leave --scale out"]),
        (["--color", "bgr", "--flip", "sum"], 2, ["leave --color out"]),
        (["--flip", "both"], 2, ["'both'", "sum, none"]),
        (["--on", "lwf"], 2, ["'lwf'", "did you mean 'lfw'?"]),
        (["--on", "no.bin"], 2, ["no.bin: not found"]),
        (["--on", "lfw"], 2, ["lfw: not found, wanted lfw; --data says where lfw/ lies"]),
        (["--on", "some/pairs.txt"], 2, ["--on: two sets are called 'some', and results are kept by name"]),
    ],
)
def test_evaluate_ends_with(
    trained: Path,
    shared_faces: Path,
    tmp_path: Path,
    capsys: Captured,
    arguments: list[str],
    code: int,
    wanted: list[str],
) -> None:
    pairs = pairs_folder(tmp_path / "some", shared_faces, ("a", "b"))
    fixed = ["evaluate", str(trained), "--on", str(pairs), "--out", str(tmp_path / "out"), "--data", str(tmp_path)]
    assert main([*fixed, *arguments]) == code
    one_line(capsys, *wanted)
    assert (tmp_path / "out").exists() == (code == 1)  # what is refused is refused before anything is judged


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--scale", "1", "--mean", "0.5,0.5", "--std", "1,1,1"], ["mean", "wanted three numbers"]),
        (["--mean", "a,b,c"], ["--mean", "'a,b,c'", "wanted three numbers"]),
        (["--scale", "255"], ["--mean is missing"]),
        (["--layout", "nhwc"], ["--scale is missing"]),
    ],
)
def test_contracts_that_are_refused(capsys: Captured, arguments: list[str], wanted: list[str]) -> None:
    assert main(["evaluate", "foreign.onnx", "--on", "lfw", *arguments]) == 2
    one_line(capsys, *wanted)
