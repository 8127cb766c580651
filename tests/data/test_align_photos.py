"""A folder of painted photographs becomes a folder of crops: what is cut, what is refused, what a second run does."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow

from mobileface.cli import main
from mobileface.data import align_photos as run
from mobileface.data.align import TEMPLATE, align
from mobileface.data.align_photos import Settings, align_photos, chosen, crop_name
from mobileface.data.detect import Detector, Face
from mobileface.data.folder import FolderFaces
from mobileface.data.images import decode
from mobileface.errors import InputError
from tests.data.painted import COLOURS, PaintedYN, paint, painted_detector

Pixels = NDArray[np.uint8]
MakeFolder = Callable[..., Path]
DEFAULT = Settings()


def photograph(path: Path, *faces: dict[str, Any], size: tuple[int, int] = (400, 300), orientation: int = 1) -> Path:
    """Write a PNG or a JPEG of (width, height) with painted faces, as a camera that was held so would."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    for face in faces:
        paint(pixels, **face)
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(np.rot90(pixels, {1: 0, 6: 1, 3: 2, 8: 3}[orientation])).save(path, exif=exif, quality=97)
    return path


GOOD = {"scale": 1.2, "left": 130, "top": 60, "degrees": 8}


@pytest.fixture
def detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Detector:
    return painted_detector(tmp_path, monkeypatch)


def looks(detector: Detector) -> int:
    """How often the detector has looked since it was last asked."""
    net = detector._net
    assert isinstance(net, PaintedYN)
    count, net.sizes = len(net.sizes), []
    return count


def table(out: Path) -> dict[str, list[dict[str, str]]]:
    """Rows of align.tsv by the photograph's path."""
    found: dict[str, list[dict[str, str]]] = {}
    with (out / "align.tsv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        for row in csv.DictReader(file, dialect="excel-tab"):
            found.setdefault(row["path"], []).append(row)
    return found


def files(out: Path) -> list[str]:
    """What lies in a folder, the lock left out."""
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and path.name != ".lock")


def off_template(crop: Pixels) -> float:
    """Largest distance of a painted landmark from its place in the template, px."""
    centres = []
    for colour in COLOURS:
        rows, columns = np.nonzero(np.abs(crop.astype(int) - colour).max(2) < 90)
        centres.append((columns.mean(), rows.mean()))
    return float(np.linalg.norm(centres - TEMPLATE, axis=1).max())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two people; one photograph for every verdict that a detector can cause."""
    top = tmp_path / "photos"
    photograph(top / "ann" / "good.png", GOOD)
    photograph(top / "ann" / "album" / "large.jpg", {**GOOD, "scale": 7}, size=(1500, 1200))
    photograph(top / "ann" / "turned.jpg", GOOD, orientation=6)
    photograph(top / "bob" / "empty.png")
    photograph(top / "bob" / "doubtful.png", {**GOOD, "score": 0.45})
    photograph(top / "bob" / "small.png", {**GOOD, "scale": 0.3})
    (top / "bob" / "broken.jpg").write_bytes(b"\xff\xd8\xff and no more")
    (top / "notes.txt").write_text("not an image")
    return top


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
    assert kept["settings"] == {"score": 0.6, "least": 40, "all": False, "detector_sha256": detector.sha256}


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


# ---- a second run


def test_a_second_run_looks_at_nothing(photos: Path, detector: Detector, tmp_path: Path) -> None:
    out = tmp_path / "out"
    align_photos(photos, detector, out, DEFAULT)
    assert looks(detector) > 0
    before = {name: (out / name).read_bytes() for name in files(out)}
    times = {name: (out / name).stat().st_mtime_ns for name in files(out) if "ann" in name}
    summary = align_photos(photos, detector, out, DEFAULT)
    assert (looks(detector), summary["there_already"], summary["photographs"]) == (0, 7, 7)
    assert {name: (out / name).read_bytes() for name in files(out)} == before
    assert {name: (out / name).stat().st_mtime_ns for name in times} == times


def test_what_is_new_changed_lost_or_gone(photos: Path, detector: Detector, tmp_path: Path) -> None:
    out = tmp_path / "out"
    align_photos(photos, detector, out, DEFAULT)
    whole = {name: (out / name).read_bytes() for name in files(out)}
    (out / "ann" / "turned.jpg").unlink()  # its crop
    (photos / "ann" / "album" / "large.jpg").unlink()
    photograph(photos / "ann" / "good.png", size=(90, 90))  # the face is gone from it
    photograph(photos / "bob" / "broken.jpg", GOOD)  # mended
    photograph(photos / "cid" / "1.jpg", GOOD)
    looks(detector)
    summary = align_photos(photos, detector, out, DEFAULT)
    assert summary["there_already"] == 3
    assert files(out) == [
        "align.json", "align.tsv", "ann/album/large.jpg", "ann/turned.jpg", "bob/broken.jpg", "bob/small.png.jpg",
        "cid/1.jpg",
    ]  # fmt: skip
    assert (out / "ann" / "turned.jpg").read_bytes() == whole["ann/turned.jpg"]
    rows = {path: row["verdict"] for path, [row] in table(out).items()}
    assert rows["ann/good.png"] == "no-face"
    assert rows["ann/album/large.jpg"] == "aligned"  # its crop stayed
    assert (rows["bob/broken.jpg"], rows["cid/1.jpg"]) == ("aligned", "aligned")


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_run_that_is_stopped_goes_on(
    photos: Path, detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """After two crops; a third is being written."""
    out, encode = tmp_path / "out", run.encode
    crops: list[Pixels] = []

    def failing(crop: Pixels) -> bytes:
        crops.append(crop)
        if len(crops) == 3:
            raise error("stopped")
        return encode(crop)

    with monkeypatch.context() as patch:
        patch.setattr(run, "encode", failing)
        with pytest.raises(error):
            align_photos(photos, detector, out, Settings(least=40))
    assert files(out) == ["align.json", "align.tsv", "ann/album/large.jpg", "ann/good.png.jpg"]
    assert len(table(out)) == 2
    looks(detector)
    summary = align_photos(photos, detector, out, Settings(least=40))
    assert (summary["there_already"], summary["verdicts"]["aligned"]) == (2, 3)
    align_photos(photos, detector, tmp_path / "whole", Settings(least=40))
    assert files(out) == files(tmp_path / "whole")
    for name in files(out):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_the_table_is_saved_on_the_way(
    photos: Path, detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "SAVE_EVERY", 2)
    rows: list[int] = []
    align_photos(photos, detector, tmp_path / "out", DEFAULT, lambda *_: rows.append(len(table(tmp_path / "out"))))
    assert rows == [0, 2, 2, 4, 4, 6, 6]


# ---- what is refused


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (Settings(score=0.7), "score=0.6 there, 0.7 here"),
        (Settings(least=30), "least=20.0 there, 30 here"),
        (Settings(every=True), "all=False there, True here"),
    ],
)
def test_another_way_wants_another_folder(
    photos: Path, detector: Detector, tmp_path: Path, other: Settings, said: str
) -> None:
    align_photos(photos, detector, tmp_path / "out", DEFAULT)
    with pytest.raises(InputError, match=f"out: was written in another way .{said}.; give another --out"):
        align_photos(photos, detector, tmp_path / "out", other)


def test_folders_that_are_not_for_crops(photos: Path, detector: Detector, tmp_path: Path) -> None:
    for inside in (photos, photos / "crops"):
        with pytest.raises(InputError, match="lies in the folder of photographs"):
            align_photos(photos, detector, inside, DEFAULT)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match=r"mine: is not empty and holds no align\.tsv; give another --out"):
        align_photos(photos, detector, tmp_path / "mine", DEFAULT)
    align_photos(photos, detector, tmp_path / "out", DEFAULT)
    for text in ("", "{}", "[1]", '{"settings": 3}', "\udcff"):
        (tmp_path / "out" / "align.json").write_text(text, errors="surrogateescape")
        with pytest.raises(InputError, match=r"out: its align\.json cannot be read"):
            align_photos(photos, detector, tmp_path / "out", DEFAULT)
    assert files(photos / "ann") == ["album/large.jpg", "good.png", "turned.jpg"]


def test_two_photographs_never_share_a_crop(tmp_path: Path, detector: Detector) -> None:
    for name in ("1.png", "1.png.jpg"):
        photograph(tmp_path / "photos" / "a" / name, GOOD)
    with pytest.raises(InputError, match=r"a/1\.png and a/1\.png\.jpg would both become a/1\.png\.jpg"):
        align_photos(tmp_path / "photos", detector, tmp_path / "out", DEFAULT)
    assert not (tmp_path / "out").exists()
    summary = align_photos(tmp_path / "photos", detector, tmp_path / "out", Settings(every=True))
    assert summary["verdicts"]["aligned"] == 2


def test_names_of_crops() -> None:
    kept = {"a/1.jpg": "a/1.jpg", "a/1.JPEG": "a/1.JPEG", "a/1.png": "a/1.png.jpg", "a/jpg": "a/jpg.jpg"}
    assert {path: crop_name(path, 1, DEFAULT) for path in kept} == kept
    assert crop_name("a/1.jpg", 3, Settings(every=True)) == "a/1.jpg.3.jpg"


# ---- the command


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
        "  bob/broken.jpg: does not decode as an image",
        "7 photographs, 0 of them from a run before", f"wrote {out}: crops, align.tsv, align.json",
    ]  # fmt: skip
    assert main([*command, "--least", "40"]) == 0
    assert "7 photographs, 7 of them from a run before" in capsys.readouterr().out
    assert main([*command, "--least", "40", "--all"]) == 2
    assert "all=False there, True here" in capsys.readouterr().err


def test_odd_names(tmp_path: Path, detector: Detector, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (b"\xff person", b"new\nline\x1b[31m", b'ta\tb"', b"[bold]"):
        photograph(Path(os.fsdecode(os.fsencode(tmp_path) + b"/photos/" + name + b"/" + name + b".jpg")), GOOD)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/photos/new\nline\x1b[31m/\xff.jpg")).write_bytes(b"bad")
    command = ["data", "align", str(tmp_path / "photos"), "--out", str(tmp_path / "out")]
    command += ["--detector", str(tmp_path / "painted.onnx")]
    for there in (0, 5):
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
