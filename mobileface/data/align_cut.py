"""One whole photograph: which of its faces count, and their crops."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mobileface.data.align import similarity
from mobileface.data.align_table import Row, make_row
from mobileface.data.detect import FLOOR, Detector, Face
from mobileface.data.folder import Entry
from mobileface.data.images import SIZE, BadImage, encode
from mobileface.data.photos import read_photo, view, what
from mobileface.errors import InputError


@dataclass(frozen=True)
class Settings:
    """score: least one of the detector, 0..1. least: px of the file, shorter side of a face's box.

    every: all such faces of a photograph, not the most prominent one alone.
    """

    score: float = 0.6
    least: float = 20.0
    every: bool = False

    def __post_init__(self) -> None:
        if not FLOOR <= self.score <= 1:  # NaN fails as well
            raise InputError(f"--score is {self.score}, wanted {FLOOR}..1")
        if not 1 <= self.least < math.inf:
            raise InputError(f"--least is {self.least}, wanted a number of px from 1 on")


def crop_name(path: str, n: int, settings: Settings) -> str:
    """Where the n-th crop (from 1) of a photograph goes: its own name with .jpg behind what is no JPEG's name."""
    if settings.every:
        return f"{path}.{n}.jpg"
    return path if path.lower().endswith((".jpg", ".jpeg")) else f"{path}.jpg"


def chosen(faces: list[Face], shape: tuple[int, ...], settings: Settings) -> tuple[str, str, list[Face]]:
    """(verdict, reason, faces to cut out; or the best of those that are refused) in a photograph of (H, W, 3).

    Where several faces pass, the one of the largest box area times (1 - distance of its centre from the photograph's
    / half the diagonal): whom a photograph is of is large and in the middle. `every` keeps all, in this order.
    """
    if not faces:
        return "no-face", "", []
    if not (known := [face for face in faces if face.score >= settings.score]):
        best = max(faces, key=lambda face: face.score)
        return "below-score", f"score {best.score:.2f}, wanted {settings.score:g}", [best]
    half = np.array(shape[1::-1]) / 2

    def prominence(face: Face) -> float:
        away = np.linalg.norm(face.box[:2] + face.box[2:] / 2 - half) / np.linalg.norm(half)
        return float(face.box[2] * face.box[3] * max(0.0, 1 - away))

    known.sort(key=prominence, reverse=True)
    if not (large := [face for face in known if min(face.box[2:]) >= settings.least]):
        side = min(known[0].box[2:])
        return "too-small", f"shorter side {side:.0f} px, wanted {settings.least:g}", known[:1]
    return "aligned", "", large if settings.every else large[:1]


def cut(source: Path, photo: Entry, detector: Detector, settings: Settings) -> tuple[list[Row], dict[str, bytes]]:
    """(rows of a photograph, JPEGs of its crops by their names)."""
    try:
        return _cut(source, photo, detector, settings)
    except BadImage as error:
        reason = str(error)
    except cv2.error as error:
        reason = f"{photo.path}: OpenCV cannot work on it ({what(error)})"
    return [make_row(photo, "unreadable", reason=reason)], {}


def _cut(source: Path, photo: Entry, detector: Detector, settings: Settings) -> tuple[list[Row], dict[str, bytes]]:
    pixels, factor = read_photo(source / photo.path, photo.path)
    height, width = (factor * side for side in pixels.shape[:2])  # of the file, up to one px
    found = [face.scaled(factor) for face in detector.find(pixels, settings.score, settings.every)]
    passed = sum(face.score >= settings.score for face in found)
    verdict, reason, faces = chosen(found, (height, width), settings)
    if verdict != "aligned":
        refused = faces[0] if faces else None
        return [make_row(photo, verdict, "", reason, passed, (height, width), refused)], {}
    rows: list[Row] = []
    crops: dict[str, bytes] = {}
    for face in faces:
        try:
            again = detector.again(pixels, face.scaled(1 / factor))
            crop = view(pixels, similarity(again.landmarks), SIZE)
        except InputError as error:
            rows.append(make_row(photo, "bad-landmarks", "", str(error), passed, (height, width), face))
            continue
        name = crop_name(photo.path, len(crops) + 1, settings)
        crops[name] = encode(crop)
        rows.append(make_row(photo, "aligned", name, "", passed, (height, width), again.scaled(factor)))
    return rows, crops
