"""One-colour images for pair sets, and what a pair set holds as rows."""

from __future__ import annotations

import numpy as np

from mobileface.data.images import encode
from mobileface.data.pairs import PairSet


def image(seed: int) -> bytes:
    return encode(np.full((112, 112, 3), seed % 256, np.uint8))


def as_rows(pairs: PairSet) -> list[tuple[str, str, bool, int]]:
    return [
        (pairs.key(a), pairs.key(b), bool(same), int(fold))
        for a, b, same, fold in zip(pairs.first, pairs.second, pairs.same, pairs.fold, strict=True)
    ]
