"""Numbers and names as a person reads them."""

from __future__ import annotations

import re

from markupsafe import Markup

NONE = "–"
FORMATS = {"onnx": "ONNX", "tflite": "TFLite", "coreml": "Core ML"}


def format_name(name: str) -> str:
    """An export's format as people write it, its precision behind: onnx-int8 -> ONNX int8."""
    kind, _, precision = name.partition("-")
    return " ".join(filter(None, (FORMATS[kind], precision))) if kind in FORMATS else name


def visible(text: str) -> str:
    """`text` with what cannot be seen or encoded shown as an escape: control and direction marks, surrogates.

    Line ends, tabs and hard spaces stay. Markup is not touched: jinja2 escapes it.
    """
    return "".join(c if c.isprintable() or c in "\n\t\u00a0" else repr(c)[1:-1] for c in text)


def breakable(name: str) -> Markup:
    """A path that may be broken after each slash and underscore, escaped."""
    return Markup("<wbr>").join(visible(part) for part in re.split(r"(?<=[/_])", name))


def percent(share: float | None, digits: int = 2) -> str:
    """0.9523 -> '95.23 %'."""
    return NONE if share is None else f"{100 * share:.{digits}f}\u00a0%"


def millions(value: float | None) -> str:
    """933_300_000 -> '933.3 M'; one unit for a whole table, so that rows compare at a glance."""
    return NONE if value is None else f"{value / 1e6:,.1f}\u00a0M" if value >= 5e4 else f"{value / 1e6:.3f}\u00a0M"


def count(value: float | None) -> str:
    """12345 -> '12,345'."""
    return NONE if value is None else f"{value:,.0f}"


def short_count(value: float | None) -> str:
    """12345 -> '12.3 k', 2_000_000 -> '2.00 M'."""
    if value is None:
        return NONE
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}\u00a0{unit}"
    return f"{value:.0f}"


def size(value: float | None) -> str:
    """Bytes as MiB or KiB: 4_194_304 -> '4.00 MiB'."""
    if value is None:
        return NONE
    return f"{value / 2**20:,.2f}\u00a0MiB" if value >= 2**20 else f"{value / 2**10:,.1f}\u00a0KiB"


def significant(value: float | None, digits: int = 3) -> str:
    """0.00123456 -> '0.00123'."""
    return NONE if value is None else f"{value:.{digits}g}"


def duration(seconds: float | None) -> str:
    """3725 -> '1 h 2 min'."""
    if seconds is None:
        return NONE
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def one_in(rate: float) -> str:
    """A false accept rate in words: 0.001 -> '1 in 1,000'."""
    return f"1 in {1 / rate:,.0f}" if 0 < rate <= 1 else f"{rate:g}"
