"""The plots of a search's page, drawn as those of the report; what a mark means stands in its HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mobileface.report.plots import FIRST, GRID, MUTED, SECOND, drawing

Points = Sequence[tuple[float, float]]
RING: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 5, "markerfacecolor": "none", "alpha": 0.7}


def pareto(key: str, done: Points, early: Points, front: Points, known: Mapping[str, float], unit: str) -> str:
    """(cost, score) of networks: rings, crosses for those that ended early, dots on a staircase for the front.

    known: name -> cost of networks that were not searched, as dotted lines.
    """
    with drawing(key) as (axes, result):
        axes.plot(*_columns(early), color=MUTED, linestyle="", marker="x", markersize=5, alpha=0.6)
        axes.plot(*_columns(done), color=MUTED, **RING)
        axes.step(*_columns(front), where="post", color=FIRST, linewidth=1.4)
        axes.plot(*_columns(front), color=FIRST, linestyle="", marker="o", markersize=6)
        for name, cost in known.items():
            axes.axvline(cost, color=SECOND, linewidth=1.1, linestyle=":")
            place: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "rotation": 90, "fontsize": 9}
            axes.text(cost, 0.02, name, color=SECOND, ha="right", va="bottom", **place)
        axes.margins(x=0.05, y=0.08)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"cost of one image, {unit}" if unit != "MiB" else "size, MiB")
        axes.set_ylabel("score")
    return result[0]


def progress(key: str, points: Points, trials: int) -> str:
    """(trial, score): rings, and the best so far as a staircase up to the last trial."""
    numbers, scores = _columns(points)
    with drawing(key) as (axes, result):
        axes.plot(numbers, scores, color=MUTED, **RING)
        best = np.maximum.accumulate(scores).tolist()
        axes.step([*numbers, max(trials - 1, numbers[-1])], [*best, best[-1]], where="post", color=FIRST)
        axes.margins(x=0.03, y=0.08)
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("trial")
        axes.set_ylabel("score")
    return result[0]


def bars(key: str, names: Sequence[str], shares: Sequence[Sequence[float]]) -> str:
    """Shares (0..1) of two networks in each stage, side by side; the first of `names` on top."""
    at = np.arange(len(names))
    with drawing(key) as (axes, result):
        for number, (own, colour) in enumerate(zip(shares, (FIRST, SECOND), strict=True)):
            axes.barh(at + 0.4 * number - 0.2, own, 0.36, color=colour, alpha=(0.9, 0.6)[number])
        axes.set_yticks(at, list(names))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_color(GRID)
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axes.set_xlabel("share of multiply-adds")
    return result[0]


def _columns(points: Points) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
