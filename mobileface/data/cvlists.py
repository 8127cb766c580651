"""Pair lists of Cross-Age LFW, Cross-Pose LFW (whdeng.cn/CALFW, whdeng.cn/CPLFW) and AgeDB-30.

`pairs_CALFW.txt` and `pairs_CPLFW.txt` hold 12,000 lines, `NAME_0001.jpg LABEL`; two lines with one label are a pair.
0 says that it is of two people, any other number of one. (CALFW's pairs of one person come first, with their fold, 1
to 10, as the label; its list does not say which fold a pair of two is in.) The images lie in `aligned images/`. The
pairs of each kind, in their order, are ten equal blocks, one a fold: that is CALFW's own numbering.

`agedb_30_pair.txt` holds a pair a line, `FIRST SECOND LABEL` with 1 for one person, in ten folds of as many lines; the
images lie in `agedb30_align_112/`. The lists were not at hand: this was read in public readers of them, which agree.
"""

from __future__ import annotations

from pathlib import Path

from mobileface.data.lfw import Pair, check_part, read_lines, read_number
from mobileface.errors import InputError

FOLDS = 10


def read_two_line_pairs(path: Path) -> list[Pair]:
    """The pairs of CALFW's or CPLFW's list. Raises InputError with the line's number for a bad one."""
    rows = [(*_columns(line, 2, where), where) for where, line in _lines(path)]
    if not rows or len(rows) % 2:
        raise InputError(f"{path}: names {len(rows)} images, wanted two a pair")
    pairs = []
    for (first, label, _), (second, again, where) in zip(rows[::2], rows[1::2], strict=True):
        if label != again:
            raise InputError(f"{where} has the label {again}, wanted {label}, that of the line before: they are a pair")
        pairs.append((first, second, read_number(label, where) != 0))
    return _in_folds(pairs)


def read_agedb_pairs(path: Path) -> list[Pair]:
    """The pairs of AgeDB-30's list. Raises InputError with the line's number for a bad one."""
    rows = [(*_columns(line, 3, where), where) for where, line in _lines(path)]
    if not rows or len(rows) % FOLDS:
        raise InputError(f"{path}: holds {len(rows)} pairs, wanted {FOLDS} folds of as many")
    return [
        (first, second, read_number(label, where) != 0, index * FOLDS // len(rows))
        for index, (first, second, label, where) in enumerate(rows)
    ]


def person_of(key: str) -> str:
    """Whose image it is: NAME of `NAME_0001.jpg`."""
    return key.rpartition("_")[0] or key


def _in_folds(pairs: list[tuple[str, str, bool]]) -> list[Pair]:
    """Each pair with its fold: the pairs of its kind are ten blocks, as equal as can be."""
    counts = {kind: sum(same == kind for _, _, same in pairs) for kind in (True, False)}
    seen = {True: 0, False: 0}
    found = []
    for first, second, same in pairs:
        found.append((first, second, same, seen[same] * FOLDS // counts[same]))
        seen[same] += 1
    return found


def _lines(path: Path) -> list[tuple[str, str]]:
    return [(f"{path}: line {i}", line) for i, line in enumerate(read_lines(path), start=1) if line.strip()]


def _columns(line: str, count: int, where: str) -> list[str]:
    """The columns of a line: images first, a label last."""
    parts = line.split()
    if len(parts) != count:
        wanted = "NAME_0001.jpg LABEL" if count == 2 else "FIRST SECOND LABEL"
        raise InputError(f"{where} is {line.strip()[:80]!r}, wanted {wanted}")
    return [*("/".join(check_part(part, where) for part in image.split("/")) for image in parts[:-1]), parts[-1]]
