"""The page's plots as inline SVG, drawn as those of the report: at most three lines, told apart by dashes as well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobileface.report.plots import FIRST, INK, MUTED, SECOND, draw_phases, drawing, images_axis

STYLES = ((FIRST, "-", "o"), (SECOND, "--", "s"), (INK, ":", "^"))
HIGHEST = 2.5  # |g| / s that a panel of gradients shows
Row = Sequence[float] | NDArray[np.float64]


def scaling(key: str, degrees: Row, curves: Sequence[tuple[Row, float | None]], plain: Row, scale: float) -> str:
    """|g| / s of up to three (g, boundary in degrees) over the angle to the own centre; plain softmax thin behind."""
    with drawing(key) as (axes, result):
        axes.plot(degrees, -np.asarray(plain) / scale, color=MUTED, linewidth=0.9)
        for (g, boundary), (colour, line, _) in zip(curves, STYLES, strict=False):
            axes.plot(degrees, -np.asarray(g) / scale, color=colour, linestyle=line)
            if boundary is not None:
                axes.plot([boundary], [0], color=colour, marker="|", markersize=14, clip_on=False)
        axes.set_xlim(0, 180)
        axes.set_ylim(-0.05, HIGHEST)  # the same for all margins, so that they compare
        axes.set_xticks(range(0, 181, 30))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}°")
        axes.set_xlabel("angle to the own centre")
        axes.set_ylabel("|g| / s")
    return result[0]


def correlations(key: str, images: Row, curves: Sequence[Sequence[float | None]], edges: Sequence[float]) -> str:
    """Up to three rows of correlations, -1..1, over the images seen; a gap where one is none. edges: `draw_phases`."""
    with drawing(key) as (axes, result):
        axes.axhline(0, color=MUTED, linewidth=0.8)
        for values, (colour, line, mark) in zip(curves, STYLES, strict=False):
            shown = [np.nan if value is None else value for value in values]
            axes.plot(images, shown, color=colour, linestyle=line, marker=mark, markersize=4)
        draw_phases(axes, edges)
        images_axis(axes)
        axes.set_ylim(-1.05, 1.05)
        axes.set_ylabel("Pearson correlation")
    return result[0]


def levels(key: str, names: Sequence[str], curves: Sequence[tuple[Row, Row]], what: str, unit: str) -> str:
    """Up to three (means, deviations) over named levels, side by side."""
    with drawing(key) as (axes, result):
        for i, ((means, deviations), (colour, line, mark)) in enumerate(zip(curves, STYLES, strict=False)):
            at = np.arange(len(names)) + 0.08 * (i - (len(curves) - 1) / 2)
            look: dict[str, Any] = {"color": colour, "linestyle": line, "marker": mark, "markersize": 4}
            axes.errorbar(at, means, deviations, elinewidth=1, capsize=2, **look)
        axes.set_xticks(range(len(names)), list(names))
        axes.set_xlim(-0.4, len(names) - 0.6)
        axes.set_xlabel(unit)
        axes.set_ylabel(what)
    return result[0]


def trajectories(key: str, groups: Sequence[Sequence[tuple[Row, Row]]]) -> str:
    """Up to three groups of samples, each (norms, probabilities) over the training: a thin line, a mark at its end."""
    with drawing(key) as (axes, result):
        for samples, (colour, line, mark) in zip(groups, STYLES, strict=False):
            for norms, chances in samples:
                axes.plot(norms, chances, color=colour, linestyle=line, linewidth=0.9, alpha=0.7)
                axes.plot(norms[-1:], chances[-1:], color=colour, marker=mark, markersize=4)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel("feature norm")
        axes.set_ylabel("probability of the own class")
    return result[0]


def histogram(key: str, edges: Row, counts: Row, marks: Row) -> str:
    """How many images have which norm; a dotted line at each mark."""
    with drawing(key) as (axes, result):
        axes.stairs(counts, edges, fill=True, color=FIRST, alpha=0.25)
        axes.stairs(counts, edges, color=FIRST, linewidth=1.5)
        for mark in marks:
            axes.axvline(mark, color=INK, linewidth=1.2, linestyle=":")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("norm")
        axes.set_ylabel("images")
    return result[0]


def distances(key: str, edges: Row, positive: Row, negative: Row, limits: tuple[float, float]) -> str:
    """Shares of the positive and of the negative pairs in each bin of 1 - cos, within `limits` of its axis."""
    with drawing(key) as (axes, result):
        for counts, (colour, line, _) in zip((positive, negative), STYLES, strict=False):
            shares = np.asarray(counts, dtype=np.float64) / max(1.0, float(np.sum(counts)))
            axes.stairs(shares, edges, fill=True, color=colour, alpha=0.2)
            axes.stairs(shares, edges, color=colour, linewidth=1.5, linestyle=line)
        axes.set_xlim(*limits)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axes.set_xlabel("1 − cosine")
        axes.set_ylabel("share of pairs")
    return result[0]
