"""Several plots of a page as one SVG file that stands alone: for documents, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, HEAD, GAP = 403.2, 252.0, 40.0, 16.0  # of a plot as report.plots draws it, of its title, between two
STYLE = """
:root { --bg: #ffffff; --ink: #1b1f24; --muted: #59636e; --line: #d5dae0; --first: #0b62b0; --second: #b84a00; }
@media (prefers-color-scheme: dark) {
  :root { --bg: #14171b; --ink: #e6e9ed; --muted: #9aa5b1; --line: #363d46; --first: #6cb2f5; --second: #f2995a; }
}
text { font-family: system-ui, "Segoe UI", Roboto, Arial, sans-serif; fill: var(--ink); }
"""
LINES = (("--first", ""), ("--second", "6 3"), ("--ink", "2 3"))  # colours and dashes of understanding.figures


def sheet(plots: Sequence[dict[str, Any]], columns: int = 2) -> str:
    """The plots of `understanding.page` in rows, each under its title, its note and its legend."""
    rows = -(-len(plots) // columns)
    width, height = columns * (WIDTH + GAP) + GAP, rows * (HEAD + HEIGHT + GAP) + GAP
    cells = []
    for number, plot in enumerate(plots):
        row, column = divmod(number, columns)
        left, top = GAP + column * (WIDTH + GAP), GAP + row * (HEAD + HEIGHT + GAP)
        cells.append(f'<g transform="translate({left:.1f} {top:.1f})">{_head(plot)}{_placed(str(plot["svg"]))}</g>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width:.1f} {height:.1f}"><style>{STYLE}</style>'
        f'<rect width="100%" height="100%" fill="var(--bg)"/>{"".join(cells)}</svg>\n'
    )


def _head(plot: dict[str, Any]) -> str:
    title = f'<tspan font-weight="bold">{escape(plot["title"])}</tspan>  {escape(plot["note"])}'
    words = [f'<text y="10" font-size="11">{title}</text>']
    left = 0.0
    for label, (colour, dash) in zip(plot["legend"], LINES, strict=False):
        line = f'stroke="var({colour})" stroke-width="2.5" stroke-dasharray="{dash}"'
        words.append(f'<path d="M{left:.0f} 26h24" {line}/>')
        words.append(f'<text x="{left + 28:.0f}" y="30" font-size="11">{escape(label)}</text>')
        left += 46 + 6.2 * len(label)
    return "".join(words if len(plot["legend"]) > 1 else words[:1])


def _placed(svg: str) -> str:
    """The plot below its head. Its own text has no colour of its own: the page's style sheet gives one."""
    return svg.replace("<svg ", f'<svg y="{HEAD:.0f}" width="{WIDTH}" height="{HEIGHT}" ', 1)
