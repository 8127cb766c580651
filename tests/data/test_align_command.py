"""`mobileface data align`: what it says, to odd names, bad input and Ctrl-C too."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mobileface.cli import main
from mobileface.data import align_cut
from mobileface.data.align_cut import Settings
from mobileface.data.detect import Detector
from mobileface.data.folder import FolderFaces
from mobileface.errors import InputError
from tests.data.painted import GOOD, photograph

Pixels = NDArray[np.uint8]


def test_the_command_says_what_it_did(
    photos: Path, detector: Detector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["data", "align", str(photos), "--detector", str(tmp_path / "painted.onnx"), "--out", str(out)]
    assert main([*command, "--least", "40"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.splitlines() == [
        "aligned: 3", "no-face: 1", "below-score: 1", "too-small: 1", "unreadable: 1",
        "  bob/broken.jpg: does not decode as an image", "left out: .txt 1",
        "7 photographs, 0 of them from a run before", f"wrote {out}: crops, align.tsv, align.json",
    ]  # fmt: skip
    assert main([*command, "--least", "40"]) == 0
    assert "7 photographs, 6 of them from a run before" in capsys.readouterr().out
    assert main([*command, "--least", "40", "--all"]) == 2
    assert "all=False there, True here" in capsys.readouterr().err


def test_odd_names(tmp_path: Path, detector: Detector, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (b"\xff person", b"new\nline\x1b[31m", b'ta\tb"', b"[bold]"):
        photograph(Path(os.fsdecode(os.fsencode(tmp_path) + b"/photos/" + name + b"/" + name + b".jpg")), GOOD)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/photos/new\nline\x1b[31m/\xff.jpg")).write_bytes(b"bad")
    command = ["data", "align", str(tmp_path / "photos"), "--out", str(tmp_path / "out")]
    command += ["--detector", str(tmp_path / "painted.onnx")]
    for there in (0, 4):
        assert main(command) == 0
        out = capsys.readouterr().out
        assert f"5 photographs, {there} of them" in out
        assert r"  new\nline\x1b[31m/\udcff.jpg: does not decode as an image" in out
    assert len(FolderFaces(tmp_path / "out")) == 4


@pytest.mark.parametrize(
    ("source", "content", "wanted"),
    [
        ("photos", None, "yunet.onnx: no such face detector; wanted a YuNet file"),
        ("photos", b"not a network", "yunet.onnx: OpenCV cannot run it as a face detector (not a network);"),
        ("nothing", b"painted", "nothing: is not a folder"),
    ],
)
def test_bad_input_is_one_line(
    photos: Path, tmp_path: Path, detector: Detector, capsys: pytest.CaptureFixture[str],
    source: str, content: bytes | None, wanted: str,
) -> None:  # fmt: skip
    path = tmp_path / "yunet.onnx"
    if content is not None:
        path.write_bytes(content)
    command = ["data", "align", str(tmp_path / source), "--detector", str(path), "--out", str(tmp_path / "out")]
    assert main(command) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert wanted in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--score", "nan"], "--score is nan, wanted 0.3..1"),
        (["--least", "inf"], "--least is inf, wanted a number of px from 1 on"),
        (["--least", "nan"], "--least is nan, wanted a number of px from 1 on"),
    ],
)
def test_numbers_that_are_none(
    photos: Path, detector: Detector, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str], said: str
) -> None:
    command = ["data", "align", str(photos), "--detector", str(tmp_path / "painted.onnx")]
    assert main([*command, "--out", str(tmp_path / "out"), *option]) == 2
    assert "defect" not in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=f"^{said}$"):  # some versions of typer let NaN pass
        Settings(**{option[0].removeprefix("--"): float(option[1])})  # type: ignore[arg-type]


def test_ctrl_c_says_that_it_goes_on_and_it_does(
    photos: Path, detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "out"
    command = ["data", "align", str(photos), "--detector", str(tmp_path / "painted.onnx"), "--out", str(out)]
    encode, crops = align_cut.encode, iter([False, False, True])

    def stopped(crop: Pixels) -> bytes:
        if next(crops):
            raise KeyboardInterrupt
        return encode(crop)

    with monkeypatch.context() as patch:
        patch.setattr(align_cut, "encode", stopped)
        assert main(command) == 130
    captured = capsys.readouterr()
    said = "interrupted; what was saved stays, and the same command goes on from there\n"
    assert (captured.out, captured.err) == ("", said)
    (photos / "ann" / "album" / "large.jpg").unlink()
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines() == [
        "aligned: 3", "no-face: 1", "below-score: 1", "unreadable: 1",
        "  bob/broken.jpg: does not decode as an image", "left out: .txt 1",
        "6 photographs, 1 of them from a run before",
        "gone since a run before: 1; their rows and 1 crops stay", f"wrote {out}: crops, align.tsv, align.json",
    ]  # fmt: skip
