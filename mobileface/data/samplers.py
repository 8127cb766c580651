"""Samplers: position in the stream of samples -> image. A function of (images, classes, batch, seed), no history.

So resume is exact, and any number of loading processes and ranks agree on one order. Global batch b holds the
positions b * batch up to (b + 1) * batch; rank r of W takes the r-th of W equal parts of them. What a sampler keeps
between calls is only the order of the epoch at hand, made again when a position of another epoch is asked for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mobileface.data.augment import generator
from mobileface.data.faces import UNLABELLED
from mobileface.errors import InputError

Indices = NDArray[np.int64]


class Sampler(Protocol):
    """What the stream of batches asks for."""

    train: Indices  # (M,) the images that are drawn, in the order in which they were given
    left_out: int  # training images that are never drawn: they have no label
    epoch_length: int  # positions

    def __call__(self, position: int) -> int:
        """Index of the image at `position`, 0, 1, ..."""

    def check_parts(self, parts: int) -> None:
        """InputError where a batch cannot be split into so many equal parts (ranks, accumulated micro-batches)."""


class PlainSampler:
    """A new permutation of all images in each epoch."""

    def __init__(self, train: Indices, classes: Indices, batch: int, seed: int) -> None:
        self.train, self.batch, self.seed = train, batch, seed
        self.left_out, self.epoch_length = 0, len(train)
        self._epoch, self._order = -1, train

    def __call__(self, position: int) -> int:
        epoch, place = divmod(position, len(self.train))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, generator(self.seed, epoch).permutation(self.train)
        return int(self._order[place])

    def check_parts(self, parts: int) -> None:
        """`batch` must be a multiple of `parts`."""
        _check_parts("plain", self.batch, parts, 1)


class PKSampler:
    """Batches of batch / `images` identities with `images` images each, those of an identity side by side.

    No identity stands twice in a batch. An epoch is a fixed number of whole batches. In it an identity of n images
    fills max(1, n // images) slots, with images that follow one another in a permutation of its own, new in each
    epoch; it begins again from the front where it has fewer than `images`.

    Ours: slots that are missing in the last batch go, one each, to the identities with the most images left over.
    Where the others are too few to stand beside a large identity, it fills one slot of every batch, no more.

    short: identities with fewer than `images` images. repeats: draws in an epoch of an image that was drawn in it
    already, the same number in each epoch.
    """

    def __init__(self, train: Indices, classes: Indices, batch: int, seed: int, *, images: int = 4) -> None:
        if images < 1:
            raise InputError(f"sampler pk: images is {images}; wanted at least 1")
        if batch % images:
            raise InputError(f"sampler pk: batch is {batch}; wanted a multiple of its images of an identity, {images}")
        self._own = _by_identity("pk", train, classes)
        counts, places = self._own.counts, batch // images
        if len(counts) < places:
            raise InputError(
                f"sampler pk: found {len(counts)} labelled identities; wanted at least {places}, as a batch of {batch} "
                f"with {images} images of each holds"
            )
        self.train, self.left_out = self._own.train, self._own.left_out
        self.batch, self.seed, self.images = batch, seed, images
        share = np.maximum(counts // images, 1)
        self._batches = _batches(share, places)
        self._share = np.minimum(share, self._batches)
        self.epoch_length = self._batches * batch
        self.short = int((counts < images).sum())
        self.repeats = int(np.maximum(self._slots(np.arange(len(counts))) * images - counts, 0).sum())
        self._epoch, self._order = -1, self.train

    def __call__(self, position: int) -> int:
        epoch, place = divmod(position, self.epoch_length)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._draw(epoch)
        return int(self._order[place])

    def check_parts(self, parts: int) -> None:
        """`batch` must be a multiple of `parts` times `images`: parts share no identity of a batch."""
        _check_parts("pk", self.batch, parts, self.images)

    def _slots(self, order: Indices) -> Indices:
        """(C,) slots of each identity in an epoch; `order` decides between equals for the last batch's."""
        slots = self._share.copy()
        missing = self._batches * (self.batch // self.images) - int(slots.sum())
        open_ = order[slots[order] < self._batches]
        left_over = self._own.counts[open_] - self.images * slots[open_]
        slots[open_[np.argsort(-left_over, kind="stable")[:missing]]] += 1
        return slots

    def _draw(self, epoch: int) -> Indices:
        """(epoch_length,) images in the epoch's order."""
        own, rng = self._own, generator(self.seed, epoch)
        mixed = rng.permutation(len(own.images))
        mixed = own.images[mixed[np.argsort(own.identity[mixed], kind="stable")]]  # each identity's own permutation
        order = rng.permutation(len(own.counts))
        slots = self._slots(order)[order]
        identity = np.repeat(order, slots)
        nth = _ranges(np.zeros_like(slots), slots)  # the slot's number within its identity
        table = _spread(identity.reshape(-1, self._batches), rng)
        table = rng.permuted(table.T, axis=1)  # (batches, places); else each identity would keep its place, and rank
        identity, nth = identity[table, None], nth[table, None]
        within = (nth * self.images + np.arange(self.images)) % own.counts[identity]
        return mixed[own.starts[identity] + within].reshape(-1)


class ClassUniformSampler:
    """Every identity once in each cycle through all of them (its epoch), in a new order each time.

    Its image is the next of a permutation of its own, renewed when all its images were drawn. Cycle c is the c-th
    draw of every identity, so each of its images is drawn once before any is drawn twice, exactly.
    """

    def __init__(self, train: Indices, classes: Indices, batch: int, seed: int) -> None:
        self._own = _by_identity("class_uniform", train, classes)
        self.train, self.left_out = self._own.train, self._own.left_out
        self.batch, self.seed = batch, seed
        self.epoch_length = len(self._own.counts)
        self._rounds = np.full(self.epoch_length, -1)  # which permutation of each identity `_mixed` holds
        self._mixed = self._own.images.copy()
        self._cycle, self._order = -1, self.train

    def __call__(self, position: int) -> int:
        cycle, place = divmod(position, self.epoch_length)
        if cycle != self._cycle:
            self._cycle, self._order = cycle, self._draw(cycle)
        return int(self._order[place])

    def check_parts(self, parts: int) -> None:
        """`batch` must be a multiple of `parts`."""
        _check_parts("class_uniform", self.batch, parts, 1)

    def _draw(self, cycle: int) -> Indices:
        """(C,) images of the cycle."""
        own = self._own
        rounds = cycle // own.counts
        stale = np.flatnonzero(rounds != self._rounds)
        rows = _ranges(own.starts[stale], own.counts[stale])
        images, identity = own.images[rows], own.identity[rows]
        keys = _hash(self.seed, rounds[identity], images)
        self._mixed[rows] = images[np.lexsort((keys, identity))]
        self._rounds = rounds
        return self._mixed[own.starts + cycle % own.counts][generator(self.seed, cycle).permutation(len(own.counts))]


SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "plain": PlainSampler,
    "pk": PKSampler,
    "class_uniform": ClassUniformSampler,
}


@dataclass(frozen=True)
class _Identities:
    """The labelled images by identity: those of identity k (0..C-1) are images[starts[k] : starts[k] + counts[k]]."""

    images: Indices  # (M,)
    identity: Indices  # (M,) of each of `images`, rising
    starts: Indices  # (C,)
    counts: Indices  # (C,)
    train: Indices  # (M,) the same images in the order in which they were given
    left_out: int


def _by_identity(sampler: str, train: Indices, classes: Indices) -> _Identities:
    own = classes[train]
    labelled = own != UNLABELLED
    if not labelled.any():
        raise InputError(f"sampler {sampler}: found no label on any of {len(train)} training images; wanted some")
    kept = train[labelled]
    _, identity, counts = np.unique(own[labelled], return_inverse=True, return_counts=True)
    order = np.argsort(identity, kind="stable")
    starts = np.cumsum(counts) - counts
    return _Identities(kept[order], identity[order], starts, counts, kept, len(train) - len(kept))


def _batches(share: Indices, places: int) -> int:
    """Batches that hold `share` (C,) slots of C >= `places` identities, no identity twice in a batch.

    T batches hold min(share, T) slots of an identity. The sum of these less T * places is concave in T and not
    negative at 0 and 1, so the largest T that they fill is found by bisection; what they overfill begins one more.
    """

    def overfill(count: int) -> int:
        return int(np.minimum(share, count).sum()) - count * places

    filled = bisect_left(range(int(share.sum()) // places + 1), True, key=lambda count: overfill(count + 1) < 0)
    return filled + (overfill(filled) > 0)


def _spread(identity: Indices, rng: np.random.Generator) -> Indices:
    """Deal slots to batches at random, no identity twice to one batch.

    identity: (places, batches), the slots of each identity side by side and at most `batches` of them. Returns the
    same shape: row r deals its slots (numbers in the flat table) in random order to the batches, one to each. Only
    an identity that goes on from the row above could meet itself; it takes batches in which that row has another.
    Identities of one row do not meet in this epoch: one pair in `places`, others in each epoch.
    """
    places, batches = identity.shape
    spread = np.empty_like(identity)
    above = np.full(batches, -1)
    for row in range(places):
        shared = identity[row - 1, -1] if row else -1
        head = int((identity[row] == shared).sum())
        first = rng.permutation(np.flatnonzero(above != shared))[:head]
        rest = rng.permutation(np.delete(np.arange(batches), first))
        to = np.concatenate([first, rest])
        spread[row, to] = row * batches + np.arange(batches)
        above[to] = identity[row]
    return spread


def _ranges(starts: Indices, counts: Indices) -> Indices:
    """start, start + 1, ... (count numbers) of each pair, one after another."""
    before = np.cumsum(counts) - counts
    return np.arange(int(counts.sum())) + np.repeat(starts - before, counts)


def _hash(seed: int, first: Indices, second: Indices) -> NDArray[np.uint64]:
    """One number for each (seed, first, second): SplitMix64 (Steele, Lea, Flood 2014) over the three in turn."""
    state = np.array([seed & (2**64 - 1)], np.uint64)
    for part in (np.zeros(1, np.int64), first, second):
        state = (state ^ part.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return state


def _check_parts(sampler: str, batch: int, parts: int, together: int) -> None:
    if batch % (parts * together):
        what = f"{parts} parts x {together} images of an identity" if together > 1 else f"the {parts} parts"
        raise InputError(f"sampler {sampler}: batch is {batch}; wanted a multiple of {parts * together} ({what})")
