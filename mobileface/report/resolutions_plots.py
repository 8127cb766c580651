"""The plots of the page across resolutions, drawn as those of the report; what a colour means stands in its HTML."""

from __future__ import annotations

from collections.abc import Sequence
from colorsys import hls_to_rgb, rgb_to_hls
from typing import Any

import numpy as np

from mobileface.report.plots import INK, MUTED, drawing
from mobileface.report.text import one_in

Row = Sequence[float]

# as in `plots`: a colour that nothing else uses, for a variable of the page
GOOD, BAD = "#060606", "#070707"
VARIABLES = {GOOD: "--good", BAD: "--bad"}
ENDS = {"light": ("#b84a00", "#0b62b0"), "dark": ("#f2995a", "#6cb2f5")}  # --second and --first of style.css


def step(number: int) -> str:
    """The stand-in for the colour `--stepN` of the page."""
    return f"#08{number:04x}"


def scale(count: int, scheme: str) -> list[str]:
    """`count` colours from the second to the first of the page's, for the scheme "light" or "dark".

    By way of red and violet: on the straight way all that lies between is grey.
    """
    low, high = (np.array(rgb_to_hls(*(int(end[i : i + 2], 16) / 255 for i in (1, 3, 5)))) for end in ENDS[scheme])
    high[0] -= 1  # hues are a circle
    shares = np.linspace(0, 1, count) if count > 1 else np.ones(1)
    colours = [np.array(hls_to_rgb(*(low + share * (high - low)))) for share in shares]
    return ["#{:02x}{:02x}{:02x}".format(*(255 * colour).round().astype(int)) for colour in colours]


def roc(key: str, curves: Sequence[tuple[Row, Row]], eers: Sequence[float]) -> str:
    """(FAR, TAR) curves over a logarithmic FAR axis, from the lowest side to the whole image.

    The dotted line is where both kinds of error are equally frequent; a dot marks where a curve crosses it (its EER).
    """
    drawn = [[(f, t) for f, t in zip(fpr, tpr, strict=True) if f > 0] for fpr, tpr in curves]
    lowest = min(points[0][0] for points in drawn)
    decades = int(np.clip(np.ceil(-np.log10(lowest) - 1e-9), 1, 8))
    with drawing(key) as (axes, result):
        far = np.geomspace(10.0**-decades, 1, 400)
        axes.plot(far, 1 - far, color=MUTED, linewidth=1.2, linestyle=":")
        for number, (points, eer) in enumerate(zip(drawn, eers, strict=True)):
            axes.plot(*zip(*points, strict=True), color=step(number), linewidth=1.4)
            axes.plot([max(eer, 10.0**-decades)], [1 - eer], color=step(number), marker="o", markersize=5)
        axes.set_xscale("log")
        axes.set_xlim(10.0**-decades, 1)
        axes.set_ylim(0, 1.01)
        ticks = [10.0**-power for power in range(decades + 1)]
        axes.set_xticks(ticks, [one_in(tick) if tick < 1 else "all" for tick in ticks])
        axes.get_xticklabels()[-1].set_horizontalalignment(
            "left"
        )  # else it touches the lowest number of the other axis
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axes.set_xlabel("different people let through (FAR, log scale)")
        axes.set_ylabel("same person accepted (TAR)")
    return in_colours(result[0], len(curves))


def comparison(key: str, sides: Sequence[int], before: Row, after: Row) -> str:
    """Accuracy (0..1) of two models at each side: a ring before, a triangle after, and the difference in points."""
    with drawing(key) as (axes, result):
        for at, (old, new) in enumerate(zip(before, after, strict=True)):
            points = round(100 * (new - old), 1)
            colour = GOOD if points > 0 else BAD if points < 0 else INK
            axes.plot([at, at], [old, new], color=colour, linewidth=4, alpha=0.35, solid_capstyle="butt")
            axes.plot([at], [old], color=MUTED, marker="o", markersize=6, markerfacecolor="none")
            axes.plot([at], [new], color=colour, marker="^" if points > 0 else "v" if points < 0 else "D", markersize=6)
            place: dict[str, Any] = {"xytext": (0, 9), "textcoords": "offset points", "ha": "center", "fontsize": 10}
            axes.annotate(signed(points), (at, max(old, new)), color=colour, **place)
        axes.set_xticks(range(len(sides)), [str(side) for side in sides])
        axes.set_xlim(-0.6, len(sides) - 0.4)
        axes.margins(y=0.12)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axes.set_xlabel("side of the degraded images, px")
        axes.set_ylabel("accuracy")
    return in_colours(result[0], 0)


def signed(points: float) -> str:
    """A difference with its sign: +12.3, −0.4, 0.0."""
    return f"{points:+.1f}".replace("-", "−") if points else "0.0"


def in_colours(svg: str, steps: int) -> str:
    """`svg` with this module's stand-ins as variables of the page."""
    for number in range(steps):
        svg = svg.replace(step(number), f"var(--step{number})")
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg
