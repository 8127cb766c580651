"""A sheet of what a view's augmentation makes of a set's crops: wrong colours and odd strengths are seen at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mobileface.data.augment import OPERATIONS, Step, apply, generator
from mobileface.data.blends import BlendedFaces
from mobileface.data.faceset import FaceSet, split_identities
from mobileface.data.images import SIZE, BadImage, Image, decode
from mobileface.data.sheet import Cell, draw_rows
from mobileface.errors import InputError

DRAWS = 6  # of the whole view


def of_training(faces: FaceSet, fraction: float, seed: int, min_images: int) -> NDArray[np.int64]:
    """Indices of the images that train (`split_identities`), blends of them left out."""
    given = sum(len(source) for source in faces.sources if not isinstance(source, BlendedFaces))  # blends come last
    train = split_identities(faces, fraction, seed, min_images).train
    return train[train < given]


def look(
    faces: FaceSet,
    chosen: NDArray[np.int64],
    steps: Sequence[Step],
    seed: int,
    images: int,
    degraded: Sequence[Step] = (),
) -> Image:
    """(H, W, 3) RGB, a row for each of `images` crops spread over those that `chosen` are the indices of.

    In a row: the crop as it is read, what each step makes of it alone (whatever its probability), and draws of the
    whole view; then the same of the degraded view, which is made from those draws. Bad images are left out; InputError
    where that leaves none.
    """
    rows, bad = [], ""
    for i in chosen[np.linspace(0, len(chosen) - 1, min(images, len(chosen))).astype(int)].tolist():
        try:
            crop = decode(faces.read(i), faces.key(i))
        except BadImage as error:
            bad = str(error)
            continue
        cells = [("as read", crop)]
        for view in (steps, degraded):
            cells += [(name, OPERATIONS[name](crop, generator(seed, i), **strength)) for name, _, strength in view]
        draws = range(i * DRAWS, (i + 1) * DRAWS)
        clean = [apply(crop, steps, generator(seed, draw)) for draw in draws]
        cells += [(f"draw {n}", image) for n, image in enumerate(clean, 1)]
        if degraded:
            poor = [
                apply(image, degraded, generator(seed ^ (1 << 63), draw))
                for image, draw in zip(clean, draws, strict=True)
            ]
            cells += [(f"degraded {n}", image) for n, image in enumerate(poor, 1)]
        rows.append((faces.key(i), [Cell(n * SIZE, image, text) for n, (text, image) in enumerate(cells)]))
    if not rows:
        raise InputError(f"none of the images that were looked at can be used; the last: {bad}")
    return draw_rows(rows)
