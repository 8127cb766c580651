"""What `mobileface data clean` finds in web faces with natural label noise, and how often it is right.

    python -m benchmarks.cleaning DATA

DATA holds `bolly100/` and `teacher/mobilefacenet.onnx`. A person looked at 100 of the picks, 50 of each verdict that
occurs, drawn at random (seed 20240611), and judged each right, wrong or unsure: cleaning_judged.tsv, beside this
script. Only picks that the present code still makes, with the same verdict, are counted. Where bolly100 has
`sim_to_identity.tsv` (another network's cosines), the overlap with its doubtful images is given as well.
Some two minutes.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import typer

from benchmarks.environment import write_result
from benchmarks.teacher import CONTRACT, MODEL

JUDGED = Path(__file__).parent / "cleaning_judged.tsv"
DOUBTFUL = 0.25  # cosine of another network below which a label is doubtful


def rows_of(path: Path) -> list[dict[str, str]]:
    """A table with a header, by column."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def precision(verdicts: dict[str, str]) -> dict[str, Any]:
    """For each verdict: picks that were looked at, and how many were right, wrong, unsure."""
    found: dict[str, Counter[str]] = {}
    gone = 0
    for row in rows_of(JUDGED):
        if verdicts.get(row["key"]) == row["verdict"]:
            found.setdefault(row["verdict"], Counter())[row["judgement"]] += 1
        else:
            gone += 1
    shares = {
        verdict: {
            **counts,
            "precision_unsure_left_out": round(counts["right"] / (counts["right"] + counts["wrong"]), 3),
        }
        for verdict, counts in found.items()
    }
    return {"judged": shares, "judged_but_no_longer_picked": gone}


def main(data: Path) -> None:
    """Clean, count, hold against what a person saw."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["data", "clean", str(data / "bolly100"), "--teacher", str(data / MODEL), "--out", folder, *CONTRACT]
        subprocess.run([sys.executable, "-m", "mobileface", *command], check=True)
        verdicts = {row["key"]: row["verdict"] for row in rows_of(Path(folder) / "clean.tsv")}
        summary = json.loads((Path(folder) / "summary.json").read_text())
    result = {key: summary[key] for key in ("images", "identities", "verdicts", "misfiled", "settings", "norms")}
    result |= precision(verdicts) | {"seconds": summary["seconds"]}
    other = data / "bolly100" / "sim_to_identity.tsv"
    if other.is_file():
        result["another_network"] = overlap(other, verdicts)
    print(json.dumps(result, indent=2))
    write_result("cleaning", result)


def overlap(path: Path, verdicts: dict[str, str]) -> dict[str, int]:
    """Images whose label another network doubts: how many of them got which verdict."""
    with path.open(encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    doubted = [f"bolly100/{row[0]}" for row in rows if len(row) > 1 and _below(row[-1])]
    return {"doubted": len(doubted), **Counter(verdicts.get(key, "not judged") for key in doubted)}


def _below(text: str) -> bool:
    try:
        return float(text) < DOUBTFUL
    except ValueError:  # the header
        return False


if __name__ == "__main__":
    typer.run(main)
