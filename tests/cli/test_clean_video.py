"""`mobileface clean`: what it prints, what it ends with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mobileface.cli import main
from mobileface.data.features import read_features
from tests.cli.output import Captured, one_line
from tests.video.made import Table, directions, write_videos


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three videos, and a table in place of any model."""
    monkeypatch.setattr(
        "mobileface.embedders.opening.open_embedder", lambda path, contract, threads: Table(directions(8))
    )
    return write_videos(tmp_path / "videos", {"a": [0, 0, 1], "b": [2, 2], "c": [0, 0]})


def test_a_table_and_files(videos: Path, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "out"
    (tmp_path / "labels.tsv").write_text("a\tAnn\nb\tBob\nc\tAnn\n")
    options = ["--sweep", "0.3,0.4", "--labels", str(tmp_path / "labels.tsv"), "--out", str(out)]
    assert main(["clean", str(videos), "--model", "m.onnx", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 videos, 7 frames: 6 kept, 1 noise, 0 unreadable"
    assert lines[2] == "  3 of 3 videos have a label"
    assert [line.split()[0] for line in lines[3:7]] == ["threshold", "no", "0.3", "0.4"]
    assert lines[-1] == f"wrote {out}: features.bin, videos.csv, frames.csv, summary.json, sheets of noise"
    assert read_features(out / "features.bin").shape == (3, 8)
    assert (out / "noise-1.png").is_file()


def test_json_is_the_summary_and_nothing_else(videos: Path, tmp_path: Path, capsys: Captured) -> None:
    command = ["clean", str(videos), "--model", "m.onnx", "--threshold", "0.5", "--weights", "norm", "--flip", "sum"]
    assert main([*command, "--json", "--out", str(tmp_path / "out")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert found["settings"] == {"threshold": 0.5, "sweep": [], "weights": "norm", "flip": "sum"}


def test_a_video_without_a_feature_fails_the_check_but_all_is_written(
    videos: Path, tmp_path: Path, capsys: Captured
) -> None:
    (videos / "d").mkdir()
    assert main(["clean", str(videos), "--model", "m.onnx", "--out", str(tmp_path / "out")]) == 1
    one_line(capsys, "1 of 4 videos have no frame that can be used; their rows of features.bin are zero")
    assert not read_features(tmp_path / "out" / "features.bin")[3].any()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--threshold", "2"], "threshold is 2; wanted a cosine"),
        (["--sweep", "x"], "--sweep is 'x'"),
        (["--labels", "nowhere.tsv"], "nowhere.tsv: not found"),
        (["--scale", "255"], "--mean is missing"),
    ],
)
def test_bad_options_are_one_line(videos: Path, capsys: Captured, arguments: list[str], complaint: str) -> None:
    assert main(["clean", str(videos), "--model", "m.onnx", *arguments]) == 2
    one_line(capsys, complaint)


def test_what_is_no_source_is_said_before_the_model_is_opened(tmp_path: Path, capsys: Captured) -> None:
    assert main(["clean", str(tmp_path / "lost"), "--model", "lost.onnx"]) == 2
    one_line(capsys, "lost: not found; wanted a folder of frame folders")


@pytest.mark.slow
def test_a_run_cleans_the_folders_that_it_was_trained_on(trained: Path, shared_faces: Path, tmp_path: Path) -> None:
    """The real thing in a process of its own: a run folder, JPEG frames."""
    command = [sys.executable, "-m", "mobileface", "clean", str(shared_faces), "--model", str(trained), "--json"]
    done = subprocess.run([*command, "--out", str(tmp_path / "out")], check=True, capture_output=True, text=True)
    summary = json.loads(done.stdout)
    assert done.stderr == ""
    assert (summary["videos"], summary["frames"], summary["unreadable"]["count"]) == (5, 30, 0)
    assert summary["kept"] + summary["noise"] == 30
    assert len(read_features(tmp_path / "out" / "features.bin")) == 5
