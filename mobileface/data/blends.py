"""Blended faces: two aligned crops under a smooth random mask, people whom only a teacher can describe.

A student that learns from a teacher needs faces, not labels. Where the training set holds few people, blends of
them are new ones: aligned to the same template, so that the eyes of one and the mouth of another make a face.
"""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
from numpy.typing import NDArray

from mobileface.data.augment import generator
from mobileface.data.faces import UNLABELLED
from mobileface.data.faceset import FaceSet
from mobileface.data.images import SIZE, Image, decode
from mobileface.errors import InputError

VERSION = 1  # of the way they are drawn; part of the fingerprint


class BlendedFaces:
    """A FaceSource of `count` blends, none of them stored: blend i is a function of (images, seed, i).

    Both crops of a blend are among `faces[i] for i in chosen`. All are UNLABELLED. `read` raises BadImage, with
    the crop's name, where one of the two does not decode.
    """

    name = "blends"

    def __init__(self, faces: FaceSet, chosen: NDArray[np.int64], count: int, seed: int) -> None:
        if len(chosen) < 2:
            raise InputError(f"data.blends: {len(chosen)} training images cannot be blended, wanted two or more")
        self._faces, self._chosen, self._seed = faces, chosen, seed
        self.labels = np.full(count, UNLABELLED, np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, i: int) -> bytes:
        """Blend `i` as a BMP."""
        rng = generator(self._seed, i)
        first, second = (int(self._chosen[k]) for k in rng.integers(0, len(self._chosen), 2))
        one, other = (decode(self._faces.read(k), self._faces.key(k)) for k in (first, second))
        pixels = blend(one, other, rng)
        return cv2.imencode(".bmp", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()

    def key(self, i: int) -> str:
        """The blend's number."""
        return f"{self.name}/{i}"

    def fingerprint(self) -> str:
        """SHA-256 over what they are drawn from."""
        parts = [f"{VERSION} {self._seed} {len(self)}", self._faces.fingerprint()]
        return hashlib.sha256("\n".join(parts).encode() + self._chosen.tobytes()).hexdigest()


def blend(one: Image, other: Image, rng: np.random.Generator) -> Image:
    """`one` where a smooth random mask is 1, `other` (mirrored in half of the cases) where it is 0.

    The mask is a grid of 2x2 to 5x5 random numbers, enlarged and put through a sigmoid of random slope, or, three
    times in ten, one number of 0.3..0.7 for all pixels.
    """
    if rng.random() < 0.5:
        other = cv2.flip(other, 1)  # type: ignore[assignment]
    if rng.random() < 0.3:
        mask: NDArray[np.float32] = np.full((SIZE, SIZE), rng.uniform(0.3, 0.7), np.float32)
    else:
        cells = int(rng.integers(2, 6))
        grid = rng.random((cells, cells), np.float32)
        rough = cv2.resize(grid, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        mask = (1 / (1 + np.exp(rng.uniform(1, 8) * (0.5 - rough)))).astype(np.float32)
    return cv2.blendLinear(one, other, mask, 1 - mask)  # type: ignore[return-value]
