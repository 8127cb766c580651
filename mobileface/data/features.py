"""Feature files: a row of float32 for each image or video, as the LFRC challenge takes them, or as a `.npy`.

LFRC (InsightFace `challenges/iccv19-lfr/gen_*_feature.py`): four little-endian int32 (rows, columns, columns * 4 bytes,
5 = float32), then the rows one after the other. The challenge's image file has 1,862,120 rows, its video file 203,848.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from mobileface.errors import InputError, one_line
from mobileface.files import atomic_path

Features = NDArray[np.float32]

HEADER = struct.Struct("<4i")
FLOAT32 = 5  # OpenCV's CV_32F
MAX_INT32 = (1 << 31) - 1
MAX_DIM = 1 << 16
BLOCK_BYTES = 1 << 22  # of float32, looked at together


def read_features(path: Path) -> Features:
    """(N, D) float32, mapped read-only: nothing is read before it is used. The content tells the format.

    Raises InputError for a missing file, a header that is none, a length that does not fit it, another type than
    float32. Whether the numbers can be used, `check_features` tells.
    """
    try:
        with path.open("rb") as file:
            start = file.read(HEADER.size)
            rows, columns, offset = _npy_shape(file, path) if start[:6] == b"\x93NUMPY" else _lfrc_shape(start, path)
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path}: no such feature file") from None
    if not (rows > 0 and 0 < columns <= MAX_DIM):
        raise InputError(f"{path}: {rows} rows of {columns} numbers; wanted 1 row or more of 1 to {MAX_DIM}")
    found, wanted = path.stat().st_size, offset + rows * columns * 4
    if found != wanted:
        raise InputError(f"{path}: {found:,} bytes; wanted {wanted:,} for {rows:,} rows of {columns} float32")
    return np.memmap(path, np.dtype("<f4"), "r", offset, (rows, columns))


def write_features(path: Path, rows: Iterable[Features], count: int, dim: int) -> None:
    """Write a LFRC feature file, a row (D,) or several (B, D) at a time; whole or not at all.

    Raises InputError where the rows are not `count` of `dim` finite numbers.
    """
    if not (0 < count <= MAX_INT32 and 0 < dim <= MAX_DIM):
        raise InputError(f"{path}: {count} rows of {dim} numbers; wanted 1 to {MAX_INT32} of 1 to {MAX_DIM}")
    written = 0
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(HEADER.pack(count, dim, dim * 4, FLOAT32))
        for part in rows:
            block = np.ascontiguousarray(np.atleast_2d(part), np.dtype("<f4"))
            if block.ndim != 2 or block.shape[1] != dim:
                raise InputError(f"{path}: row {written} has shape {np.shape(part)}; wanted {dim} numbers")
            if len(wrong := np.flatnonzero(~np.isfinite(block).all(axis=1))):
                raise InputError(f"{path}: row {written + int(wrong[0])} is not finite")
            file.write(block.data)
            written += len(block)
        if written != count:
            raise InputError(f"{path}: {written} rows came; wanted {count}")


def check_features(features: Features, name: Path | str) -> NDArray[np.float64]:
    """(N,) the rows' lengths, by one rule: squares summed in float64 from the first column to the last.

    A row of zeros has length 0: nothing was there to embed. Raises InputError that counts the rows with a NaN or an
    infinity and names the first of them (from 0). Bounded memory.
    """
    lengths = np.empty(len(features))
    for start, block in blocks(features):
        squares = np.square(block, dtype=np.float64)
        lengths[start : start + len(block)] = np.sqrt(np.add.accumulate(squares, axis=1)[:, -1])
    if len(wrong := np.flatnonzero(~np.isfinite(lengths))):
        raise InputError(
            f"{name}: {len(wrong):,} of {len(lengths):,} rows hold a NaN or an infinity, the first: row {wrong[0]}; "
            "wanted finite embeddings"
        )
    return lengths


def blocks(features: Features) -> Iterator[tuple[int, Features]]:
    """(number of the first row, some rows) after each other, BLOCK_BYTES at a time or a row."""
    rows = max(1, BLOCK_BYTES // (4 * features.shape[1]))
    for start in range(0, len(features), rows):
        yield start, features[start : start + rows]


def _lfrc_shape(start: bytes, path: Path) -> tuple[int, int, int]:
    if len(start) < HEADER.size:
        raise InputError(f"{path}: {len(start)} bytes; wanted a feature file with a header of {HEADER.size}")
    rows, columns, stride, kind = HEADER.unpack(start)
    if stride != columns * 4 or kind != FLOAT32:
        raise InputError(
            f"{path}: the header is {rows}, {columns}, {stride}, {kind}; wanted rows, columns, columns * 4, {FLOAT32}, "
            "or a .npy file"
        )
    return rows, columns, HEADER.size


def _npy_shape(file: BinaryIO, path: Path) -> tuple[int, int, int]:
    """Rows, columns and the first row's place, of version 1.0: what NumPy writes for two-dimensional numbers."""
    file.seek(0)
    try:
        if (version := np.lib.format.read_magic(file)) != (1, 0):
            raise ValueError(f"version {version[0]}.{version[1]}, wanted 1.0")
        shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception as error:  # NumPy tries a second parser on odd headers, which raises what it likes
        raise InputError(f"{path}: the .npy header cannot be read ({one_line(error)[:80]})") from None
    if len(shape) != 2 or by_columns or dtype != np.dtype("<f4"):
        order = "by columns" if by_columns else "by rows"
        raise InputError(f"{path}: holds {dtype} of shape {shape} {order}; wanted float32 (N, D) by rows")
    return shape[0], shape[1], file.tell()
