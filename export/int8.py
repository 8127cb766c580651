"""What an int8 export needs beside the network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mobileface.arch import INPUT_SIZE
from mobileface.errors import InputError, nearest

LEAST_CROPS = 16  # the fewest that ranges are taken from


@dataclass(frozen=True)
class Int8:
    """The crops that ranges are taken from, and the layers that stay float.

    crops: (N, 112, 112, 3) uint8 RGB, real faces, usually 32 to 256; keep: names in
    `fuse(network).named_modules()`: of a layer ("stages.2.0.se.reduce"), or of a module for what it does itself (the
    product of "stages.2.0.se", the sum of "stages.2.0"). InputError for crops of another type or shape, for fewer than
    16, and where more than half of them are of one colour.
    """

    crops: NDArray[np.uint8]
    keep: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        crops = self.crops
        wanted = (INPUT_SIZE, INPUT_SIZE, 3)
        if crops.dtype != np.uint8 or crops.shape[1:] != wanted:
            raise InputError(f"calibration: crops are {crops.dtype} {crops.shape}, wanted uint8 (N, 112, 112, 3)")
        if len(crops) < LEAST_CROPS:
            raise InputError(f"calibration: {len(crops)} crops, wanted at least {LEAST_CROPS}, better 64")
        blank = sum(int((crop == crop[0, 0]).all()) for crop in crops)
        if 2 * blank > len(crops):
            raise InputError(f"calibration: {blank} of {len(crops)} crops are of one colour, wanted faces")

    def check_names(self, fused: nn.Module) -> None:
        """InputError for a name to keep that is no module of the folded network."""
        known = dict(fused.named_modules())
        if unknown := sorted(self.keep - known.keys()):
            raise InputError(f"keep: no layer is called {unknown[0]!r}{nearest(unknown[0], known)}")
