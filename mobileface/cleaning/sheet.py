"""Contact sheets: what was cut, beside who was kept. One PNG for each verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobileface.cleaning.identities import KEEP, VERDICTS, Judged, identities
from mobileface.data.images import SIZE, Image
from mobileface.data.sheet import Cell, draw_rows, fitted, write_png

KEPT = 4  # images of the kept person in a row
PICKS = 10  # cut images in a row
GAP = 24  # px between them
ROWS = 40  # in a sheet: at most 764 KB of pixels each
LEGEND = "left: kept, right: {}; below: cosine to the person, n norm, file"


@dataclass(frozen=True)
class Row:
    """One identity: `kept` and `picks` are indices of images; `hidden` picks found no place."""

    title: str
    kept: list[int]
    picks: list[int]
    hidden: int


def write_sheets(
    folder: Path,
    judged: Judged,
    labels: NDArray[np.int64],
    title: Callable[[int], str],
    file: Callable[[int], str],
    read: Callable[[int], Image],
) -> list[Path]:
    """Write VERDICT.png for each verdict that cut an image; an old sheet of another verdict is removed.

    title: name of an identity, from its label. file: name of an image's file, from its index. read: image
    (112, 112, 3) RGB, from its index; only those shown are read, at most ROWS x (KEPT + PICKS) a sheet.
    """
    written = []
    for verdict, name in enumerate(VERDICTS):
        path = folder / f"{name}.png"
        if verdict == KEEP:
            continue
        rows = choose(judged, labels, verdict, title)
        if not rows:
            path.unlink(missing_ok=True)
            continue
        write_png(path, draw(rows, judged, file, read, LEGEND.format(name)))
        written.append(path)
    return written


def choose(judged: Judged, labels: NDArray[np.int64], verdict: int, title: Callable[[int], str]) -> list[Row]:
    """The identities with the most images of this verdict, at most ROWS; the least similar images first."""
    rows = []
    for members in identities(labels):
        picks = members[judged.verdict[members] == verdict]
        if len(picks):
            picks = picks[np.argsort(judged.cosine[picks], kind="stable")]
            kept = members[judged.verdict[members] == KEEP][:KEPT]
            hidden = max(0, len(picks) - PICKS)
            rows.append((-len(picks), int(labels[members[0]]), kept.tolist(), picks[:PICKS].tolist(), hidden))
    return [Row(title(label), kept, picks, hidden) for _, label, kept, picks, hidden in sorted(rows)[:ROWS]]


def draw(
    rows: Sequence[Row], judged: Judged, file: Callable[[int], str], read: Callable[[int], Image], legend: str
) -> Image:
    """(H, W, 3) RGB: a row for each identity, the kept person to the left of a gap, the cut images to its right.

    Above them the legend; below each image its cosine to the person's centre, its norm after an n, and its file.
    """

    def cell(place: int, image: int) -> Cell:
        left = place * SIZE + (GAP if place >= KEPT else 0)
        numbers = f"{judged.cosine[image]:.2f}  n {judged.norm[image]:.1f}"
        return Cell(left, read(image), f"{numbers}\n{fitted(file(image))}")

    def cells(row: Row) -> list[Cell]:
        return [cell(place, image) for place, image in [*enumerate(row.kept), *enumerate(row.picks, KEPT)]]

    titles = [row.title + (f"  (+{row.hidden} more)" if row.hidden else "") for row in rows]
    return draw_rows([(title, cells(row)) for title, row in zip(titles, rows, strict=True)], legend)
