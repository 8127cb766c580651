"""Pair lists in LFW's format (vis-www.cs.umass.edu/lfw, View 2): `pairs.txt`, images NAME/NAME_0001.jpg.

The first line is `FOLDS<TAB>N`; then, fold after fold, N lines `NAME<TAB>i<TAB>j` (the same person) and N
lines `NAME<TAB>i<TAB>OTHER<TAB>j` (two people).
"""

from __future__ import annotations

from pathlib import Path

from mobileface.errors import InputError

Pair = tuple[str, str, bool, int]  # two image paths below the data set's folder, same person?, fold from 0
MAX_BYTES = 1 << 26  # a list of a million pairs; bounds what a hostile file makes us read


def read_lfw_pairs(path: Path) -> list[Pair]:
    """The pairs of a list in LFW's format. Raises InputError with the line's number for a bad one."""
    lines = read_lines(path)
    folds, per_kind = _read_header(path, lines[0] if lines else "")
    rows = [(number, line) for number, line in enumerate(lines[1:], start=2) if line.strip()]
    wanted = folds * 2 * per_kind
    if len(rows) != wanted:
        raise InputError(
            f"{path}: holds {len(rows)} pairs, wanted {wanted} ({folds} folds of {per_kind} same and "
            f"{per_kind} different, as its first line says)"
        )
    return [(*_read_pair(path, number, line), index // (2 * per_kind)) for index, (number, line) in enumerate(rows)]


def read_lines(path: Path) -> list[str]:
    """The lines of a text file of at most 64 MiB, as UTF-8. Raises InputError for anything else."""
    if not path.is_file():
        raise InputError(f"{path}: not found, wanted a list of pairs")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InputError(f"{path}: is larger than {MAX_BYTES} bytes, wanted a list of pairs")
    try:
        return data.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is no UTF-8, wanted a list of pairs as text") from None


def is_plain(part: str) -> bool:
    """Whether one part of a path names something in its own folder."""
    return part not in ("", ".", "..") and not any(bad in part for bad in "/\\\0")


def check_part(part: str, where: str) -> str:
    """Hand on one part of an image's path, or raise InputError if it could lead out of the folder."""
    if not is_plain(part):
        raise InputError(f"{where}: {part!r} is no plain name, wanted a folder or file inside the data set")
    return part


def read_number(text: str, where: str) -> int:
    """A whole number of one to nine digits, or InputError."""
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise InputError(f"{where}: {text!r} is no whole number")
    return int(text)


def _read_header(path: Path, line: str) -> tuple[int, int]:
    parts = line.split()
    if len(parts) != 2:
        raise InputError(f"{path}: line 1 is {line[:80]!r}, wanted two numbers: folds and pairs of each kind")
    folds, per_kind = (read_number(part, f"{path}: line 1") for part in parts)
    if folds < 2 or per_kind < 1:
        raise InputError(f"{path}: line 1 says {folds} folds of {per_kind}, wanted at least 2 folds of 1")
    return folds, per_kind


def _read_pair(path: Path, number: int, line: str) -> tuple[str, str, bool]:
    where = f"{path}: line {number}"
    parts = line.strip().split("\t") if "\t" in line else line.split()
    if len(parts) not in (3, 4):
        raise InputError(
            f"{where} is {line[:80]!r}, wanted NAME, i, j for the same person or NAME, i, OTHER, j for two"
        )
    same = len(parts) == 3
    other = parts[0] if same else parts[2]
    return _image(where, parts[0], parts[1]), _image(where, other, parts[-1]), same


def _image(where: str, name: str, number: str) -> str:
    check_part(name, where)
    return f"{name}/{name}_{read_number(number, where):04d}.jpg"
