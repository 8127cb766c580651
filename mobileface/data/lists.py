"""List files: a name a line, whatever follows it behind a tab."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobileface.errors import InputError, visible

MAX_LIST_BYTES = 1 << 28

log = logging.getLogger(__name__)


def read_names(file: Path) -> dict[str, None]:
    """First column (up to a tab) of each line of a list file, in order, as keys; blank lines and lines with # are
    left out."""
    return dict.fromkeys(name for name, _ in _rows(file))


def warn_of_strangers(file: Path, strangers: Sequence[str], where: Path) -> None:
    """Say how many names of a list file, `strangers`, match nothing in `where`, and which is the first."""
    if strangers:
        _warn_once(file, len(strangers), strangers[0], where)


@functools.cache  # a run opens its sources more than once
def _warn_once(file: Path, count: int, first: str, where: Path) -> None:
    names = "1 name matches" if count == 1 else f"{count:,} names match"
    log.warning("%s", visible(f"{file}: {names} nothing in {where}{', the first' if count > 1 else ''}: {first[:200]}"))


def read_scores(file: Path, paths: Sequence[str]) -> NDArray[np.float32]:
    """(N,) the quality of each of `paths` in a list file of path, tab, number in 0..1 (more columns may follow)."""
    found: dict[str, float] = {}
    for path, rest in _rows(file):
        text = rest.split("\t", 1)[0]
        try:
            found[path] = float(text)
        except ValueError:
            raise InputError(f"{file}: {path} has the score {text[:40]!r}; wanted a number in 0..1") from None
        if not 0 <= found[path] <= 1:  # NaN fails as well
            raise InputError(f"{file}: {path} has the score {text[:40]}; wanted a number in 0..1")
    if missing := [path for path in paths if path not in found]:
        raise InputError(f"{file}: has no score for {len(missing)} of {len(paths)} images, such as {missing[0]}")
    return np.array([found[path] for path in paths], np.float32)


def _rows(file: Path) -> Iterator[tuple[str, str]]:
    """(first column, the rest) of each line of a list file."""
    if not file.is_file():
        raise InputError(f"{file}: no such list file; wanted one path or identity a line")
    if file.stat().st_size > MAX_LIST_BYTES:
        raise InputError(f"{file}: is larger than {MAX_LIST_BYTES} bytes; not a list of names")
    for line in file.read_text(encoding="utf-8-sig", errors="surrogateescape").split("\n"):
        name, _, rest = line.partition("\t")
        if (name := name.strip()) and not name.startswith("#"):
            yield name, rest
