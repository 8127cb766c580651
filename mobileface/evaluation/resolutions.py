"""Verification across resolutions: how well pairs are told apart whose images once were smaller.

As the octuplet loss is judged (papers, 4.3): *cross*, the second image of each pair at a side, the first one whole;
*same*, both at that side. The whole matrix is measured, the first image at one side and the second at another; *same*
is its diagonal and *cross* its last row. At 112 px both are the plain protocol of `evaluate`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobileface.data.degrade import at_side
from mobileface.data.images import SIZE, decode
from mobileface.data.pairs import PairSet
from mobileface.embedders.contract import Embedder, embed_with_flip
from mobileface.errors import InputError
from mobileface.evaluation import scores as sc
from mobileface.evaluation.verification import BATCH, FARS, Progress

KINDS = ("cross", "same")
FAR = "1e-3"
DEGRADATION = "bicubic to the side with anti-aliasing, bicubic back to 112 px; then the flip"

Units = NDArray[np.float32]  # (N, D), rows of length 1


def parse_sides(text: str) -> list[int]:
    """ "7,28" -> [7, 28, 112]: px, rising, each once, always with the whole image. Raises InputError."""
    parts = [part.strip() for part in text.split(",")]
    sides = [int(part) for part in parts if re.fullmatch(r"[0-9]{1,3}", part)]
    if len(sides) < len(parts) or not all(1 <= side <= SIZE for side in sides):
        raise InputError(f"--sides is {text[:80]!r}, wanted whole numbers from 1 to {SIZE} (px) such as 7,14,28")
    return sorted({*sides, SIZE})


def measure(
    embedder: Embedder, pair_set: PairSet, sides: Sequence[int], flip: str, progress: Progress | None = None
) -> dict[str, Any]:
    """Judge `embedder` on a pair set at each of `sides`, px, as `parse_sides` gives them.

    Gives `rows` (a dict for each kind and side), `matrix` (accuracy by sides of first and second image, 0..1) and
    `mean` (of the accuracy over the sides, by kind). All embeddings of the set are held, for each side, no pixels.
    """
    units = embed_at(embedder, pair_set, sides, flip, progress)
    scores = {(a, b): cosines(units[a], units[b], pair_set) for a in sides for b in sides}
    rows = [_row(pair_set, units, scores, kind, side) for kind in KINDS for side in sides]
    return {
        "rows": rows,
        "matrix": [[_accuracy(pair_set, scores[a, b]) for b in sides] for a in sides],
        "mean": {kind: float(np.mean([r["accuracy"] for r in rows if r["kind"] == kind])) for kind in KINDS},
    }


def embed_at(
    embedder: Embedder, pair_set: PairSet, sides: Sequence[int], flip: str, progress: Progress | None = None
) -> dict[int, Units]:
    """Unit embeddings (N, D) of a set's images at each side; every image is decoded once and embedded once a side.

    `progress` counts an image at each side as one.
    """
    total = len(pair_set.images)
    raw = {side: np.empty((total, embedder.dim), np.float32) for side in sides}
    for start in range(0, total, BATCH):
        indices = range(start, min(start + BATCH, total))
        whole = [decode(pair_set.read(i), f"{pair_set.name}: {pair_set.key(i)}") for i in indices]
        for number, side in enumerate(sides, start=1):
            images = np.stack([at_side(image, side) for image in whole])
            raw[side][start : indices.stop] = embed_with_flip(embedder, images) if flip == "sum" else embedder(images)
            if progress is not None:
                progress(start * len(sides) + number * len(whole), total * len(sides))
    return {side: sc.unit(raw.pop(side)) for side in sides}


def cosines(first: Units, second: Units, pair_set: PairSet) -> sc.Floats:
    """(P,) of each pair: its first image by `first` (N, D), its second by `second`."""
    return np.einsum("pd,pd->p", first[pair_set.first], second[pair_set.second]).astype(np.float64)


def strangers(first: Units, second: Units, identity: NDArray[np.int64], keep: int) -> tuple[sc.Floats, sc.Floats]:
    """All pairs of an image by `first` and an image of another person by `second`, (N, D) each, ordered pairs.

    Gives the `keep` highest cosines, highest first, and the highest of each row of `first`, (N,). Goes through the
    N x N cosines in blocks: memory grows with sc.BLOCK + keep.
    """
    best = np.empty(0, np.float32)
    hardest = np.empty(len(first), np.float64)
    rows = max(1, sc.BLOCK // len(second))
    for start in range(0, len(first), rows):
        block = slice(start, start + rows)
        scores = first[block] @ second.T
        scores[identity[block, None] == identity[None, :]] = -np.inf
        hardest[block] = scores.max(axis=1)
        floor = best.min() if len(best) >= keep > 0 else -np.inf
        best = np.concatenate([best, scores[scores > floor]])
        best = np.partition(best, len(best) - keep)[len(best) - keep :] if len(best) > keep else best
    return np.sort(best)[::-1].astype(np.float64), hardest


def _accuracy(pair_set: PairSet, scores: sc.Floats) -> float:
    return float(sc.k_fold(scores, pair_set.same, pair_set.fold)[0].mean())


def _row(
    pair_set: PairSet,
    units: Mapping[int, Units],
    scores: Mapping[tuple[int, int], sc.Floats],
    kind: str,
    side: int,
) -> dict[str, Any]:
    """One kind at one side; the keys that `evaluate` has too mean the same."""
    first = SIZE if kind == "cross" else side
    own = scores[first, side]
    accuracies, thresholds = sc.k_fold(own, pair_set.same, pair_set.fold)
    fpr, tpr = sc.roc(own, pair_set.same)
    thin_fpr, thin_tpr = sc.thin_roc(fpr, tpr)
    return {
        "kind": kind,
        "side": side,
        "accuracy": float(accuracies.mean()),
        "std": float(accuracies.std()),  # over the folds, ddof 0
        "threshold": float(thresholds.mean()),
        "eer": sc.eer(fpr, tpr),
        "auc": sc.auc(fpr, tpr),
        **_against_strangers(pair_set, units[first], units[side], own),
        "roc": {"fpr": thin_fpr.tolist(), "tpr": thin_tpr.tolist()},
    }


def _against_strangers(pair_set: PairSet, first: Units, second: Units, scores: sc.Floats) -> dict[str, Any]:
    """TAR at FAR 1e-3 (None where there are too few impostor pairs to resolve it) and the hardest unmatched images.

    The impostors are all pairs of different people among the set's images, the first by `first`, the second by
    `second`; those of the list where nobody knows who is who, as in a .bin file.
    """
    genuine, identity = scores[pair_set.same], pair_set.identity
    if identity is None:
        highest, source = np.sort(scores[~pair_set.same])[::-1], "list"
        impostors, unmatched = len(highest), None
    else:
        whole, source = first is second, "all pairs"
        impostors = sc.count_impostors(identity) * (1 if whole else 2)  # (a, b) and (b, a) are two but for one side
        keep = sc.allowed(FARS[FAR], impostors) + 1
        highest, hardest = strangers(first, second, identity, keep)
        highest = sc.top_impostors(first, identity, keep) if whole else highest
        unmatched = _unmatched(genuine, hardest[pair_set.first[pair_set.same]])
    resolved = sc.allowed(FARS[FAR], impostors) >= 1
    return {
        "tar": {FAR: sc.tar_at_far(genuine, highest, impostors, FARS[FAR]) if resolved else None},
        "tar_impostors": {"source": source, "pairs": impostors},
        "unmatched": unmatched,
    }


def _unmatched(genuine: sc.Floats, hardest: sc.Floats) -> dict[str, Any]:
    """Genuine pairs against the most similar stranger of each one's first image (QGFace, Fig. 6)."""
    both = np.concatenate([genuine, hardest])
    histogram = sc.histogram(both, np.arange(len(both)) < len(genuine))
    matched, unmatched = float(genuine.mean()), float(hardest.mean())
    return {
        "matched_mean": matched,
        "hardest_mean": unmatched,
        "difference": matched - unmatched,
        "histogram": {"edges": histogram["edges"], "matched": histogram["same"], "hardest": histogram["different"]},
    }
