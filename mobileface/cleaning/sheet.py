"""Contact sheets: what was cut, beside who was kept. One PNG for each verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mobileface.cleaning.identities import KEEP, VERDICTS, Judged, identities
from mobileface.data.images import SIZE, Image
from mobileface.errors import visible
from mobileface.files import atomic_path

KEPT = 4  # images of the kept person in a row
PICKS = 10  # cut images in a row
GAP = 24  # px between them
LINE = 16  # px of a line of text: the identity above a row, a caption below an image
ROWS = 40  # in a sheet: at most 688 KB of pixels each


@dataclass(frozen=True)
class Row:
    """One identity: `kept` and `picks` are indices of images; `hidden` picks found no place."""

    title: str
    kept: list[int]
    picks: list[int]
    hidden: int


def write_sheets(
    folder: Path, judged: Judged, labels: NDArray[np.int64], title: Callable[[int], str], read: Callable[[int], Image]
) -> list[Path]:
    """Write VERDICT.png for each verdict that cut an image; an old sheet of another verdict is removed.

    title: name of an identity, from its label. read: image (112, 112, 3) RGB, from its index; only those shown are
    read, at most ROWS x (KEPT + PICKS) a sheet.
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
        buffer = cv2.imencode(".png", cv2.cvtColor(draw(rows, judged, read), cv2.COLOR_RGB2BGR))[1]
        with atomic_path(path) as temporary:
            temporary.write_bytes(buffer.tobytes())
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


def draw(rows: Sequence[Row], judged: Judged, read: Callable[[int], Image]) -> Image:
    """(H, W, 3) RGB: a row for each identity, the kept person to the left of a gap, the cut images to its right.

    Below each image: its cosine to the person's centre, and its norm after an n.
    """
    height = 2 * LINE + SIZE
    width = KEPT * SIZE + GAP + max(len(row.picks) for row in rows) * SIZE
    sheet = np.full((len(rows) * height, width, 3), 255, np.uint8)
    for top, row in zip(range(0, len(sheet), height), rows, strict=True):
        more = f"  (+{row.hidden} more)" if row.hidden else ""
        _write(sheet, row.title + more, 2, top + LINE - 4)
        places = [(i * SIZE, image) for i, image in enumerate(row.kept)]
        places += [(KEPT * SIZE + GAP + i * SIZE, image) for i, image in enumerate(row.picks)]
        for left, image in places:
            sheet[top + LINE : top + LINE + SIZE, left : left + SIZE] = read(image)
            _write(sheet, f"{judged.cosine[image]:.2f}  n {judged.norm[image]:.1f}", left + 2, top + height - 4)
    return sheet


def _write(sheet: Image, text: str, left: int, base: int) -> None:
    """Black text; OpenCV's letters are ASCII, so what is not becomes an escape."""
    plain = visible(text).encode("ascii", "backslashreplace").decode()
    cv2.putText(sheet, plain, (left, base), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
