"""From folders of frames to features, tables and names."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobileface.data.features import read_features
from mobileface.errors import InputError
from mobileface.video.run import Settings, clean_videos, parse_sweep, text, without_feature
from mobileface.video.tracks import LIST, open_videos
from tests.video.made import Table, directions, write_videos

ROWS = directions(8)
ROWS[1] = ROWS[0] + 0.9 * ROWS[2] * np.linalg.norm(ROWS[0]) / np.linalg.norm(ROWS[2])  # cosine 0.74 to row 0
VIDEOS = {"all": [0, 1, 0], "one-out": [3, 0, 3, 1, 3], "single": [4], "strangers": [4, 7, 5]}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def unit(*numbers: int) -> Any:
    rows = ROWS[list(numbers)] / np.linalg.norm(ROWS[list(numbers)], axis=1, keepdims=True)
    return rows.sum(0) / np.linalg.norm(rows.sum(0))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four videos that can be used, one without frames, one without a frame that can be read, one with one bad."""
    root = write_videos(tmp_path / "videos", {**VIDEOS, "partly": [6, 6, 6]})
    (root / "empty").mkdir()
    (root / "broken").mkdir()
    (root / "broken" / "f0.jpg").write_bytes(b"no image")
    (root / "partly" / "f1.png").write_bytes(b"")
    return root


def test_everything_that_is_written(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    videos = open_videos(source)
    summary = clean_videos(videos, Table(ROWS), Settings(), out)
    names = ["all", "broken", "empty", "one-out", "partly", "single", "strangers"]
    assert videos.names == names
    assert sorted(p.name for p in out.iterdir()) == [
        "features.bin",
        "frames.csv",
        "noise-1.png",
        "summary.json",
        "videos.csv",
    ]
    zeros = np.zeros(8)
    expected = [unit(0, 1, 0), zeros, zeros, unit(3, 3, 3), unit(6, 6), unit(4), unit(7)]
    np.testing.assert_allclose(read_features(out / "features.bin"), expected, atol=1e-6)

    table = rows_of(out / "videos.csv")
    assert [(row["row"], row["video"], row["verdict"]) for row in table] == [
        ("0", "all", "clean"),
        ("1", "broken", "no frame can be used"),
        ("2", "empty", "no frames"),
        ("3", "one-out", "cleaned"),
        ("4", "partly", "clean"),
        ("5", "single", "clean"),
        ("6", "strangers", "no two frames are similar"),
    ]
    counts = [[int(row[key]) for key in ("frames", "kept", "noise", "unreadable", "components")] for row in table]
    assert counts == [
        [3, 3, 0, 0, 1],
        [1, 0, 0, 1, 0],
        [0] * 5,
        [5, 3, 2, 0, 2],
        [3, 2, 0, 1, 1],
        [1, 1, 0, 0, 1],
        [3, 1, 2, 0, 3],
    ]

    frames = {row["frame"]: row for row in rows_of(out / "frames.csv")}
    assert len(frames) == 16
    assert [frames[f"one-out/f{i}.png"]["status"] for i in range(5)] == ["kept", "noise", "kept", "noise", "kept"]
    noise = frames["one-out/f1.png"]
    assert (noise["component"], noise["reason"]) == ("1", "component of 2, the kept one has 3")
    assert float(noise["quality"]) == pytest.approx(np.linalg.norm(ROWS[0]), abs=1e-4)
    assert float(noise["cosine"]) == pytest.approx(unit(0) @ unit(3), abs=1e-4)
    assert frames["broken/f0.jpg"]["reason"] == "does not decode as an image"
    assert frames["partly/f1.png"]["status"] == "unreadable"
    assert "highest quality" in frames["strangers/f1.png"]["reason"]
    assert frames["strangers/f0.png"]["reason"] == "component of 1, the kept one has 1: by quality, then by order"
    assert [frames[f"strangers/f{i}.png"]["component"] for i in range(3)] == ["2", "0", "1"]

    assert json.loads((out / "summary.json").read_text()) == summary
    assert (summary["videos"], summary["frames"], summary["kept"], summary["noise"]) == (7, 16, 10, 4)
    assert summary["unreadable"] == {
        "count": 2,
        "names": [
            "broken/f0.jpg: does not decode as an image",
            "partly/f1.png: holds 0 bytes, wanted an image of 1 to 1048576 bytes",
        ],
    }
    assert summary["verdicts"] == {
        "clean": 3,
        "cleaned": 1,
        "no two frames are similar": 1,
        "no frame can be used": 1,
        "no frames": 1,
    }
    assert summary["names"]["no frames"] == {"count": 1, "names": ["empty"]}
    assert [(row["threshold"], row["kept"], row["noise"]) for row in summary["sweep"]] == [(None, 14, 0), (0.4, 10, 4)]
    assert without_feature(summary) == 2
    assert summary["contract"]["flip"] == "none"
    lines = text(summary)
    assert lines[0] == "7 videos, 16 frames: 10 kept, 4 noise, 2 unreadable"
    assert "  no frames: 1 (empty)" in lines
    assert "  no two frames are similar: 1 (strangers)" in lines
    assert lines[-2].split() == ["no", "cleaning", "14", "0"]
    assert lines[-1].split() == ["0.4", "10", "4"]


def test_the_same_again_is_the_same_to_the_byte(source: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        clean_videos(open_videos(source), Table(ROWS), Settings(), tmp_path / name)
    for name in ("features.bin", "frames.csv", "videos.csv", "noise-1.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_norm_weights_are_an_option(tmp_path: Path) -> None:
    root = write_videos(tmp_path / "videos", {"v": [0, 1]})
    clean_videos(open_videos(root), Table(ROWS), Settings(weights="norm"), tmp_path / "out")
    total = ROWS[0] + ROWS[1]
    np.testing.assert_allclose(
        read_features(tmp_path / "out" / "features.bin")[0], total / np.linalg.norm(total), atol=1e-6
    )


def test_a_sweep_with_marks_and_labels(tmp_path: Path) -> None:
    """Two clips of each of two people, all with one frame of the other person: averaging mixes them up."""
    root = write_videos(tmp_path / "videos", {"x": [0, 3]})
    lines = ["track\tfile\tis_noise\tnoise_kind"]
    for clip, own, other in (("a1", 0, 1), ("a2", 0, 1), ("b1", 1, 0), ("b2", 1, 0)):
        files = [f"x/f{own}.png"] * 2 + [f"x/f{other}.png"]
        lines += [f"{clip}\t{file}\t{int(i == 2)}\tother" for i, file in enumerate(files)]
    (root / "noisy.tsv").write_text("\n".join(lines))
    (tmp_path / "labels.tsv").write_text("a1\tA\na2\tA\nb1\tB\nb2\tB\n")
    settings = Settings(0.5, (-1.0, 0.5, 0.3))
    summary = clean_videos(open_videos(root / "noisy.tsv"), Table(ROWS), settings, None, labels=tmp_path / "labels.tsv")
    assert summary["labelled"] == 4
    assert summary["labels_sha256"] == hashlib.sha256((tmp_path / "labels.tsv").read_bytes()).hexdigest()
    assert [row["threshold"] for row in summary["sweep"]] == [None, -1.0, 0.3, 0.5]
    for row, removed in zip(summary["sweep"], (0, 0, 4, 4), strict=True):
        assert row["noise"] == removed
        assert row["removal"]["recall"] == removed / 4
        assert row["removal"]["precision"] == (1 if removed else None)
        assert row["verification"]["genuine"] == 2
        assert row["verification"]["impostors"] == 4
        assert row["verification"]["auc"] == 1.0
    assert "AUC" in text(summary)[-5]


def test_the_lists_order_is_the_features_order(tmp_path: Path) -> None:
    root = write_videos(tmp_path / "videos", {"a": [0], "b": [3], "c": [4]})
    (root / LIST).write_text("c\na\nlost\nb\n")
    summary = clean_videos(open_videos(root), Table(ROWS), Settings(), tmp_path / "out")
    found = read_features(tmp_path / "out" / "features.bin")
    np.testing.assert_allclose(found, [unit(4), unit(0), np.zeros(8), unit(3)], atol=1e-6)
    assert summary["names"]["no frames"]["names"] == ["lost"]


def test_where_nothing_can_be_used_nothing_is_written(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    (root / "a").mkdir(parents=True)
    (root / "a" / "f.jpg").write_bytes(b"no image")
    with pytest.raises(
        InputError, match=r"none of 1 frames below .*videos can be used; the first: a/f.jpg: does not decode"
    ):
        clean_videos(open_videos(root), Table(ROWS), Settings(), tmp_path / "out")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    (root / "a" / "f.jpg").unlink()
    with pytest.raises(InputError, match=r"none of 1 videos holds an image; looked in .*videos/a$"):
        clean_videos(open_videos(root), Table(ROWS), Settings())


def test_faults_are_named_in_the_order_of_the_frames(tmp_path: Path) -> None:
    """Though a frame that cannot be decoded is known before one that has no embedding."""
    rows = ROWS.copy()
    rows[7] = 0
    root = write_videos(tmp_path / "videos", {"v": [7, 0, 7]})
    (root / "v" / "f1.png").write_bytes(b"no image")
    (root / "v" / "f3.png").write_bytes((root / "v" / "f0.png").read_bytes())
    write_videos(root, {"w": [1]})
    names = clean_videos(open_videos(root), Table(rows))["unreadable"]["names"]
    assert [name.split(":")[0] for name in names] == ["v/f0.png", "v/f1.png", "v/f2.png", "v/f3.png"]


def test_results_do_not_land_among_the_videos(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lies in the folder of the videos"):
        clean_videos(open_videos(source), Table(ROWS), Settings(), source / "out")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"is a file; wanted a folder"):
        clean_videos(open_videos(source), Table(ROWS), Settings(), tmp_path / "file")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "videos.csv").write_text("clean\tAnn\n")
    with pytest.raises(InputError, match=r"videos\.csv: would be replaced by the result"):
        clean_videos(open_videos(source), Table(ROWS), Settings(), tmp_path / "out", tmp_path / "out" / "videos.csv")


def test_results_may_lie_beside_a_list_but_in_no_video_of_it(tmp_path: Path) -> None:
    root = write_videos(tmp_path, {"v": [0, 0], "deep/w": [1, 1]})
    (root / "list.txt").write_text("v\ndeep/w\n")
    for taken in ("v", "v/out", "deep/w/a/b"):
        with pytest.raises(InputError, match=r"lies in the folder of the videos"):
            clean_videos(open_videos(root / "list.txt"), Table(ROWS), Settings(), root / taken)
    (root / "link").symlink_to(root / "deep")
    (root / "list.txt").write_text("v\nlink/w\n")
    for taken in ("link/w", "link/w/out"):
        with pytest.raises(InputError, match=r"lies in the folder of the videos"):
            clean_videos(open_videos(root / "list.txt"), Table(ROWS), Settings(), root / taken)
    clean_videos(open_videos(root / "list.txt"), Table(ROWS), Settings(), root / "deep" / "out")
    assert (root / "deep" / "out" / "summary.json").is_file()


def test_progress_counts_videos(source: Path) -> None:
    seen: list[tuple[int, int]] = []
    clean_videos(open_videos(source), Table(ROWS), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 7) for i in range(1, 8)]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"threshold": 1.2}, r"threshold is 1\.2; wanted a cosine"),
        ({"sweep": (0.3, float("nan"))}, r"threshold is nan"),
        ({"weights": "nrom"}, r"weights is 'nrom' \(did you mean 'norm'\?\)"),
        ({"flip": "both"}, r"flip is 'both'; wanted sum or none"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        Settings(**settings)


def test_a_sweep_is_numbers() -> None:
    assert parse_sweep("0.3, 0.4,.5") == (0.3, 0.4, 0.5)
    with pytest.raises(InputError, match=r"--sweep is '0.3;0.4', wanted cosines such as"):
        parse_sweep("0.3;0.4")


def test_results_lie_in_no_folder_of_a_tables_frames(tmp_path: Path) -> None:
    """Its tracks have names of their own; frames may be called as sheets are."""
    write_videos(tmp_path, {"imgs": [0, 0]})
    (tmp_path / "imgs" / "f0.png").rename(tmp_path / "imgs" / "noise-1.png")
    (tmp_path / "t.tsv").write_text("track\tfile\nA\timgs/noise-1.png\nA\timgs/f1.png\n")
    with pytest.raises(InputError, match=r"lies in the folder of the videos"):
        clean_videos(open_videos(tmp_path / "t.tsv"), Table(ROWS), Settings(), tmp_path / "imgs")
    assert (tmp_path / "imgs" / "noise-1.png").is_file()
