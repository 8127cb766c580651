"""RecordIO by hand: a slow reader and writer, one word at a time, made from the format's description."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from mobileface.data.recordio import RecordFaces
from mobileface.errors import InputError

MAGIC = bytes.fromhex("0a23d7ce")
IMAGES = [(3, b"one"), (3, b""), (7, MAGIC), (7, b"12" + MAGIC), (8, b"1234" + MAGIC * 2 + b"5")]

in_one_folder = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# pieces of 0 to 9 bytes with magics between them stand at aligned and at other places
payloads = st.lists(st.one_of(st.just(MAGIC), st.binary(max_size=9))).map(b"".join)


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


def refused(rec: Path, *words: str) -> None:
    """Opening or reading fails with one line that holds `words`."""
    with pytest.raises(InputError) as caught:
        contents(RecordFaces(rec, rec.parent / "cache"))
    assert "\n" not in str(caught.value)
    for word in (rec.stem, *words):
        assert word in str(caught.value)
