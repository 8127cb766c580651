"""Keys and offsets of a .rec file's records: from its .idx, or where there is none by walking through it."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobileface.data.record_format import FRAME, LENGTH_BITS, MAGIC, Record, read_record, unpack
from mobileface.errors import InputError

BLOCK = 1 << 22  # bytes of an .idx parsed together
MAX_LINE = 40  # bytes; two numbers of at most 18 digits fit
TAB, NEWLINE, ZERO = b"\t\n0"

Int64s = NDArray[np.int64]


def idx_path(rec: Path) -> Path:
    """train.rec -> train.idx"""
    return rec.with_suffix(".idx")


def read_idx(rec: Path, view: memoryview) -> tuple[Int64s, Int64s]:
    """(keys, offsets) of an .idx: lines `key TAB byte offset`, each (N,) int64, in the order of the offsets.

    Raises InputError, with the line's number, for a line of another form, offsets that do not rise from line
    to line, an offset beyond the .rec (mapped as `view`), and an .idx that ends before the .rec does.
    """
    idx = idx_path(rec)
    parts: list[NDArray[np.int64]] = []
    line, previous = 1, -1
    for block in line_blocks(idx):
        numbers = parse_lines(block, idx, line)
        steps = np.diff(numbers[1], prepend=previous)
        if (steps <= 0).any():
            i = int(np.argmax(steps <= 0))
            raise InputError(f"{idx}: line {line + i}: the offset {numbers[1, i]} is not above that of the line before")
        if numbers[1, -1] >= len(view):
            i = int(np.argmax(numbers[1] >= len(view)))
            found = f"record {numbers[0, i]} starts at byte {numbers[1, i]}"
            raise InputError(f"{idx}: line {line + i}: {found}, but {rec.name} has {len(view)} bytes")
        parts.append(numbers)
        line, previous = line + numbers.shape[1], int(numbers[1, -1])
    if not parts:
        raise InputError(f"{idx}: is empty, wanted lines of a key, a tab and a byte offset")
    keys, offsets = np.concatenate(parts, axis=1)
    check_end(rec, view, int(keys[-1]), previous)
    return keys, offsets


def check_end(rec: Path, view: memoryview, key: int, offset: int) -> None:
    """An .idx that was cut off at the end of a line names a part of the records only: say so."""
    end = read_record(view, offset, f"{rec}: record {key}")[1]
    if end < len(view):
        rest = f"its last record {key} ends at byte {end} of {rec.name}, which has {len(view)} bytes"
        raise InputError(f"{idx_path(rec)}: is cut off: {rest} (without an .idx the .rec is walked through)")


def line_blocks(path: Path) -> Iterator[bytes]:
    """Blocks of a few MB that end where a line ends; Windows' line ends are made plain."""
    rest = b""
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            whole, newline, rest = (rest + block).rpartition(b"\n")
            if len(rest) > MAX_LINE:
                raise InputError(f"{path}: holds a line of more than {MAX_LINE} bytes, wanted a key, a tab, an offset")
            if newline:
                yield whole.replace(b"\r\n", b"\n").removesuffix(b"\r") + newline
    if rest:
        yield rest + b"\n"


def parse_lines(block: bytes, path: Path, line: int) -> Int64s:
    """(2, n) keys and offsets of n lines, the first of number `line`. Raises InputError for a bad one."""
    text = np.frombuffer(block, np.uint8)
    ends, tabs = np.flatnonzero(text == NEWLINE), np.flatnonzero(text == TAB)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if len(tabs) == len(ends) and np.count_nonzero(text - ZERO < 10) + 2 * len(ends) == len(text):  # uint8 wraps
        lengths = np.stack([tabs - starts, ends - tabs - 1])
        if lengths.min() > 0 and lengths.max() <= 18:
            return np.stack([digits(text, starts, lengths[0]), digits(text, tabs + 1, lengths[1])])
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        fields = block[start:end].split(b"\t")
        if len(fields) != 2 or not all(field.isdigit() and len(field) <= 18 for field in fields):
            found = block[start : min(end, start + MAX_LINE)]
            raise InputError(f"{path}: line {line + i}: found {found!r}, wanted a key, a tab and a byte offset")
    raise AssertionError("a line that is not as wanted was not found")


def digits(text: NDArray[np.uint8], starts: Int64s, lengths: Int64s) -> Int64s:
    """The decimal numbers that start at `starts` and have `lengths` digits."""
    values = np.zeros(len(starts), np.int64)
    for place in range(int(lengths.max())):
        live = lengths > place
        values[live] = values[live] * 10 + (text[starts[live] + place] - ZERO)
    return values


def scan(rec: Path, view: memoryview) -> tuple[Int64s, Int64s]:
    """(keys, offsets) without an .idx: the records are numbered 0, 1, 2... as they stand in the file.

    InsightFace's tools write record 0 last: a last record of the header's form, with id 0, is taken for it.
    """
    offsets = array("q")
    offset, size, unpack_frame = 0, len(view), FRAME.unpack_from
    while offset < size:
        offsets.append(offset)
        magic, lrec = unpack_frame(view, offset) if offset + FRAME.size <= size else (0, 0)
        following = offset + FRAME.size + lrec + -lrec % 4
        if magic == MAGIC and not lrec >> LENGTH_BITS and following <= size:
            offset = following  # nearly all of them, so not a call for each
        else:
            offset = read_record(view, offset, f"{rec}: record {len(offsets) - 1}")[1]
    keys = np.arange(len(offsets), dtype=np.int64)
    records = [unpack_record(rec, view, key, offsets[key]) for key in (0, len(offsets) - 1)]
    first, last = (record.flag > 1 and record.id == 0 and not len(record.payload) for record in records)
    if last and not first:
        keys = np.append(keys[1:], 0)
    return keys, np.frombuffer(offsets, np.int64)


def unpack_record(rec: Path, view: memoryview, key: int, offset: int) -> Record:
    name = f"{rec}: record {key}"
    return unpack(read_record(view, offset, name)[0], name)
