"""Rewrite the tables of README.md and docs/measured.md from benchmarks/results/*.json: `python -m benchmarks.tables`.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; a result that is missing renders as "not run".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from benchmarks.table_rows import devices, search, speed, training, video
from benchmarks.table_rows.common import Result, Results, Rows

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/measured.md")
RESULTS = Path(__file__).parent / "results"
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

TABLES: dict[str, Callable[[Results], Rows]] = {
    "speed": speed.speed,
    "accuracy": training.accuracy,
    "demo": speed.demo,
    "ladder": training.ladder,
    "distillation": training.distillation,
    "adaface": training.adaface,
    "exports": devices.exports,
    "targets": devices.targets,
    "cross_resolution": training.cross_resolution,
    "qgface": training.qgface,
    "score_rank": search.score_rank,
    "found_networks": search.found_networks,
    "pruned": search.pruned,
    "road": search.road,
    "latency": devices.latency,
    "video": video.video,
}


def load(name: str) -> Result | None:
    """A result file, or None where the benchmark was not run."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def render(text: str) -> str:
    """The text with each table made anew."""

    def table(match: re.Match[str]) -> str:
        head, *rows = TABLES[match[2]](load)
        lines = [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]]
        return match[1] + "\n".join(lines if rows else ["not run"]) + "\n" + match[3]

    return BLOCK.sub(table, text)


def main() -> None:
    """Rewrite each page."""
    for name in PAGES:
        page = ROOT / name
        page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
