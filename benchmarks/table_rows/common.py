"""What the tables have in common: what a result file holds, rows of text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Result = dict[str, Any]
Rows = list[list[str]]
Results = Callable[[str], Result | None]


def percent(mean: float, deviation: float | None) -> str:
    """`81.30 ± 0.80 %`; the deviation where there is one."""
    return f"{100 * mean:.2f}{'' if deviation is None else f' ± {100 * deviation:.2f}'} %"
