"""What a set for identification is: who looks for whom, in which galleries, and what of it is reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mobileface.data.image_files import ImageFiles


@dataclass(frozen=True, eq=False)
class Members:
    """Which images make up T templates: image `image[m]` belongs to template `template[m]`.

    An image may be in several templates, a template may be empty. media: the photograph or video that an entry comes
    from, None where it does not matter. detector: the detector's score of each image, None where nobody ships it.
    """

    count: int  # T
    image: NDArray[np.int64]  # (M,), 0..N-1
    template: NDArray[np.int64]  # (M,), 0..T-1
    media: NDArray[np.int64] | None = None  # (M,)
    detector: NDArray[np.float32] | None = None  # (N,)


@dataclass(frozen=True, eq=False)
class Search:
    """Probes and the galleries they are looked for in, as indices of templates (of images where there are none)."""

    name: str
    probes: NDArray[np.int64]  # (P,)
    galleries: tuple[NDArray[np.int64], ...]  # (G,) each


@dataclass(frozen=True, eq=False)
class IdentificationSet:
    """Searches among one set of images.

    identity: whose each template (or image) is; UNLABELLED for a distractor, who is nobody's mate. joined: whether two
    galleries are one for the closed-set rates (IJB-S in public code), or each is searched and the rates are averaged
    (IJB-B and IJB-C). official: what the whole set holds, by name; `counts` what was found.
    """

    name: str
    files: ImageFiles
    identity: NDArray[np.int64]  # (T,) or (N,)
    searches: tuple[Search, ...]
    ranks: tuple[int, ...]
    members: Members | None = None
    joined: bool = True
    fpirs: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    official: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
