"""RecordIO against a slow reader and writer, made from the format's description; and hostile files."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import multiprocessing
import os
import pickle
import struct
import tempfile
import tracemalloc
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mobileface.data import images, record_format, record_index, record_keys
from mobileface.data.recordio import RecordFaces, RecordWriter, pack, unpack, write_pack
from mobileface.errors import InputError

MAGIC = bytes.fromhex("0a23d7ce")
IMAGES = [(3, b"one"), (3, b""), (7, MAGIC), (7, b"12" + MAGIC), (8, b"1234" + MAGIC * 2 + b"5")]

in_one_folder = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# pieces of 0 to 9 bytes with magics between them stand at aligned and at other places
payloads = st.lists(st.one_of(st.just(MAGIC), st.binary(max_size=9))).map(b"".join)


# ---- an independent reader and writer, one word at a time


def slow_record(file: io.BytesIO) -> bytes:
    """One record as the MXNet documentation describes it; assertion errors for what is not sound."""
    data = b""
    while True:
        magic, word = struct.unpack("<II", file.read(8))
        assert magic == 0xCED7230A
        kind, length = divmod(word, 2**29)
        piece = file.read(length)
        assert len(piece) == length
        file.read((4 - length % 4) % 4)
        data += piece
        if kind in (0, 3):
            return data
        data += MAGIC


def slow_faces(rec: Path) -> list[tuple[int, float, bytes]]:
    """(key, label, image) of all images, by the .idx."""
    file = io.BytesIO(rec.read_bytes())
    records = {}
    for line in rec.with_suffix(".idx").read_text().splitlines():
        key, offset = line.split("\t")
        file.seek(int(offset))
        data = slow_record(file)
        flag, label = struct.unpack("<If", data[:8])
        labels = struct.unpack(f"<{flag}f", data[24 : 24 + 4 * flag]) or (label,)
        records[int(key)] = (labels, data[24 + 4 * flag :])
    keys = sorted(records)
    if 0 in records and len(records[0][0]) > 1 and not records[0][1]:
        keys = list(range(1, int(records[0][0][0])))
    return [(key, records[key][0][0], records[key][1]) for key in keys]


def slow_frames(data: bytes) -> bytes:
    """A record split at each word that is the magic."""
    pieces = [b""]
    for i in range(0, len(data), 4):
        word = data[i : i + 4]
        if word == MAGIC:
            pieces.append(b"")
        else:
            pieces[-1] += word
    kinds = [0] if len(pieces) == 1 else [1] + [2] * (len(pieces) - 2) + [3]
    framed = b""
    for kind, piece in zip(kinds, pieces, strict=True):
        framed += struct.pack("<4sI", MAGIC, kind * 2**29 + len(piece)) + piece + bytes(-len(piece) % 4)
    return framed


def record(label: float | tuple[float, ...], image: bytes, number: int = 0) -> bytes:
    if isinstance(label, tuple):
        return struct.pack(f"<IfQQ{len(label)}f", len(label), 0, number, 0, *label) + image
    return struct.pack("<IfQQ", 0, label, number, 0) + image


def write_raw(rec: Path, records: Iterable[tuple[int, bytes]], idx: bool = True) -> Path:
    """Records with their keys, in any order."""
    file, lines = b"", ""
    for key, data in records:
        lines += f"{key}\t{len(file)}\n"
        file += slow_frames(data)
    rec.write_bytes(file)
    if idx:
        rec.with_suffix(".idx").write_text(lines)
    else:
        rec.with_suffix(".idx").unlink(missing_ok=True)
    return rec


def insightface_pack(header_last: bool) -> list[tuple[int, bytes]]:
    """IMAGES with the header record where InsightFace's old tools (last) or others (first) put it."""
    body = [(key, record(label, image, key)) for key, (label, image) in enumerate(IMAGES, start=1)]
    body += [
        (6, record((1.0, 3.0), b"", 6)),
        (7, record((3.0, 5.0), b"", 7)),
        (8, record((5.0, 6.0), b"", 8)),
    ]
    header = [(0, record((6.0, 9.0), b""))]
    return body + header if header_last else header + body


def contents(faces: RecordFaces) -> list[tuple[int, bytes]]:
    return [(int(label), bytes(faces.read(i))) for i, label in enumerate(faces.raw_labels)]


@pytest.fixture
def open_rec(tmp_path: Path) -> Any:
    return lambda rec: RecordFaces(rec, tmp_path / "cache")


def refused(rec: Path, *words: str) -> None:
    """Opening or reading fails with one line that holds `words`."""
    with pytest.raises(InputError) as caught:
        contents(RecordFaces(rec, rec.parent / "cache"))
    assert "\n" not in str(caught.value)
    for word in (rec.stem, *words):
        assert word in str(caught.value)


# ---- the format


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


@given(runs=st.lists(st.tuples(st.integers(0, 2**24 - 1), st.lists(payloads, min_size=1, max_size=4)), min_size=1))
@example(runs=[(0, [b""])])
@in_one_folder
def test_pack_round_trip(tmp_path: Path, runs: list[tuple[int, list[bytes]]]) -> None:
    given_images = [(label, image) for label, group in dict(runs).items() for image in group]
    rec = Path(tempfile.mkdtemp(dir=tmp_path)) / "train.rec"  # the cache tells files of one path by size and time
    write_pack(rec, iter(given_images))
    faces = RecordFaces(rec, tmp_path / "cache")
    assert contents(faces) == given_images
    assert [(label, image) for _, label, image in slow_faces(rec)] == given_images
    assert [faces.key(i) for i in range(len(faces))] == [f"train.rec:{key}" for key, *_ in slow_faces(rec)]
    ranks = {label: rank for rank, label in enumerate(sorted({label for label, _ in given_images}))}
    assert faces.labels.tolist() == [ranks[label] for label, _ in given_images]
    assert faces.num_identities == len(ranks)
    assert faces.labels.dtype == faces.raw_labels.dtype == np.int64
    pairs = b"".join(struct.pack("<qq", key, len(image)) for key, _, image in slow_faces(rec))
    assert faces.fingerprint() == hashlib.sha256(pairs).hexdigest()


def test_written_pack_has_insightfaces_layout(tmp_path: Path) -> None:
    rec = tmp_path / "train.rec"
    write_pack(rec, IMAGES)
    file = io.BytesIO(rec.read_bytes())
    records = [slow_record(file) for _ in range(9)]
    assert not file.read()
    assert records[0] == struct.pack("<IfQQff", 2, 0, 0, 1, 6, 9)
    assert records[1:6] == [struct.pack("<IfQQ", 0, label, i, 0) + jpeg for i, (label, jpeg) in enumerate(IMAGES, 1)]
    ranges = [(6, 1, 3), (7, 3, 5), (8, 5, 6)]
    assert records[6:] == [struct.pack("<IfQQff", 2, 0, key, 0, start, end) for key, start, end in ranges]
    assert (tmp_path / "property").read_text() == "9,112,112\n"
    assert [line.split("\t")[0] for line in (tmp_path / "train.idx").read_text().splitlines()] == list("012345678")
    write_pack(rec, IMAGES, identities=20)
    assert (tmp_path / "property").read_text() == "20,112,112\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["property", "train.idx", "train.rec"]


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


# ---- the .idx


@pytest.mark.parametrize("block", [1, 7, 64])
def test_idx_is_read_in_blocks(tmp_path: Path, open_rec: Any, monkeypatch: Any, block: int) -> None:
    monkeypatch.setattr(record_keys, "BLOCK", block)
    rec = write_raw(tmp_path / "a.rec", insightface_pack(True))
    assert contents(open_rec(rec)) == IMAGES


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_line_ends_of_the_idx(tmp_path: Path, open_rec: Any, end: bytes) -> None:
    rec = write_raw(tmp_path / "a.rec", insightface_pack(True))
    idx = rec.with_suffix(".idx")
    idx.write_bytes(idx.read_bytes().rstrip(b"\n").replace(b"\n", end or b"\n") + end)
    assert contents(open_rec(rec)) == IMAGES


@given(st.lists(st.tuples(st.integers(0, 10**18 - 1), st.integers(0, 10**18 - 1)), min_size=1, max_size=20))
def test_lines_are_parsed_as_python_does(rows: list[tuple[int, int]]) -> None:
    block = "".join(f"{key}\t{offset}\n" for key, offset in rows).encode()
    assert record_keys.parse_lines(block, Path("a.idx"), 1).T.tolist() == [list(row) for row in rows]


@given(st.text("09a \t\n\r-+.", min_size=1, max_size=12))
def test_lines_of_any_text(text: str) -> None:
    """Accepted just where each line is two runs of digits with a tab between."""
    lines = [line.split("\t") for line in text.split("\n")]
    bad = [i for i, line in enumerate(lines, 1) if len(line) != 2 or not all(part.isdigit() for part in line)]
    if bad:
        with pytest.raises(InputError, match=f"line {bad[0]}:"):
            record_keys.parse_lines(text.encode() + b"\n", Path("a.idx"), 1)
    else:
        found = record_keys.parse_lines(text.encode() + b"\n", Path("a.idx"), 1)
        assert found.T.tolist() == [[int(part) for part in line] for line in lines]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["is empty"]),
        ("0\t0\n1\t48\nx\t80\n", ["line 3", "b'x\\t80'"]),
        ("0\t0\n1 48\n", ["line 2"]),
        ("0\t0\n\n", ["line 2"]),
        ("0\t0\n1\t-4\n", ["line 2"]),
        ("0\t0\n1\t48.0\n", ["line 2"]),
        ("0\t0\n1\t48\t3\n", ["line 2"]),
        ("0\t0\n1\t" + "9" * 19 + "\n", ["line 2"]),
        ("9" * 5000, ["more than 40 bytes"]),
        ("0\t0\n1\t92\n2\t48\n", ["line 3", "offset 48", "not above"]),
        ("0\t0\n1\t0\n", ["line 2", "not above"]),
        ("0\t0\n1\t40\n2\t4000\n", ["line 3", "record 2", "byte 4000"]),
        ("0\t0\n1\t40\n1\t68\n2\t96\n", ["record 1 twice"]),
        ("0\t0\n1\t40\n2\t68\n", ["cut off", "record 2"]),
        ("0\t0\n1\t42\n2\t96\n", ["record 1", "byte 42", "multiple of 4"]),
        ("0\t0\n1\t44\n2\t96\n", ["record 1", "byte 44", "0xced7230a"]),
        ("0\t0\n2\t40\n3\t68\n4\t96\n", ["1 to 2", "1 is not there"]),
    ],
)
def test_bad_idx(tmp_path: Path, text: str, words: list[str]) -> None:
    rows = [
        (0, record((3.0, 4.0), b"")),
        (1, record(1, b"")),
        (2, record(1, b"")),
        (3, record((1.0, 3.0), b"")),
    ]
    rec = write_raw(tmp_path / "a.rec", rows)
    sizes = [40, 32, 32, 40]
    assert rec.stat().st_size == sum(sizes)
    moved = {"40": "40", "68": "72", "96": "104"}  # the second and third image and the identity record
    for old, new in moved.items():
        text = text.replace(f"\t{old}\n", f"\t{new}\n")
    (tmp_path / "a.idx").write_text(text)
    refused(rec, *words)


def test_a_missing_idx_is_said(tmp_path: Path, open_rec: Any, caplog: pytest.LogCaptureFixture) -> None:
    rec = write_raw(tmp_path / "a.rec", insightface_pack(False))
    with caplog.at_level(logging.WARNING):
        open_rec(rec)
        assert not caplog.text
        rec.with_suffix(".idx").unlink()
        faces = open_rec(rec)
    assert "has no a.idx" in caplog.text
    assert contents(faces) == IMAGES


# ---- hostile and damaged files


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


# ---- property


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3,112,96", ["96x112"]),
        ("many", ["b'many'", "100,112,112"]),
        ("3,112", ["b'3,112'"]),
        ("-3,112,112", ["b'-3,112,112'"]),
        ("", ["b''"]),
        ("1," * 10_000, ["property"]),
    ],
)
def test_bad_property(tmp_path: Path, text: str, words: list[str]) -> None:
    rec = write_raw(tmp_path / "train.rec", insightface_pack(True))
    (tmp_path / "property").write_text(text)
    with pytest.raises(InputError) as caught:
        RecordFaces(rec, tmp_path / "cache")
    assert len(str(caught.value)) < 400
    for word in ("property", *words):
        assert word in str(caught.value)


def test_property(tmp_path: Path, open_rec: Any, caplog: pytest.LogCaptureFixture) -> None:
    rec = write_raw(tmp_path / "train.rec", insightface_pack(True))
    for text in ("3,112,112", "85742, 112, 112\n5822653\n"):
        (tmp_path / "property").write_text(text)
        open_rec(rec)
    assert not caplog.text
    (tmp_path / "property").write_text("2,112,112")
    open_rec(rec)
    assert "says 2 identities, but train.rec holds 3" in caplog.text


# ---- the cache, forks and pickles


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    write_pack(tmp_path / "set" / "train.rec", IMAGES)
    return tmp_path / "set" / "train.rec"


def no_build(*_: Any) -> Any:
    raise AssertionError("built again")


def test_the_index_is_built_once(rec: Path, open_rec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_rec(rec)
    monkeypatch.setattr(record_index, "build", no_build)
    second = open_rec(rec)
    assert contents(second) == contents(first) == IMAGES
    assert second.fingerprint() == first.fingerprint()
    assert second.labels.tolist() == [0, 0, 1, 1, 2]
    assert second.name == "set/train.rec"
    assert not second.labels.flags.writeable
    os.utime(rec, ns=(1, 1))
    with pytest.raises(AssertionError, match="built again"):
        open_rec(rec)


def test_the_cache_is_where_the_user_wants_it(rec: Path, tmp_path: Path, monkeypatch: Any) -> None:
    before = sorted(rec.parent.iterdir())
    monkeypatch.setenv("MOBILEFACE_CACHE", str(tmp_path / "mine"))
    RecordFaces(rec)
    assert list((tmp_path / "mine" / "records").glob("*.npy"))
    assert sorted(rec.parent.iterdir()) == before


def test_a_changed_idx_is_read_again(tmp_path: Path, open_rec: Any) -> None:
    rows = [(key, record(key, b"%d" % key)) for key in (1, 2, 3)]
    rec = write_raw(tmp_path / "a.rec", rows)
    assert contents(open_rec(rec)) == [(1, b"1"), (2, b"2"), (3, b"3")]
    idx = rec.with_suffix(".idx")
    idx.write_text(idx.read_text().replace("1\t0", "9\t0"))
    assert contents(open_rec(rec)) == [(2, b"2"), (3, b"3"), (1, b"1")]


def damage_flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Any] = {
    "flip": damage_flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "empty": lambda path: path.write_bytes(b""),
    "noise": lambda path: path.write_bytes(b"\x80\x04noise\xff" * 9),
    "gone": lambda path: path.unlink(),
    "null": lambda path: path.write_text("null"),
    "other": lambda path: path.write_text(json.dumps({"sha256": 3})),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_a_damaged_cache_is_built_again(rec: Path, open_rec: Any, damage: str, suffix: str) -> None:
    open_rec(rec)
    (path,) = (rec.parent.parent / "cache" / "records").glob(f"*{suffix}")
    whole = path.read_bytes()
    DAMAGES[damage](path)
    assert contents(open_rec(rec)) == IMAGES
    assert path.read_bytes() == whole


def test_a_cache_cut_off_anywhere_is_built_again(rec: Path, open_rec: Any) -> None:
    open_rec(rec)
    (path,) = (rec.parent.parent / "cache" / "records").glob("*.npy")
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert contents(open_rec(rec)) == IMAGES


def in_processes(function: Any, arguments: list[Any]) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on forks of threaded processes
        with multiprocessing.get_context("fork").Pool(3) as pool:
            return pool.map(function, arguments, chunksize=1)


FORKED: list[RecordFaces] = []


def read_forked(seed: int) -> bool:
    order = np.random.default_rng(seed).integers(0, len(IMAGES), 2000)
    return all(bytes(FORKED[0].read(i)) == IMAGES[i][1] for i in order)


def test_forked_workers_share_nothing_that_moves(rec: Path, open_rec: Any) -> None:
    FORKED[:] = [open_rec(rec)]
    assert all(in_processes(read_forked, list(range(6))))


def open_and_read(paths: tuple[Path, Path]) -> list[tuple[int, bytes]]:
    return contents(RecordFaces(*paths))


def test_processes_that_open_together(rec: Path, tmp_path: Path) -> None:
    for attempt in range(5):
        paths = (rec, tmp_path / f"cache{attempt}")
        assert in_processes(open_and_read, [paths] * 6) == [IMAGES] * 6
        names = sorted(path.suffix for path in (paths[1] / "records").iterdir())
        assert names == [".json", ".lock", ".npy"]


def test_a_pickled_source_opens_again_when_used(rec: Path, open_rec: Any) -> None:
    faces = open_rec(rec)
    data = pickle.dumps(faces)
    assert len(data) < 1000
    copy = pickle.loads(data)
    assert "labels" not in vars(copy)
    assert copy.labels.tolist() == faces.labels.tolist()
    assert contents(copy) == IMAGES
    assert copy.fingerprint() == faces.fingerprint()
    assert (copy.name, copy.key(0), len(copy)) == (faces.name, faces.key(0), len(faces))
    again = pickle.loads(pickle.dumps(copy))
    rec.unlink()
    with pytest.raises(FileNotFoundError):
        again.read(0)
    with pytest.raises(AttributeError, match="no attribute 'lables'"):
        _ = again.lables


def test_reading_leaves_no_pages_of_labels_behind(rec: Path, open_rec: Any) -> None:
    faces = open_rec(rec)
    base = faces.labels
    while getattr(base, "base", None) is not None:
        base = base.base
    assert type(base).__name__ == "mmap"


# ---- writing


def failing(images_before: list[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    yield from images_before
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("given_images", "words"),
    [
        ([], ["no images"]),
        ([(1, b"a"), (2, b"b"), (1, b"c")], ["image 3", "label 1", "one run"]),
        ([(-1, b"a")], ["image 1", "label -1"]),
        ([(2**24, b"a")], ["label 16777216", "0 to 16777215"]),
    ],
)
def test_writing_refuses(rec: Path, given_images: list[tuple[int, bytes]], words: list[str]) -> None:
    before = {path.name: path.read_bytes() for path in rec.parent.iterdir()}
    with pytest.raises(InputError) as caught:
        write_pack(rec, given_images)
    assert all(word in str(caught.value) for word in words)
    with pytest.raises(KeyboardInterrupt):
        write_pack(rec, failing(given_images[:1]) if given_images[:1] == [(1, b"a")] else failing([]))
    assert {path.name: path.read_bytes() for path in rec.parent.iterdir()} == before


def test_labels_beyond_the_identities(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"label 4, wanted labels from 0 to 3"):
        write_pack(tmp_path / "a.rec", [(0, b"a"), (4, b"b")], identities=4)
    assert not list(tmp_path.iterdir())


def test_record_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rec = tmp_path / "a.rec"
    with RecordWriter(rec) as writer:
        writer.write(3, pack(1, 3, b"x"))
        writer.write(8, pack((2.0, 1.0), 8, b"y" + MAGIC))
    assert slow_faces(rec) == [(3, 1.0, b"x"), (8, 2.0, b"y" + MAGIC)]
    assert not rec.with_suffix(".idx").read_text().startswith("0")
    with RecordWriter(rec) as writer:
        writer.write(3, b"")
        with pytest.raises(InputError, match="record 3 comes after 3"):
            writer.write(3, b"")
        monkeypatch.setattr("mobileface.data.recordio.MAX_LENGTH", 100)
        with pytest.raises(InputError, match="record 4 has 101 bytes"):
            writer.write(4, bytes(101))
    with pytest.raises(InputError, match="not end in"):
        RecordWriter(tmp_path / "c.idx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.idx", "a.rec"]


def test_writing_streams(tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        write_pack(tmp_path / "a.rec", ((i // 4, bytes(1 << 20)) for i in range(40)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20
    assert (tmp_path / "a.rec").stat().st_size > 40 << 20


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
