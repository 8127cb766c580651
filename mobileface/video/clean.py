"""Which frames of a video are of its person: those in the largest group of similar frames.

Progressive framework, 4.2: "we use unsupervised clustering based on Union-Find for each video to remove the noise
frames. We choose the relatively large cluster which contains the most elements as the cleaned frames of the video."
Of equally large ones we take the one with the higher mean quality (the norms of its embeddings), then the one with the
earliest frame. So where no two frames are similar, the frame of the highest quality is what is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobileface.errors import InputError, nearest
from mobileface.unionfind import by_size, check_starts, components_of_each
from mobileface.video.aggregate import WEIGHTS, aggregate

THRESHOLD = 0.4  # the best of Table 5
ROWS = 1 << 12  # frames of short videos at once: some MiB of embeddings


@dataclass(frozen=True, eq=False)
class Cleaned:
    """component: (N,) int64 within the frame's video, 0 is kept, the others by falling size. quality: (N,) float32,
    the norms. cosine: (N,) float32, of each frame to its video's feature. feature: (V, D) float32, unit rows or
    zeros."""

    component: NDArray[np.int64]
    quality: NDArray[np.float32]
    cosine: NDArray[np.float32]
    feature: NDArray[np.float32]

    @property
    def kept(self) -> NDArray[np.bool_]:
        """(N,): the frame is one of the largest component."""
        return self.component == 0


def clean(
    raw: NDArray[np.float32], starts: NDArray[np.int64], threshold: float | None = THRESHOLD, weights: str = "mean"
) -> Cleaned:
    """Clean many videos at once, each by itself.

    raw: (N, D) embeddings of their frames, not normalised. starts: (V + 1,) from 0 to N, rising; video v has rows
    starts[v] to starts[v + 1]. threshold: the cosine that joins two frames; None cleans nothing. weights: "mean" of
    the unit embeddings, or "norm": weighted by their norms. Memory beside the result is some times that of ROWS
    embeddings, or of the longest video.

    Raises InputError for an embedding that is not finite or has length 0, and for what cannot be cleaned by.
    """
    if weights not in WEIGHTS:
        raise InputError(f"weights is {weights!r}{nearest(weights, WEIGHTS)}; wanted {' or '.join(WEIGHTS)}")
    check_starts(starts, len(raw))
    found = Cleaned(
        np.zeros(len(raw), np.int64),
        np.empty(len(raw), np.float32),
        np.empty(len(raw), np.float32),
        np.empty((len(starts) - 1, raw.shape[1]), np.float32),
    )
    first = 0
    while first < len(starts) - 1:
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + ROWS, side="right")) - 1)
        _clean_into(found, raw, starts, slice(first, last), threshold, weights)
        first = last
    return found


def _clean_into(
    found: Cleaned,
    raw: NDArray[np.float32],
    starts: NDArray[np.int64],
    videos: slice,
    threshold: float | None,
    weights: str,
) -> None:
    """Clean some videos and put what was found into its place: what they need stays in the processor's cache."""
    rows = slice(starts[videos.start], starts[videos.stop])
    own, own_starts = raw[rows], starts[videos.start : videos.stop + 1] - rows.start
    with np.errstate(all="ignore"):
        quality = np.sqrt(np.einsum("nd,nd->n", own, own))
    wrong = np.flatnonzero(~(np.isfinite(quality) & (quality > 0)))
    if len(wrong):
        length = quality[wrong[0]]
        raise InputError(f"frame {rows.start + wrong[0]} has an embedding of length {length:g}; wanted above 0, finite")
    units = own / quality[:, None]
    component = found.component[rows]
    if threshold is not None:
        component[:] = by_size(components_of_each(units, own_starts, threshold), quality, own_starts)
    feature = aggregate(units if weights == "mean" else own, component == 0, own_starts)
    found.quality[rows], found.feature[videos] = quality, feature
    found.cosine[rows] = np.einsum("nd,nd->n", units, np.repeat(feature, np.diff(own_starts), axis=0))
