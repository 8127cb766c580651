"""A folder of painted photographs becomes a folder of crops: what is cut out, what is not and why."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mobileface.data import align_cut
from mobileface.data.align import TEMPLATE, align
from mobileface.data.align_cut import Settings, chosen, crop_name
from mobileface.data.align_photos import align_photos
from mobileface.data.detect import Detector, Face
from mobileface.data.folder import FolderFaces
from mobileface.data.images import decode
from tests.data.painted import COLOURS, GOOD, files, photograph, table

Pixels = NDArray[np.uint8]
DEFAULT = Settings()


def off_template(crop: Pixels) -> float:
    """Largest distance of a painted landmark from its place in the template, px."""
    centres = []
    for colour in COLOURS:
        rows, columns = np.nonzero(np.abs(crop.astype(int) - colour).max(2) < 90)
        centres.append((columns.mean(), rows.mean()))
    return float(np.linalg.norm(centres - TEMPLATE, axis=1).max())


def test_every_photograph_gets_its_verdict(photos: Path, detector: Detector, tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    summary = align_photos(photos, detector, tmp_path / "out", Settings(least=40), lambda n, of: done.append((n, of)))
    assert summary["verdicts"] == {
        "aligned": 3, "no-face": 1, "below-score": 1, "too-small": 1, "bad-landmarks": 0, "unreadable": 1,
    }  # fmt: skip
    assert (summary["photographs"], summary["there_already"]) == (7, 0)
    assert summary["unreadable"] == ["bob/broken.jpg: does not decode as an image"]
    assert done == [(n, 7) for n in range(1, 8)]
    rows = {path: row for path, [row] in table(tmp_path / "out").items()}
    assert {path: row["verdict"] for path, row in rows.items()} == {
        "ann/good.png": "aligned", "ann/album/large.jpg": "aligned", "ann/turned.jpg": "aligned",
        "bob/empty.png": "no-face", "bob/doubtful.png": "below-score", "bob/small.png": "too-small",
        "bob/broken.jpg": "unreadable",
    }  # fmt: skip
    assert rows["bob/doubtful.png"]["reason"] == "score 0.45, wanted 0.6"
    assert rows["bob/small.png"]["reason"] == "shorter side 32 px, wanted 40"
    assert rows["bob/broken.jpg"]["reason"] == "bob/broken.jpg: does not decode as an image"
    assert (rows["ann/turned.jpg"]["photo_width"], rows["ann/turned.jpg"]["photo_height"]) == ("400", "300")
    assert [rows[path]["faces"] for path in ("ann/good.png", "bob/doubtful.png", "bob/empty.png")] == ["1", "0", "0"]
    kept = json.loads((tmp_path / "out" / "align.json").read_text())
    assert kept["verdicts"] == summary["verdicts"]
    assert kept["settings"] == {
        "source": str(photos), "score": 0.6, "least": 40, "all": False, "detector_sha256": detector.sha256,
    }  # fmt: skip


def test_crops_are_aligned_and_a_training_set(photos: Path, detector: Detector, tmp_path: Path) -> None:
    out = tmp_path / "out"
    align_photos(photos, detector, out, Settings(least=40))
    crops = FolderFaces(out)
    assert crops.paths == ["ann/album/large.jpg", "ann/good.png.jpg", "ann/turned.jpg"]
    assert crops.identities == ["ann"]
    for i in range(3):
        assert off_template(decode(crops.read(i), crops.key(i))) < 1
    photo = cv2.imread(str(photos / "ann" / "good.png"), cv2.IMREAD_COLOR_RGB)
    [row] = table(out)["ann/good.png"]
    assert photo is not None
    points = [float(row[name]) for name in row if name.endswith(("_x", "_y"))]
    wanted = align(photo, np.reshape(points, (5, 2)))  # type: ignore[arg-type]
    found = decode((out / row["crop"]).read_bytes(), "good").astype(int)
    assert np.abs(found - wanted).mean() < 2  # JPEG; points of the table are rounded to 0.01 px


def face(score: float, left: float, top: float, width: float, height: float) -> Face:
    return Face(score, np.array([left, top, width, height]), TEMPLATE)


def test_of_several_faces_the_large_one_in_the_middle_is_taken() -> None:
    """Photograph of 1000x800; prominence of each written out by hand: area * (1 - distance / half diagonal)."""
    middle = face(0.8, 450, 350, 100, 100)  # 10000 * 1
    corner = face(0.99, 0, 0, 150, 150)  # 22500 * (1 - |(425, 325)| / 640.3) = 3699
    beside = face(0.7, 700, 350, 110, 110)  # 12100 * (1 - |(255, 5)| / 640.3) = 7280
    huge = face(0.7, 0, 0, 400, 400)  # 160000 * (1 - |(300, 200)| / 640.3) = 69906
    tiny = face(0.9, 495, 395, 10, 10)
    order = [huge, middle, beside, corner]
    assert chosen(order[::-1], (800, 1000, 3), DEFAULT) == ("aligned", "", [huge])
    assert chosen([tiny, *order[::-1]], (800, 1000, 3), Settings(every=True)) == ("aligned", "", order)
    assert chosen([corner, middle], (800, 1000, 3), Settings(score=0.9)) == ("aligned", "", [corner])
    assert chosen([tiny, beside], (800, 1000, 3), DEFAULT)[2] == [beside]
    assert chosen([tiny], (800, 1000, 3), DEFAULT) == ("too-small", "shorter side 10 px, wanted 20", [tiny])
    assert chosen([beside, middle], (800, 1000, 3), Settings(score=0.85)) == (
        "below-score", "score 0.80, wanted 0.85", [middle],
    )  # fmt: skip
    assert chosen([], (800, 1000, 3), DEFAULT) == ("no-face", "", [])
    outside = face(0.9, 980, 780, 200, 200)  # its centre lies beyond the corner
    assert chosen([outside, tiny], (800, 1000, 3), Settings(least=5))[2] == [tiny]


def test_all_faces_of_a_photograph(tmp_path: Path, detector: Detector) -> None:
    two = [{"scale": 1.0, "left": 20, "top": 60, "score": 0.95}, {"scale": 1.4, "left": 200, "top": 50, "score": 0.8}]
    photograph(tmp_path / "photos" / "group" / "1.jpg", *two)
    summary = align_photos(tmp_path / "photos", detector, tmp_path / "out", Settings(every=True))
    assert (summary["photographs"], summary["verdicts"]["aligned"]) == (1, 2)
    rows = table(tmp_path / "out")["group/1.jpg"]
    assert [row["crop"] for row in rows] == ["group/1.jpg.1.jpg", "group/1.jpg.2.jpg"]
    assert [row["faces"] for row in rows] == ["2", "2"]
    assert float(rows[0]["width"]) > float(rows[1]["width"])
    for row in rows:
        assert off_template(decode((tmp_path / "out" / row["crop"]).read_bytes(), "x")) < 1


def test_landmarks_of_no_face_are_named(tmp_path: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    photograph(tmp_path / "photos" / "a" / "1.png", GOOD)
    row = np.array([[100, 100, 50, 50, *[120] * 10, 0.9]], np.float32)
    monkeypatch.setattr(detector._net, "detect", lambda image: (1, row))
    summary = align_photos(tmp_path / "photos", detector, tmp_path / "out", DEFAULT)
    assert summary["verdicts"]["bad-landmarks"] == 1
    assert "coincide" in table(tmp_path / "out")["a/1.png"][0]["reason"]
    assert files(tmp_path / "out") == ["align.json", "align.tsv"]


# ---- photographs of every kind


def test_links_that_lead_nowhere_and_pipes_end_nothing(photos: Path, detector: Detector, tmp_path: Path) -> None:
    (photos / "ann" / "dangling.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (photos / "ann" / "circle.jpg").symlink_to(photos / "ann" / "circle.jpg")
    os.mkfifo(photos / "bob" / "pipe.jpg")
    for _ in range(2):
        summary = align_photos(photos, detector, tmp_path / "out", DEFAULT)
        assert (summary["photographs"], summary["verdicts"]["unreadable"]) == (10, 4)
    assert summary["unreadable"][:2] == [
        "ann/circle.jpg: cannot be read (Too many levels of symbolic links)",
        "ann/dangling.jpg: cannot be read (No such file or directory)",
    ]
    assert summary["unreadable"][3] == "bob/pipe.jpg: is no regular file"


def test_what_is_left_out_is_counted_and_tiffs_are_read(tmp_path: Path, detector: Detector) -> None:
    top = tmp_path / "photos"
    for name in ("a/1.tif", "a/2.TIFF", "3.jpg", "4.png"):
        photograph(top / name, GOOD)
    photograph(top / "a" / "5.jpg", GOOD).rename(top / "a" / "5.jfif")
    for name in ("a/6.heic", "b/7.HEIC", "b/8.gif", "a/.DS_Store", "a/none"):
        (top / name).parent.mkdir(exist_ok=True)
        (top / name).touch()
    summary = align_photos(top, detector, tmp_path / "out", DEFAULT)
    assert summary["left_out"] == ".heic 2, no suffix 1, .gif 1; 2 directly in the folder, not in IDENTITY/"
    assert files(tmp_path / "out") == ["a/1.tif.jpg", "a/2.TIFF.jpg", "a/5.jfif.jpg", "align.json", "align.tsv"]


@pytest.mark.parametrize("every", [False, True])
def test_where_opencv_fails_is_a_row(
    photos: Path, detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: bool
) -> None:
    two = [GOOD, {"scale": 1.5, "left": 20, "top": 250}]
    photograph(photos / "ann" / "failing.png", *two, size=(407, 503))
    failure = cv2.error("a trace")
    failure.err = "> rows < SHRT_MAX, where\n> rows is 40000"
    cut_out = align_cut.view

    def failing(photo: Pixels, *rest: Any) -> Any:
        crops.append(photo.shape)
        if crops.count((503, 407, 3)) == (2 if every else 1):  # the photograph's last crop
            raise failure
        return cut_out(photo, *rest)

    crops: list[tuple[int, ...]] = []
    monkeypatch.setattr(align_cut, "view", failing)
    summary = align_photos(photos, detector, tmp_path / "out", Settings(every=every))
    assert summary["photographs"] == 8
    assert summary["unreadable"][0] == "ann/failing.png: OpenCV cannot work on it (rows < SHRT_MAX, where)"
    assert not [name for name in files(tmp_path / "out") if "failing" in name]


def test_px_are_those_of_the_file_where_it_was_read_at_half_its_size(
    tmp_path: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = photograph(tmp_path / "photos" / "a" / "1.png", {**GOOD, "scale": 1.0, "score": 0.8})
    read = align_cut.read_photo

    def aligned(out: str, least: float) -> dict[str, str]:
        align_photos(photo.parent.parent, detector, tmp_path / out, Settings(least=least))
        return table(tmp_path / out)["a/1.png"][0]

    plain = aligned("plain", 110)
    assert (plain["verdict"], plain["reason"]) == ("too-small", "shorter side 104 px, wanted 110")
    plain = aligned("whole", 50)
    monkeypatch.setattr(align_cut, "read_photo", lambda *a: (read(*a)[0], 2))  # as if 800x600 px had been too many
    halved = aligned("half", 110)
    assert (halved["verdict"], halved["photo_width"], halved["photo_height"]) == ("aligned", "800", "600")
    for name in ("left", "top", "width", "height"):
        assert float(halved[name]) == pytest.approx(2 * float(plain[name]), abs=0.02)
    for name in (name for name in plain if name.endswith(("_x", "_y"))):
        assert float(halved[name]) == pytest.approx(2 * float(plain[name]) + 0.5, abs=0.02)
    crops = [(tmp_path / out / "a" / "1.png.jpg").read_bytes() for out in ("whole", "half")]
    assert crops[0] == crops[1]
    refused = aligned("refused", 250)
    assert refused["reason"] == "shorter side 208 px, wanted 250"


def test_names_of_crops() -> None:
    kept = {"a/1.jpg": "a/1.jpg", "a/1.JPEG": "a/1.JPEG", "a/1.png": "a/1.png.jpg", "a/jpg": "a/jpg.jpg"}
    assert {path: crop_name(path, 1, DEFAULT) for path in kept} == kept
    assert crop_name("a/1.jpg", 3, Settings(every=True)) == "a/1.jpg.3.jpg"
