"""Where the images of a .rec file stand and whose they are: built once, then kept in the user's cache.

Building reads the .idx and every record's header (vectorised over the memory map; split records one by one).
The result is a table that is mapped on the next open, so that 6 million images open in a moment.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobileface.data.record_format import HEADER, LENGTH_BITS, MAGIC, MAX_LENGTH, WHOLE, read_record, unpack
from mobileface.data.record_keys import Int64s, idx_path, read_idx, scan
from mobileface.errors import InputError
from mobileface.files import atomic_path, sha256, write_json

FORMAT = 1  # of the cache; another number is built anew
EXACT = 1 << 24  # float32 holds whole numbers exactly up to here
CHUNK = 1 << 18  # records looked at together
MIN_RECORD = 8 + HEADER.size


@dataclass(frozen=True)
class Index:
    """Images of a .rec in the order of their keys; each array is (N,) int64."""

    keys: Int64s
    offsets: Int64s  # bytes from the start of the file
    labels: Int64s  # 0..identities-1
    raw_labels: Int64s  # as the file holds them
    identities: int
    fingerprint: str  # hex SHA-256 over (key, payload size), little-endian int64 pairs in the order of the keys


@dataclass(frozen=True)
class Headers:
    """What the records' headers say, in the order of `keys`."""

    flags: NDArray[np.uint32]
    labels: NDArray[np.float32]  # the first one where a record has several
    sizes: NDArray[np.uint32]  # bytes of the payload

    def without_image(self) -> NDArray[np.bool_]:
        """The records that describe others: the header record and the identity records."""
        return (self.flags > 1) & (self.sizes == 0)


def load_index(rec: Path, data: mmap.mmap, cache: Path) -> Index:
    """The index of `rec` (mapped as `data`), from `cache` or built and put there.

    Processes that want the same index at the same time build it once. A cache file that is damaged, or that
    belongs to another state of the .rec or .idx, is not used.
    """
    table = cache / "records" / f"{state_of(rec)}.npy"
    if found := read_cached(table):
        return found
    table.parent.mkdir(parents=True, exist_ok=True)
    with locked(table.with_suffix(".lock")):
        if found := read_cached(table):
            return found
        index = build(rec, data)
        write_cached(table, index)
        return read_cached(table) or index


def state_of(rec: Path) -> str:
    """Hex hash over path, size and time of change of the .rec and its .idx: one cache entry per state."""
    entries = [f"format {FORMAT}"]
    for path in (rec, idx_path(rec)):
        if path.exists():
            stat = path.stat()
            entries.append(f"{path.resolve()}\t{stat.st_size}\t{stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(entries).encode("utf-8", "surrogateescape")).hexdigest()[:32]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; the system lets go of it when a process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read_cached(path: Path) -> Index | None:
    """The cached index, its arrays mapped from the file; None where it is missing or was not written so."""
    try:
        notes = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        identities, fingerprint = int(notes["identities"]), str(notes["fingerprint"])
        if notes["seal"] != seal(path, identities, fingerprint):
            return None
        keys, offsets, labels, raw = np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
        return Index(keys, offsets, labels, raw, identities, fingerprint)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_cached(path: Path, index: Index) -> None:
    """Write the table, then the notes that vouch for it."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.stack([index.keys, index.offsets, index.labels, index.raw_labels]), allow_pickle=False)
    sealed = seal(path, index.identities, index.fingerprint)
    notes = {"identities": index.identities, "fingerprint": index.fingerprint, "seal": sealed}
    write_json(path.with_suffix(".json"), notes)


def seal(table: Path, identities: int, fingerprint: str) -> str:
    """Hex SHA-256 over all that is cached."""
    return hashlib.sha256(f"{sha256(table)} {identities} {fingerprint}".encode()).hexdigest()


def build(rec: Path, data: mmap.mmap) -> Index:
    """Read keys, offsets and every record's header. Raises InputError for what does not fit together."""
    view = memoryview(data)
    keys, offsets = read_idx(rec, view) if idx_path(rec).exists() else scan(rec, view)
    headers = read_headers(rec, data, keys, offsets)
    if np.any(keys[1:] <= keys[:-1]):
        order = np.argsort(keys, kind="stable")
        keys, offsets = keys[order], offsets[order]
        headers = Headers(headers.flags[order], headers.labels[order], headers.sizes[order])
        if (twice := np.flatnonzero(keys[1:] == keys[:-1])).size:
            raise InputError(f"{idx_path(rec)}: names record {keys[twice[0]]} twice")
    images = image_range(rec, keys, headers)
    raw = whole_labels(rec, keys[images], headers.labels[images])
    present = np.zeros(int(raw.max()) + 1, np.bool_)
    present[raw] = True
    labels = (np.cumsum(present, dtype=np.int64) - 1)[raw]
    fingerprint = hash_keys_and_sizes(keys[images], headers.sizes[images])
    return Index(keys[images], offsets[images], labels, raw, int(present.sum()), fingerprint)


def read_headers(rec: Path, data: mmap.mmap, keys: Int64s, offsets: Int64s) -> Headers:
    """Look at every record's first 36 bytes, a chunk of records at a time; the offsets rise."""
    view, chunks = memoryview(data), []
    following = np.append(offsets[1:], len(view))
    for start in range(0, len(keys), CHUNK):
        part = slice(start, start + CHUNK)
        chunks.append(read_chunk(rec, view, keys[part], offsets[part], following[part]))
        drop_pages(data)
    flags, labels, sizes = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    return Headers(flags, labels, sizes)


def read_chunk(
    rec: Path, view: memoryview, keys: Int64s, offsets: Int64s, following: Int64s
) -> tuple[NDArray[np.uint32], NDArray[np.float32], NDArray[np.uint32]]:
    """(flags, labels, sizes) of some records. Raises InputError that names the first unsound record."""
    words = np.frombuffer(view, "<u4", count=len(view) // 4)
    inside = (offsets % 4 == 0) & (offsets + MIN_RECORD <= len(view))
    at = np.where(inside, offsets, 0) // 4
    magic, lrec, flags = words[at], words[at + 1], words[at + 2]
    length = (lrec & MAX_LENGTH).astype(np.int64)
    start = HEADER.size + 4 * flags.astype(np.int64)  # of the payload, within the data
    simple = inside & (magic == MAGIC) & (lrec >> LENGTH_BITS == WHOLE)
    simple &= (start <= length) & (offsets + 8 + length <= following)
    labels = words[at + np.where(simple & (flags > 0), 8, 3)].view("<f4")
    sizes = np.where(simple, length - start, 0).astype(np.uint32)
    for i in np.flatnonzero(~simple):  # split records, and records that are not sound
        name = f"{rec}: record {keys[i]}"
        if offsets[i] % 4:
            raise InputError(f"{name}: starts at byte {offsets[i]}, wanted a multiple of 4")
        found, end = read_record(view, int(offsets[i]), name)
        if end > following[i] + 3:  # the padding of the last may be missing
            raise InputError(f"{name}: ends at byte {end}, but the next record starts at byte {following[i]}")
        record = unpack(found, name)
        flags[i], labels[i], sizes[i] = record.flag, record.labels[0], len(record.payload)
    return flags, labels, sizes


def image_range(rec: Path, keys: Int64s, headers: Headers) -> slice:
    """Which records are images.

    InsightFace's layout: record 0 has no image and the labels (first identity record, last + 1); the records
    1 to first - 1 are images. Without such a record 0 every record is an image (im2rec, shuffled files).
    """
    described = headers.without_image()
    if not (keys[0] == 0 and described[0]):
        if described.any():
            key = keys[np.argmax(described)]
            raise InputError(f"{rec}: record {key} describes an identity, but there is no header record 0")
        return slice(0, len(keys))
    end = float(headers.labels[0])
    if not (np.isfinite(end) and end >= 2 and end == int(end)):
        raise InputError(f"{rec}: record 0 says that the images end before record {end}, wanted 2 or more")
    first = first_identity(int(end), described)
    known = min(first, len(keys))
    wrong = keys[:known] != np.arange(known)
    if known < first or wrong.any():
        gap = int(np.argmax(wrong)) if wrong.any() else known
        raise InputError(f"{rec}: record 0 says that records 1 to {first - 1} are images, but {gap} is not there")
    return slice(1, first)


def first_identity(end: int, described: NDArray[np.bool_]) -> int:
    """The first identity record: `end`, or where float32 has rounded it, the boundary found near it."""
    if end <= EXACT:
        return end
    reach = int(np.spacing(np.float32(end)))
    near = np.flatnonzero(described[end - reach : end + reach + 1])
    if near.size:
        return end - reach + int(near[0])
    return len(described) if abs(len(described) - end) <= reach else end


def whole_labels(rec: Path, keys: Int64s, labels: NDArray[np.float32]) -> Int64s:
    """Labels as int64. Raises InputError for one that is not whole, negative, or not exact as float32."""
    with np.errstate(invalid="ignore"):
        good = np.isfinite(labels) & (labels >= 0) & (labels < EXACT) & (labels == np.trunc(labels))
    if not good.all():
        i = int(np.argmin(good))
        wanted = f"wanted a whole number from 0 to {EXACT - 1}"
        raise InputError(f"{rec}: record {keys[i]}: has the label {labels[i]}, {wanted}")
    return labels.astype(np.int64)


def hash_keys_and_sizes(keys: Int64s, sizes: NDArray[np.uint32]) -> str:
    """Hex SHA-256 over (key, size) as little-endian int64 pairs, in bounded memory."""
    digest = hashlib.sha256()
    for start in range(0, len(keys), CHUNK):
        part = slice(start, start + CHUNK)
        digest.update(np.stack([keys[part], sizes[part].astype(np.int64)], axis=1).astype("<i8").tobytes())
    return digest.hexdigest()


def drop_pages(data: mmap.mmap) -> None:
    """Let go of the pages that were looked at, so that indexing a large file does not fill the memory."""
    if hasattr(mmap, "MADV_DONTNEED"):
        data.madvise(mmap.MADV_DONTNEED)
