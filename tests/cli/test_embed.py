"""`mobileface embed`: rows by hand, lists that cannot be used, and what `score` makes of the file."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from mobileface.cli import main
from mobileface.data.features import read_features
from tests.cli.output import Captured, one_line
from tests.video.made import Table, directions, write_videos

ROWS = directions(8)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two videos and an image whose halves differ; a table in place of any model."""
    monkeypatch.setattr("mobileface.embedders.opening.open_embedder", lambda path, contract, threads: Table(ROWS))
    root = write_videos(tmp_path / "faces", {"a": [0, 1, 1], "b": [2]})
    halves = np.full((112, 112, 3), 4, np.uint8)
    halves[:, :56] = 5
    assert cv2.imwrite(str(root / "odd name.png"), halves)
    return root


def embed(root: Path, *more: str) -> int:
    return main(["embed", str(root), "--model", "m.onnx", "--out", str(root.parent / "f.bin"), *more])


def unit(row: np.ndarray) -> np.ndarray:
    return row / np.linalg.norm(row)


def test_images_are_added_to_their_mirror_images(root: Path, capsys: Captured) -> None:
    (root / "filelist.txt").write_text("b/f0.png\nodd name.png\r\na/f0.png\tmore\n\n")
    assert embed(root) == 0
    content = (root.parent / "f.bin").read_bytes()
    assert content[:16] == struct.pack("<4i", 3, 8, 32, 5)
    found = np.frombuffer(content[16:], "<f4").reshape(3, 8)
    np.testing.assert_allclose(found, [unit(ROWS[2]), unit(ROWS[4] + ROWS[5]), unit(ROWS[0])], atol=1e-6)
    assert capsys.readouterr().out.splitlines() == [
        "3 images, 3 images read, 0 unreadable; rows of 8 numbers, flip sum",
        f"wrote {root.parent / 'f.bin'}",
    ]
    assert embed(root, "--flip", "none", "--json") == 0
    np.testing.assert_allclose(read_features(root.parent / "f.bin")[1], unit(ROWS[4]), atol=1e-6)
    result = json.loads(capsys.readouterr().out)
    assert (result["rows"], result["of"], result["flip"], result["contract"]["flip"]) == (3, "images", "none", "none")


def test_videos_are_the_sum_of_unit_frames_without_a_flip(root: Path, capsys: Captured) -> None:
    (root / "filelist.txt").write_text("b 1\na 3\n")
    assert embed(root, "--json") == 0
    mean = unit(ROWS[0]) + 2 * unit(ROWS[1])  # orthogonal: cleaning would have left the first out
    np.testing.assert_allclose(read_features(root.parent / "f.bin"), [unit(ROWS[2]), unit(mean)], atol=1e-6)
    result = json.loads(capsys.readouterr().out)
    assert (result["rows"], result["of"], result["images"], result["flip"]) == (2, "videos", 4, "none")


def test_what_cannot_be_read_is_a_row_of_zeros_named_and_counted(root: Path, capsys: Captured) -> None:
    (root / "bad.jpg").write_bytes(b"no image")
    (root / "filelist.txt").write_text("a/f0.png\nbad.jpg\nlost.png\n")
    assert embed(root) == 1
    printed = capsys.readouterr()
    assert printed.err == "error: 2 of 3 images have no feature, their rows are zero; the first: bad.jpg\n"
    assert printed.out.splitlines()[1:3] == [
        "  unreadable: bad.jpg: does not decode as an image",
        "  unreadable: lost.png: cannot be read (No such file or directory)",
    ]
    assert read_features(root.parent / "f.bin").any(axis=1).tolist() == [True, False, False]
    (root / "filelist.txt").write_text("lost.png\n")
    older = (root.parent / "f.bin").read_bytes()
    assert embed(root) == 2
    one_line(capsys, "none of 1 images below ", " can be used; the first: lost.png: cannot be read")
    assert (root.parent / "f.bin").read_bytes() == older


def test_what_holds_no_features_is_not_replaced(root: Path, capsys: Captured) -> None:
    (root / "filelist.txt").write_text("a/f0.png\n")
    (root.parent / "f.bin").write_bytes(b"a model, say")
    assert embed(root) == 2
    one_line(capsys, "f.bin: is there, and no feature file; wanted another --out")
    assert (root.parent / "f.bin").read_bytes() == b"a model, say"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "filelist.txt: is empty"),
        ("a/f0.png\nb/f0.png\na/f0.png\n", "line 3 names 'a/f0.png' again; wanted each once"),
        ("a/f0.png\nb\n", "line 2 is 'b'; wanted the path of an image"),
        ("a/f0.png 0.9\n", "line 1 is 'a/f0.png 0.9'; wanted the path of an image, a tab before anything else"),
        ("b\na/f0.png\n", "line 2 names a frame, the lines above it do not"),
        ("../f0.png\n", "line 1 is '../f0.png'; wanted a path below the list's own folder"),
        ("/etc/f0.png\n", "line 1 is '/etc/f0.png'; wanted a path below the list's own folder"),
        ("\tf0.png\n", "f0.png'; wanted the path of an image"),
    ],
)
def test_a_bad_list_is_named_by_line(root: Path, capsys: Captured, text: str, complaint: str) -> None:
    (root / "filelist.txt").write_text(text)
    assert embed(root) == 2
    one_line(capsys, complaint)
    assert not (root.parent / "f.bin").exists()


def test_bad_options_are_one_line(root: Path, capsys: Captured) -> None:
    assert embed(root) == 2
    one_line(capsys, "filelist.txt: no such list; wanted an image or a video a line")
    (root / "filelist.txt").write_text("b/f0.png\n")
    assert embed(root, "--flip", "both") == 2
    one_line(capsys, "flip is 'both'; wanted sum or none")
    assert main(["embed", str(root), "--model", "m.onnx", "--out", str(root.parent)]) == 2
    one_line(capsys, "is a folder; wanted a file for the features")


def test_score_reads_what_was_written(root: Path, capsys: Captured) -> None:
    """Frames of one person are one image here, so each genuine pair has cosine 1."""
    (root / "filelist.txt").write_text("a/f1.png\na/f2.png\nb/f0.png\na/f0.png\n")
    (root.parent / "labels.txt").write_text("one\none\ntwo\n-1\n")
    assert embed(root) == 0
    capsys.readouterr()
    arguments = [str(root.parent / "f.bin"), "--labels", str(root.parent / "labels.txt"), "--far", "0.1", "--json"]
    assert main(["score", *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["pairs"], result["genuine"], result["tar"]) == (6, 1, {"0.1": 1.0})
