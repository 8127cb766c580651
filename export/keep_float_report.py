"""What was found of a network in int8, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LayerDamage:
    """What one layer costs in int8 while all else is float: 1 - cosine of the embedding, mean and worst crop."""

    name: str
    kind: str  # first conv, depthwise, SE, GDC, last linear, other
    weights: int
    mean: float
    worst: float


@dataclass(frozen=True)
class Kept:
    """A part that stays float, its share of the network's work, and the mean cosine if it alone were in int8 too."""

    name: str
    work: float
    without: float


@dataclass(frozen=True)
class Report:
    """How `choose` came to what it keeps. The cosines are of the whole network, on the judged crops."""

    wanted: float
    crops: int  # judged
    all_int8: tuple[float, float]  # mean and least cosine with everything in int8
    found: tuple[float, float]  # and with the kept parts in float
    kept: tuple[Kept, ...]
    layers: tuple[LayerDamage, ...]

    @property
    def reached(self) -> bool:
        """Whether the wanted mean cosine was reached."""
        return self.found[0] >= self.wanted

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "reached": self.reached}
