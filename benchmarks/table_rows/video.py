"""The table of video cleaning."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.table_rows.common import Results, Rows, percent

PAPER = 0.4  # its threshold (Table 5)
FAR = "tar 1e-3"
METHODS = ("union-find", "DBSCAN", "average linkage")


def video(results: Results) -> Rows:
    """What cleaning removes of known noise, and how well the videos' features then tell people apart."""
    rows = [["model", "videos", "cleaning, threshold", "precision", "recall", "AUC", "TAR at FAR 1e-3", "s"]]
    for model in (results("video") or {"models": []})["models"]:
        real = {name: _numbers(model["real"][name]) for name in ("no cleaning", *METHODS)}
        real["seconds"] = {name: [model["real"][f"{name} seconds"]] for name in METHODS}
        rows += [[model["model"], "real tracks", *row] for row in _ways(real)]
        for found in model["pseudo"]:
            noisy = found["noise_for_each_good_frame"] > 0
            kind = f"{found['shots']}{', noise' if noisy else ', no noise'}"
            ways = _ways(found) if noisy else _ways({"no cleaning": found["no cleaning"]})
            rows += [[model["model"], kind, *row] for row in ways]
    return rows


def _ways(found: dict[str, Any]) -> Rows:
    """No cleaning, the paper's threshold, and the best one (by AUC, then recall) of each method."""
    ways = [["none", *_cells(found["no cleaning"]), "–"]]
    for method in (method for method in METHODS if method in found):
        seconds = f"{statistics.mean(found['seconds'][method]):.2f}"
        best = max(found[method], key=lambda row: (row["auc"]["mean"], row["recall"]["mean"]))
        shown = {f"{method}, {best['threshold']:g}, its best": best}
        if method == "union-find":
            shown = {
                f"{method}, {PAPER}, the paper's": row for row in found[method] if row["threshold"] == PAPER
            } | shown
        ways += [[name, *_cells(row), seconds] for name, row in shown.items()]
    return ways


def _cells(row: dict[str, Any]) -> list[str]:
    return [_shown(row.get(key)) for key in ("precision", "recall", "auc", FAR)]


def _shown(value: dict[str, Any] | None) -> str:
    return percent(value["mean"], value["std"]) if value else "–"


def _numbers(rows: Any) -> Any:
    """Rows of one run in the shape of those over seeds."""
    if isinstance(rows, list):
        return [_numbers(row) for row in rows]
    removal, told = rows["removal"], rows["verification"]
    values = {**{name: removal[name] for name in ("precision", "recall")}, "auc": told["auc"]}
    values |= {f"tar {far}": value for far, value in told["tar"].items()}
    found = {name: {"mean": value, "std": None} for name, value in values.items() if value is not None}
    return {"threshold": rows["threshold"], **found}
