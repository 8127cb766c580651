"""One record of a RecordIO file: frames, split records and the image header of dmlc-core and MXNet.

A record is cut into frames. Each frame is `uint32 magic, uint32 (cflag << 29 | length), data, padding to 4`;
cflag is 0 for a whole record, 1 / 2 / 3 for the first / a middle / the last piece of a record whose data held
the magic at a multiple of 4. The magic between two pieces is not stored: the reader puts it back.
The record's data start with MXNet's image header, struct IfQQ: flag, label, id, id2; when flag > 0 the labels
are `flag` float32 values after it. Everything is little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mobileface.errors import InputError

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)
LENGTH_BITS = 29
MAX_LENGTH = (1 << LENGTH_BITS) - 1  # bytes in one record, as dmlc-core limits it
FRAME = struct.Struct("<II")
HEADER = struct.Struct("<IfQQ")
WHOLE, FIRST, MIDDLE, LAST = range(4)  # cflag

Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Record:
    """One record's content. `labels` holds one value, or the array of a record whose flag is above 0."""

    flag: int
    labels: tuple[float, ...]
    id: int
    id2: int
    payload: Buffer


def pack(label: float | Sequence[float], key: int, payload: bytes, id2: int = 0) -> bytes:
    """Image header and payload as one record's data; a sequence of labels becomes an array (flag > 0)."""
    if isinstance(label, Sequence):
        header = HEADER.pack(len(label), 0.0, key, id2) + struct.pack(f"<{len(label)}f", *label)
    else:
        header = HEADER.pack(0, label, key, id2)
    return header + payload


def unpack(data: Buffer, name: str) -> Record:
    """The inverse of `pack`; the payload is a view of `data`. Raises InputError for data too short for it."""
    if len(data) < HEADER.size:
        raise InputError(f"{name}: holds {len(data)} bytes, wanted an image header of {HEADER.size} bytes or more")
    flag, label, number, id2 = HEADER.unpack_from(data)
    start = HEADER.size + 4 * flag
    if start > len(data):
        raise InputError(f"{name}: claims {flag} labels in a record of {len(data)} bytes")
    labels = struct.unpack_from(f"<{flag}f", data, HEADER.size) if flag else (label,)
    return Record(flag, labels, number, id2, data[start:])


def frames(data: bytes) -> Iterator[bytes]:
    """The bytes to append to a file for one record: split where `data` holds the magic at a multiple of 4."""
    start, at = 0, data.find(MAGIC_BYTES)
    while at >= 0:
        if at % 4:
            at = data.find(MAGIC_BYTES, at + 1)
            continue
        yield FRAME.pack(MAGIC, (MIDDLE if start else FIRST) << LENGTH_BITS | (at - start))
        yield data[start:at]
        start, at = at + 4, data.find(MAGIC_BYTES, at + 4)
    yield FRAME.pack(MAGIC, (LAST if start else WHOLE) << LENGTH_BITS | (len(data) - start))
    yield data[start:]
    yield bytes(-len(data) % 4)


def read_frame(view: memoryview, offset: int, name: str) -> tuple[int, memoryview, int]:
    """(cflag, data, offset of what follows) of the frame at `offset`; its padding may be missing."""
    size = len(view)
    if offset < 0 or offset >= size:
        raise InputError(f"{name}: starts at byte {offset}, but the file has {size} bytes")
    if offset + FRAME.size > size:
        raise InputError(f"{name}: is cut off: {size - offset} bytes are left at byte {offset}, wanted 8")
    magic, lrec = FRAME.unpack_from(view, offset)
    if magic != MAGIC:
        raise InputError(f"{name}: found 0x{magic:08x} at byte {offset}, wanted the magic 0x{MAGIC:08x}")
    start, length = offset + FRAME.size, lrec & MAX_LENGTH
    if start + length > size:
        raise InputError(f"{name}: is cut off: {length} bytes from byte {start}, but the file has {size} bytes")
    return lrec >> LENGTH_BITS, view[start : start + length], start + length + -length % 4


def read_record(view: memoryview, offset: int, name: str) -> tuple[Buffer, int]:
    """(data, offset of what follows) of the record at `offset`.

    A whole record is a view of the file (nothing is copied); a split one is joined. Raises InputError, with
    `name` in its text, for a wrong magic, a frame beyond the file's end and pieces that do not fit together.
    """
    cflag, data, offset = read_frame(view, offset, name)
    if cflag == WHOLE:
        return data, offset
    if cflag != FIRST:
        raise InputError(f"{name}: starts with a piece of kind {cflag}, wanted 0 (whole) or 1 (first)")
    pieces, total = [data], len(data)
    while cflag != LAST:
        cflag, data, offset = read_frame(view, offset, name)
        if cflag not in (MIDDLE, LAST):
            raise InputError(f"{name}: goes on with a piece of kind {cflag}, wanted 2 (middle) or 3 (last)")
        pieces.append(data)
        total += 4 + len(data)
        if total > MAX_LENGTH:
            raise InputError(f"{name}: holds more than {MAX_LENGTH} bytes")
    return MAGIC_BYTES.join(pieces), offset
