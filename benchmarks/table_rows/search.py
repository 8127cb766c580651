"""Tables of searching and pruning."""

from __future__ import annotations

from typing import Any

from benchmarks.table_rows.common import Results, Rows, percent


def score_rank(results: Results) -> Rows:
    """How well cheap scores rank networks by what long trainings reach: Kendall's tau, over all and within a budget."""
    rows = [["score", "s a network", "all, AUC", "all, LFW", "within a budget, AUC", "within a budget, LFW"]]
    if found := results("score_rank"):
        shown = {name: row["seconds"] for name, row in found["scores"].items()}
        for name, row in (*found["scores"].items(), ("AUC itself, against LFW", None)):
            both = [found["truths"]] if row is None else [row["auc"], row["lfw"]]
            taus = [_tau(one[of]) for of in ("all", "within") for one in both]
            taus = ["–", taus[0], "–", taus[1]] if row is None else taus
            rows.append([name, f"{shown[name]:.1f}" if name in shown else "–", *taus])
    return rows


def found_networks(results: Results) -> Rows:
    """The network that a search found, and the known ones scaled to its budget: LFW over seeds."""
    rows = [["network", "MFLOPs", "parameters", "LFW", "held-out AUC", "found above it", "runs"]]
    for name, row in (results("search") or {"summary": {}})["summary"].items():
        cost = [f"{row['flops_lfrc'] / 1e6:.1f}", f"{row['params']:,}"]
        shown = [percent(row[f"{of}_mean"], row[f"{of}_std"]) for of in ("lfw", "auc")]
        above = f"{100 * row['winner_above']:+.2f}{', beyond the spread' if row['beyond_spread'] else ''}"
        rows.append([name, *cost, *shown, "–" if name == "found" else above, str(row["runs"])])
    return rows


def pruned(results: Results) -> Rows:
    """A student, pruned to half of its FLOPs, and the same architecture from scratch in the same time."""
    rows = [["network", "MFLOPs", "LFW", "minutes of training"]]
    if found := results("prune"):
        student, last, scratch = found["student"], found["pruned"]["steps"][-1], found["scratch"]
        rows.append(["the student", f"{student['flops_lfrc'] / 1e6:.1f}", f"{100 * student['lfw']:.2f} %", "–"])
        for name, row, cost in (("pruned", found["pruned"], last), ("the same from scratch", scratch, scratch)):
            minutes = f"{row['seconds'] / 60:.0f}"
            rows.append([name, f"{cost['flops_lfrc'] / 1e6:.1f}", f"{100 * row['lfw']:.2f} %", minutes])
    return rows


def road(results: Results) -> Rows:
    """The paper's own road: what each step costs and reaches."""
    rows = [["step", "MFLOPs", "LFW", "held-out AUC", "images", "minutes of training"]]
    for step, row in (results("road") or {"rows": {}})["rows"].items():
        shown = [f"{row['flops_lfrc'] / 1e6:.1f}", f"{100 * row['lfw']:.2f} %", f"{row['held_out_auc']:.4f}"]
        rows.append([step, *shown, f"{row['images_seen']:,}", f"{row['seconds'] / 60:.0f}"])
    return rows


def _tau(found: dict[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['tau']:.2f} ({low:.2f} to {high:.2f})"
