"""Batches of training images. Every choice is a function of (seed, position in the stream of samples)."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mobileface.data.augment import apply, generator
from mobileface.data.faceset import FaceSet
from mobileface.data.images import SIZE, BadImage, decode
from mobileface.data.samplers import Sampler
from mobileface.errors import InputError, MobileFaceError

SAMPLER_STREAM, AUGMENT_STREAM, DEGRADE_STREAM, BATCH_STREAM = 1, 2, 4, 5
MOST_STEPS = 1 << 10  # of a view
Steps = Sequence[tuple[str, float, dict[str, Any]]]


@dataclass(frozen=True)
class Batch:
    """images: uint8 RGB (B, 112, 112, 3), the clean view; index: (B,) int64 into the face set; skipped: names of bad
    images; degraded: the same of the degraded view, in a tuple that is empty without one."""

    images: Tensor
    index: Tensor
    skipped: list[str]
    degraded: tuple[Tensor, ...] = ()

    def pin_memory(self) -> Batch:
        """Asked for by the DataLoader where there is a GPU: pinned pages are copied in the background."""
        pinned = tuple(view.pin_memory() for view in self.degraded)
        return Batch(self.images.pin_memory(), self.index, self.skipped, pinned)


def stream_seed(seed: int, phase: int, stream: int) -> int:
    """One 64-bit key for each (seed, phase, purpose)."""
    return int(np.random.SeedSequence([seed, phase, stream]).generate_state(1, np.uint64)[0])


class FaceStream(torch.utils.data.Dataset[Batch]):
    """Positions -> a Batch: read, decode, augment. A bad image gives way to the next of the stream's epoch.

    `sampler` is made with stream_seed(seed, phase, SAMPLER_STREAM). steps: of the clean view; degraded: what makes the
    degraded view of it, None for no such view. batch: positions whose images share the draws of steps `per: batch`.
    """

    def __init__(
        self,
        faces: FaceSet,
        sampler: Sampler,
        steps: Steps,
        seed: int,
        phase: int,
        degraded: Steps | None = None,
        batch: int = 1,
    ) -> None:
        self.faces, self.steps, self.degraded, self.batch = faces, steps, degraded, batch
        self.train = sampler.train
        self.sampler = sampler
        streams = (AUGMENT_STREAM, DEGRADE_STREAM, BATCH_STREAM)
        self.augment_seed, self.degrade_seed, self.batch_seed = (stream_seed(seed, phase, s) for s in streams)

    def __getitems__(self, positions: list[int]) -> Batch | Exception:
        try:
            return self._batch(positions)
        except (MobileFaceError, OSError) as error:  # `batches` raises it: torch would put a traceback into its text
            return error

    def _batch(self, positions: list[int]) -> Batch:
        cv2.setNumThreads(0)  # workers are the parallelism
        views = np.empty((1 if self.degraded is None else 2, len(positions), SIZE, SIZE, 3), np.uint8)
        index = np.empty(len(positions), np.int64)
        skipped: list[str] = []
        for row, position in enumerate(positions):
            image, index[row] = self._load(position, skipped)
            if self.steps:
                image = apply(image, self.steps, generator(self.augment_seed, position), self._of_batch(position, 0))
            views[0, row] = image
            if self.degraded is not None:
                rng = generator(self.degrade_seed, position)
                views[1, row] = apply(image, self.degraded, rng, self._of_batch(position, 1))
        images, *degraded = torch.from_numpy(views).unbind(0)
        return Batch(images, torch.from_numpy(index), skipped, tuple(degraded))

    def _of_batch(self, position: int, view: int) -> Callable[[int], np.random.Generator]:
        """The generators of a view's steps that all images of the position's batch share."""
        return lambda step: generator(self.batch_seed, ((position // self.batch) * 2 + view) * MOST_STEPS + step)

    def _load(self, position: int, skipped: list[str]) -> tuple[NDArray[np.uint8], int]:
        """The image at `position`, or the first good one behind it in the set's own order."""
        first = self.sampler(position)
        start = int(np.searchsorted(self.train, first))
        for step in range(len(self.train)):
            i = int(self.train[(start + step) % len(self.train)])
            try:
                return decode(self.faces.read(i), self.faces.key(i)), i
            except BadImage as error:
                skipped.append(str(error))
        raise InputError(f"none of the {len(self.train)} training images can be used; the last: {skipped[-1]}")


class _Positions(torch.utils.data.Sampler[list[int]]):
    def __init__(self, start: int, stop: int, batch: int, micro: int, ranks: int, rank: int) -> None:
        self.batches = range(start, stop, batch)
        self.parts = range(rank * micro, batch, ranks * micro)
        self.micro = micro

    def __iter__(self) -> Iterator[list[int]]:
        for first in self.batches:
            for part in self.parts:
                yield list(range(first + part, first + part + self.micro))

    def __len__(self) -> int:
        return len(self.batches) * len(self.parts)


def batches(
    stream: FaceStream,
    start: int,
    stop: int,
    batch: int,
    workers: int,
    micro: int | None = None,
    ranks: int = 1,
    rank: int = 0,
) -> Iterator[Batch]:
    """Batches of positions start, start + batch, ... up to `stop`; each is full. Nothing depends on `workers`.

    micro: each batch in parts of so many positions, of which rank r of `ranks` gets the r-th, the (r + ranks)-th...
    """
    loader = torch.utils.data.DataLoader(
        stream,
        batch_sampler=_Positions(start, stop, batch, micro or batch, ranks, rank),
        collate_fn=_as_it_is,
        num_workers=workers,
        worker_init_fn=_leave_signals_to_the_parent,
        pin_memory=torch.cuda.is_available(),
    )
    return map(_or_raise, iter(loader))  # iter() starts the workers


def _leave_signals_to_the_parent(worker: int) -> None:
    """A terminal's Ctrl-C reaches every process of the group; only the training decides what it means.

    SIGTERM ends a worker (the parent uses it), but in order: torch raises, anywhere, for one that a signal killed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))


def _or_raise(batch: Batch | Exception) -> Batch:
    if isinstance(batch, Exception):
        raise batch
    return batch


def _as_it_is(batch: Any) -> Any:
    return batch


def default_workers() -> int:
    """Loading processes: one core is left to the training step, at most eight are of use."""
    return max(1, min(8, (os.cpu_count() or 2) - 1))
