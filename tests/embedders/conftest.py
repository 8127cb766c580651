"""Images that every file embedder is tried on."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def images() -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), dtype=np.uint8)
    images[..., 0] //= 2  # red, green and blue differ in their means
    images[..., 2] //= 4
    return images
