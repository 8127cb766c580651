"""Whole photographs: their pixels, and upright views of what is in them. (`images.py` decodes aligned crops.)"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mobileface.data.images import BadImage, Image

MAX_PHOTO_BYTES = 1 << 26


def read_photo(path: Path, name: str) -> Image:
    """A photograph's (H, W, 3) uint8 RGB, turned as its EXIF orientation says.

    At most 32 Mpx (`mobileface.data`); a JPEG of up to four times that is read at half its width and height, anything
    larger is a BadImage, as is what does not decode or cannot be read. `name` stands in the message.
    """
    try:
        with path.open("rb") as file:
            buffer = file.read(MAX_PHOTO_BYTES + 1)
    except OSError as error:
        raise BadImage(f"{name}: cannot be read ({error.strerror})") from None
    if not 0 < len(buffer) <= MAX_PHOTO_BYTES:
        raise BadImage(f"{name}: holds {len(buffer)} bytes, wanted a photograph of 1 to {MAX_PHOTO_BYTES} bytes")
    image, said = None, ""
    try:
        image = _decoded(np.frombuffer(buffer, np.uint8))
    except cv2.error as error:
        said = f" ({error.err})"
    if image is None:
        raise BadImage(f"{name}: does not decode as an image{said}")
    return image


def view(photo: Image, matrix: NDArray[np.float64], side: int) -> Image:
    """(side, side, 3): the photograph under the (2, 3) similarity `matrix` (from its px to the view's), black around.

    Bilinear; where the view is less than half as large, the photograph is shrunk by area first, or it would alias.
    """
    scale = float(np.linalg.norm(matrix[:, 0]))
    if scale < 0.5:
        height, width = photo.shape[:2]
        size = max(1, round(width * 2 * scale)), max(1, round(height * 2 * scale))
        photo = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        back = np.divide((width, height), size)  # x = (shrunk x + 0.5) * back - 0.5: pixel centres are whole numbers
        matrix = np.column_stack([matrix[:, :2] * back, matrix[:, :2] @ (0.5 * back - 0.5) + matrix[:, 2]])
    return cv2.warpAffine(photo, matrix, (side, side), flags=cv2.INTER_LINEAR)  # type: ignore[return-value]


def _decoded(buffer: NDArray[np.uint8]) -> Image | None:
    try:
        return cv2.imdecode(buffer, cv2.IMREAD_COLOR_RGB)  # type: ignore[return-value]
    except cv2.error:  # more pixels than OPENCV_IO_MAX_IMAGE_PIXELS
        half = cv2.imdecode(buffer, cv2.IMREAD_REDUCED_COLOR_2)
    return None if half is None else cv2.cvtColor(half, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]
