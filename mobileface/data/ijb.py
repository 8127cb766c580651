"""IJB-B and IJB-C (NIST) as InsightFace packs them: `meta/` and `loose_crop/`.

With ijbc for ijbb alike:

    meta/ijbb_face_tid_mid.txt          image, template, medium: `1.jpg 1 69544`, one image a line
    meta/ijbb_name_5pts_score.txt       the same images in this order: name, x and y of five points, detector's score
    meta/ijbb_template_pair_label.txt   two templates and 1 (one person) or 0, the pairs of the 1:1 protocol
    meta/ijbb_1N_gallery_S1.csv, …_S2.csv, ijbb_1N_probe_mixed.csv     TEMPLATE_ID,SUBJECT_ID,… with a header; IJB-C
                                        calls the galleries G1 and G2. 1:N is judged where all three are there
    loose_crop/1.jpg                    cut loosely; aligned here by the five points

The files were not at hand: this was read in the public readers of them, which agree.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from mobileface.data.faces import UNLABELLED
from mobileface.data.image_files import ImageFiles, check_there
from mobileface.data.searches import IdentificationSet, Members, Search
from mobileface.errors import InputError

MAX_LIST_BYTES = 1 << 30  # the 15.7 million pairs of IJB-C are 0.25 GB
MAX_LINE = 1 << 16  # characters
GALLERIES = {"ijbb": ("S1", "S2"), "ijbc": ("G1", "G2")}
POINTS = "name_5pts_score"
# from InsightFace's PR #1349 (IJB-B); IJB-C's are the lines of the two lists, as public notes on them count
OFFICIAL = {
    "ijbb": {"images": 227_630, "templates": 12_115, "pairs": 8_010_270},
    "ijbc": {"images": 469_375, "pairs": 15_658_489},
}
FPIRS = {"1e-2": 0.01, "1e-1": 0.1}


@dataclass(frozen=True, eq=False)
class TemplatePairs:
    """P pairs of T templates: the 1:1 protocol. `search` is the 1:N one, of the same images and templates."""

    name: str
    files: ImageFiles
    members: Members
    first: NDArray[np.int64]  # (P,), 0..T-1
    second: NDArray[np.int64]  # (P,)
    same: NDArray[np.bool_]  # (P,)
    search: IdentificationSet | None
    counts: dict[str, int]
    official: dict[str, int]


def read_ijb(folder: Path, name: str) -> TemplatePairs:
    """`name` is ijbb or ijbc. A template that the lists name and that has no image is empty, and stays.

    Raises InputError, with the file's name and mostly the line's number, for lists that are not of the form above.
    """
    meta = folder / "meta"
    keys, template, media = _read_members(meta / f"{name}_face_tid_mid.txt")
    landmarks, detector = _read_points(meta / f"{name}_{POINTS}.txt", keys)
    files = ImageFiles(folder / "loose_crop", keys, landmarks)
    check_there(files, name)
    first, second, label = _read_numbers(meta / f"{name}_template_pair_label.txt", 3)
    if not np.isin(label, (0, 1)).all() or not 0 < label.sum() < len(label):
        raise InputError(f"{meta}: the pairs' labels are {np.unique(label)[:5].tolist()}, wanted 0 and 1, some of each")
    lists = [meta / f"{name}_1N_gallery_{which}.csv" for which in GALLERIES[name]]
    lists.append(meta / f"{name}_1N_probe_mixed.csv")
    searched = [_read_subjects(path) for path in lists] if all(path.is_file() for path in lists) else []
    known = np.unique(np.concatenate([template, first, second, *(part[0] for part in searched)]))
    members = Members(len(known), np.arange(len(keys)), np.searchsorted(known, template), media, detector)
    return TemplatePairs(
        name=name,
        files=files,
        members=members,
        first=np.searchsorted(known, first),
        second=np.searchsorted(known, second),
        same=label == 1,
        search=_search(f"{name}-1n", files, members, known, searched) if searched else None,
        counts={"images": len(keys), "templates": len(np.unique(template)), "pairs": len(label)},
        official=OFFICIAL[name],
    )


def _search(
    name: str, files: ImageFiles, members: Members, known: NDArray[np.int64], lists: list[NDArray[np.int64]]
) -> IdentificationSet:
    """lists: (2, n) templates and subjects of the two galleries and of the probes."""
    identity = np.full(len(known), UNLABELLED, np.int64)
    for templates, subjects in lists:
        places = np.searchsorted(known, templates)
        twice = (identity[places] != UNLABELLED) & (identity[places] != subjects)
        if twice.any():
            raise InputError(
                f"{files.folder.parent}: the lists of 1:N give template {templates[twice][0]} to two people"
            )
        identity[places] = subjects
    one, two, probes = (np.searchsorted(known, templates) for templates, _ in lists)
    return IdentificationSet(
        name=name,
        files=files,
        identity=identity,
        searches=(Search("mixed media", probes, (one, two)),),
        ranks=(1, 5, 10),
        members=members,
        joined=False,
        fpirs=FPIRS,
        notes=("each gallery is searched alone, as NIST's protocol says; InsightFace's script searches both as one",),
    )


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(number of its line from 1, columns) of each row of a .csv behind its header, one at a time. InputError for lines
    that are too long or no text, and for a first line that is no header: it would be lost."""
    if not path.is_file():
        raise InputError(f"{path}: not found, wanted a list with a header")
    with path.open(encoding="utf-8", newline="") as file:
        try:
            rows = csv.reader((line for _, line in _lines(file, path)), strict=True)
            header = next(rows, None) or [""]
            if header[0].strip().isdigit() or "/" in header[0]:
                raise InputError(f"{path}: line 1 begins with {header[0][:40]!r}, wanted a header")
            yield from ((rows.line_num, row) for row in rows if row)
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{path}: no readable .csv ({error})") from None


def whole(text: str, where: str) -> int:
    """A whole number of at most 18 digits, or InputError."""
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InputError(f"{where}: {text[:40]!r} is no whole number")
    return int(text)


def _read_subjects(path: Path) -> NDArray[np.int64]:
    """(2, n): templates, rising, and whose each is."""
    owner: dict[int, int] = {}
    for number, row in csv_rows(path):
        if len(row) < 2:
            raise InputError(f"{path}: line {number} has {len(row)} columns, wanted TEMPLATE_ID,SUBJECT_ID,…")
        template, subject = (whole(part, f"{path}: line {number}") for part in row[:2])
        if owner.setdefault(template, subject) != subject:
            raise InputError(f"{path}: line {number} gives template {template} to a second person")
    if not owner:
        raise InputError(f"{path}: names no template")
    return np.array(sorted(owner.items()), np.int64).T


def _read_members(path: Path) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.int64]]:
    keys, numbers = [], []
    for number, parts in _rows(path, 3):
        if "/" in parts[0] or parts[0].startswith("."):
            raise InputError(f"{path}: line {number}: {parts[0][:80]!r} is no plain name of a file")
        keys.append(parts[0])
        numbers.append([whole(part, f"{path}: line {number}") for part in parts[1:]])
    if not keys:
        raise InputError(f"{path}: names no image")
    both = np.array(numbers, np.int64)
    return tuple(keys), both[:, 0], both[:, 1]


def _read_points(path: Path, keys: tuple[str, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Landmarks (N, 5, 2) and detector's scores (N,) of the images `keys`, which the file names in that order."""
    found = np.empty((len(keys), 11), np.float32)
    count = 0
    for number, parts in _rows(path, 12):
        if count >= len(keys) or parts[0] != keys[count]:
            wanted = keys[count] if count < len(keys) else "no further line"
            raise InputError(
                f"{path}: line {number} is of {parts[0][:80]}, wanted {wanted}, as in the list of templates"
            )
        try:
            with np.errstate(over="ignore"):  # what is too large for float32 is not finite, and refused below
                found[count] = [float(part) for part in parts[1:]]
        except ValueError:
            raise InputError(f"{path}: line {number} holds something else than numbers behind the name") from None
        count += 1
    if count < len(keys):
        raise InputError(f"{path}: names {count} images, wanted {len(keys)}, as in the list of templates")
    if not np.isfinite(found).all() or (found[:, 10] < 0).any():
        raise InputError(f"{path}: holds a number that is not finite, or a score below 0")
    return found[:, :10].reshape(-1, 5, 2), found[:, 10]


def _rows(path: Path, columns: int) -> Iterator[tuple[int, list[str]]]:
    """(number from 1, its columns) of each line of a list whose columns are divided by spaces."""
    check_list(path)
    with path.open(encoding="utf-8", errors="backslashreplace") as file:
        for number, line in _lines(file, path):
            if parts := line.split():
                if len(parts) != columns:
                    raise InputError(f"{path}: line {number} has {len(parts)} columns, wanted {columns}")
                yield number, parts


def _lines(file: TextIO, path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of each line, with its end. InputError for one that is longer than any honest one."""
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), ""), start=1):
        if len(line) == MAX_LINE:
            raise InputError(f"{path}: line {number} has {MAX_LINE} characters or more, wanted a list")
        yield number, line


def check_list(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path}: not found, wanted a list")
    if not 0 < path.stat().st_size <= MAX_LIST_BYTES:
        raise InputError(f"{path}: has {path.stat().st_size} bytes, wanted a list of 1 to {MAX_LIST_BYTES} bytes")


def _read_numbers(path: Path, columns: int) -> NDArray[np.int64]:
    """(columns, P) whole numbers, read by NumPy: the lists of pairs are long."""
    check_list(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # that there is no data
            found = np.loadtxt(path, np.int64, comments=None, ndmin=2, encoding="utf-8")
    except ValueError as error:
        raise InputError(f"{path}: wanted {columns} whole numbers a line ({str(error)[:120]})") from None
    if found.shape[1] != columns or not len(found):
        raise InputError(f"{path}: has {found.shape[1]} columns, wanted {columns} whole numbers a line")
    return found.T
