"""The class centres of all ranks, as terms beside the classifier read them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from mobileface.distributed import max_over_ranks, shard, sum_over_ranks

BLOCK_BYTES = 64 * 2**20  # the most that one block of cosines between centres takes


class Centres:
    """Rows of the centres and their nearest neighbours, wherever they lie.

    own: gives this rank's rows of the parameter (as `distributed.shard` cuts `total` rows), raw, as they are at
    this step. Every rank must ask the same at the same time.
    """

    def __init__(self, own: Callable[[], Tensor], total: int | None = None) -> None:
        self._own = own
        self.total = len(own()) if total is None else total

    @property
    def dim(self) -> int:
        """Components of a centre."""
        return self._own().shape[1]

    def rows(self, classes: Tensor) -> Tensor:
        """(K, D) raw centres of `classes` (K,), with their gradient. On a CPU it is added in a fixed order."""
        own = self._own()
        if len(own) == self.total:
            return own.index_select(0, classes)
        here = classes - shard(self.total).start
        inside = (here >= 0) & (here < len(own))
        rows = own.new_zeros(len(classes), own.shape[1])
        rows = rows.index_copy(0, inside.nonzero().flatten(), own.index_select(0, here[inside]))
        return sum_over_ranks(rows)

    @torch.no_grad()
    def nearest(self, classes: Tensor) -> Tensor:
        """(K,) int64: for each of `classes` the other class whose centre has the largest cosine to its own."""
        units, own = F.normalize(self.rows(classes)), self._own()
        start = 0 if len(own) == self.total else shard(self.total).start
        best, found = nearest_centres(units, own, classes - start)
        highest = max_over_ranks(best)
        found = torch.where((best == highest) | best.isnan(), found + start, -1)
        return max_over_ranks(found)  # of several nearest ones the last: any would do


@torch.no_grad()
def nearest_centres(
    units: Tensor, centres: Tensor, itself: Tensor, block_bytes: int = BLOCK_BYTES
) -> tuple[Tensor, Tensor]:
    """(largest cosine (K,), its row (K,) int64) of units (K, D) of length one against centres (C, D) of any length.

    itself (K,): the row that does not count for each of them, outside 0..C-1 where all count. Where none is left the
    cosine is -inf. In blocks of rows and columns: no block of cosines, nor of normalised centres, is larger than
    `block_bytes` (but for those of a single row or column).
    """
    entries = block_bytes // centres.element_size()
    height = max(1, math.isqrt(entries))
    parts = [_nearest(u, centres, i, entries) for u, i in zip(units.split(height), itself.split(height), strict=True)]
    best, found = zip(*parts, strict=True) if parts else ((units.new_zeros(0),), (itself,))
    return torch.cat(best), torch.cat(found)


def _nearest(units: Tensor, centres: Tensor, itself: Tensor, entries: int) -> tuple[Tensor, Tensor]:
    width = max(1, entries // max(*units.shape, 1))
    best = units.new_full((len(units),), -torch.inf)
    found = torch.zeros_like(itself)
    for start in range(0, len(centres), width):
        part = centres[start : start + width]
        cosines = units @ F.normalize(part).T
        columns = torch.arange(start, start + len(part), device=centres.device)
        highest, column = cosines.masked_fill_(columns == itself[:, None], -torch.inf).max(1)
        better = (highest > best) | highest.isnan()  # a NaN stays: it is not hidden
        best, found = torch.where(better, highest, best), torch.where(better, column + start, found)
    return best, found
