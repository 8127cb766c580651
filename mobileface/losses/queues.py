"""Where contrastive learning takes its negatives from: the batch, or a queue of the features of the steps before."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobileface.distributed import gather
from mobileface.losses.centres import Centres
from mobileface.statistics import Stepped

EMPTY = -1  # label of a place that no feature has filled yet
PIECE = 4096  # features of a queue that are handed out at a time
Pieces = Iterator[tuple[Tensor, Tensor]]


class Batch(nn.Module):
    """No queue: the features of the step's own batches, of all ranks."""

    @torch.no_grad()
    def negatives(self, features: Tensor, labels: Tensor) -> Pieces:
        """Features (N, D) of this rank and their labels (N,) -> pieces of (M, D) of length one, constants, and of their
        labels (M,). Every rank must ask for all of them."""
        yield F.normalize(gather(features)), gather(labels)


class Queue(Batch, Stepped):
    """The newest `size` features of all ranks, as they were. The same on every rank, and part of the checkpoint."""

    features: Tensor
    labels: Tensor
    place: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(size, dim))
        self.register_buffer("labels", torch.full((size,), EMPTY, dtype=torch.int64))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))
        self._fresh: list[tuple[Tensor, ...]] = []

    @torch.no_grad()
    def negatives(self, features: Tensor, labels: Tensor) -> Pieces:
        """As above: the newest of the queue, and the step's own features, which enter it in training when the step is
        over."""
        ((features, labels),) = super().negatives(features, labels)
        newest = self._places()[len(labels) :]
        for start in range(0, len(newest), PIECE):
            places = newest[start : start + PIECE]
            yield self._now(places), self.labels[places]
        yield features, labels
        if self.training:
            self._fresh.append((features, labels, *self._beside(labels)))

    @torch.no_grad()
    def end_step(self) -> None:
        """The step's features take the oldest places."""
        size, columns = len(self.labels), (self.features, self.labels, *self._columns())
        for fresh in self._fresh:
            count = len(fresh[1])
            self.place.copy_((self.place + max(0, count - size)) % size)  # as if the first of too many had come too
            rows = self._places()[:count]
            for column, values in zip(columns, fresh, strict=True):
                column[rows] = values[-size:]
            self.place.copy_((self.place + len(rows)) % size)
        self._fresh.clear()

    def _places(self) -> Tensor:
        """(size,) all places, the oldest first."""
        return (self.place + torch.arange(len(self.labels), device=self.labels.device)) % len(self.labels)

    def _now(self, places: Tensor) -> Tensor:
        """(K, D) what the features of some places are now, of length one."""
        return self.features[places]

    def _beside(self, labels: Tensor) -> tuple[Tensor, ...]:
        """What else is kept of each feature."""
        return ()

    def _columns(self) -> tuple[Tensor, ...]:
        """Where it is kept."""
        return ()


class ProxyQueue(Queue):
    """QGFace's proxy-updated real-time queue: a feature moves as the centre of its class has moved since it came.

    f + |f| / |w_then| (w_now - w_then), as in the public code (the paper prints no scale), and of length one again:
    ours, the code lets the lengths run. w is the class centre. Features stay in the queue as they came, beside the
    centres of that step.
    """

    proxies: Tensor

    def __init__(self, size: int, dim: int, centres: Centres) -> None:
        super().__init__(size, dim)
        self.register_buffer("proxies", torch.zeros(size, dim))
        self._centres = centres

    def _now(self, places: Tensor) -> Tensor:
        """As above, moved."""
        features, labels, then = self.features[places], self.labels[places], self.proxies[places]
        length = torch.linalg.vector_norm(then, dim=1, keepdim=True).clamp(min=torch.finfo(then.dtype).tiny)
        moved = F.normalize(features + (self._centres.rows(labels.clamp(min=0)) - then) / length)
        return torch.where((labels == EMPTY)[:, None], features, moved)

    def _beside(self, labels: Tensor) -> tuple[Tensor, ...]:
        """The centres of this step."""
        return (self._centres.rows(labels),)

    def _columns(self) -> tuple[Tensor, ...]:
        return (self.proxies,)
