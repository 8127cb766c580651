"""Trainings that several benchmarks make: plans in, a row of what each reached out; what is there is not made again."""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from mobileface.files import write_json

RECIPES = Path(__file__).parent.parent / "recipes"
Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A plan as plain data, the run folder it is made in, and what to keep of the run's card."""

    folder: Path
    plan: dict[str, Any]
    row_of: Callable[[dict[str, Any]], Row]


def recipe(name: str) -> dict[str, Any]:
    """A recipe as plain data, defaults included."""
    from mobileface.training.plan import read_plan

    found: dict[str, Any] = yaml.safe_load(read_plan(RECIPES / name).to_yaml())
    return found


def make_rows(jobs: list[Job], data: Path, publish: Callable[[list[Row]], object]) -> None:
    """A row for each job, kept in its folder. `publish` is given all that are there, behind each that was made.

    With NO_RESULT in the environment nothing is published.
    """
    rows = [_kept(job) for job in jobs]
    for number, job in enumerate(jobs):
        if rows[number] is None:
            rows[number] = row = job.row_of(make_run(job.plan, data, job.folder))
            write_json(job.folder / "row.json", {"plan": job.plan, "row": row})
            print(json.dumps(row), flush=True)
        if "NO_RESULT" not in os.environ:
            publish([row for row in rows if row is not None])


def _kept(job: Job) -> Row | None:
    """The row that is there; one of another plan ends the benchmark."""
    file = job.folder / "row.json"
    if not file.exists():
        return None
    found = json.loads(file.read_text(encoding="utf-8"))
    if found["plan"] != job.plan:
        sys.exit(f"{job.folder}: holds a run of another plan; give another --out")
    kept: Row = found["row"]
    return kept


def rows_at_once(jobs: list[Job], data: Path) -> list[Row]:
    """A row for each job, as many trainings at a time as there are cores, with one thread each: small networks train
    faster so than one after the other with all threads. Publishes nothing."""
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes, and those that they start
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(partial(_made, data), jobs))


def _made(data: Path, job: Job) -> Row:
    """The row of one job, which `make_rows` keeps in its folder."""
    make_rows([job], data, lambda rows: None)
    row = _kept(job)
    assert row is not None
    return row


def make_run(plan: dict[str, Any], data: Path, folder: Path) -> dict[str, Any]:
    """`mobileface make`, which goes on with what is there and refuses another plan; returns the card."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = folder.parent / f"{folder.name}.yaml"
    file.write_text(yaml.safe_dump(plan))
    run("mobileface", "make", str(file), "--data", str(data), "--out", str(folder))
    card: dict[str, Any] = json.loads((folder / "card.json").read_text())
    return card


def run(*arguments: str) -> None:
    """`python -m` with these arguments."""
    subprocess.run([sys.executable, "-m", *arguments], check=True)


def lfw(folder: Path, data: Path, out: Path) -> float:
    """Accuracy of a run folder's network on LFW; kept in `out`."""
    if not (out / "lfw.json").exists():
        run("mobileface", "evaluate", str(folder), "--on", "lfw", "--data", str(data), "--out", str(out))
    return float(json.loads((out / "lfw.json").read_text(encoding="utf-8"))["accuracy"])


def run_row(folder: Path) -> Row:
    """What a training cost, took and reached on held-out people."""
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    kept = {key: card["training"][key] for key in ("images_seen", "seconds", "held_out_auc", "precision")}
    return {"flops_lfrc": card["budget"]["flops_lfrc"], "size_mib": card["budget"]["size_mib"], **kept}


def spread(values: list[float], name: str = "lfw") -> dict[str, Any]:
    """Mean, sample deviation and number of runs."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {f"{name}_mean": statistics.mean(values), f"{name}_std": deviation, "runs": len(values)}
