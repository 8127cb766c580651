"""How the norms of real faces are distributed, and who is found at their ends (LGAF, Fig. 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobileface.data.faces import FaceSource
from mobileface.data.images import BadImage, Image, decode
from mobileface.errors import InputError
from mobileface.understanding.inside import Images

MOST = 2000  # crops that are embedded, drawn at random from a larger set
SHOWN = 8  # of them at each place
BINS = 40
PLACES = ("low", "middle", "high")


@dataclass(frozen=True, eq=False)
class Crops:
    """Faces of a set: images (N, 112, 112, 3), their keys, how many images the set has, how many bad ones were passed
    over, the set's hash."""

    name: str
    images: Images
    keys: list[str]
    whole: int
    bad: int
    sha256: str

    def to_dict(self) -> dict[str, Any]:
        """What they are, without the images."""
        counts = {"images": len(self.keys), "whole": self.whole, "bad": self.bad}
        return {"name": self.name, **counts, "sha256": self.sha256}


def read_crops(source: FaceSource, most: int = MOST) -> Crops:
    """At most `most` crops in a fixed random order. InputError where no image can be used."""
    rng = np.random.Generator(np.random.Philox(key=[0, 4]))
    crops: list[Image] = []
    keys: list[str] = []
    bad, last = 0, ""
    for i in map(int, rng.permutation(len(source))):
        if len(crops) == most:
            break
        try:
            crops.append(decode(source.read(i), source.key(i)))
            keys.append(source.key(i))
        except BadImage as error:
            bad, last = bad + 1, str(error)
    if not crops:
        raise InputError(f"{source.name}: none of its {len(source)} images can be used; the last: {last}")
    return Crops(source.name, np.stack(crops), keys, len(source), bad, source.fingerprint())


def distribution(norms: NDArray[np.float64], keys: Sequence[str]) -> dict[str, Any]:
    """Of norms (N,): mean, deviation, quantiles, a histogram of BINS, and key and norm of those to be shown."""
    middle = (norms.min() + norms.max()) / 2
    least = 1e-6 * max(abs(middle), 1.0) / 2  # narrower bins would have equal edges
    ends = min(norms.min(), middle - least), max(norms.max(), middle + least)
    counts, edges = np.histogram(norms, BINS, ends)
    shares = (0.01, 0.05, 0.5, 0.95, 0.99)
    return {
        "mean": float(norms.mean()),
        "std": float(norms.std()),
        "quantiles": dict(zip(map(str, shares), np.quantile(norms, shares).tolist(), strict=True)),
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
        "shown": {
            place: [{"key": keys[i], "norm": float(norms[i])} for i in chosen]
            for place, chosen in picks(norms, SHOWN).items()
        },
    }


def picks(norms: NDArray[np.float64], shown: int) -> dict[str, list[int]]:
    """Indices of the lowest, the middlemost and the highest norms, at most `shown` each, in rising order.

    From three images on none stands twice.
    """
    order = np.argsort(norms, kind="stable")
    count = min(shown, len(order) // len(PLACES)) or 1
    starts = (0, (len(order) - count) // 2, len(order) - count)
    return {place: order[start : start + count].tolist() for place, start in zip(PLACES, starts, strict=True)}
