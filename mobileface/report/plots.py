"""Plots as inline SVG: matplotlib draws, the page's style sheet gives the colours (light, dark, print).

No text from outside enters a plot: titles and legends are HTML beside it, escaped there. Every function takes
a `key`, unique in the page, that prefixes all ids of its SVG.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from mobileface.report.text import one_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# matplotlib gets a colour that nothing else uses; the page gets the variable of style.css in its place
INK, MUTED, GRID, FIRST, SECOND = "#010101", "#020202", "#030303", "#040404", "#050505"
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line", FIRST: "--first", SECOND: "--second"}
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and takes the page's font
    "text.parse_math": False,
    "font.size": 12,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.xmargin": 0.01,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "figure.constrained_layout.use": True,
}


def training_curve(
    key: str, images: Sequence[float], values: Sequence[float], smooth: bool = True, edges: Sequence[float] = ()
) -> str:
    """One value against the images seen: the logged values thin, their running mean thick, phase by phase.

    edges: images seen at the beginning, at each border of two phases and at the end; see `draw_phases`.
    """
    x, y = np.asarray(images, dtype=np.float64), np.asarray(values, dtype=np.float64)
    with drawing(key) as (axes, result):
        low, high = np.quantile(y, (0.01, 0.99))
        for stretch in stretches(x, edges):
            own = y[stretch]
            mean = running_mean(own, max(1, len(y) // 40)) if smooth else own
            if smooth:
                axes.plot(x[stretch], own, color=FIRST, alpha=0.3, linewidth=0.7)
            axes.plot(x[stretch], mean, color=FIRST)
            low, high = min(low, mean.min()), max(high, mean.max())
        room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        axes.set_ylim(low - room, high + room)  # one wild step must not flatten the rest
        draw_phases(axes, edges)
        images_axis(axes)
    return result[0]


def stretches(images: NDArray[np.float64], edges: Sequence[float]) -> list[slice]:
    """The rows of each phase; `images` (N,) rise, and a row at a border belongs to the phase that ends there."""
    cuts = np.searchsorted(images, edges[1:-1], side="right").tolist()
    return [slice(first, end) for first, end in pairwise([0, *cuts, len(images)]) if first < end]


def draw_phases(axes: Any, edges: Sequence[float]) -> None:
    """The x axis from the first of `edges` to the last; a line at each border, each phase's number above it."""
    if len(edges) < 2 or edges[-1] <= edges[0]:
        return
    width = edges[-1] - edges[0]
    axes.set_xlim(edges[0] - 0.01 * width, edges[-1] + 0.01 * width)
    for border in edges[1:-1]:
        axes.axvline(border, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
    for number, (first, end) in enumerate(pairwise(edges), start=1):
        if len(edges) > 2 and end - first > 0.02 * width:  # else the numbers would touch
            place = axes.get_xaxis_transform()
            axes.text((first + end) / 2, 1.01, str(number), transform=place, color=MUTED, ha="center", va="bottom")


def validation_curve(
    key: str, curves: Sequence[tuple[Sequence[float], Sequence[float]]], edges: Sequence[float] = ()
) -> str:
    """Up to two (images, share) curves; the first solid with dots, the second dashed with squares."""
    styles = ((FIRST, "-", "o"), (SECOND, "--", "s"))
    with drawing(key) as (axes, result):
        for (x, y), (colour, line, mark) in zip(curves, styles, strict=False):
            dense = len(x) > 40
            axes.plot(x, y, color=colour, linestyle=line, marker="" if dense else mark, markersize=4)
        draw_phases(axes, edges)
        images_axis(axes)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    return result[0]


def roc(key: str, curves: Sequence[tuple[Sequence[float], Sequence[float]]]) -> str:
    """Up to two (FAR, TAR) curves over a logarithmic FAR axis; points with FAR 0 are not drawn."""
    drawn = [[(f, t) for f, t in zip(fpr, tpr, strict=True) if f > 0] for fpr, tpr in curves]
    smallest = min((f for points in drawn for f, _ in points), default=1e-3)
    decades = int(np.clip(np.ceil(-np.log10(smallest) - 1e-9), 1, 8))
    with drawing(key) as (axes, result):
        axes.set_xscale("log")
        for points, (colour, line, width) in zip(drawn, ((FIRST, "-", 1.8), (SECOND, "--", 1.4)), strict=False):
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, linestyle=line, linewidth=width)
        axes.set_xlim(10.0**-decades, 1)
        axes.set_ylim(top=1.01)
        least = axes.get_ylim()[0]
        axes.set_yticks([tick for tick in axes.get_yticks() if least <= tick <= 1])
        ticks = [10.0**-power for power in range(0, decades + 1, 1 if decades <= 4 else 2)]
        axes.set_xticks(ticks, [one_in(tick) if tick < 1 else "all" for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axes.set_xlabel("different people let through (FAR, log scale)")
        axes.set_ylabel("same person accepted (TAR)")
    return result[0]


def histogram(
    key: str,
    edges: Sequence[float],
    same: Sequence[float],
    different: Sequence[float],
    threshold: float | None,
) -> str:
    """Shares of the pairs in each bin of cosine similarity; (K+1,) edges, (K,) counts of each kind."""
    with drawing(key) as (axes, result):
        for counts, colour, line in ((different, SECOND, "--"), (same, FIRST, "-")):
            shares = np.asarray(counts, dtype=np.float64) / max(1.0, float(np.sum(counts)))
            axes.stairs(shares, edges, fill=True, color=colour, alpha=0.2)
            axes.stairs(shares, edges, color=colour, linewidth=1.5, linestyle=line)
        if threshold is not None:
            axes.axvline(threshold, color=INK, linewidth=1.2, linestyle=":")
        filled = np.flatnonzero(np.asarray(same) + np.asarray(different))
        if len(filled):
            axes.set_xlim(edges[filled[0]], edges[filled[-1] + 1])
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axes.set_xlabel("cosine similarity of the two images")
        axes.set_ylabel("share of pairs")
    return result[0]


def images_axis(axes: Axes) -> None:
    """Images seen along the x axis: 0, 50k, 1.2M."""
    from matplotlib.ticker import EngFormatter

    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.locator_params(axis="x", nbins=6)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("images seen")


def running_mean(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Centred mean over about `width` entries, over fewer at the ends. (N,) -> (N,)."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    first, end = np.maximum(at - width // 2, 0), np.minimum(at + width // 2 + 1, len(values))
    mean: NDArray[np.float64] = (total[end] - total[first]) / (end - first)
    return mean


@contextmanager
def drawing(key: str) -> Iterator[tuple[Axes, list[str]]]:
    """Axes to draw on; when the block ends, the list holds the SVG as text."""
    import matplotlib
    from matplotlib.figure import Figure

    result: list[str] = []
    with matplotlib.rc_context({**SETTINGS, "svg.hashsalt": key}):
        figure = Figure(figsize=(5.6, 3.5), dpi=72)  # without pyplot: no global state, no display
        yield figure.add_subplot(), result
        buffer = io.StringIO()
        nothing: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
        result.append(inline(buffer.getvalue(), key))


def inline(svg: str, key: str) -> str:
    """A matplotlib SVG document as an element of an HTML page.

    Drops the prolog, the metadata and the style sheet (it would hold for the whole page), prefixes the ids,
    names colours by variable, leaves the font to the page and rounds coordinates to a hundredth of a pixel.
    """
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.partition("}")[2] or element.tag
        element.attrib = {
            name.partition("}")[2] or name: attribute(name, value, key) for name, value in element.items()
        }
    width, height = root.get("viewBox", "0 0 1 1").split()[2:]
    root.attrib = {"viewBox": f"0 0 {width} {height}", "aria-hidden": "true", "focusable": "false"}
    return ElementTree.tostring(root, encoding="unicode")


def attribute(name: str, value: str, key: str) -> str:
    """One attribute as the page needs it; see `inline`."""
    if name == "id":
        return f"{key}-{value}"
    if name.endswith("href") or name == "clip-path":
        return value.replace("#", f"#{key}-", 1)
    if name == "style":
        for colour, variable in VARIABLES.items():
            value = value.replace(colour, f"var({variable})")
        value = re.sub(r"font: ([\d.]+px)[^;]*", r"font-size: \1", value)  # matplotlib writes either form
        return re.sub(r"font-family: [^;]*;? ?", "", value)
    if name in ("d", "points", "transform", "x", "y"):
        return re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), value)
    return value
