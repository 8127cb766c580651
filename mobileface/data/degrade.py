"""Degradation of aligned crops: lower resolution, JPEG artefacts, motion blur. uint8 RGB in, uint8 RGB out.

Operations of `data.augment` by the same rule: every draw from the generator handed in, strength as data.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from mobileface.data.images import SIZE, Image, decode, encode

SIDES = (7, 14, 28)  # px, of the octuplet loss


def at_side(image: Image, side: int) -> Image:
    """Shrink to `side` px and enlarge again: bicubic, anti-aliased on the way down only, as the octuplet loss's code
    (its paper says both ways). At full size the image itself."""
    if side >= SIZE:
        return image
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(pixels, (side, side), mode="bicubic", antialias=True)
    rows = np.ascontiguousarray(small[0].permute(1, 2, 0).numpy())
    return cv2.resize(rows, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]


def resolution(image: Image, rng: np.random.Generator, sides: Sequence[int], per: str = "image") -> Image:
    """`at_side` of one of `sides`, px, drawn evenly. per: whether a batch's images share one draw (see `apply`)."""
    return at_side(image, sides[int(rng.integers(len(sides)))])


def jpeg(image: Image, rng: np.random.Generator, least: int, most: int) -> Image:
    """Through a JPEG file of quality `least`..`most`, 4:2:0 as most are."""
    return decode(encode(image, int(rng.integers(least, most + 1))), "a degraded crop")


def motion_blur(image: Image, rng: np.random.Generator, least: float, most: float) -> Image:
    """The mean along a straight path of `least`..`most` px, in a direction drawn from all."""
    length, angle = rng.uniform(least, most), rng.uniform(0, np.pi)
    return blurred_along(image, length, angle)


def blurred_along(image: Image, length: float, direction: float) -> Image:
    """The mean over a straight movement of `length` px, `direction` radians from the horizontal; below half a pixel
    the image itself."""
    if length < 0.5:
        return image
    along = np.linspace(-length / 2, length / 2, 2 * int(np.ceil(length)) + 1)
    x, y = along * np.cos(direction), along * np.sin(direction)
    wide, high = int(np.ceil(np.abs(x).max())), int(np.ceil(np.abs(y).max()))
    kernel = np.zeros((2 * high + 2, 2 * wide + 2))
    i, j = np.floor(y).astype(int), np.floor(x).astype(int)
    for down in (0, 1):
        for right in (0, 1):
            weight = np.abs(1 - down - (y - i)) * np.abs(1 - right - (x - j))
            np.add.at(kernel, (i + down + high, j + right + wide), weight)
    kernel = kernel[:-1, :-1]  # the last row and column only took weights of zero
    kernel /= kernel.sum()
    return np.asarray(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE), np.uint8)


def resized_crop(image: Image, rng: np.random.Generator, least: float, ratio: float) -> Image:
    """A rectangle of `least`..1 of the area, width / height in 1 / ratio..ratio, enlarged to the whole (linear)."""
    top, left, height, width = rectangle(rng, least, ratio)
    part = image[top : top + height, left : left + width]
    return cv2.resize(part, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]


TRIES = 10  # then the whole image; as torchvision's RandomResizedCrop


def rectangle(rng: np.random.Generator, least: float, ratio: float) -> tuple[int, int, int, int]:
    """(top, left, height, width) as torchvision's RandomResizedCrop draws them, the shape log-uniform."""
    for _ in range(TRIES):
        area, shape = SIZE**2 * rng.uniform(least, 1), ratio ** rng.uniform(-1, 1)
        width, height = round((area * shape) ** 0.5), round((area / shape) ** 0.5)
        if 0 < width <= SIZE and 0 < height <= SIZE:
            top, left = rng.integers(0, SIZE - height + 1), rng.integers(0, SIZE - width + 1)
            return int(top), int(left), height, width
    return 0, 0, SIZE, SIZE
