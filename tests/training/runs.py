"""Run folders: trained, stopped, read and compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console
from safetensors.torch import load_file

from mobileface.factory import find_plan_arch
from mobileface.training import loop
from mobileface.training.plan import Plan
from mobileface.training.sources import open_faces

TIMES = ("seconds", "images_per_s")
QUIET = Console(quiet=True)
Targets = NDArray[np.float32] | None


def train(plan: Plan, run: Path, targets: Targets = None) -> dict[str, Any]:
    run.mkdir(exist_ok=True)
    return loop.train(plan, find_plan_arch(plan), run, open_faces(plan), targets, QUIET, workers=0)


def rows(run: Path, event: str) -> list[dict[str, Any]]:
    """Rows of the log without what depends on the clock."""
    found = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in TIMES} for row in found if row["event"] == event]


def assert_same_tensors(run: Path, reference: Path, *names: str) -> None:
    """Of both folders, NAME.safetensors holds the same names and bits."""
    for name in names:
        one, two = (load_file(folder / f"{name}.safetensors") for folder in (run, reference))
        assert one.keys() == two.keys()
        assert [key for key in one if not torch.equal(one[key], two[key])] == [], name


def stop_at(step: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send this process a signal in the middle of step `step` (from 1) of the next training."""
    original, calls = loop.step, 0

    def stopped(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == step:
            os.kill(os.getpid(), number)
        return original(*args)

    monkeypatch.setattr(loop, "step", stopped)


def run_ranks(
    ranks: int, plan: Path, run: Path, stop: int = 0, die: int = 0, workers: int = 0, frozen: bool = False
) -> subprocess.CompletedProcess[str]:
    """One process without torchrun, several with it; in a group of their own, which a signal may be sent to."""
    numbers = [str(number) for number in (stop, die, workers, int(frozen))]
    script = [str(Path(__file__).with_name("rank_run.py")), str(plan), str(run), *numbers]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    return subprocess.run([sys.executable, *launcher, *script], capture_output=True, text=True, start_new_session=True)


@contextmanager
def breaking_off(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The training inside is broken off before its step `step` (from 1), and saves nothing more."""
    original, calls = loop.step, 0

    def broken(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == step:
            raise KeyboardInterrupt
        return original(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "step", broken)
        yield
