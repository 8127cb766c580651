"""Painted faces and a stand-in for cv2.FaceDetectorYN that reads them off the pixels it is shown."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from PIL import Image as Pillow

from mobileface.data import detect
from mobileface.data.align import TEMPLATE

Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]
COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255)])  # of the five points, RGB
CORNERS = np.array([(6.0, 20.0), (105.0, 20.0), (105.0, 110.0), (6.0, 110.0)])  # of the face, px of its crop


def paint(photo: Pixels, scale: float, left: float, top: float, degrees: float = 0, score: float = 0.9) -> Points:
    """Paint a face: a grey patch, lighter with the score, and five discs where the template has its points.

    A crop of `scale` x 112 px, turned about its corner, which lies at (left, top). In place; returns the landmarks.
    """
    angle = np.radians(degrees)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    def placed(points: ArrayLike) -> Points:
        return np.asarray(points) @ turn.T + (left, top)

    cv2.fillConvexPoly(photo, np.round(placed(CORNERS)).astype(np.int32), [round(60 + 150 * score)] * 3)
    for point, colour in zip(placed(TEMPLATE), COLOURS.tolist(), strict=True):
        centre = np.round(point * 16).astype(int).tolist()
        cv2.circle(photo, centre, round(scale * 7 * 16), colour, -1, shift=4)
    return placed(TEMPLATE)


class PaintedYN:
    """What cv2.FaceDetectorYN does, for painted faces in BGR. `sizes` are the (width, height) it was shown."""

    sizes: list[tuple[int, int]]

    def __init__(self, floor: float) -> None:
        self.floor, self.sizes = floor, []
        self.size = (0, 0)

    @classmethod
    def create(cls, kind: str, model: Pixels, config: Pixels, size: Any, floor: float, *rest: Any) -> PaintedYN:
        if bytes(model) != b"painted":
            error = cv2.error("not a network")
            error.err = "> not a network (expected: 'a'), where\n>  'b'"
            raise error
        return cls(floor)

    def setInputSize(self, size: tuple[int, int]) -> None:
        self.size = size

    def detect(self, image: Pixels) -> tuple[int, NDArray[np.float32] | None]:
        if max(image.shape[:2]) == 64:  # asked whether it works
            return 1, None
        assert (image.shape[1], image.shape[0]) == self.size
        self.sizes.append(self.size)
        lit = cv2.inRange(image, (0, 0, 0), (45, 45, 45)) == 0
        count, labels, stats, _ = cv2.connectedComponentsWithStats(lit.astype(np.uint8))
        rows = [self.read(image, labels, i, stats[i, :4]) for i in range(1, count)]
        found = [row for row in rows if row is not None and row[14] >= self.floor]
        return 1, np.array(found, np.float32) if found else None

    def read(self, image: Pixels, labels: NDArray[np.int32], i: int, box: NDArray[np.int32]) -> list[float] | None:
        left, top, width, height = box.tolist()
        area = slice(top, top + height), slice(left, left + width)
        rgb, mask = image[area][..., ::-1].astype(np.int16), labels[area] == i
        plain = mask & (np.ptp(rgb, axis=2) < 12)
        points = []
        for colour in COLOURS:
            rows, columns = np.nonzero(mask & (np.abs(rgb - colour).max(2) < 90))
            if not len(rows) or not plain.any():
                return None
            points += [left + columns.mean(), top + rows.mean()]
        return [*box.tolist(), *self.seen(np.reshape(points, (5, 2))).ravel(), (np.median(rgb[plain]) - 60) / 150]

    def seen(self, points: Points) -> Points:
        return points


class UprightYN(PaintedYN):
    """Turns the points of a tilted face half of the way back to the upright, as YuNet tends to."""

    def seen(self, points: Points) -> Points:
        across = complex(*(points[1] - points[0]))
        back = np.exp(-0.5j * np.angle(across))
        middle = points.mean(0)
        turned = (points - middle) @ np.array([[back.real, back.imag], [-back.imag, back.real]])
        return turned + middle


def painted_detector(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: type[PaintedYN] = PaintedYN
) -> detect.Detector:
    """A Detector over the stand-in; its file is FOLDER/painted.onnx."""
    monkeypatch.setattr(detect.cv2, "FaceDetectorYN", kind)
    (folder / "painted.onnx").write_bytes(b"painted")
    return detect.Detector(folder / "painted.onnx")


# ---- folders of painted photographs and of their crops


def photograph(path: Path, *faces: dict[str, Any], size: tuple[int, int] = (400, 300), orientation: int = 1) -> Path:
    """Write a PNG or a JPEG of (width, height) with painted faces, as a camera that was held so would."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    for face in faces:
        paint(pixels, **face)
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(np.rot90(pixels, {1: 0, 6: 1, 3: 2, 8: 3}[orientation])).save(path, exif=exif, quality=97)
    return path


GOOD: dict[str, Any] = {"scale": 1.2, "left": 130, "top": 60, "degrees": 8}


def looks(detector: detect.Detector) -> int:
    """How often the detector has looked since it was last asked."""
    net = detector._net
    assert isinstance(net, PaintedYN)
    count, net.sizes = len(net.sizes), []
    return count


def table(out: Path) -> dict[str, list[dict[str, str]]]:
    """Rows of align.tsv by the photograph's path."""
    found: dict[str, list[dict[str, str]]] = {}
    with (out / "align.tsv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        for row in csv.DictReader(file, dialect="excel-tab"):
            found.setdefault(row["path"], []).append(row)
    return found


def files(out: Path) -> list[str]:
    """What lies in a folder, the lock left out."""
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and path.name != ".lock")


class Raises:
    """A function that raises."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, *arguments: Any) -> Any:
        raise self.error
