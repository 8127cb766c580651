"""What cleaning at a threshold does to a set of videos: how much goes, is it noise, are people told apart better.

The analogue of Table 5 of the progressive framework, whose first row (threshold 0) is "no cleaning".
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobileface.errors import InputError
from mobileface.evaluation import scores as sc
from mobileface.video.clean import Cleaned
from mobileface.video.tracks import GOOD, Videos, lines

FARS = {"1e-2": 1e-2, "1e-3": 1e-3, "1e-4": 1e-4}  # 1e-4: track 3 of LFRC
MAX_EXACT = 4000  # videos whose pairs are all held: 8 million


class Row:
    """One line of a sweep, filled video by video; threshold None is no cleaning."""

    def __init__(self, threshold: float | None) -> None:
        self.threshold = threshold
        self.kept = self.noise = 0
        self.removed: Counter[str] = Counter()  # frames that were removed, by mark
        self.marked: Counter[str] = Counter()
        self.features: list[NDArray[np.float32]] = []  # of the videos whose identity is known

    def take(self, cleaned: Cleaned, marks: list[str] | None, labelled: bool) -> None:
        """Add one video's frames."""
        self.kept += int(cleaned.kept.sum())
        self.noise += int((~cleaned.kept).sum())
        if marks is not None:
            self.marked.update(marks)
            self.removed.update(mark for mark, kept in zip(marks, cleaned.kept, strict=True) if not kept)
        if labelled:
            self.features.append(cleaned.feature[0])

    def result(self, identity: NDArray[np.int64] | None) -> dict[str, Any]:
        """Plain numbers; with marks `removal`, with identities (of the videos that were labelled) `verification`."""
        found: dict[str, Any] = {"threshold": self.threshold, "kept": self.kept, "noise": self.noise}
        if self.marked:
            found["removal"] = removal(self.removed, self.marked)
        if identity is not None:
            found["verification"] = verify(np.array(self.features), identity)
        return found


def removal(removed: Counter[str], marked: Counter[str]) -> dict[str, Any]:
    """Precision and recall of what was removed against what is marked as noise; recall by kind as well.

    None where nothing was removed, or nothing is noise.
    """
    right, noise = removed.total() - removed[GOOD], marked.total() - marked[GOOD]
    return {
        "precision": right / removed.total() if removed.total() else None,
        "recall": right / noise if noise else None,
        "recall_by_kind": {kind: removed[kind] / marked[kind] for kind in sorted(marked) if kind != GOOD},
    }


def verify(features: NDArray[np.float32], identity: NDArray[np.int64]) -> dict[str, Any]:
    """All pairs of videos: AUC and TAR at each FAR that their number resolves; of more than MAX_EXACT videos TAR at the
    lowest of them alone, for which the fewest impostor pairs need be kept.

    features: (V, D) unit rows. Videos without a feature (zeros) are left out and counted.
    """
    has = features.any(axis=1)
    units, who = features[has], identity[has]
    genuine = _genuine(units, who)
    impostors = sc.count_impostors(who)
    if not len(genuine) or not impostors:
        raise InputError(
            f"labels: {len(genuine)} pairs of videos of one person, {impostors} of two; wanted at least one of each"
        )
    exact = len(units) <= MAX_EXACT
    fars = {name: far for name, far in FARS.items() if sc.allowed(far, impostors) >= 1}
    fars = fars if exact else dict([min(fars.items(), key=lambda item: item[1])])
    keep = impostors if exact else sc.allowed(max(fars.values()), impostors) + 1
    highest = sc.top_impostors(units, who, keep)
    auc = None
    if exact:
        both = np.concatenate([genuine, highest])
        auc = sc.auc(*sc.roc(both, np.arange(len(both)) < len(genuine)))
    tar = {name: sc.tar_at_far(genuine, highest, impostors, far) for name, far in fars.items()}
    return {"genuine": len(genuine), "impostors": impostors, "left_out": int((~has).sum()), "auc": auc, "tar": tar}


def read_labels(path: Path, videos: Videos) -> dict[str, int]:
    """Video -> number of its identity, from a TSV: name, identity, and whatever follows; # begins a comment.

    The first line may be a header. Videos that the file does not name have no identity. Raises InputError for a
    line without an identity, a video that is named twice, and where no two videos are of one person or all of them are:
    before hours of embedding, not behind them.
    """
    if not path.is_file():
        raise InputError(f"{path}: not found; wanted lines of a video, a tab, an identity")
    known, found = set(videos.names), {}
    for number, (where, line) in enumerate(lines(path)):
        cells = line.split("\t")
        if line.startswith("#") or (number == 0 and cells[0] not in known):
            continue
        if len(cells) < 2 or not cells[1]:
            raise InputError(f"{where} is {line[:80]!r}; wanted a video, a tab, an identity")
        if cells[0] in found:
            raise InputError(f"{where} names {cells[0]!r} again; wanted each video once")
        found[cells[0]] = cells[1]
    if not known & found.keys():
        raise InputError(f"{path}: names none of the {len(known)} videos; wanted lines of a video, a tab, an identity")
    own = {video: person for video, person in found.items() if video in known}
    people = {person: number for number, person in enumerate(dict.fromkeys(own.values()))}
    if not 1 < len(people) < len(own):
        raise InputError(
            f"{path}: names {len(own)} of the videos, of {len(people)} identities; wanted two of one and one of another"
        )
    return {video: people[person] for video, person in own.items()}


def _genuine(units: NDArray[np.float32], who: NDArray[np.int64]) -> sc.Floats:
    """The cosines of all pairs of one person."""
    own = [units[who == person] for person in np.unique(who)]
    cosines = [(rows @ rows.T)[np.triu_indices(len(rows), 1)] for rows in own]
    return np.concatenate([np.empty(0), *cosines]).astype(np.float64)


def table(rows: list[dict[str, Any]]) -> list[str]:
    """A sweep's rows as lines of text."""
    titles = ["threshold", "kept", "noise"]
    if "removal" in rows[0]:
        titles += ["precision", "recall"]
    fars = list(rows[0].get("verification", {}).get("tar", {}))
    if "verification" in rows[0]:
        titles += ["AUC", *(f"TAR@{far}" for far in fars)]
    cells = [titles, *(_cells(row, fars) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(titles))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]


def _cells(row: dict[str, Any], fars: list[str]) -> list[str]:
    def number(value: float | None, digits: int = 4) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    threshold = "no cleaning" if row["threshold"] is None else f"{row['threshold']:g}"
    found = [threshold, f"{row['kept']:,}", f"{row['noise']:,}"]
    if "removal" in row:
        found += [number(row["removal"][key]) for key in ("precision", "recall")]
    if "verification" in row:
        found += [number(row["verification"]["auc"]), *(number(row["verification"]["tar"].get(far)) for far in fars)]
    return found
