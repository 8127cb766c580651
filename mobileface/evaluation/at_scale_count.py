"""One block of probes against the gallery: what of its pairs lies above and inside each window.

A matrix product in a fast precision screens all pairs. Its error has a proven bound, so that a screened score is
enough for a pair farther than that from a window; the others are scored again by `exact_scores`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mobileface.data.features import Features
from mobileface.errors import CheckFailed
from mobileface.evaluation.at_scale_pairs import Ints, Pairs
from mobileface.evaluation.at_scale_windows import Bools, Floats, Sample, Tally, Window

PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp64": torch.float64}  # fastest first
TILE = 1024  # gallery rows at a time
GROUP = 256  # scores of which the highest tells whether to look closer
CHUNK = 2048  # pairs scored again at a time


def exact_scores(first: Features, second: Features) -> Floats:
    """(N,) the score of each two unit rows (N, D), by the one rule that everything here is defined by.

    The product of two float32 is exact in float64; the D products are summed in float64 from the first column to the
    last. So the same two rows have the same score on every machine, in every block, in either order.
    """
    scores = np.empty(len(first))
    for start in range(0, len(first), CHUNK):
        part = slice(start, start + CHUNK)
        products = np.multiply(first[part], second[part], dtype=np.float64)
        scores[part] = np.add.accumulate(products, axis=1)[:, -1]
    return scores


def screening_error(precision: str, dim: int) -> float:
    """How far a screened score of unit rows may be from `exact_scores`, comparing it with a rounded bound included.

    With u the unit roundoff, 2^-p for p bits with the hidden one: the inputs are rounded (2u + u^2, bf16 only), a sum
    of D products in any order loses at most D v / (1 - D v) of |a| |b| <= 1, v that of the sum (bf16 is summed in
    float32), with room for one factor 2; the sum is rounded (u, bf16 only), and so is the bound (u).
    """
    unit = {"bf16": 2.0**-8, "fp32": 2.0**-24, "fp64": 2.0**-53}[precision]
    summed = dim * 2.0 * (2.0**-53 if precision == "fp64" else 2.0**-24)
    rounded = 3 * unit + unit**2 if precision == "bf16" else 0.0
    return 1.01 * (summed + rounded + unit + dim * 2.0**-53)


@dataclass(frozen=True)
class Task:
    """A pass: windows, the precision that screens, probe rows in a block and in one product, scores kept at most."""

    precision: str
    windows: tuple[Window, ...]
    block: int
    product: int
    most: int


@contextmanager
def true_products() -> Iterator[None]:
    """float32 products that are float32 and sums of bf16 that are float32, whatever the process has allowed."""
    matmul = torch.backends.cuda.matmul
    before = torch.get_float32_matmul_precision(), matmul.allow_bf16_reduced_precision_reduction
    torch.set_float32_matmul_precision("highest")
    matmul.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        matmul.allow_bf16_reduced_precision_reduction = before[1]


def precisions_by_speed(device: torch.device, dim: int) -> list[str]:
    """PRECISIONS, bf16 only where its product is faster than that of fp32 here."""
    seconds = {}
    for name in ("bf16", "fp32"):
        rows = torch.ones((2048, dim), dtype=PRECISIONS[name], device=device)
        times = []
        for _ in range(4):
            began = time.perf_counter()
            float(torch.mm(rows, rows.T)[0, 0])  # waits for it
            times.append(time.perf_counter() - began)
        seconds[name] = min(times)
    return [name for name in PRECISIONS if name != "bf16" or seconds["bf16"] < seconds["fp32"]]


def draw_sample(pairs: Pairs, rows: int, device: torch.device, seed: int = 0) -> Sample:
    """Impostor scores of at most `rows` rows of each side, drawn without replacement."""
    draw = np.random.default_rng(seed)
    own, others = (
        np.sort(draw.choice(present, min(rows, len(present)), replace=False))
        for present in (np.flatnonzero(side.lengths) for side in (pairs.probe, pairs.gallery))
    )
    first, second = torch.from_numpy(pairs.probe.units(own)), torch.from_numpy(pairs.gallery.units(others))
    scores = torch.mm(first.to(device), second.to(device).T).cpu().numpy()
    person = pairs.probe.person[own, None]
    impostor = (person != pairs.gallery.person[others]) | (person < 0)
    if pairs.same:
        impostor &= own[:, None] != others
    return Sample(np.sort(scores[impostor]), pairs.impostors)


@torch.inference_mode()
def count_block(
    pairs: Pairs, rows: range, task: Task, device: torch.device, stopped: Callable[[], bool]
) -> list[Tally]:
    """A tally for each window, of the pairs of probe rows `rows` and the gallery (with `pairs.same`, of the rows behind
    each).

    Raises CancelledError as soon as it is `stopped`, and CheckFailed where the device's product errs by more than
    `screening_error`.
    """
    screen = _Screen(pairs, rows, task, device)
    for start in range(rows.start if pairs.same else 0, len(pairs.gallery.lengths), TILE):
        if stopped():
            raise CancelledError
        screen.count(range(start, min(start + TILE, len(pairs.gallery.lengths))))
    for tally in screen.tallies:
        tally.settle()
    return screen.tallies


class _Screen:
    """The buffers of one block, and what it has counted."""

    def __init__(self, pairs: Pairs, rows: range, task: Task, device: torch.device) -> None:
        dtype = PRECISIONS[task.precision]
        self.pairs, self.rows, self.task, self.device = pairs, rows, task, device
        self.error = screening_error(task.precision, pairs.dim)
        self.bands = [(_rounded(w.low - self.error, dtype), _rounded(w.high + self.error, dtype)) for w in task.windows]
        self.units = pairs.probe.units(slice(rows.start, rows.stop))
        self.person = pairs.probe.person[rows.start : rows.stop]
        self.known = np.zeros(max(int(pairs.probe.person.max()), int(pairs.gallery.person.max())) + 2, bool)
        self.left = torch.from_numpy(self.units).to(device, dtype)
        self.right = torch.zeros((TILE, pairs.dim), dtype=dtype, device=device)
        self.scores = torch.empty((task.product, TILE), dtype=dtype, device=device)
        self.tallies = [Tally(window, task.most) for window in task.windows]

    def count(self, columns: range) -> None:
        """Count the pairs with the gallery rows `columns`."""
        others = self.pairs.gallery.units(slice(columns.start, columns.stop))
        self.right[: len(columns)] = torch.from_numpy(others).to(self.device)
        mates = _Mates(self.person, self._persons(columns), self.known)
        looked: list[_Looked] = []
        waiting = 0
        step = self.task.product
        starts = range(0, len(self.rows), step)
        for start, mated in zip(starts, mates.parts(len(self.rows), step), strict=True):
            rows = range(start, min(start + step, len(self.rows)))  # within the block
            if self.pairs.same and columns.stop <= self.rows.start + rows.start + 1:
                continue  # all of them lie before these rows
            scores = self._screened(rows, columns)
            group = _closer(scores, min(low for low, _ in self.bands))
            if not len(group):
                continue
            genuine = scores.view(-1)[torch.from_numpy(mated).to(self.device)]
            waiting += group.numel() * GROUP
            looked.append(_Looked(group + start * TILE // GROUP, scores.view(-1, GROUP)[group], genuine))
            if waiting > self.scores.numel() // 4:
                self._look(looked, columns, others)
                looked, waiting = [], 0
        if looked:
            self._look(looked, columns, others)

    def _look(self, looked: list[_Looked], columns: range, others: Features) -> None:
        """Count what is in groups that hold scores near or above a window."""
        group, scores, genuine = (torch.cat(parts) for parts in zip(*looked, strict=True))
        for tally, (low, high) in zip(self.tallies, self.bands, strict=True):
            passed, mated = int(torch.count_nonzero(scores > high)), int(torch.count_nonzero(genuine > high))
            tally.above += (passed - mated, mated)
            near, place = ((scores >= low) & (scores <= high)).nonzero(as_tuple=True)
            if len(near):
                where = (group[near] * GROUP + place).cpu().numpy()
                self._add(tally, where, scores[near, place].double().cpu().numpy(), columns, others)

    def _screened(self, rows: range, columns: range) -> Tensor:
        """(len(rows), TILE): scores; minus infinity where there is no pair, or one with an empty row."""
        scores = self.scores[: len(rows)]
        torch.mm(self.left[rows.start : rows.stop], self.right.T, out=scores)
        if len(columns) < TILE:
            scores[:, len(columns) :] = -torch.inf
        first = self.rows.start + rows.start
        empty = self.pairs.probe.empty(slice(first, first + len(rows)))
        others = self.pairs.gallery.empty(slice(columns.start, columns.stop))
        for dimension, numbers in enumerate((empty, others)):
            if len(numbers):
                scores.index_fill_(dimension, torch.from_numpy(numbers).to(self.device), -torch.inf)
        if self.pairs.same and columns.start < first + len(rows):
            row = torch.arange(first, first + len(rows), device=self.device)
            column = torch.arange(columns.start, columns.start + TILE, device=self.device)
            scores.masked_fill_(column <= row[:, None], -torch.inf)
        return scores

    def _persons(self, columns: range) -> Ints:
        return self.pairs.gallery.person[columns.start : columns.stop]

    def _add(self, tally: Tally, where: Ints, screened: Floats, columns: range, others: Features) -> None:
        """Count pairs near a window; `where` is row * TILE + column within the block and the tile."""
        row, column = np.divmod(where, TILE)
        genuine = (self.person[row] == self._persons(columns)[column]) & (self.person[row] >= 0)
        if tally.window.margin == 0:
            for start in range(0, len(row), CHUNK * 16):
                part = slice(start, start + CHUNK * 16)
                scores = exact_scores(self.units[row[part]], others[column[part]])
                if (worst := np.abs(scores - screened[part]).max()) > self.error:
                    raise CheckFailed(
                        f"{self.device}: a {self.task.precision} product errs by {worst:.2g}; wanted at most "
                        f"{self.error:.2g}, use another --precision"
                    )
                tally.add_scores(scores, genuine[part])
        else:
            tally.add_scores(screened, genuine)


class _Looked(NamedTuple):
    """group (G,): numbers within the block and the tile; scores (G, GROUP); genuine: the scores of genuine pairs."""

    group: Tensor
    scores: Tensor
    genuine: Tensor


class _Mates:
    """The genuine pairs of a block and a tile. known: (people + 1,) False, a table to work with."""

    def __init__(self, person: Ints, others: Ints, known: Bools) -> None:
        known[others] = True
        known[-1] = False  # strangers
        self.row = np.flatnonzero(known[person])  # few, so that only these are looked for
        known[others] = False
        self.order = np.argsort(others, kind="stable")
        others = others[self.order]
        self.first = np.searchsorted(others, person[self.row])
        self.count = np.searchsorted(others, person[self.row], side="right") - self.first

    def parts(self, rows: int, step: int) -> Iterator[Ints]:
        """`within` of each `step` rows of a block; together where they are few, which is faster."""
        together = range(0, rows, step) if self.count.sum() > step * TILE else [0]
        for start in together:
            stop = min(start + step, rows) if len(together) > 1 else rows
            found = self.within(range(start, stop))
            edges = np.searchsorted(found, np.arange(step, stop - start, step) * TILE)
            yield from np.split(found % (step * TILE), edges)

    def within(self, rows: range) -> Ints:
        """(row - rows.start) * TILE + column of each genuine pair of these rows of the block."""
        low, high = np.searchsorted(self.row, [rows.start, rows.stop])
        count = self.count[low:high]
        nth = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        column = self.order[np.repeat(self.first[low:high], count) + nth]
        return np.repeat(self.row[low:high] - rows.start, count) * TILE + column


def _closer(scores: Tensor, low: float) -> Tensor:
    """Numbers of the groups, GROUP scores after each other, that hold a score of `low` or more."""
    groups = scores.view(-1, GROUP)
    if low <= 0:
        return torch.arange(len(groups), device=scores.device)
    # the bits of positive bf16 numbers are in the order of the numbers, and comparing them is ten times faster
    bits = groups.view(torch.int16) if scores.dtype == torch.bfloat16 else groups
    return (bits.amax(dim=1).view(scores.dtype) >= low).nonzero()[:, 0]


def _rounded(bound: float, dtype: torch.dtype) -> float:
    """The bound as the precision holds it, so that no comparison rounds it in some other way."""
    return float(torch.tensor(bound, dtype=torch.float64).to(dtype))
