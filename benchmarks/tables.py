"""Render README.md's tables from benchmarks/results/*.json.

    python -m benchmarks.tables            # rewrite the tables in README.md
    python -m benchmarks.tables --check    # exit code 1 if README.md lags behind

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; a result that is missing renders as "not run".
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.readme_tables import devices, search, speed, training
from benchmarks.readme_tables.common import Result, Results, Rows

ROOT = Path(__file__).parent.parent
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
    "latency": devices.latency,
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


def main(arguments: list[str]) -> int:
    """Rewrite README.md, or only compare."""
    readme = ROOT / "README.md"
    before = readme.read_text(encoding="utf-8")
    after = render(before)
    if "--check" in arguments:
        return int(before != after)
    readme.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
