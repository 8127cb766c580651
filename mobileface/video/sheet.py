"""Contact sheets of the videos with the most noise, noise frames framed in red (as in Fig. 4 of the paper)."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobileface.data.images import SIZE, BadImage, Image
from mobileface.data.sheet import Cell, draw_rows, fitted, write_png
from mobileface.video.clean import Cleaned

SHEET = re.compile(r"noise-[0-9]+\.png")
FRAMES = 14  # of a video
VIDEOS, ROWS = 60, 20  # in all, on a sheet
RED, BORDER = (255, 0, 0), 5  # RGB, px
GONE = 200  # grey of a frame that can no longer be read
LEGEND = "frames in order, noise in red; below: cosine to the video's feature, n quality, c component (0 is kept); file"


@dataclass(frozen=True)
class Shown:
    """A frame, whether it is noise, and what is written below it."""

    frame: str
    noise: bool
    caption: str


@dataclass(frozen=True)
class Strip:
    """Some frames of one video, below a title."""

    title: str
    frames: list[Shown]


class Most:
    """Holds the strips of the VIDEOS videos with the most noise, the earlier one of equals."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Strip]] = []
        self._seen = 0

    def take(self, name: str, frames: Sequence[str], cleaned: Cleaned) -> None:
        """frames: those that have an embedding, as in `cleaned`."""
        self._seen += 1
        count = int((~cleaned.kept).sum())
        if not count or (len(self._heap) == VIDEOS and count <= self._heap[0][0]):
            return
        strip = Strip(f"{name}: {count} of {len(frames)} frames are noise", _shown(frames, cleaned))
        heapq.heappush(self._heap, (count, -self._seen, strip))
        if len(self._heap) > VIDEOS:
            heapq.heappop(self._heap)

    def strips(self) -> list[Strip]:
        """The most noise first."""
        return [strip for *_, strip in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]


def write_sheets(folder: Path, strips: Sequence[Strip], read: Callable[[str], Image]) -> list[Path]:
    """Write noise-1.png, noise-2.png ...; older ones are removed. read: frame -> image, BadImage for a lost one."""
    for old in folder.iterdir():
        if SHEET.fullmatch(old.name):
            old.unlink()
    written = []
    for start in range(0, len(strips), ROWS):
        path = folder / f"noise-{start // ROWS + 1}.png"
        rows = [(strip.title, _cells(strip, read)) for strip in strips[start : start + ROWS]]
        write_png(path, draw_rows(rows, LEGEND))
        written.append(path)
    return written


def _shown(frames: Sequence[str], cleaned: Cleaned) -> list[Shown]:
    """At most FRAMES, in their order: up to half of them noise, spread evenly, as are the kept ones."""
    noise, kept = np.flatnonzero(~cleaned.kept), np.flatnonzero(cleaned.kept)
    most = max(FRAMES // 2, FRAMES - len(kept))
    chosen = np.sort(np.concatenate([_spread(noise, most), _spread(kept, FRAMES - min(most, len(noise)))]))
    return [
        Shown(
            frames[i],
            not cleaned.kept[i],
            f"{cleaned.cosine[i]:.2f} n {cleaned.quality[i]:.1f} c {cleaned.component[i]}\n"
            f"{fitted(frames[i].rsplit('/', 1)[-1])}",
        )
        for i in chosen.tolist()
    ]


def _spread(numbers: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of them, first and last among those, at even distances."""
    if len(numbers) <= count:
        return numbers
    return numbers[np.linspace(0, len(numbers) - 1, count).round().astype(np.int64)]


def _cells(strip: Strip, read: Callable[[str], Image]) -> list[Cell]:
    return [Cell(place * SIZE, _framed(shown, read), shown.caption) for place, shown in enumerate(strip.frames)]


def _framed(shown: Shown, read: Callable[[str], Image]) -> Image:
    try:
        image = read(shown.frame).copy()
    except BadImage:
        image = np.full((SIZE, SIZE, 3), GONE, np.uint8)
    if shown.noise:
        inside = image[BORDER:-BORDER, BORDER:-BORDER].copy()
        image[:] = RED
        image[BORDER:-BORDER, BORDER:-BORDER] = inside
    return image
