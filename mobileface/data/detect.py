"""Faces and their five landmarks in photographs, by a YuNet file through OpenCV's FaceDetectorYN."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mobileface.data.align import TEMPLATE, similarity
from mobileface.data.images import SIZE, Image
from mobileface.data.photos import quiet, view, what
from mobileface.errors import InputError

# px, longer side of what the detector is shown (a photograph is never enlarged). 640 is what YuNet was trained at; the
# second, for faces that are small there, where the first shows none or where all faces are wanted.
SIDES = (640, 1920)
FLOOR = 0.3  # faces of a lower score are not reported
OVERLAP, MOST = 0.3, 5000  # OpenCV's defaults: boxes of a larger IoU are one face; boxes before that, in one look
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

    def scaled(self, factor: ArrayLike) -> Face:
        """The face in a photograph of `factor` times the size; in x and y, where they differ."""
        both = np.broadcast_to(np.asarray(factor, np.float64), 2)
        points = (self.landmarks + 0.5) * both - 0.5  # pixel centres lie at whole numbers
        return Face(self.score, self.box * np.tile(both, 2), points)


class Detector:
    """A YuNet ONNX file. InputError for a file that is missing, or that OpenCV cannot run as such a detector."""

    def __init__(self, path: Path) -> None:
        if path.is_dir():
            raise InputError(f"{path}: is a folder; wanted a YuNet file such as yunet.onnx")
        if not path.is_file():
            raise InputError(f"{path}: no such face detector; wanted a YuNet file such as yunet.onnx")
        with path.open("rb") as file:
            model = file.read(MAX_MODEL_BYTES + 1)
        if not model:
            raise InputError(f"{path}: is empty; wanted a YuNet face detector")
        if len(model) > MAX_MODEL_BYTES:
            raise InputError(f"{path}: is larger than {MAX_MODEL_BYTES} bytes; wanted a YuNet face detector")
        self.sha256 = hashlib.sha256(model).hexdigest()
        try:
            with quiet():
                self._net = cv2.FaceDetectorYN.create(
                    "onnx", np.frombuffer(model, np.uint8), np.empty(0, np.uint8), (64, 64), FLOOR, OVERLAP, MOST
                )
                self._net.detect(np.zeros((64, 64, 3), np.uint8))  # other networks fail here
        except cv2.error as error:
            raise InputError(
                f"{path}: OpenCV cannot run it as a face detector ({what(error).rstrip('.')}); wanted a YuNet file"
            ) from None

    def find(self, photo: Image, score: float, every: bool = False) -> list[Face]:
        """Faces in (H, W, 3) uint8 RGB, the highest score first.

        SIDES are tried in turn until one shows a face of at least `score`; where none does, all that was seen below
        it is in the list. every: all SIDES are looked at, and of boxes that overlap the one of the highest score stays.
        """
        seen: list[Face] = []
        for side in SIDES:
            found = self._look(photo, side)
            if not every and any(face.score >= score for face in found):
                return found
            seen += found
            if max(photo.shape[:2]) <= side:
                break
        seen.sort(key=lambda face: -face.score)
        if not every:
            return seen
        kept = cv2.dnn.NMSBoxes([face.box.tolist() for face in seen], [face.score for face in seen], 0, OVERLAP)
        return [seen[i] for i in sorted(kept)]

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
        rows = np.asarray(found, np.float64)  # (N, 15): box, five x y, score
        rows = rows[np.isfinite(rows).all(axis=1)]
        faces = [Face(float(row[14]), row[:4], row[4:14].reshape(5, 2)) for row in rows]
        scale = np.divide((width, height), size)
        return sorted((face.scaled(scale) for face in faces), key=lambda face: -face.score)
