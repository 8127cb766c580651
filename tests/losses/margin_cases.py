"""The textbook's margin of angles in plain Python, shapes of it, and cosines to judge margins on."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mobileface.losses.margins import Combined

SHAPES = [  # factor (m1), radians (m2), cosine (m3)
    (1.0, 0.0, 0.0),
    (1.0, 0.5, 0.0),
    (1.0, 0.0, 0.35),
    (1.0, 0.3, 0.2),
    (1.35, 0.0, 0.0),
    (1.35, 0.4, 0.1),
    (3.0, 0.0, 0.0),
    (1.0, 3.0, 0.0),
]
Shape = tuple[float, float, float]


def make(shape: Shape, **options: Any) -> Combined:
    return Combined(factor=shape[0], radians=shape[1], cosine=shape[2], **options)


def textbook(theta: float, factor: float, radians: float, cosine: float) -> float:
    """cos(m1 theta + m2) - m3 up to the turn, the shifted cosine after it; one angle, plain Python."""
    if factor * theta + radians <= math.pi:
        return math.cos(factor * theta + radians) - cosine
    return math.cos(theta) - math.cos((math.pi - radians) / factor) - 1 - cosine


def doubles(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def grid(n: int = 2001, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.linspace(0, math.pi, n, dtype=torch.float64).cos().to(dtype)
