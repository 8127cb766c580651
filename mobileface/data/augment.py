"""Augmentation of aligned crops: uint8 RGB in, uint8 RGB out, every draw from the generator handed in.

Basic set (design of the factory): flip, small affine, brightness, saturation, low resolution, cut-out. Each is
`operation(image, rng, **strength) -> image`; the probability is drawn by `apply`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from mobileface.data.images import SIZE, Image

CENTRE = (SIZE - 1) / 2  # px; pixel centres lie at whole numbers
INTERPOLATIONS = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_CUBIC)


def generator(seed: int, position: int) -> np.random.Generator:
    """The generator of the sample at `position` of the stream: a function of the two numbers alone."""
    key = np.array([seed & (2**64 - 1), position], np.uint64)  # from a list NumPy would make float64 of large numbers
    return np.random.Generator(np.random.Philox(key=key))


def flip(image: Image, rng: np.random.Generator) -> Image:
    """Mirror left to right."""
    return cv2.flip(image, 1)  # type: ignore[return-value]


def affine(image: Image, rng: np.random.Generator, degrees: float, shift: float, zoom: float) -> Image:
    """Rotate by up to `degrees`, move by up to `shift` px, scale by 1 +- `zoom`, about the crop's centre."""
    angle, dx, dy, scale = rng.uniform(-1, 1, 4) * (degrees, shift, shift, zoom)
    matrix = cv2.getRotationMatrix2D((CENTRE, CENTRE), angle, 1 + scale)
    matrix[:, 2] += (dx, dy)
    return cv2.warpAffine(image, matrix, (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT_101)  # type: ignore[return-value]


def brightness(image: Image, rng: np.random.Generator, strength: float) -> Image:
    """Multiply by 1 +- `strength`."""
    return cv2.convertScaleAbs(image, alpha=1 + rng.uniform(-strength, strength))  # type: ignore[return-value]


def saturation(image: Image, rng: np.random.Generator, strength: float) -> Image:
    """Blend with the grey image (ITU-R 601 weights) by 1 +- `strength`."""
    factor = 1 + rng.uniform(-strength, strength)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(image, factor, grey, 1 - factor, 0)  # type: ignore[return-value]


def low_resolution(image: Image, rng: np.random.Generator, least: float) -> Image:
    """Shrink the side to `least`..1 of itself and enlarge again, each step by a random interpolation."""
    side = max(1, round(SIZE * rng.uniform(least, 1)))
    down, up = rng.integers(0, len(INTERPOLATIONS), 2)
    small = cv2.resize(image, (side, side), interpolation=INTERPOLATIONS[down])
    return cv2.resize(small, (SIZE, SIZE), interpolation=INTERPOLATIONS[up])  # type: ignore[return-value]


def cutout(image: Image, rng: np.random.Generator, most: float) -> Image:
    """Fill a rectangle, sides up to `most` of the crop's, with one random grey."""
    height, width = (max(1, round(SIZE * side)) for side in rng.uniform(min(most, 0.1), most, 2))
    top, left = rng.integers(0, SIZE - height + 1), rng.integers(0, SIZE - width + 1)
    image = image.copy()
    image[top : top + height, left : left + width] = rng.integers(0, 256)
    return image


OPERATIONS: dict[str, Callable[..., Image]] = {
    "flip": flip,
    "affine": affine,
    "brightness": brightness,
    "saturation": saturation,
    "low_resolution": low_resolution,
    "cutout": cutout,
}


def apply(image: Image, steps: Sequence[tuple[str, float, dict[str, Any]]], rng: np.random.Generator) -> Image:
    """Run (operation, probability, strength) in order; one uniform draw decides on each of them."""
    for (name, _, strength), run in zip(steps, rng.random(len(steps)) < [p for _, p, _ in steps], strict=True):
        if run:
            image = OPERATIONS[name](image, rng, **strength)
    return image
