"""A stand-in for a face detector, photographs of every kind that it can be shown, and a small RecordIO pack."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mobileface.data.detect import Detector
from mobileface.data.recordio import RecordFaces, write_pack
from tests.data.painted import GOOD, painted_detector, photograph
from tests.data.records import IMAGES


@pytest.fixture
def detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Detector:
    return painted_detector(tmp_path, monkeypatch)


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


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    """The pack set/train.rec of IMAGES."""
    write_pack(tmp_path / "set" / "train.rec", IMAGES)
    return tmp_path / "set" / "train.rec"


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that write hundreds of small files and pull no plug: to wait for the disk is nearly all they do."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


@pytest.fixture
def open_rec(tmp_path: Path, no_fsync: None) -> Callable[[Path], RecordFaces]:
    """`open_rec(path)`, with the index in this test's cache folder."""
    return lambda rec: RecordFaces(rec, tmp_path / "cache")
