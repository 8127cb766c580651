"""Augmentation of aligned crops: uint8 RGB in, uint8 RGB out, every draw from the generator handed in.

Basic set (design of the factory): flip, small affine, brightness, saturation, low resolution, cut-out. AdaFace's set
(mk-minchul/AdaFace, dataset/augmenter.py): crop_paste, low_resolution, photometric, each with p = 0.2 and in this
order, then flip. Each is `operation(image, rng, **strength) -> image`; the probability is drawn by `apply`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from mobileface.data.degrade import jpeg, motion_blur, rectangle, resized_crop, resolution
from mobileface.data.images import SIZE, Image

CENTRE = (SIZE - 1) / 2  # px; pixel centres lie at whole numbers
INTERPOLATIONS = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "cubic": cv2.INTER_CUBIC,
    "lanczos4": cv2.INTER_LANCZOS4,
}

Step = tuple[str, float, dict[str, Any]]  # operation, probability, strength


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


def contrast(image: Image, rng: np.random.Generator, strength: float) -> Image:
    """Blend with the mean of the grey image (ITU-R 601 weights) by 1 +- `strength`."""
    factor = 1 + rng.uniform(-strength, strength)
    mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
    return cv2.addWeighted(image, factor, image, 0, (1 - factor) * mean)  # type: ignore[return-value]


JITTERS: dict[str, Callable[..., Image]] = {"brightness": brightness, "contrast": contrast, "saturation": saturation}


def photometric(image: Image, rng: np.random.Generator, **strength: float) -> Image:
    """All of JITTERS in random order, each by its own strength: torchvision's ColorJitter with hue 0."""
    for name in rng.permutation(list(JITTERS)):
        image = JITTERS[name](image, rng, strength[name])
    return image


def crop_paste(image: Image, rng: np.random.Generator, least: float, ratio: float) -> Image:
    """Keep a rectangle of `least`..1 of the area at its place, on black; width / height in 1 / ratio..ratio.

    Drawn as torchvision's RandomResizedCrop draws (the shape log-uniform), but not resized: the face stays aligned.
    """
    top, left, height, width = rectangle(rng, least, ratio)
    kept = slice(top, top + height), slice(left, left + width)
    pasted = np.zeros_like(image)
    pasted[kept] = image[kept]
    return pasted


def low_resolution(
    image: Image, rng: np.random.Generator, least: float, interpolations: Sequence[str], most: float = 1.0
) -> Image:
    """Shrink the side to `least`..`most` of itself and enlarge it, each step by one of `interpolations` at random."""
    side = max(1, round(SIZE * rng.uniform(least, most)))
    down, up = (INTERPOLATIONS[interpolations[i]] for i in rng.integers(0, len(interpolations), 2))
    small = cv2.resize(image, (side, side), interpolation=down)
    return cv2.resize(small, (SIZE, SIZE), interpolation=up)  # type: ignore[return-value]


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
    "photometric": photometric,
    "crop_paste": crop_paste,
    "resized_crop": resized_crop,
    "low_resolution": low_resolution,
    "resolution": resolution,
    "jpeg": jpeg,
    "motion_blur": motion_blur,
    "cutout": cutout,
}


def apply(
    image: Image,
    steps: Sequence[Step],
    rng: np.random.Generator,
    of_batch: Callable[[int], np.random.Generator] | None = None,
) -> Image:
    """Run `steps` in order; one uniform draw decides on each of them. `image` itself is never written to.

    of_batch: makes the generator of a step's number that is the same for every image of a batch: steps with
    `per: batch` draw from it.
    """
    for number, ((name, p, strength), draw) in enumerate(zip(steps, rng.random(len(steps)), strict=True)):
        shared = of_batch(number) if of_batch is not None and strength.get("per") == "batch" else None
        if (draw if shared is None else shared.random()) < p:
            image = OPERATIONS[name](image, rng if shared is None else shared, **strength)
    return image
