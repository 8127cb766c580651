"""Celebrities in Frontal-Profile in the Wild (cfpw.io): its folder and its official protocol.

`Protocol/Pair_list_F.txt` and `Pair_list_P.txt` number the frontal and the profile images, one a line:
`17 ../Data/Images/002/frontal/07.jpg`. `Protocol/Split/{FF,FP}/01..10/{same,diff}.txt` hold pairs of these
numbers, `5,1`. In FF both are frontal; in FP the first is frontal, the second is a profile. The images lie
at `002/frontal/07.jpg` below the data set's folder.
"""

from __future__ import annotations

from pathlib import Path

from mobileface.data.lfw import Pair, check_part, read_lines, read_number
from mobileface.errors import InputError

FOLDS = 10
PREFIX = "../Data/Images/"


def read_cfp_pairs(folder: Path, views: str) -> list[Pair]:
    """The 7,000 pairs of `views` "FF" or "FP". Raises InputError with the line's number for a bad one."""
    protocol = folder / "Protocol"
    first, second = (_read_numbering(protocol / f"Pair_list_{view}.txt") for view in views)
    pairs: list[Pair] = []
    for fold in range(FOLDS):
        for name, same in (("same", True), ("diff", False)):
            path = protocol / "Split" / views / f"{fold + 1:02d}" / f"{name}.txt"
            for number, line in enumerate(read_lines(path), start=1):
                if line.strip():
                    where = f"{path}: line {number}"
                    i, j = _read_indices(line, where)
                    pairs.append((_pick(first, i, where), _pick(second, j, where), same, fold))
    return pairs


def _read_numbering(path: Path) -> list[str]:
    """Image paths below the data set's folder; the image numbered i is at place i - 1."""
    images: list[str] = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        parts = line.split()
        if len(parts) != 2 or not parts[1].startswith(PREFIX):
            raise InputError(f"{where} is {line[:80]!r}, wanted a number and a path below {PREFIX}")
        if read_number(parts[0], where) != len(images) + 1:
            raise InputError(f"{where} has number {parts[0]}, wanted {len(images) + 1}")
        image = parts[1].removeprefix(PREFIX)
        for part in image.split("/"):
            check_part(part, where)
        images.append(image)
    return images


def _read_indices(line: str, where: str) -> tuple[int, int]:
    parts = line.strip().split(",")
    if len(parts) != 2:
        raise InputError(f"{where} is {line[:80]!r}, wanted two numbers with a comma between")
    return read_number(parts[0].strip(), where), read_number(parts[1].strip(), where)


def _pick(images: list[str], number: int, where: str) -> str:
    if not 1 <= number <= len(images):
        raise InputError(f"{where} names image {number}, wanted 1 to {len(images)}")
    return images[number - 1]
