"""Faces and their five landmarks in photographs, by a YuNet file through OpenCV's FaceDetectorYN."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mobileface.data.align import TEMPLATE, similarity
from mobileface.data.images import SIZE, Image
from mobileface.data.photos import view
from mobileface.errors import InputError

# px, longer side of what the detector is shown (a photograph is never enlarged). 640 is what YuNet was trained at; the
# second, for faces that are small there, only where the first shows none.
SIDES = (640, 1920)
FLOOR = 0.3  # faces of a lower score are not reported
OVERLAP, MOST = 0.3, 5000  # OpenCV's defaults: boxes of a larger IoU are one face; boxes before that
MAX_MODEL_BYTES = 1 << 26
VIEW = 320  # px, side of the second look at a face; its crop of 112 px in the middle
NEAR = SIZE / 4  # px, mean distance from the landmarks seen first, beyond which the second look saw another face


@dataclass(frozen=True, eq=False)
class Face:
    """score: 0..1. box: (4,) left, top, width, height. landmarks: (5, 2) x, y in the order of `align.TEMPLATE`.

    Both in px of the photograph. YuNet's "right eye" is the person's, so the left one in the image: its order is the
    template's.
    """

    score: float
    box: NDArray[np.float64]
    landmarks: NDArray[np.float64]


class Detector:
    """A YuNet ONNX file. InputError for a file that is missing, or that OpenCV cannot run as such a detector."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(f"{path}: no such face detector; wanted a YuNet file such as yunet.onnx")
        with path.open("rb") as file:
            model = file.read(MAX_MODEL_BYTES + 1)
        if len(model) > MAX_MODEL_BYTES:
            raise InputError(f"{path}: is larger than {MAX_MODEL_BYTES} bytes; wanted a YuNet face detector")
        self.sha256 = hashlib.sha256(model).hexdigest()
        try:
            with _quiet():
                self._net = cv2.FaceDetectorYN.create(
                    "onnx", np.frombuffer(model, np.uint8), np.empty(0, np.uint8), (64, 64), FLOOR, OVERLAP, MOST
                )
                self._net.detect(np.zeros((64, 64, 3), np.uint8))  # other networks fail here
        except cv2.error as error:
            said = error.err.strip("> \n").partition("\n")[0].partition(" (expected")[0]
            raise InputError(f"{path}: OpenCV cannot run it as a face detector ({said}); wanted a YuNet file") from None

    def find(self, photo: Image, score: float) -> list[Face]:
        """Faces in (H, W, 3) uint8 RGB, the highest score first.

        SIDES are tried in turn until one shows a face of at least `score`; where none does, all that was seen below
        it is in the list.
        """
        seen: list[Face] = []
        for side in SIDES:
            found = self._look(photo, side)
            if any(face.score >= score for face in found):
                return found
            seen += found
            if max(photo.shape[:2]) <= side:
                break
        return sorted(seen, key=lambda face: -face.score)

    def again(self, photo: Image, face: Face) -> Face:
        """The face with the landmarks of a second look, at the photograph turned and scaled so that it is upright.

        YuNet turns the landmarks of a tilted head back towards the upright; the second look sees what is left of the
        tilt. `benchmarks/alignment.py` measures both. Score and box stay those of the first look.
        """
        matrix = similarity(face.landmarks)
        matrix[:, 2] += (VIEW - SIZE) / 2
        template = TEMPLATE + (VIEW - SIZE) / 2

        def away(other: Face) -> float:
            return float(np.linalg.norm(other.landmarks - template, axis=1).mean())

        best = min(self._look(view(photo, matrix, VIEW), VIEW), key=away, default=face)
        if best is face or away(best) > NEAR:
            return face
        return replace(face, landmarks=(best.landmarks - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T)

    def _look(self, photo: Image, side: int) -> list[Face]:
        """Faces in the photograph shrunk to at most `side` px, the highest score first."""
        height, width = photo.shape[:2]
        share = min(1.0, side / max(height, width))
        size = max(1, round(width * share)), max(1, round(height * share))
        shown = photo if size == (width, height) else cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
        self._net.setInputSize(size)
        _, found = self._net.detect(cv2.cvtColor(shown, cv2.COLOR_RGB2BGR))
        if found is None:
            return []
        scale = np.divide((width, height), size)
        rows = np.asarray(found, np.float64)  # (N, 15): box, five x y, score
        rows = rows[np.isfinite(rows).all(axis=1)]
        points = (rows[:, 4:14].reshape(-1, 5, 2) + 0.5) * scale - 0.5  # pixel centres lie at whole numbers
        boxes = rows[:, :4] * np.tile(scale, 2)
        faces = [Face(float(r[14]), box, five) for r, box, five in zip(rows, boxes, points, strict=True)]
        return sorted(faces, key=lambda face: -face.score)


@contextmanager
def _quiet() -> Iterator[None]:
    """OpenCV says on stderr what it thinks of a network; our errors are one line."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
