"""What a run's log says of norm, probability and quality over its training; nothing in it is trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mobileface.report.read import FILES_LIMIT, Json, Thinned, dig, log_rows, number, numbers, objects, string
from mobileface.training.watch import LADDERS, LEVELS

ROWS = 200  # kept of a log
MEASURES = ("norm", "probability")


def read_watched(log: Path) -> dict[str, Any] | None:
    """The `quality` rows of a log.jsonl as plain numbers; None where the run was not watched.

    images: at each row; correlations: ladder -> measure -> values (None where it is none); levels: of the last row;
    tracked: measure -> (rows, images, levels) or empty; edges: images at the start, where a phase began, at the end.
    """
    rows = Thinned(ROWS)
    borders: list[float] = []
    for row in log_rows(log) if log.is_file() else ():
        event, seen = dig(row, "event"), number(row, "images")
        if event == "quality" and row is not None and seen is not None:
            rows.add(row)
        elif event == "phase" and seen is not None and len(borders) < FILES_LIMIT:
            borders.append(seen)
    kept = rows.rows()
    if not kept:
        return None
    images = [number(row, "images") or 0.0 for row in kept]
    return {
        "images": images,
        "correlations": {
            kind: {name: [number(row, f"{kind}_{name}") for row in kept] for name in MEASURES} for kind in LADDERS
        },
        "levels": [_level(row) for row in objects(kept[-1], "levels")[: len(LEVELS)]],
        "tracked": {name: _tracked(kept, name) for name in MEASURES},
        "edges": [0.0, *borders, max(images)],
    }


def _level(row: Json) -> dict[str, Any]:
    measured = {key: number(row, key) for name in MEASURES for key in (name, f"{name}_std")}
    return {"kind": string(row, "kind"), "px": number(row, "px"), **measured}


def _tracked(rows: list[Json], name: str) -> list[list[list[float]]]:
    """(rows, images, levels); empty unless each row holds the same number of images, every level of each."""
    tables = [dig(row, "tracked", name) for row in rows]
    if not all(isinstance(table, list) and len(table) == len(tables[0]) for table in tables):
        return []
    found = [[numbers(levels) for levels in table] for table in tables]
    return found if all(len(levels) == len(LEVELS) for table in found for levels in table) else []
