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


@dataclass(frozen=True, eq=False)
class Cell:
    """A crop (112, 112, 3) RGB, its left edge in px of the sheet, and what is written below it."""

    left: int
    image: Image
    caption: str


def draw_rows(rows: Sequence[tuple[str, Sequence[Cell]]]) -> Image:
    """(H, W, 3) RGB, white: each row's title, its crops, their captions. As wide as the row that goes farthest."""
    height = 2 * LINE + SIZE
    width = max(cell.left + SIZE for _, cells in rows for cell in cells)
    sheet = np.full((len(rows) * height, width, 3), 255, np.uint8)
    for top, (title, cells) in zip(range(0, len(sheet), height), rows, strict=True):
        _write(sheet, title, 2, top + LINE - 4)
        for cell in cells:
            sheet[top + LINE : top + LINE + SIZE, cell.left : cell.left + SIZE] = cell.image
            _write(sheet, cell.caption, cell.left + 2, top + height - 4)
    return sheet


def write_png(path: Path, image: Image) -> None:
    """Write (H, W, 3) RGB as PNG: whole, or not at all."""
    buffer = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.tobytes())


def _write(sheet: Image, text: str, left: int, base: int) -> None:
    """Black text; OpenCV's letters are ASCII, so what is not becomes an escape."""
    plain = visible(text).encode("ascii", "backslashreplace").decode()
    cv2.putText(sheet, plain, (left, base), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
