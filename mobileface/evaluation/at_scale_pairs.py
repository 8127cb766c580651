"""Two feature files, or one with itself, and whose row is whose: what scoring at scale goes through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mobileface.data.features import Features, check_features, read_features
from mobileface.errors import InputError
from mobileface.files import sha256

STRANGERS = (b"-1", b"distractor")  # in a label file: nobody's mate, not even another stranger's
MAX_LABEL = 1 << 10  # bytes of a line

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Side:
    """The rows of one file: features (N, D) as mapped, lengths (N,), person (N,), below 0 for a stranger.

    A row of zeros, length 0, is empty: of what it stands for nothing could be embedded.
    """

    path: Path
    features: Features
    lengths: Floats
    person: Ints

    def units(self, rows: slice | Ints) -> Features:
        """(R, D) rows of length one: each number divided by its row's length in float64, rounded to float32 once.

        These are the rows that all scores are defined by, whatever computes them. An empty one is of zeros.
        """
        part, lengths = torch.from_numpy(np.array(self.features[rows])).double(), self.lengths[rows, None]
        return part.div_(torch.from_numpy(np.where(lengths > 0, lengths, 1.0))).float().numpy()

    def empty(self, rows: slice = slice(None)) -> Ints:
        """Numbers, counted from the slice's first row, of those that are empty."""
        return np.flatnonzero(self.lengths[rows] == 0)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Each row of `probe` with each of `gallery`; with `same`, one file's rows i < j.

    genuine, impostors: how many pairs there are of each. scored: how many impostor pairs have no empty row; the others
    score below everything.
    """

    probe: Side
    gallery: Side
    same: bool
    genuine: int
    impostors: int
    scored: int
    fingerprint: dict[str, str]

    @property
    def dim(self) -> int:
        return self.probe.features.shape[1]

    @property
    def total(self) -> int:
        return self.genuine + self.impostors


def open_pairs_at_scale(probe: Path, gallery: Path | None, labels: Sequence[Path]) -> Pairs:
    """Read one feature file or two with a label file each; every row is looked at once.

    Raises InputError for what `read_features` and `check_features` refuse, files of different widths, label files that
    are not one for each feature file and one line for each row, pairs that are all genuine or all impostor.
    """
    files = [probe] if gallery is None else [probe, gallery]
    if len(labels) != len(files):
        raise InputError(f"--labels is given {len(labels)} times; wanted one for each of {len(files)} feature files")
    features = [read_features(file) for file in files]
    widths = [one.shape[1] for one in features]
    if len(set(widths)) > 1:
        raise InputError(f"{files[1]}: rows of {widths[1]} numbers; wanted {widths[0]}, as in {files[0]}")
    known: dict[bytes, int] = {}
    persons = [read_labels(label, len(one), known) for label, one in zip(labels, features, strict=True)]
    sides = [
        Side(file, one, check_features(one, file), person)
        for file, one, person in zip(files, features, persons, strict=True)
    ]
    genuine, impostors = _count(persons, len(known))
    if not (genuine and impostors):
        raise InputError(
            f"{labels[0]}: {genuine:,} of {genuine + impostors:,} pairs are genuine; wanted genuine and impostor pairs"
        )
    scored = _count([side.person[side.lengths > 0] for side in sides], len(known))[1]
    names = ("probe", "gallery")
    fingerprint = {f"{name}_sha256": sha256(file) for name, file in zip(names, files, strict=False)}
    fingerprint |= {f"{name}_labels_sha256": sha256(file) for name, file in zip(names, labels, strict=False)}
    return Pairs(sides[0], sides[-1], gallery is None, genuine, impostors, scored, fingerprint)


def _count(persons: list[Ints], known: int) -> tuple[int, int]:
    """(genuine, impostor) pairs of one side's rows, or of two sides'."""
    # Python's integers: no count overflows
    counts = [np.bincount(person[person >= 0], minlength=known).astype(object) for person in persons]
    rows = [len(person) for person in persons]
    if len(persons) == 1:
        genuine, total = int(sum(counts[0] * (counts[0] - 1))) // 2, rows[0] * (rows[0] - 1) // 2
    else:
        genuine, total = int(sum(counts[0] * counts[1])), rows[0] * rows[1]
    return genuine, total - genuine


def read_labels(path: Path, count: int, known: dict[bytes, int]) -> Ints:
    """(count,) person of each line of a text file: the line up to a tab; -1 for `-1` and `distractor`.

    `known` numbers the identities and grows. Raises InputError for an empty line and another number of lines.
    """
    person = np.full(count, -1, np.int64)
    if not path.is_file():
        raise InputError(f"{path}: no such label file; wanted one identity a line")
    with path.open("rb") as file:
        row = 0
        while line := file.readline(MAX_LABEL + 1):
            name = line.partition(b"\t")[0].strip()
            if not name or len(line) > MAX_LABEL:
                found = f"is longer than {MAX_LABEL} bytes" if name else "is empty"
                raise InputError(f"{path}: line {row + 1} {found}; wanted an identity, or -1")
            if row == count:
                raise InputError(f"{path}: more than {count:,} lines; wanted one for each row")
            if name not in STRANGERS:
                person[row] = known.setdefault(name, len(known))
            row += 1
    if row != count:
        raise InputError(f"{path}: {row:,} lines; wanted {count:,}, one for each row")
    return person
