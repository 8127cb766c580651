"""Contact sheets: crops in rows, a title above each row and a caption below each crop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mobileface.data.images import SIZE, Image
from mobileface.errors import visible
from mobileface.files import atomic_path

LINE = 16  # px of a line of text
FONT, SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.4


@dataclass(frozen=True, eq=False)
class Cell:
    """A crop (112, 112, 3) RGB, its left edge in px of the sheet, and the lines that are written below it."""

    left: int
    image: Image
    caption: str


def draw_rows(rows: Sequence[tuple[str, Sequence[Cell]]], legend: str = "") -> Image:
    """(H, W, 3) RGB, white: the legend, if there is one, then each row's title, its crops, their captions.

    As wide as the row that goes farthest; rows have the height of the longest caption.
    """
    lines = max(1 + cell.caption.count("\n") for _, cells in rows for cell in cells)
    first, height = LINE * bool(legend), (1 + lines) * LINE + SIZE
    width = max(cell.left + SIZE for _, cells in rows for cell in cells)
    sheet = np.full((first + len(rows) * height, width, 3), 255, np.uint8)
    _write(sheet, legend, 2, LINE - 4)
    for top, (title, cells) in zip(range(first, len(sheet), height), rows, strict=True):
        _write(sheet, title, 2, top + LINE - 4)
        for cell in cells:
            sheet[top + LINE : top + LINE + SIZE, cell.left : cell.left + SIZE] = cell.image
            for number, line in enumerate(cell.caption.split("\n"), start=2):
                _write(sheet, line, cell.left + 2, top + SIZE + number * LINE - 4)
    return sheet


def fitted(text: str, width: int = SIZE - 4) -> str:
    """`text` in letters that can be drawn, its beginning cut off where it would be wider than `width` px."""
    plain = _plain(text)
    cuts = (".." + plain[start:] for start in range(max(1, len(plain) - width), len(plain)))  # a letter has 1 px
    return next((cut for cut in (plain, *cuts) if text_width(cut) <= width), "..")


def text_width(text: str) -> int:
    """px that the text is wide."""
    return int(cv2.getTextSize(text, FONT, SCALE, 1)[0][0])


def write_png(path: Path, image: Image) -> None:
    """Write (H, W, 3) RGB as PNG: whole, or not at all."""
    buffer = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.tobytes())


def _write(sheet: Image, text: str, left: int, base: int) -> None:
    """Black text."""
    cv2.putText(sheet, _plain(text), (left, base), FONT, SCALE, (0, 0, 0), 1, cv2.LINE_AA)


def _plain(text: str) -> str:
    """OpenCV's letters are ASCII, so what is not becomes an escape."""
    return visible(text).encode("ascii", "backslashreplace").decode()
