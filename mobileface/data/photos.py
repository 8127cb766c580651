"""Whole photographs: their pixels, and upright views of what is in them. (`images.py` decodes aligned crops.)"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mobileface.data.folder import SUFFIXES
from mobileface.data.images import BadImage, Image

PHOTO_SUFFIXES = (*SUFFIXES, ".jfif", ".tif", ".tiff")  # what OpenCV decodes wherever it is installed
LOGGING = getattr(cv2.utils, "logging", cv2)  # where it is before OpenCV 5
MAX_PHOTO_BYTES = 1 << 27  # 32 Mpx of a TIFF that is not compressed are 96 MiB


def read_photo(path: Path, name: str) -> tuple[Image, int]:
    """A photograph's (H, W, 3) uint8 RGB, turned as its EXIF orientation says, and how many px of the file are one.

    At most 32 Mpx (`mobileface.data`); a JPEG of up to four times that is read at half its width and height (2 px of
    the file are one), anything larger is a BadImage, as is what does not decode, cannot be read or is no regular file.
    `name` stands in the message.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to open a pipe would wait for its writer
            raise BadImage(f"{name}: is no regular file")
        with path.open("rb") as file:
            buffer = file.read(MAX_PHOTO_BYTES + 1)
    except OSError as error:
        raise BadImage(f"{name}: cannot be read ({error.strerror})") from None
    if not 0 < len(buffer) <= MAX_PHOTO_BYTES:
        found = "more" if buffer else "0 bytes"
        raise BadImage(f"{name}: holds {found}, wanted a photograph of 1 to {MAX_PHOTO_BYTES} bytes")
    try:
        with quiet():
            image, factor = _decoded(np.frombuffer(buffer, np.uint8))
    except cv2.error as error:
        raise BadImage(f"{name}: does not decode as an image ({what(error)})") from None
    if image is None:
        raise BadImage(f"{name}: does not decode as an image")
    return image, factor


def view(photo: Image, matrix: NDArray[np.float64], side: int) -> Image:
    """(side, side, 3): the photograph under the (2, 3) similarity `matrix` (from its px to the view's), black around.

    Bilinear; where the view is less than half as large, the photograph is shrunk by area first, or it would alias.
    """
    scale = float(np.linalg.norm(matrix[:, 0]))
    photo, matrix = _needed(photo, matrix, side, 2 / min(scale, 0.5))
    if not photo.size:
        return np.zeros((side, side, 3), np.uint8)
    if scale < 0.5:
        height, width = photo.shape[:2]
        size = max(1, round(width * 2 * scale)), max(1, round(height * 2 * scale))
        photo = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        back = np.divide((width, height), size)  # x = (shrunk x + 0.5) * back - 0.5: pixel centres are whole numbers
        matrix = np.column_stack([matrix[:, :2] * back, matrix[:, :2] @ (0.5 * back - 0.5) + matrix[:, 2]])
    return cv2.warpAffine(photo, matrix, (side, side), flags=cv2.INTER_LINEAR)  # type: ignore[return-value]


def what(error: cv2.error) -> str:
    """What OpenCV says of an error, on one line."""
    return str(error.err).strip("> \n").partition("\n")[0].partition(" (expected")[0]


@contextmanager
def quiet() -> Iterator[None]:
    """OpenCV says on stderr what it thinks of a network or of a TIFF; our errors are one line."""
    level = LOGGING.getLogLevel()
    LOGGING.setLogLevel(0)  # LOG_LEVEL_SILENT
    try:
        yield
    finally:
        LOGGING.setLogLevel(level)


def _needed(photo: Image, matrix: NDArray[np.float64], side: int, margin: float) -> tuple[Image, NDArray[np.float64]]:
    """The part of the photograph that a view shows, with `margin` px around, and the matrix from its px.

    OpenCV 4 warps nothing that is wider or higher than 32,767 px; and to shrink all of a photograph takes its time.
    """
    back = cv2.invertAffineTransform(matrix)
    corners = np.array([(0, 0), (side, 0), (0, side), (side, side)]) @ back[:, :2].T + back[:, 2]
    most = photo.shape[1::-1]
    left, top = np.floor(corners.min(0) - margin).clip(0, most).astype(int).tolist()
    right, bottom = np.ceil(corners.max(0) + margin).clip(0, most).astype(int).tolist()
    shifted = np.column_stack([matrix[:, :2], matrix[:, :2] @ (left, top) + matrix[:, 2]])
    return photo[top:bottom, left:right], shifted


def _decoded(buffer: NDArray[np.uint8]) -> tuple[Image | None, int]:
    try:
        return cv2.imdecode(buffer, cv2.IMREAD_COLOR_RGB), 1  # type: ignore[return-value]
    except cv2.error:  # more pixels than OPENCV_IO_MAX_IMAGE_PIXELS
        half = cv2.imdecode(buffer, cv2.IMREAD_REDUCED_COLOR_2)
    return None if half is None else cv2.cvtColor(half, cv2.COLOR_BGR2RGB), 2  # type: ignore[return-value]
