"""A training set: several sources as one, its split into training and held-out identities."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobileface.data.faces import UNLABELLED, FaceSource
from mobileface.errors import InputError


class FaceSet:
    """Sources one after another; labels are made contiguous over all of them.

    Identities of two sources are never merged, equal names or not: "001" of one set is not "001" of another.
    """

    def __init__(self, sources: Sequence[FaceSource]) -> None:
        if not sources:
            raise InputError("data.train is empty; wanted at least one folder or .rec")
        self.sources = list(sources)
        self.starts = np.cumsum([0] + [len(source) for source in sources])
        parts, classes = [], 0
        for source in sources:
            own = source.labels
            parts.append(np.where(own == UNLABELLED, UNLABELLED, own + classes))
            classes += int(own.max(initial=-1)) + 1
        self.labels: NDArray[np.int64] = np.concatenate(parts)
        self.num_identities = classes
        scores = [part for source in sources if (part := getattr(source, "scores", None)) is not None]
        self.scores: NDArray[np.float32] | None = None  # (N,) quality of each image, where every source has some
        if len(scores) == len(sources):
            self.scores = np.concatenate(scores).astype(np.float32)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def locate(self, i: int) -> tuple[FaceSource, int]:
        """The source of image `i` and its index there."""
        s = int(np.searchsorted(self.starts, i, side="right")) - 1
        return self.sources[s], int(i - self.starts[s])

    def read(self, i: int) -> bytes | memoryview:
        """The encoded image `i`."""
        source, j = self.locate(i)
        return source.read(j)

    def key(self, i: int) -> str:
        """The name of image `i` in messages."""
        source, j = self.locate(i)
        return source.key(j)

    def fingerprint(self) -> str:
        """SHA-256 over the sources' fingerprints, in order."""
        return hashlib.sha256("\n".join(s.fingerprint() for s in self.sources).encode()).hexdigest()


@dataclass(frozen=True)
class Split:
    """Indices into a FaceSet, and the class of each of its images in training (UNLABELLED where it has none)."""

    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    classes: NDArray[np.int64]
    num_classes: int
    long_tail: int = 0  # images of identities with too few of them; they are in neither


def split_identities(faces: FaceSet, fraction: float, seed: int, min_images: int = 1) -> Split:
    """Hold out `fraction` of the identities that have two images or more (at least two, if any are held out).

    Held-out identities never reach training; they judge which checkpoint is best. UNLABELLED images train.
    Identities with fewer than `min_images` images are used for nothing. InputError where that, or images without a
    label, leave too few to hold out or nobody.
    """
    labels = faces.labels
    known = labels[labels != UNLABELLED]
    images = np.bincount(known, minlength=faces.num_identities)
    candidates = np.flatnonzero(images >= max(2, min_images))
    count = max(2, round(fraction * len(candidates))) if fraction > 0 else 0
    if count and not len(known):
        raise InputError(
            f"none of {len(labels)} training images has a label (labelled: false), so that nobody can be held out; "
            "wanted labelled: true, or data.validate.identities: 0 and, to learn from a teacher alone, "
            "terms: [distillation] and teacher: {model: FILE}"
        )
    if len(known) and (images.max() < min_images or (count and len(candidates) < 4 <= (images >= 2).sum())):
        raise InputError(
            f"data.min_images {min_images} leaves {(images >= min_images).sum()} of {(images > 0).sum()} identities "
            f"(most images of one: {images.max()}); wanted "
            f"{'four or more, two to hold out and two' if count else 'at least one'} to train on"
        )
    if count and len(candidates) < 4:
        raise InputError(
            f"{len(candidates)} of {(images > 0).sum()} identities have two images or more; wanted four, two to hold "
            "out and two to train on, or data.validate.identities: 0, which turns validation off"
        )
    if count and len(candidates) - count < 2:
        most = np.floor(100 * (len(candidates) - 2) / len(candidates)) / 100
        raise InputError(
            f"data.validate.identities {fraction:g} holds out {count} of {len(candidates)} identities with two images "
            f"or more, and two must be left to train on; wanted at most {most:g}, or 0, which turns validation off"
        )
    rng = np.random.Generator(np.random.Philox(key=[seed, 0]))
    out = np.sort(rng.permutation(candidates)[:count])
    is_out = np.isin(labels, out)
    is_tail = np.isin(labels, np.flatnonzero((images > 0) & (images < min_images)))
    train = np.flatnonzero(~is_out & ~is_tail)
    present = np.unique(labels[train][labels[train] != UNLABELLED])
    number = np.full(faces.num_identities + 1, UNLABELLED, np.int64)  # the last entry serves UNLABELLED (-1)
    number[present] = np.arange(len(present))
    classes = np.where(is_out | is_tail, UNLABELLED, number[labels])
    return Split(train, np.flatnonzero(is_out), classes, len(present), int(is_tail.sum()))
