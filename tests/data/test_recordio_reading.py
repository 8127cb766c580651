"""RecordIO files of every layout, against the slow reader and writer of records.py."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobileface.data import images, record_format, record_index
from mobileface.data.recordio import pack, unpack, write_pack
from tests.data.records import (
    IMAGES,
    MAGIC,
    contents,
    insightface_pack,
    payloads,
    record,
    slow_faces,
    slow_frames,
    slow_record,
    write_raw,
)


@given(payloads)
def test_frames_are_split_where_the_description_says(data: bytes) -> None:
    framed = b"".join(record_format.frames(data))
    assert framed == slow_frames(data)
    assert slow_record(io.BytesIO(framed)) == data
    found, end = record_format.read_record(memoryview(framed), 0, "here")
    assert bytes(found) == data
    assert end == len(framed)


@given(
    st.one_of(st.floats(width=32, allow_nan=False), st.lists(st.floats(width=32, allow_nan=False), min_size=1)),
    st.integers(0, 2**64 - 1),
    st.binary(),
)
def test_header_round_trip(label: Any, key: int, image: bytes) -> None:
    found = unpack(pack(label, key, image, id2=5), "here")
    assert found.labels == (tuple(label) if isinstance(label, list) else (label,))
    assert (found.id, found.id2, bytes(found.payload)) == (key, 5, image)
    assert found.flag == (len(label) if isinstance(label, list) else 0)


@pytest.mark.parametrize("header_last", [True, False])
@pytest.mark.parametrize("idx", [True, False])
@pytest.mark.parametrize("chunk", [2, 1 << 18])
def test_insightface_layouts(
    tmp_path: Path, open_rec: Any, monkeypatch: pytest.MonkeyPatch, header_last: bool, idx: bool, chunk: int
) -> None:
    monkeypatch.setattr(record_index, "CHUNK", chunk)
    rec = write_raw(tmp_path / "train.rec", insightface_pack(header_last), idx)
    faces = open_rec(rec)
    assert contents(faces) == IMAGES
    assert faces.labels.tolist() == [0, 0, 1, 1, 2]
    assert faces.key(4) == "train.rec:5"


@pytest.mark.parametrize("idx", [True, False])
def test_files_without_a_header_record(tmp_path: Path, open_rec: Any, idx: bool) -> None:
    """Every key is an image; labels may be arrays, of which the first counts."""
    labels: list[Any] = [1.0, (5.0, 3.0, 2.0), (5.0,), 0.0, 1.0]
    keys = [0, 1, 2, 3, 4] if not idx else [12, 7, 9, 1, 30]
    rows = [(key, record(label, b"%d" % i)) for i, (key, label) in enumerate(zip(keys, labels, strict=True))]
    faces = open_rec(write_raw(tmp_path / "val.rec", rows, idx))
    expected = sorted(zip(keys, [1, 5, 5, 0, 1], [b"0", b"1", b"2", b"3", b"4"], strict=True))
    assert contents(faces) == [(label, image) for _, label, image in expected]
    assert [faces.key(i) for i in range(5)] == [f"val.rec:{key}" for key, *_ in expected]
    assert faces.num_identities == 3


def test_record_0_with_a_label_array_and_an_image_is_an_image(tmp_path: Path, open_rec: Any) -> None:
    rows = [(0, record((4.0, 1.0), b"zero")), (1, record((9.0, 1.0), b"one"))]
    assert contents(open_rec(write_raw(tmp_path / "a.rec", rows))) == [(4, b"zero"), (9, b"one")]


def test_headers_that_hold_the_magic_are_read(tmp_path: Path, open_rec: Any) -> None:
    """The id of a record may be the magic: then the header itself is split."""
    rows = [(5, record(2.0, b"a", 0xCED7230A)), (6, record((3.0, 1.0), MAGIC, 0xCED7230A << 32))]
    faces = open_rec(write_raw(tmp_path / "a.rec", rows))
    assert contents(faces) == [(2, b"a"), (3, MAGIC)]


def test_images_are_views_that_decode(tmp_path: Path, open_rec: Any) -> None:
    image = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    jpeg = images.encode(image)
    write_pack(tmp_path / "a.rec", [(0, jpeg), (0, MAGIC)])
    faces = open_rec(tmp_path / "a.rec")
    view = faces.read(np.int64(0))
    assert isinstance(view, memoryview)
    assert view.readonly
    np.testing.assert_array_equal(images.decode(view, faces.key(0)), images.decode(jpeg, "here"))
    with pytest.raises(images.BadImage, match=r"a\.rec:2: does not decode"):
        images.decode(faces.read(1), faces.key(1))


@pytest.mark.parametrize("around", range(-9, 10))
def test_boundary_beyond_float32(around: int) -> None:
    """From 2^24 on the header's number is rounded; the first identity record is found near it."""
    first = 2**24 + 100 + around
    described = np.zeros(first + 50, np.bool_)
    described[0], described[first:] = True, True
    rounded = int(np.float32(first))
    assert record_index.first_identity(rounded, described) == first
    assert record_index.first_identity(int(np.float32(first)), described[:first]) == first  # none in the file


def test_header_below_float32_is_believed() -> None:
    assert record_index.first_identity(5, np.array([True, False, True, True, True, True])) == 5


def test_many_images_against_the_slow_reader(tmp_path: Path, open_rec: Any) -> None:
    """More records than one chunk, split ones among them, keys out of order, gaps in labels."""
    rng = np.random.default_rng(0)
    keys = rng.permutation(60_000)[:50_000]
    tails = [b"", b"x", MAGIC, b"1234" + MAGIC + b"1"]
    rows = [(int(key), record(float(key % 977 * 3), b"%d" % key + tails[key % 4])) for key in keys]
    rec = tmp_path / "a.rec"
    with rec.open("wb") as file, rec.with_suffix(".idx").open("w") as idx:
        for key, data in rows:
            idx.write(f"{key}\t{file.tell()}\n")
            file.write(slow_frames(data))
    faces = open_rec(rec)
    expected = slow_faces(rec)
    assert contents(faces) == [(label, image) for _, label, image in expected]
    assert faces.num_identities == 977
    assert (faces.labels * 3 == faces.raw_labels).all()
