"""Similar-looking LFW (whdeng.cn/SLLFW): LFW's folds and pairs of one person, with similar-looking strangers.

`pair_SLLFW.txt`, called `pair_FGLFW.txt` before, holds 12,000 lines and no header. A line is an image's path,
`NAME/NAME_0001.jpg`, and two lines are a pair; ten folds of 600 pairs follow each other, in each first those of one
person, then those of two. (CALFW and CPLFW put a label behind the path; this list has none.) The list was not at hand:
this was read in public readers of it, which agree. Of one person is a pair whose images lie in one folder.
"""

from __future__ import annotations

from pathlib import Path

from mobileface.data.lfw import Pair, check_part, read_lines
from mobileface.errors import InputError

FOLDS = 10


def read_sllfw_pairs(path: Path) -> list[Pair]:
    """The pairs of `pair_SLLFW.txt`. Raises InputError with the line's number for a bad one."""
    rows = [(number, line.strip()) for number, line in enumerate(read_lines(path), start=1) if line.strip()]
    if not rows or len(rows) % (2 * FOLDS):
        raise InputError(f"{path}: names {len(rows)} images, wanted two a pair in {FOLDS} folds of as many pairs")
    images = [_image(line, f"{path}: line {number}") for number, line in rows]
    pairs = list(zip(images[::2], images[1::2], strict=True))
    return [
        (first, second, first.split("/")[0] == second.split("/")[0], index * FOLDS // len(pairs))
        for index, (first, second) in enumerate(pairs)
    ]


def _image(line: str, where: str) -> str:
    parts = line.split("/")
    if len(parts) != 2 or line.split() != [line]:
        raise InputError(f"{where} is {line[:80]!r}, wanted an image's path, NAME/NAME_0001.jpg")
    return "/".join(check_part(part, where) for part in parts)
