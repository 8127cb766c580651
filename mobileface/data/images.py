"""The one place that turns encoded images into pixels and back: RGB, uint8, 112x112."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mobileface.errors import InputError

SIZE = 112  # px; the side of an aligned face crop
MAX_BYTES = 1 << 20  # a 112x112 image never needs more; bounds what a hostile file makes us decode

Image = NDArray[np.uint8]


class BadImage(InputError):
    """An image that cannot be used: corrupt, or not 112x112."""


def decode(buffer: bytes | memoryview | NDArray[np.uint8], name: str) -> Image:
    """Decode a JPEG, PNG, WebP or BMP into (112, 112, 3) uint8 RGB; grey images become three equal channels.

    Raises BadImage, with `name` in its text, for bytes that do not decode and for any other size: a crop of
    another size was not aligned to the 112x112 template, and resizing it in silence would spoil the result.
    """
    if not 0 < len(buffer) <= MAX_BYTES:
        raise BadImage(f"{name}: holds {len(buffer)} bytes, wanted an image of 1 to {MAX_BYTES} bytes")
    try:
        image = cv2.imdecode(np.frombuffer(buffer, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:  # a header that claims billions of pixels
        raise BadImage(f"{name}: does not decode as an image ({error.err})") from None
    if image is None:
        raise BadImage(f"{name}: does not decode as an image")
    if image.shape != (SIZE, SIZE, 3):
        height, width = image.shape[:2]
        raise BadImage(f"{name}: is {width}x{height} px, wanted an aligned crop of {SIZE}x{SIZE} px")
    return np.asarray(image, np.uint8)


def encode(image: Image, quality: int = 95) -> bytes:
    """Encode (H, W, 3) uint8 RGB as JPEG (quality 95 is what InsightFace's packs use)."""
    done, buffer = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise InputError(f"an image of shape {image.shape} cannot be encoded as JPEG")
    return buffer.tobytes()
