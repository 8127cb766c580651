"""Where the threshold of a FAR lies: a window of scores, made narrower pass by pass, until its score is known.

The threshold of a FAR accepts as many impostor pairs as it may, k = floor(FAR x impostors); so it lies just above the
(k+1)-th highest impostor score. A `Window` holds that score; a `Tally` says what a pass found above and inside of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

BOTTOM, TOP = -2.0, 2.0  # below and above every cosine
BINS = 4096
IMPOSTOR, GENUINE = 0, 1  # the rows of all counts


@dataclass(frozen=True)
class Window:
    """low, high: for each k of `ks` the (k+1)-th highest impostor score is looked for between them, both included.

    margin: 0 where the pass scores all pairs near the window in float64. Otherwise it takes their screened scores as
    they are, each within `margin` of the true one, and from `margin` below the window to `margin` above.
    """

    ks: tuple[int, ...]
    low: float = BOTTOM
    high: float = TOP
    margin: float = 0.0

    @property
    def begin(self) -> float:
        return self.low - self.margin

    @property
    def width(self) -> float:
        return self.high - self.low + 2 * self.margin

    def bins(self, scores: Floats) -> Floats:
        """The bin of each score, 0..BINS-1. It grows with the score, so bins share out the scores in their order."""
        if self.width == 0:
            return np.zeros(len(scores))
        return np.floor((scores - self.begin) / self.width * BINS).clip(0, BINS - 1)

    def inside(self, number: float) -> tuple[float, float]:
        """Between what scores a window must lie that holds the true scores of all pairs of a bin."""
        step = self.width / BINS
        slack = self.margin + step / 1000 + 1e-15  # rounding of `bins`, with room
        low = self.begin + number * step
        return max(BOTTOM, low - slack), min(TOP, low + step + slack)


@dataclass(eq=False)
class Tally:
    """What some pairs add: above (2,) counts of impostor and genuine pairs above the window; keys (V,) the distinct
    scores inside of it, ascending, and counts (2, V) of each. Beyond `most` keys they become bins."""

    window: Window
    most: int
    above: Ints = field(default_factory=lambda: np.zeros(2, np.int64))
    keys: Floats = field(default_factory=lambda: np.empty(0))
    counts: Ints = field(default_factory=lambda: np.empty((2, 0), np.int64))
    binned: bool = False

    def __post_init__(self) -> None:
        self.binned |= self.window.margin > 0
        self._keys: list[Floats] = []
        self._counts: list[Ints] = []
        self._waiting = 0

    def add_scores(self, scores: Floats, genuine: Bools) -> None:
        """Count pairs: those above, those inside; the others are below."""
        if self.window.margin == 0:
            high = scores > self.window.high
            self.above += (int((high & ~genuine).sum()), int((high & genuine).sum()))
            kept = (scores >= self.window.low) & ~high
            scores, genuine = scores[kept], genuine[kept]
        self._put(scores, np.stack([~genuine, genuine]).astype(np.int64), False)

    def add(self, other: Tally) -> None:
        """Count what another tally of the same window has counted."""
        other.settle()
        self.above += other.above
        self._put(other.keys, other.counts, other.binned)

    def settle(self) -> None:
        """Bring what waits into `keys` and `counts`."""
        if not self._waiting:
            return
        keys = np.concatenate([self.keys, *self._keys])
        counts = np.concatenate([self.counts, *self._counts], axis=1)
        self._keys, self._counts, self._waiting = [], [], 0
        self.keys, self.counts = _merged(keys, counts)
        if len(self.keys) > self.most and not self.binned:
            self._to_bins()

    def _put(self, keys: Floats, counts: Ints, binned: bool) -> None:
        if binned and not self.binned:
            self.settle()  # may bring them into bins
            if not self.binned:
                self._to_bins()
        if self.binned and not binned:
            keys, counts = self._in_bins(keys, counts)
        self._keys.append(keys)
        self._counts.append(counts)
        self._waiting += len(keys)
        if self._waiting > max(BINS, self.most // 4):
            self.settle()

    def _to_bins(self) -> None:
        self.keys, self.counts = self._in_bins(self.keys, self.counts)
        self.binned = True

    def _in_bins(self, scores: Floats, counts: Ints) -> tuple[Floats, Ints]:
        place = self.window.bins(scores).astype(np.int64)
        summed = np.array([np.bincount(place, weights=row, minlength=BINS) for row in counts])
        used = np.flatnonzero(summed.any(axis=0))
        return used.astype(np.float64), summed[:, used].astype(np.int64)


def _merged(keys: Floats, counts: Ints) -> tuple[Floats, Ints]:
    """Distinct keys, ascending, and the sums of their counts."""
    distinct, place = np.unique(keys, return_inverse=True)
    summed = [np.bincount(place, weights=row, minlength=len(distinct)) for row in counts]  # exact below 2^53
    return distinct, np.array(summed).astype(np.int64).reshape(2, -1)


@dataclass(frozen=True)
class Found:
    """score: the highest impostor score that is refused; accepted: (impostor, genuine) pairs above it."""

    score: float
    accepted: tuple[int, int]


def conclude(tally: Tally) -> dict[int, Found | Window]:
    """For each k the score that was looked for, or the narrower window that is proven to hold it."""
    tally.settle()
    passed = np.cumsum(tally.counts[:, ::-1], axis=1)[:, ::-1]  # pairs at a key or above
    return {k: _concluded(tally, passed, k) for k in tally.window.ks}


def _concluded(tally: Tally, passed: Ints, k: int) -> Found | Window:
    """Where the window was wrong (a sample had placed it) the counts prove on which side of it the score is."""
    window = tally.window
    rank = k - int(tally.above[IMPOSTOR])  # of the score inside the window, from the top, 0 is the highest
    if rank < 0:
        return Window((k,), window.high, TOP)
    if not len(tally.keys) or rank >= passed[IMPOSTOR, 0]:
        return Window((k,), BOTTOM, window.low)
    place = int(np.flatnonzero(passed[IMPOSTOR] > rank)[-1])
    if tally.binned:
        return Window((k,), *window.inside(float(tally.keys[place])))
    accepted = tally.above + passed[:, place] - tally.counts[:, place]
    return Found(float(tally.keys[place]), (int(accepted[IMPOSTOR]), int(accepted[GENUINE])))


def joined(windows: list[Window]) -> list[Window]:
    """Windows that overlap become one, so that no pair is looked at twice."""
    apart: list[Window] = []
    for window in sorted(windows, key=lambda window: window.low):
        if apart and window.low <= apart[-1].high:
            last = apart.pop()
            window = Window((*last.ks, *window.ks), last.low, max(last.high, window.high))
        apart.append(window)
    return apart


@dataclass(frozen=True, eq=False)
class Sample:
    """scores (S,) float32 of impostor pairs drawn from `pairs` of them, ascending: what a window is expected to hold.

    It is trusted in nothing: what it gets wrong costs time.
    """

    scores: NDArray[np.float32]
    pairs: int

    def expected(self, low: float, high: float) -> float:
        """How many pairs have scores from `low` to `high`; all, where nothing is known."""
        if not len(self.scores):
            return self.pairs
        first, last = np.searchsorted(self.scores, np.array([low, high], np.float32))
        return float(last - first) / len(self.scores) * self.pairs

    def window(self, k: int) -> Window:
        """Where the (k+1)-th highest score is likely to be: a quarter and 50 ranks to either side."""
        count = len(self.scores)
        rank = k / self.pairs * count
        low, high = count - 1 - math.ceil(1.25 * rank + 50), count - 1 - math.floor(0.8 * rank - 50)
        return Window(
            (k,),
            float(self.scores[low]) if low >= 0 else BOTTOM,
            float(self.scores[high]) if high < count else TOP,
        )


def choose(
    windows: list[Window], errors: dict[str, float], sample: Sample, limit: float, most: int
) -> tuple[str, list[Window]]:
    """The precision to screen with, out of `errors` by speed, and the windows with their margins.

    limit: how many pairs of a window may be scored again; most: how many of them can be kept. The fastest precision
    is taken that can get all windows below the limit, at once or after this pass. A window that is too wide is made
    narrower by screened scores first, unless that would not make it four times narrower.
    """

    def settled(window: Window, error: float) -> bool:
        return (
            sample.expected(window.low - error, window.high + error) <= limit
            and sample.expected(window.low, window.high) <= most / 2
        )

    def can(window: Window, error: float) -> bool:
        middle = (window.low + window.high) / 2
        return settled(window, error) or sample.expected(middle - 2 * error, middle + 2 * error) <= limit

    able = [name for name, error in errors.items() if all(can(window, error) for window in windows)]
    precision = able[0] if able else list(errors)[-1]
    error = errors[precision]
    margins = [0.0 if settled(w, error) or w.high - w.low <= 8 * error else error for w in windows]
    return precision, [Window(w.ks, w.low, w.high, margin) for w, margin in zip(windows, margins, strict=True)]
