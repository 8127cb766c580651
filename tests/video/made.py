"""Frames of one colour, and an embedder that knows what each colour is."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mobileface.embedders.contract import InputContract, check_finite

Rows = NDArray[np.float32]


def write_frame(path: Path, number: int) -> Path:
    """A frame that `Table` gives row `number` for: grey, lossless."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((112, 112, 3), number, np.uint8))
    return path


def write_videos(root: Path, videos: dict[str, list[int]]) -> Path:
    """`root/NAME/f0.png` ... for each number."""
    for name, numbers in videos.items():
        (root / name).mkdir(parents=True)
        for i, number in enumerate(numbers):
            write_frame(root / name / f"f{i}.png", number)
    return root


class Table:
    """An embedder: row n of a table for an image whose right half has the value n; `batches` are what it was given."""

    libraries = ("numpy",)

    def __init__(self, rows: Rows) -> None:
        self.rows = rows.astype(np.float32)
        self.path, self.dim, self.sha256 = Path("table.onnx"), rows.shape[1], "0" * 64
        self.contract = InputContract()
        self.batches: list[int] = []

    def __call__(self, images: NDArray[np.uint8]) -> Rows:
        self.batches.append(len(images))
        return check_finite(self.rows[images[:, 56, 100, 0]], self.path)


def directions(count: int, dim: int = 8, seed: int = 0) -> Rows:
    """(count, dim) orthonormal as far as they go, then random, all of different lengths."""
    rng = np.random.default_rng(seed)
    rows = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    more = rng.normal(size=(max(0, count - dim), dim))
    return (np.concatenate([rows, more])[:count] * np.linspace(1, 2, count)[:, None]).astype(np.float32)
