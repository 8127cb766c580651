"""Feature norms against what is known about a picture, one factor at a time (LGAF, 3.1 and Fig. 4).

The paper takes Multi-PIE and RaFD; here the faces are procedural, and nobody among them was trained on. Each person is
drawn at every level of a factor, the others at rest and background, light and noise the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobileface.correlation import pearson, spearman
from mobileface.data.images import SIZE, Image
from mobileface.data.synthetic import Factors, render
from mobileface.understanding.inside import Images, Norms, in_batches

PEOPLE = 64  # drawn at each level
WORLD = 0xFACE << 32  # of people that no training set begins with


@dataclass(frozen=True)
class Factor:
    """A field of `Factors` and the values it takes, from rest to its worst; `strength` of a value is what norms are
    correlated with. `within`: a strength up to which they are correlated once more."""

    field: str
    unit: str
    values: tuple[float, ...]
    strength: Callable[[float], float] = float
    within: float | None = None


FACTORS: dict[str, Factor] = {
    "yaw": Factor("yaw_degrees", "degrees", (0, 15, 30, 45, 60, 75, 90), within=45),  # the paper's Fig. 4d: 0 to 45
    "expression": Factor("expression", "neutral to laughing", (0, 1, 2, 3, 4)),
    "blur": Factor("blur_px", "px of movement", (0, 6, 12, 18)),  # the paper's lengths
    "resolution": Factor("resolution_px", "px", (SIZE, 56, 28, 14), lambda side: float(np.log2(SIZE / side))),
    "occlusion": Factor("occlusion", "share of the picture", (0, 0.1, 0.2, 0.3, 0.4)),
}


def pictures(factor: Factor, people: int) -> Images:
    """(levels, people, 112, 112, 3). Every other person turns to the left."""
    return np.stack([[_picture(person, factor, value) for person in range(people)] for value in factor.values])


def _picture(person: int, factor: Factor, value: float) -> Image:
    levels: dict[str, Any] = {"turned_left": person % 2 == 1, factor.field: value}
    return render(WORLD + person, Factors(**levels), person)


def factor_norms(measure: Norms, factor: Factor, faces: Images) -> dict[str, Any]:
    """What `faces`, the factor's `pictures`, say of each branch: mean and deviation of the norm over people at each
    level; Pearson and Spearman correlation with the strength over all pictures, Pearson within the smaller range."""
    levels, people = faces.shape[:2]
    found = in_batches(measure, faces.reshape(-1, *faces.shape[2:]))
    branches = {name: _branch(factor, norms.reshape(levels, people)) for name, norms in found.items()}
    return {"unit": factor.unit, "levels": list(factor.values), "within": factor.within, "branches": branches}


def _branch(factor: Factor, norms: NDArray[np.float64]) -> dict[str, Any]:
    """Of norms (levels, people)."""
    strengths = np.array([factor.strength(value) for value in factor.values])
    spread = np.repeat(strengths, norms.shape[1])
    row = {
        "mean": norms.mean(1).tolist(),
        "std": norms.std(1).tolist(),
        "pearson": pearson(spread, norms.ravel()),
        "spearman": spearman(spread, norms.ravel()),
    }
    if factor.within is not None:
        near = spread <= factor.within
        row["pearson_within"] = pearson(spread[near], norms.ravel()[near])
    return row
