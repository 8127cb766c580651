"""A second run of `data align`: what stands, what is looked at again, what a stop and a kill leave, what is refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mobileface.data import align_cut
from mobileface.data.align_cut import Settings, crop_name
from mobileface.data.align_photos import PART, align_photos
from mobileface.data.detect import Detector
from mobileface.data.images import BadImage
from mobileface.errors import InputError
from tests.data.painted import GOOD, Raises, files, looks, photograph, table

Pixels = NDArray[np.uint8]
DEFAULT = Settings()


def test_a_second_run_looks_at_nothing(photos: Path, detector: Detector, tmp_path: Path) -> None:
    out = tmp_path / "out"
    align_photos(photos, detector, out, DEFAULT)
    assert looks(detector) > 0
    before = {name: (out / name).read_bytes() for name in files(out)}
    times = {name: (out / name).stat().st_mtime_ns for name in files(out) if "ann" in name}
    summary = align_photos(photos, detector, out, DEFAULT)
    assert (looks(detector), summary["there_already"], summary["photographs"]) == (0, 6, 7)  # one cannot be read
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
    assert (summary["there_already"], summary["photographs"]) == (3, 7)
    assert summary["verdicts"]["aligned"] == 4
    assert summary["gone"] == {"photographs": 1, "crops": 1}
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
    out, encode = tmp_path / "out", align_cut.encode
    crops: list[Pixels] = []

    def failing(crop: Pixels) -> bytes:
        crops.append(crop)
        if len(crops) == 3:
            raise error("stopped")
        return encode(crop)

    with monkeypatch.context() as patch:
        patch.setattr(align_cut, "encode", failing)
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


def same_files(one: Path, other: Path) -> bool:
    return {name: (one / name).read_bytes() for name in files(one)} == {
        name: (other / name).read_bytes() for name in files(other)
    }


def test_a_run_that_is_killed_goes_on(photos: Path, detector: Detector, tmp_path: Path) -> None:
    """A copy of the folder as it is behind the fourth photograph is what `kill -9` leaves."""
    out, killed = tmp_path / "out", tmp_path / "killed"

    def copy(done: int, of: int) -> None:
        if done == 4:
            shutil.copytree(out, killed)

    align_photos(photos, detector, out, DEFAULT, copy)
    assert len(table(killed)) == 0
    assert len((killed / PART).read_bytes().splitlines()) == 5
    looks(detector)
    summary = align_photos(photos, detector, killed, DEFAULT)
    assert summary["there_already"] == 3  # the last of the four may be torn
    assert same_files(out, killed)


@pytest.mark.parametrize("every", [False, True])
def test_a_crop_that_a_kill_left_without_a_row_is_removed(tmp_path: Path, detector: Detector, every: bool) -> None:
    """It was of a photograph that has no face any more."""
    settings, top, out = Settings(every=every), tmp_path / "photos", tmp_path / "out"
    photograph(top / "a" / "1.jpg", GOOD)
    align_photos(top, detector, out, settings)
    before = files(out)
    photograph(top / "a" / "2.jpg")
    for n in (1, 2):
        (out / crop_name("a/2.jpg", n, settings)).write_bytes(b"an old face")
    align_photos(top, detector, out, settings)
    assert files(out) == before


@pytest.mark.parametrize("then", ["deleted", "kept"])
def test_a_crop_of_other_bytes_does_not_outlive_a_stopped_run(
    photos: Path, detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    out = tmp_path / "out"
    align_photos(photos, detector, out, DEFAULT)
    photograph(photos / "ann" / "good.png", size=(90, 90))  # the face is gone from it
    photograph(photos / "ann" / "a.jpg", GOOD)  # and another photograph comes before it
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(detector, "find", Raises(KeyboardInterrupt()))
        align_photos(photos, detector, out, DEFAULT)
    assert "ann/good.png.jpg" not in files(out)
    if then == "deleted":
        (photos / "ann" / "good.png").unlink()
    align_photos(photos, detector, out, DEFAULT)
    assert "ann/good.png.jpg" not in files(out)
    assert ("ann/good.png" in table(out)) == (then == "kept")


def test_as_many_bytes_at_another_time_are_another_photograph(tmp_path: Path, detector: Detector) -> None:
    first, out = photograph(tmp_path / "photos" / "a" / "1.png", GOOD), tmp_path / "out"
    second = photograph(tmp_path / "empty.png")
    longer = max(first.stat().st_size, second.stat().st_size) + 8
    for path in (first, second):
        path.write_bytes(path.read_bytes().ljust(longer, b"\0"))
    assert align_photos(tmp_path / "photos", detector, out, DEFAULT)["verdicts"]["aligned"] == 1
    first.write_bytes(second.read_bytes())
    assert align_photos(tmp_path / "photos", detector, out, DEFAULT)["verdicts"]["no-face"] == 1
    assert files(out) == ["align.json", "align.tsv"]
    os.utime(first, ns=(1, 1))
    assert align_photos(tmp_path / "photos", detector, out, DEFAULT)["there_already"] == 0
    assert align_photos(tmp_path / "photos", detector, out, DEFAULT)["there_already"] == 1


def test_what_could_not_be_read_is_read_again(
    tmp_path: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    photograph(tmp_path / "photos" / "a" / "1.png", GOOD)
    with monkeypatch.context() as patch:
        patch.setattr(align_cut, "read_photo", Raises(BadImage("a/1.png: cannot be read (Permission denied)")))
        summary = align_photos(tmp_path / "photos", detector, tmp_path / "out", DEFAULT)
    assert summary["unreadable"] == ["a/1.png: cannot be read (Permission denied)"]
    summary = align_photos(tmp_path / "photos", detector, tmp_path / "out", DEFAULT)
    assert (summary["verdicts"]["aligned"], summary["there_already"], summary["unreadable"]) == (1, 0, [])


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


def test_another_source_wants_another_folder(
    photos: Path, detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose `ann` may be another person."""
    align_photos(photos, detector, tmp_path / "out", DEFAULT)
    other = tmp_path / "other"
    photograph(other / "ann" / "9.png", GOOD)
    said = rf"out: was written in another way \(source={photos} there, {other} here\); give another --out"
    with pytest.raises(InputError, match=said):
        align_photos(other, detector, tmp_path / "out", DEFAULT)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(photos)
    for same in (Path("photos"), tmp_path / "link"):
        assert align_photos(same, detector, tmp_path / "out", DEFAULT)["there_already"] == 6


def test_more_photographs_than_a_table_holds(
    photos: Path, detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mobileface.data.align_photos.MAX_PHOTOS", 7)
    align_photos(photos, detector, tmp_path / "out", DEFAULT)
    looks(detector)
    (photos / "bob" / "small.png").rename(photos / "bob" / "renamed.png")
    with pytest.raises(InputError, match=r"out: would name 8 photographs, wanted at most 7 in one --out"):
        align_photos(photos, detector, tmp_path / "out", DEFAULT)
    assert looks(detector) == 0


def test_folders_that_are_not_for_crops(photos: Path, detector: Detector, tmp_path: Path) -> None:
    for inside in (photos, photos / "crops"):
        with pytest.raises(InputError, match="lies in the folder of photographs"):
            align_photos(photos, detector, inside, DEFAULT)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match=r"mine: is not empty and holds no align\.tsv; give another --out"):
        align_photos(photos, detector, tmp_path / "mine", DEFAULT)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]  # no lock either
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
