"""Templates: several images of one person as one vector, and the 1:1 protocol over pairs of them (IJB-B, IJB-C)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobileface.data.searches import Members
from mobileface.errors import InputError
from mobileface.evaluation import scores as sc
from mobileface.evaluation.identification import NO_SCORE, Units, empty_rows

FARS = {f"1e-{power}": 10.0**-power for power in range(6, 0, -1)}
PAIRS = 1 << 12  # scored at once: what stays in a cache is faster


@dataclass(frozen=True)
class Fusion:
    """How images become a template. Papers differ, so every choice stands in the result.

    norm_weighted: images keep the length of their embedding ("N1" of InsightFace's variants), or count alike (N0).
    detector_weighted: each is weighted by its detector's score (D1), where the set ships one. media_averaged: images of
    one photograph or video are averaged first (M1), where the set says so; their means are summed.
    """

    norm_weighted: bool = True
    detector_weighted: bool = True
    media_averaged: bool = True


DEFAULT = Fusion()


def parse_fusion(text: str) -> Fusion:
    """ "N0D1" or "N1D0M0" -> Fusion; M1 unless told. Raises InputError."""
    found = re.fullmatch(r"N([01])D([01])(?:M([01]))?", text)
    if found is None:
        raise InputError(f"--templates is {text[:40]!r}, wanted N0 or N1, D0 or D1, perhaps M0, such as N1D1 or N0D1M0")
    return Fusion(*(part != "0" for part in found.groups()))


def described(fusion: Fusion, members: Members, flip: str) -> dict[str, Any]:
    """The choices as they were made for a set: what it does not ship is not used. `variant` is InsightFace's name."""
    detector = fusion.detector_weighted and members.detector is not None
    variant = f"N{fusion.norm_weighted:d}D{detector:d}F{1 + (flip == 'sum')}"
    return {
        "variant": variant,
        "norm_weighted": fusion.norm_weighted,
        "detector_weighted": detector,
        "media_averaged": fusion.media_averaged and members.media is not None,
    }


def fuse(raw: NDArray[np.float32], members: Members, fusion: Fusion = DEFAULT) -> Units:
    """(N, D) raw embeddings -> (T, D) templates of length 1, zeros for an empty one.

    Weights first (norm, detector), then the mean of each medium, the sum of them, length 1; in float64. Raises
    InputError for an image without a direction, and for a template that its images cancel out of.
    """
    lengths = np.sqrt(np.einsum("nd,nd->n", raw, raw, dtype=np.float64))
    if (lengths == 0).any():
        raise InputError(f"{(lengths == 0).sum()} of {len(lengths)} embeddings are all zero, wanted a direction")
    weights = np.ones(len(raw)) if fusion.norm_weighted else 1 / lengths
    if fusion.detector_weighted and members.detector is not None:
        weights = weights * members.detector
    order = np.argsort(members.template, kind="stable")
    ends = np.searchsorted(members.template[order], np.arange(members.count + 1))
    units = np.zeros((members.count, raw.shape[1]), np.float32)
    for t, (start, end) in enumerate(pairwise(ends.tolist())):
        entries = order[start:end]
        if not len(entries):
            continue
        images = members.image[entries]
        features = raw[images].astype(np.float64) * weights[images, None]
        if fusion.media_averaged and members.media is not None:
            features = _media_means(features, members.media[entries])
        whole = features.sum(axis=0)
        length = np.linalg.norm(whole)
        if length <= 1e-12 * np.abs(features).sum():
            raise InputError(
                f"template {t}: its {len(images)} images sum to nothing, wanted a direction (they cancel each other, "
                "or the detector's score of each is 0)"
            )
        units[t] = whole / length
    return units


def _media_means(features: NDArray[np.float64], media: NDArray[np.int64]) -> NDArray[np.float64]:
    """(m, D) -> the mean of each medium, in order of its number."""
    order = np.argsort(media, kind="stable")
    starts, counts = np.unique(media[order], return_index=True, return_counts=True)[1:]
    means: NDArray[np.float64] = np.add.reduceat(features[order], starts, axis=0) / counts[:, None]
    return means


def pair_scores(units: Units, first: NDArray[np.int64], second: NDArray[np.int64]) -> sc.Floats:
    """Cosine of each pair of templates (P,), NO_SCORE where one is empty; a block of pairs at a time."""
    empty = empty_rows(units)
    scores = np.empty(len(first))
    for start in range(0, len(first), PAIRS):
        block = slice(start, start + PAIRS)
        scores[block] = sc.cosines(units, first[block], second[block])
    scores[empty[first] | empty[second]] = NO_SCORE
    return scores


def verify(scores: sc.Floats, same: sc.Bools) -> dict[str, Any]:
    """TAR by FAR and the curve of the 1:1 protocol.

    `tar`: at the lowest threshold that accepts at most FAR of the impostor pairs, ties included, as everywhere here; a
    FAR below 1 / (impostor pairs) is left out. `tpr_nearest`: as InsightFace reads it, at the point of the ROC nearest
    to the FPR, whichever side it is on; of equally near ones, the last.
    """
    fpr, tpr = sc.roc(scores, same)
    highest = np.sort(scores[~same])[::-1]
    thin_fpr, thin_tpr = sc.thin_roc(fpr, tpr)
    resolved = {name: far for name, far in FARS.items() if sc.allowed(far, len(highest)) >= 1}
    corners = _corners(fpr, tpr, same)
    return {
        "tar": {name: sc.tar_at_far(scores[same], highest, len(highest), far) for name, far in resolved.items()},
        "tar_impostors": {"source": "list", "pairs": len(highest)},
        "tpr_nearest": {name: _nearest(*corners, far) for name, far in FARS.items()},
        "eer": sc.eer(fpr, tpr),
        "auc": sc.auc(fpr, tpr),
        "roc": {"fpr": thin_fpr.tolist(), "tpr": thin_tpr.tolist()},
        "histogram": sc.histogram(scores, same),
    }


def _corners(fpr: sc.Floats, tpr: sc.Floats, same: sc.Bools) -> tuple[sc.Floats, sc.Floats]:
    """The ROC without points on a straight line between their neighbours, as scikit-learn's `roc_curve` gives it.

    It looks at the points of scores alone: the first of them stays, (0, 0) comes before it.
    """
    positive = int(same.sum())
    counts = np.rint(fpr * (len(same) - positive)), np.rint(tpr * positive)  # whole numbers: their steps are exact
    bent = (np.diff(counts[0][1:], 2) != 0) | (np.diff(counts[1][1:], 2) != 0)
    kept = np.r_[True, True, bent, True][: len(fpr)]
    return fpr[kept], tpr[kept]


def _nearest(fpr: sc.Floats, tpr: sc.Floats, far: float) -> float:
    backwards = np.abs(fpr - far)[::-1]
    return float(tpr[::-1][int(np.argmin(backwards))])
