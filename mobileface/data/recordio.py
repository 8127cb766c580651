"""InsightFace's training packs: NAME.rec with NAME.idx and `property`, read by memory map and written.

No MXNet is needed. Layout (insightface, `rec_builder.py`): record 0 holds two labels, (first identity record,
last + 1), and no image; the images are the records 1 to first - 1; each identity record holds the range of
its images' keys. `property` holds "identities,112,112". The images are JPEG files, RGB once decoded.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import operator
import os
import struct
from array import array
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobileface.data.images import SIZE
from mobileface.data.lists import read_names, warn_of_strangers
from mobileface.data.record_format import (
    FRAME,
    MAGIC,
    MAX_LENGTH,
    frames,
    pack,
    read_record,
    unpack,
)
from mobileface.data.record_index import EXACT, MIN_RECORD, load_index
from mobileface.data.record_keys import idx_path
from mobileface.errors import InputError, visible
from mobileface.files import atomic_path, cache_folder

START = struct.Struct("<III")  # magic, cflag and length, flag

log = logging.getLogger(__name__)


class RecordFaces:
    """The images of a .rec file, a FaceSource.

    Images are sorted by key. `labels` are 0..num_identities-1; where the file's own labels have gaps they are
    numbered anew, in their order, and `raw_labels` holds what the file says. Both are (N,) int64, mapped from
    the index in the cache (`record_index.py`). Reading shares no file position, so forked workers may read;
    a pickled RecordFaces opens its file again when it is first used.

    exclude: a list file of images to leave out, FILE.rec:KEY or KEY in its first column (up to a tab), as
    `mobileface data clean` writes it; names that match nothing are warned of. The arrays are copies then, no longer
    mapped.

    Raises InputError for a file that is cut off or not sound, and for a list that names none of the images or all;
    corrupt images are found when they are decoded.
    """

    name: str  # folder/file.rec
    labels: NDArray[np.int64]
    raw_labels: NDArray[np.int64]
    num_identities: int
    _keys: NDArray[np.int64]
    _offsets: NDArray[np.int64]
    _fingerprint: str
    _view: memoryview

    def __init__(self, rec: Path, cache: Path | None = None, exclude: Path | None = None) -> None:
        self.rec, self.exclude = Path(rec), exclude
        self.cache = cache or cache_folder()
        if not idx_path(self.rec).exists() and self.rec.exists():
            log.warning("%s: has no %s; its records are numbered as they come", rec, idx_path(self.rec).name)
        self._open()
        check_property(self.rec, self.num_identities)

    def _open(self) -> None:
        data = map_file(self.rec)
        index = load_index(self.rec, data, self.cache)
        self.name = f"{self.rec.resolve().parent.name}/{self.rec.name}"
        self.labels, self.raw_labels, self.num_identities = index.labels, index.raw_labels, index.identities
        self._keys, self._offsets, self._fingerprint = index.keys, index.offsets, index.fingerprint
        self._view = memoryview(data)
        if self.exclude is not None:
            self._leave_out(self.exclude)

    def _leave_out(self, exclude: Path) -> None:
        refused = excluded_keys(exclude, self.rec.name)
        kept = ~np.isin(self._keys, refused)
        if kept.all() or not kept.any():
            what = "none" if kept.all() else "all"
            raise InputError(f"{exclude}: names {what} of the {len(kept)} images of {self.rec}; wanted some of them")
        strangers = refused[~np.isin(refused, self._keys)]
        warn_of_strangers(exclude, [f"{self.rec.name}:{key}" for key in strangers], self.rec)
        text = self._fingerprint + ",".join(map(str, self._keys[~kept].tolist()))
        self._fingerprint = hashlib.sha256(text.encode()).hexdigest()
        self._keys, self._offsets, self.raw_labels = self._keys[kept], self._offsets[kept], self.raw_labels[kept]
        present, self.labels = np.unique(self.labels[kept], return_inverse=True)
        self.num_identities = len(present)

    def __getstate__(self) -> dict[str, Path | None]:
        return {"rec": self.rec, "cache": self.cache, "exclude": self.exclude}

    def __getattr__(self, name: str) -> Any:
        """Called for attributes that are not there: those of a source that was unpickled and not used yet."""
        if name not in RecordFaces.__annotations__:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        self._open()
        return getattr(self, name)

    def __len__(self) -> int:
        return len(self._offsets)

    def read(self, i: int) -> bytes | memoryview:
        """The encoded image `i`: a view of the mapped file, or bytes where the record had to be joined."""
        view, offset = self._view, int(self._offsets[i])
        magic, lrec, flag = START.unpack_from(view, offset)
        start, end = offset + MIN_RECORD + 4 * flag, offset + FRAME.size + lrec
        if magic == MAGIC and lrec <= MAX_LENGTH and start <= end <= len(view):
            return view[start:end]
        name = self.key(i)  # a split record, or a file that was changed after it was indexed
        return unpack(read_record(view, offset, name)[0], name).payload

    def key(self, i: int) -> str:
        """FILE.rec:KEY, where KEY is the record's number in the .idx."""
        return f"{self.rec.name}:{self._keys[i]}"

    def fingerprint(self) -> str:
        """Hex SHA-256 over the images' (key, size), sorted by key."""
        return self._fingerprint


def excluded_keys(file: Path, rec: str) -> NDArray[np.int64]:
    """The record keys that a list file names. InputError for a line that is neither REC:KEY nor KEY."""
    keys = []
    for name in read_names(file):
        number = name.removeprefix(f"{rec}:")
        if not (number.isascii() and number.isdecimal() and len(number) < 19):
            raise InputError(f"{file}: names {visible(name)[:80]!r}; wanted records of {rec}, as in {rec}:17")
        keys.append(int(number))
    return np.array(keys, np.int64)


def map_file(path: Path) -> mmap.mmap:
    """Map a .rec file for reading; the map does not share a file position with anything."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < MIN_RECORD:
            raise InputError(f"{path}: has {size} bytes, wanted a .rec file, {MIN_RECORD} bytes or more")
        return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)


def check_property(rec: Path, identities: int) -> None:
    """Compare with the file `property` beside the .rec; its first line is "classes,112,112"."""
    path = rec.parent / "property"
    if not path.exists():
        return
    with path.open("rb") as file:
        line = file.readline(100).strip()
    fields = line.split(b",")
    if len(fields) != 3 or not all(field.strip().isdigit() for field in fields):
        raise InputError(f"{path}: holds {line!r}, wanted identities,height,width as in 100,{SIZE},{SIZE}")
    classes, height, width = map(int, fields)
    if (height, width) != (SIZE, SIZE):
        raise InputError(f"{path}: says that the images are {width}x{height} px, wanted {SIZE}x{SIZE}")
    if classes < identities:
        log.warning("%s: says %d identities, but %s holds %d", path, classes, rec.name, identities)


class RecordWriter:
    """A context in which records are appended to NAME.rec and NAME.idx; both end up whole or not there.

    The .rec takes its name last. Records go to the disk as they come.
    """

    def __init__(self, rec: Path) -> None:
        self.rec = Path(rec)
        if idx_path(self.rec) == self.rec:
            raise InputError(f"{rec}: wanted a name that does not end in .idx")
        self._stack = ExitStack()
        self._last_key = -1

    def __enter__(self) -> RecordWriter:
        with self._stack as stack:
            rec = stack.enter_context(atomic_path(self.rec))
            idx = stack.enter_context(atomic_path(idx_path(self.rec)))
            self._rec, self._idx = stack.enter_context(rec.open("wb")), stack.enter_context(idx.open("wb"))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, key: int, payload: bytes) -> None:
        """Append one record; `payload` is what `pack` returns. Raises InputError if keys do not rise."""
        if key <= self._last_key:
            raise InputError(f"{self.rec}: record {key} comes after {self._last_key}, wanted rising keys")
        if len(payload) > MAX_LENGTH:
            raise InputError(f"{self.rec}: record {key} has {len(payload)} bytes, at most {MAX_LENGTH} fit")
        self._last_key = key
        self._idx.write(b"%d\t%d\n" % (key, self._rec.tell()))
        self._rec.writelines(frames(payload))

    def replace_first(self, payload: bytes) -> None:
        """Write the first record again; it must take as many bytes as before."""
        self._rec.seek(0)
        self._rec.writelines(frames(payload))
        self._rec.seek(0, os.SEEK_END)


def write_pack(rec: Path, images: Iterable[tuple[int, bytes]], identities: int | None = None) -> None:
    """Write (label, encoded image) as a pack in InsightFace's layout: NAME.rec, NAME.idx and `property`.

    Images of one label must follow each other; they are written as they come, so any number fits in memory.
    `property` gets `identities`, or the highest label + 1. Labels and key ranges are stored as float32, exact
    up to 2^24: labels from there on are refused, and of more images MXNet's readers get rounded ranges
    (RecordFaces finds the boundary). Raises InputError for no images, labels that are not grouped and labels
    that are not below `identities`.
    """
    limit = EXACT if identities is None else min(EXACT, identities)
    firsts, seen, last = array("q"), set[int](), None
    with RecordWriter(rec) as writer:
        writer.write(0, pack((0.0, 0.0), 0, b"", id2=1))  # filled in when the counts are known
        key = 0
        for label, image in images:
            key += 1
            if label != last:
                if label in seen or not 0 <= operator.index(label) < limit:
                    wanted = f"labels from 0 to {limit - 1}, each in one run"
                    raise InputError(f"{rec}: image {key} has the label {label}, wanted {wanted}")
                seen.add(label)
                firsts.append(key)
                last = label
            writer.write(key, pack(float(label), key, image))
        if not firsts:
            raise InputError(f"{rec}: no images to write")
        firsts.append(key + 1)
        for start, end in pairwise(firsts):
            key += 1
            writer.write(key, pack((float(start), float(end)), key, b""))
        writer.replace_first(pack((float(firsts[-1]), float(key + 1)), 0, b"", id2=1))
        with atomic_path(rec.parent / "property") as temporary:
            temporary.write_text(f"{max(seen) + 1 if identities is None else identities},{SIZE},{SIZE}\n")
