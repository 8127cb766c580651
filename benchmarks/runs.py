"""Trainings that several benchmarks make: a plan in, a run folder's card out; a run that is there is not made again."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

RECIPES = Path(__file__).parent.parent / "recipes"


def recipe(name: str) -> dict[str, Any]:
    """A recipe as plain data, defaults included."""
    from mobileface.training.plan import read_plan

    found: dict[str, Any] = yaml.safe_load(read_plan(RECIPES / name).to_yaml())
    return found


def make_run(plan: dict[str, Any], data: Path, folder: Path) -> dict[str, Any]:
    """`mobileface make`, unless `folder` holds its report already; returns the card."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = folder.parent / f"{folder.name}.yaml"
    file.write_text(yaml.safe_dump(plan))
    if not (folder / "report.html").exists():
        command = [sys.executable, "-m", "mobileface", "make", str(file), "--data", str(data), "--out", str(folder)]
        subprocess.run(command, check=True)
    card: dict[str, Any] = json.loads((folder / "card.json").read_text())
    return card


def spread(values: list[float], name: str = "lfw") -> dict[str, Any]:
    """Mean, sample deviation and number of runs."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {f"{name}_mean": statistics.mean(values), f"{name}_std": deviation, "runs": len(values)}
