"""Videos as frames: what a folder of frame folders, the challenge's list or a table of marked frames holds.

A folder: `DIR/VIDEO/frame.jpg`; videos and frames in the order of their names, numbers by value (9 before 10).

`filelist.txt` (LFRC, 203,848 videos at 8 frames a second), beside what it names. The first word of a line is

- a video: its frames are the images in that folder, as InsightFace's `challenges/iccv19-lfr/gen_video_feature.py`
  reads the challenge's list (which takes them in no order; ours is that of their names), or
- a frame, `video/frame.jpg`: told by its suffix; the lines of one video stand together.

What else a line holds is not looked at. One list holds lines of one kind.

A table, `.tsv`, tab-separated with a header: `track`, `file`, and for marked frames `is_noise` (0 or 1), maybe
`noise_kind`. `file` is a path below the table's folder, of whatever video.

Videos are gone through one at a time; a list is read anew for it. Only their names are held.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mobileface.data.folder import SUFFIXES
from mobileface.data.images import MAX_BYTES, BadImage
from mobileface.data.lfw import is_plain
from mobileface.errors import InputError

LIST, TABLE = "filelist.txt", ".tsv"
MAX_LINE = 1 << 14  # bytes
UNMARKED, GOOD, NOISE = None, "", "noise"


@dataclass(frozen=True)
class Video:
    """frames: paths below the root, in the order of time. marks: for each frame the kind of noise that somebody says
    it is, "" for a frame of the video; None where nobody has said anything."""

    name: str
    frames: tuple[str, ...]
    marks: tuple[str, ...] | None = None


class Videos:
    """Videos below `root`, each once, always in the same order. whole: their frames may lie anywhere in it."""

    def __init__(
        self,
        root: Path,
        names: list[str],
        walk: Callable[[], Iterator[Video]],
        marked: bool = False,
        whole: bool = False,
    ) -> None:
        self.root, self.names, self.marked, self.whole, self._walk = root, names, marked, whole, walk

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Video]:
        return self._walk()

    def holds(self, folder: Path) -> bool:
        """Whether what is written into `folder` would become a video, or a part of one."""
        real, named = ([way(path) for path in (self.root, folder)] for way in (os.path.realpath, os.path.abspath))
        for root, place in (map(Path, real), map(Path, named)):  # by its names too, where a link leads elsewhere
            if place.is_relative_to(root):
                below = place.relative_to(root)
                if self.whole or not {str(below), *map(str, below.parents)}.isdisjoint(self.names):
                    return True
        return False

    def read(self, frame: str) -> bytes:
        """The encoded frame, no more of it than an image may have. BadImage where there is none."""
        path = self.root / frame
        try:
            if not stat.S_ISREG(path.stat().st_mode):  # to open a pipe would wait for its writer
                raise BadImage(f"{frame}: is no regular file")
            with path.open("rb") as file:
                return file.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:  # ValueError: a name with a null byte
            raise BadImage(f"{frame}: cannot be read ({getattr(error, 'strerror', error)})") from None


def open_videos(path: Path) -> Videos:
    """The videos of a folder, a list (`.txt`, or a folder with a filelist.txt) or a table (`.tsv`).

    Raises InputError for anything else, for a line that cannot be used and for names that occur twice.
    """
    if path.is_dir():
        listed = path / LIST
        return _listed(listed) if listed.is_file() else _folders(path)
    if path.suffix not in READERS or not path.is_file():
        found = "is of no known kind" if path.exists() else "not found"
        raise InputError(f"{path}: {found}; wanted a folder of frame folders, a {LIST} or a .tsv")
    return _listed(path)


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """(where it stands, text) of each line that is not empty; read as they are asked for. Raises InputError."""
    with path.open("rb") as file:
        for number in itertools.count(1):
            line = file.readline(MAX_LINE + 1)
            if not line:
                return
            where = f"{path}: line {number}"
            if len(line) > MAX_LINE:
                raise InputError(f"{where} is longer than {MAX_LINE} bytes; wanted a name")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                raise InputError(f"{where} is no UTF-8; wanted text") from None
            if text.strip():
                yield where, text


class _Row(NamedTuple):
    """A line: a frame of a video (None: all images of the folder of that name), and its mark."""

    where: str
    video: str
    frame: str | None
    mark: str | None


def _folders(root: Path) -> Videos:
    with os.scandir(root) as entries:
        names = sorted((e.name for e in entries if e.is_dir() and not e.name.startswith(".")), key=_natural)
    if not names:
        raise InputError(f"{root}: holds no video; wanted VIDEO/frame.jpg, or a {LIST} that names them")
    return Videos(root, names, lambda: (Video(name, _frames_in(root, name)) for name in names), whole=True)


def _frames_in(root: Path, video: str) -> tuple[str, ...]:
    """Images in a video's folder; none where there is no such folder."""
    if not (root / video).is_dir():
        return ()
    with os.scandir(root / video) as entries:
        names = [e.name for e in entries if e.name.lower().endswith(SUFFIXES) and not e.name.startswith(".")]
    return tuple(f"{video}/{name}" for name in sorted(names, key=_natural))


def _natural(name: str) -> tuple[list[str | int], str]:
    """The sort key that has f9 before f10: texts and numbers in turns, so that like is compared with like.

    Of f1 and f01, equal by value, the letters decide: no order is left to the file system.
    """
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", name))], name


def _listed(path: Path) -> Videos:
    """The videos of a list or table; one pass checks all of it."""
    rows, repeats = READERS[path.suffix]
    seen: dict[str, set[str | None]] = {}
    name, marked = None, False
    for row in rows(path):
        if row.video != name:
            if row.video in seen:
                raise InputError(f"{row.where} names video {row.video!r} again; wanted each once, its lines together")
            if name is not None:
                seen[name] = set()  # its frames are not asked for again
            name, marked = row.video, row.mark is not UNMARKED
        frames = seen.setdefault(name, set())
        if row.frame in frames and not repeats:
            raise InputError(f"{row.where} names {row.frame or row.video!r} again; wanted each once")
        frames.add(row.frame)
    if not seen:
        raise InputError(f"{path}: is empty; wanted a line for each video or frame")

    def walk() -> Iterator[Video]:
        for name, group in itertools.groupby(rows(path), key=lambda row: row.video):
            own = list(group)
            frames = tuple(row.frame for row in own if row.frame is not None)
            marks = tuple(row.mark for row in own if row.mark is not UNMARKED)
            yield Video(name, frames or _frames_in(path.parent, name), marks or None)

    return Videos(path.parent, list(seen), walk, marked, whole=path.suffix == TABLE)


def _list_rows(path: Path) -> Iterator[_Row]:
    kinds = set()
    for where, line in lines(path):
        word = inside(line.split()[0], where)
        is_frame = word.lower().endswith(SUFFIXES)
        if is_frame and "/" not in word:
            raise InputError(f"{where} is {word!r}, a frame of no video; wanted VIDEO/FRAME")
        kinds.add(is_frame)
        if len(kinds) > 1:
            raise InputError(f"{where} names a {'frame' if is_frame else 'video'}, the lines above it do not")
        yield _Row(where, word.rpartition("/")[0] if is_frame else word, word if is_frame else None, UNMARKED)


def _table_rows(path: Path) -> Iterator[_Row]:
    found = lines(path)
    where, header = next(found, (str(path), ""))
    columns = {name: place for place, name in enumerate(header.split("\t"))}
    if missing := [name for name in ("track", "file") if name not in columns]:
        raise InputError(f"{where} has no column {missing[0]!r}; wanted a header with track, file and maybe is_noise")
    for where, line in found:
        cells = line.split("\t")
        if len(cells) < len(columns):
            raise InputError(f"{where} has {len(cells)} columns; wanted {len(columns)}")
        mark = UNMARKED
        if "is_noise" in columns:
            noise = cells[columns["is_noise"]]
            if noise not in ("0", "1"):
                raise InputError(f"{where} has is_noise {noise[:20]!r}; wanted 0 or 1")
            kind = cells[columns["noise_kind"]] if "noise_kind" in columns else ""
            mark = (kind.strip() or NOISE) if noise == "1" else GOOD
        yield _Row(where, cells[columns["track"]], inside(cells[columns["file"]], where), mark)


# suffix -> (reader, whether a video may have a frame more than once, as one does that noise was put into)
READERS: dict[str, tuple[Callable[[Path], Iterator[_Row]], bool]] = {
    ".txt": (_list_rows, False),
    TABLE: (_table_rows, True),
}


def inside(path: str, where: str) -> str:
    """Hand on a path below the root, or raise InputError for one that could lead out of it."""
    if not all(map(is_plain, path.split("/"))):
        raise InputError(f"{where} is {path[:80]!r}; wanted a path below the list's own folder, without . and ..")
    return path
