"""Hostile and damaged RecordIO files: one line that names file and record, or the images that are whole."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobileface.data.recordio import RecordFaces
from mobileface.errors import InputError
from tests.data.records import IMAGES, MAGIC, contents, in_one_folder, insightface_pack, record, refused, write_raw


def frame(data: bytes, kind: int = 0, length: int | None = None, magic: bytes = MAGIC) -> bytes:
    return magic + struct.pack("<I", kind << 29 | (len(data) if length is None else length)) + data


GOOD = frame(record(1, b"1234"))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (frame(record(1, b"xxxx"), magic=b"\x0a\x23\xd7\xcf"), ["0xcfd7230a", "magic"]),
        (frame(record(1, b"xxxx"), length=29), ["29 bytes"]),
        (frame(record(1, b"xxxx"), length=2**29 - 1), ["cut off", "536870911 bytes"]),
        (frame(record(1, b"xxxx"), kind=2), ["kind 2"]),
        (frame(record(1, b"xxxx"), kind=3), ["kind 3"]),
        (frame(record(1, b"xxxx"), kind=5), ["kind 5"]),
        (frame(record(1, b"xxxx"), kind=1), ["starts at byte"]),  # the last piece is not there
        (frame(record(1, b"xxxx"), kind=1) + frame(b"1234"), ["kind 0"]),
        (frame(record(1, b"xxxx"), kind=1) + frame(b"1234", kind=1), ["kind 1"]),
        (frame(b"x" * 20), ["20 bytes", "header of 24"]),
        (frame(struct.pack("<IfQQ", 1000, 0, 0, 0)), ["1000 labels"]),
        (frame(struct.pack("<IfQQ", 2**32 - 1, 0, 0, 0) + bytes(400)), ["4294967295 labels"]),
    ],
)
def test_bad_records_name_file_and_record(tmp_path: Path, bad: bytes, words: list[str]) -> None:
    rec = tmp_path / "a.rec"
    rec.write_bytes(GOOD + GOOD + bad)
    (tmp_path / "a.idx").write_text(f"4\t0\n5\t{len(GOOD)}\n77\t{2 * len(GOOD)}\n")
    refused(rec, "a.rec", "record 77", *words)
    (tmp_path / "a.idx").unlink()
    refused(rec, "a.rec", "record 2", *words)
    if "kind 0" not in words:
        rec.write_bytes(GOOD + bad + GOOD)
        (tmp_path / "a.idx").write_text(f"4\t0\n5\t{len(GOOD)}\n77\t{len(GOOD + bad)}\n")
        refused(rec, "record 5")


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        (np.nan, "nan"),
        (np.inf, "inf"),
        (-1.0, "-1.0"),
        (0.5, "0.5"),
        (2.0**24, "16777216"),
        ((-2.0, 1.0), "-2.0"),
    ],
)
def test_bad_labels(tmp_path: Path, label: Any, shown: str) -> None:
    rows = [(0, record(1, b"a")), (3, record(label, b"b")), (4, record(1, b"c"))]
    refused(write_raw(tmp_path / "a.rec", rows), "record 3", f"label {shown}", "whole number")


@pytest.mark.parametrize("end", [np.nan, np.inf, -3.0, 0.0, 1.0, 2.5])
def test_bad_header_record(tmp_path: Path, end: float) -> None:
    rows = [(0, record((end, 9.0), b"")), *insightface_pack(False)[1:]]
    refused(write_raw(tmp_path / "a.rec", rows), "record 0", "wanted 2 or more")


@pytest.mark.parametrize(("end", "missing"), [(10.0, "9 is"), (3e38, "9 is")])
def test_header_record_that_promises_too_much(tmp_path: Path, end: float, missing: str) -> None:
    rows = [(0, record((end, 9.0), b"")), *insightface_pack(False)[1:]]
    refused(write_raw(tmp_path / "a.rec", rows), "record 0", f"but {missing} not there")


def test_identity_records_without_a_header_record(tmp_path: Path) -> None:
    refused(
        write_raw(tmp_path / "a.rec", insightface_pack(True)[:-1], idx=False),
        "record 5",
        "no header record 0",
    )


@pytest.mark.parametrize("size", [0, 1, 31])
def test_tiny_files(tmp_path: Path, size: int) -> None:
    (tmp_path / "a.rec").write_bytes(GOOD[:size])
    refused(tmp_path / "a.rec", f"{size} bytes")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        RecordFaces(tmp_path / "a.rec", tmp_path / "cache")


@pytest.mark.parametrize("layout", ["first", "last", "flat"])
@pytest.mark.parametrize("idx", [True, False])
def test_a_rec_cut_off_anywhere(tmp_path: Path, open_rec: Any, layout: str, idx: bool) -> None:
    """An error, or the images that were there: all of them wherever the file says how many there are."""
    rows = insightface_pack(layout == "last")
    if layout == "flat":
        rows = [(key, record(label, image)) for key, (label, image) in enumerate(IMAGES)]
    rec = write_raw(tmp_path / "a.rec", rows, idx)
    whole, opened = rec.read_bytes(), 0
    for length in range(len(whole)):
        rec.write_bytes(whole[:length])
        try:
            found = contents(open_rec(rec))
        except InputError:
            continue
        opened += 1
        assert found == IMAGES[: len(found)]
        if idx or layout == "first":
            assert len(found) == len(IMAGES)
    # with an .idx nothing but padding may go
    assert opened <= (3 if idx else 40)


@pytest.mark.parametrize("layout", ["first", "last", "flat"])
def test_an_idx_cut_off_anywhere(tmp_path: Path, open_rec: Any, layout: str) -> None:
    rows = insightface_pack(layout == "last")
    if layout == "flat":
        rows = [(key, record(label, image)) for key, (label, image) in enumerate(IMAGES)]
    rec = write_raw(tmp_path / "a.rec", rows)
    idx = rec.with_suffix(".idx")
    whole = idx.read_bytes()
    for length in range(len(whole) - 1):
        idx.write_bytes(whole[:length])
        refused(rec)
    idx.write_bytes(whole[:-1])
    assert contents(open_rec(rec)) == IMAGES


@given(st.data(), st.booleans(), st.booleans())
@in_one_folder
def test_damage_ends_in_an_error_or_in_bytes(tmp_path: Path, data: st.DataObject, idx: bool, last: bool) -> None:
    rec = write_raw(tmp_path / "a.rec", insightface_pack(last), idx)
    target = rec.with_suffix(".idx") if idx and data.draw(st.booleans()) else rec
    content = bytearray(target.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    target.write_bytes(content)
    try:
        found = contents(RecordFaces(rec, tmp_path / "cache"))
    except InputError:
        return
    assert all(label >= 0 and len(image) < 10_000 for label, image in found)


def test_a_file_changed_after_opening(tmp_path: Path, open_rec: Any) -> None:
    rec = write_raw(tmp_path / "a.rec", insightface_pack(True))
    faces = open_rec(rec)
    with rec.open("r+b") as file:
        file.write(b"none")
    with pytest.raises(InputError, match=r"a\.rec:1: found 0x656e6f6e at byte 0"):
        faces.read(0)
