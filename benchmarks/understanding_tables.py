"""The tables of docs/understanding.md, from benchmarks/results/understanding.json."""

from __future__ import annotations

import json
import re
from typing import Any

from benchmarks.environment import RESULTS
from benchmarks.tables import BLOCK

Json = dict[str, Any]


def tables(result: Json) -> dict[str, list[list[str]]]:
    """By name, the head first."""
    runs = result["runs"]
    return {
        "runs": runs_table(runs),
        "cost": cost_table(result["watching"]),
        "watched": watched_table(runs),
        "factors": factors_table(runs),
        "real": real_table(runs),
        "attention": attention_table(result["attention"]),
    }


def runs_table(runs: list[Json]) -> list[list[str]]:
    head = ["run", "network", "loss", "augmentation", "images", "held-out AUC"]
    rows = [
        [
            run["name"],
            f"`{run['arch']}`",
            " + ".join(run["losses"]),
            run["augmentation"],
            f"{run['images']:,}",
            f"{run['held_out_auc']:.3f}",
        ]
        for run in runs
    ]
    return [head, *rows]


def cost_table(found: Json) -> list[list[str]]:
    many = f"{found['embedded']:,}"
    classes = f"{found['classes']:,} centres of {found['embedding_dim']} numbers"
    return [
        ["what", "processor seconds"],
        [f"{many} embeddings by `tiny`", f"{found['cpu_seconds']:.1f}"],
        [f"{many} probabilities over {classes}", f"{found['classifier_cpu_seconds']:.1f}"],
    ]


def watched_table(runs: list[Json]) -> list[list[str]]:
    from mobileface.understanding.page import signed

    columns = [(kind, measure) for kind, found in runs[0]["watched"]["correlations"].items() for measure in found]
    rows = [["run", "images seen", *(f"{kind}: {measure}" for kind, measure in columns)]]
    for run in runs:
        found = run["watched"]["correlations"]
        for at, images in enumerate(run["watched"]["images"]):
            values = [signed(found[kind][measure][at]) for kind, measure in columns]
            rows.append([run["name"], f"{images:,.0f}", *values])
    return rows


def factors_table(runs: list[Json]) -> list[list[str]]:
    from mobileface.understanding.page import correlations

    found = [(run["name"], row) for run in runs for row in correlations(run["factors"])]
    head = ["run", "what", *found[0][1]["cells"]]
    return [head, *([name, row["branch"], *row["cells"].values()] for name, row in found)]


def real_table(runs: list[Json]) -> list[list[str]]:
    rows = [["run", "norm of", "mean", "deviation", "1 %", "5 %", "50 %", "95 %", "99 %"]]
    for run in runs:
        for branch, found in run["norms"].items():
            numbers = [found["mean"], found["std"], *found["quantiles"].values()]
            rows.append([run["name"], branch, *(f"{value:.2f}" for value in numbers)])
    return rows


def attention_table(found: Json) -> list[list[str]]:
    columns = {"mean": "mean", "deviation": "std", "least": "least", "5 %": "0.05", "95 %": "0.95", "most": "most"}
    rows = [["faces", "what", *columns]]
    for faces, measures in found.items():
        for name, facts in measures.items():
            rows.append([faces, name, *(f"{facts[key]:.3f}" for key in columns.values())])
    return rows


def render(text: str) -> str:
    """The document with each of its tables made anew from the result file."""
    made = tables(json.loads((RESULTS / "understanding.json").read_text()))

    def table(match: re.Match[str]) -> str:
        head, *rows = made[match[2]]
        return (
            match[1]
            + "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
            + "\n"
            + match[3]
        )

    return BLOCK.sub(table, text)
