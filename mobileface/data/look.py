"""A sheet of what a view's augmentation makes of a set's crops: wrong colours and odd strengths are seen at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mobileface.data.augment import OPERATIONS, Step, apply, generator
from mobileface.data.faceset import FaceSet
from mobileface.data.images import SIZE, BadImage, Image, decode
from mobileface.data.sheet import Cell, draw_rows
from mobileface.errors import InputError

DRAWS = 6  # of the whole view


def look(faces: FaceSet, steps: Sequence[Step], seed: int, images: int) -> Image:
    """(H, W, 3) RGB, a row for each of `images` crops spread over the set.

    In a row: the crop as it is read, what each step makes of it alone (whatever its probability), and draws of the
    whole view. Bad images are left out; InputError where that leaves none.
    """
    rows, bad = [], ""
    for i in np.linspace(0, len(faces) - 1, min(images, len(faces))).astype(int).tolist():
        try:
            crop = decode(faces.read(i), faces.key(i))
        except BadImage as error:
            bad = str(error)
            continue
        cells = [("as read", crop)]
        cells += [(name, OPERATIONS[name](crop, generator(seed, i), **strength)) for name, _, strength in steps]
        draws = range(i * DRAWS, (i + 1) * DRAWS)
        cells += [(f"draw {n}", apply(crop, steps, generator(seed, draw))) for n, draw in enumerate(draws, 1)]
        rows.append((faces.key(i), [Cell(n * SIZE, image, text) for n, (text, image) in enumerate(cells)]))
    if not rows:
        raise InputError(f"none of the images that were looked at can be used; the last: {bad}")
    return draw_rows(rows)
