"""Searches whose score is a formula: no training, the same everywhere. As a program: a search that kills itself."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial
from rich.console import Console

from mobileface.arch import Arch
from mobileface.errors import NonFiniteError
from search import evolve
from search.budget import Budget
from search.cost import cost
from search.run import search_for
from search.space import Space, key, parse_space
from search.study import JOURNAL, place
from search.work import Search

POPULATION = 4  # so that a short search has generations
RUNGS = (1000, 2000, 4000)
BUDGET = Budget("twenty", "lfrc", 2e7, 8.0, 128)


def tiny_space() -> Space:
    """4,000 networks or so, of which BUDGET lets about half pass."""
    stages = [
        {"width": [16, 24], "reduction": {"hidden": [32]}, "hidden": [32, 48, 64], "depth": [0, 1, 2]},
        {"width": [32, 48], "reduction": {"hidden": [64, 96]}, "hidden": [64, 96, 128], "depth": [0, 1, 2, 3]},
        {"width": [48, 64], "reduction": {"hidden": [96]}, "hidden": [96], "depth": [1, 2]},
    ]
    table = {"name": "tiny", "stem": [8, 16], "stages": stages, "head": [64, 128], "embedding_dim": [64]}
    return parse_space(table, "tiny")


def formula(arch: Arch) -> float:
    """Rises with the work, and has a part that looks like chance."""
    luck = int(hashlib.sha256(key(arch).encode()).hexdigest()[:8], 16) / 2**32
    return 0.8 + 0.1 * cost(arch).macs / 1e8 + 0.05 * luck


@dataclass
class Formula:
    """A score with rungs. It counts its calls; once, behind the first rung of a call from `at` on, it does `then`."""

    at: int = 1_000_000
    then: str = ""
    called: list[str] = field(default_factory=list)

    def __call__(self, arch: Arch, folder: Path, judged: Callable[[int, float], object]) -> float:
        self.called.append(key(arch))
        for images in RUNGS:
            judged(images, formula(arch) - 100 / images)
            if len(self.called) > self.at:
                self.at = 1_000_000
                self._do(folder)
        return formula(arch)

    def _do(self, folder: Path) -> None:
        if self.then == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.then == "stop":
            raise KeyboardInterrupt
        if self.then == "break":
            raise OSError("the disk is full")
        if self.then == "tear":
            with (folder.parents[1] / JOURNAL).open("ab") as journal:
                journal.write(b'{"op_code":6,"worker_id":"4f')
            raise OSError("the disk is full")
        if self.then == "nan":
            raise NonFiniteError("the loss is nan")


def given(score: Formula, console: Console) -> Formula:
    """The score, for a process of its own a copy."""
    return score


def a_search(out: Path, trials: int, score: Formula | None = None, **others: Any) -> Search:
    """A search of the space `small` by the formula."""
    settings = {"score": "formula", "plan": {}}
    values: dict[str, Any] = {
        "budget": BUDGET,
        "against": "flops",
        "images": RUNGS[-1],
        "seed": 7,
        "storage": None,
        **others,
    }
    opened = partial(given, score or Formula())
    return Search(tiny_space(), trials=trials, out=out, opened=opened, settings=settings, **values)


def trials_of(search: Search) -> list[FrozenTrial]:
    """The trials of its study, read anew."""
    return search.study().get_trials()


def history(search: Search) -> list[tuple[int, Any, Any, Any, Any]]:
    """(place, network, state, values, rungs) of each place in the search, as it ended."""
    trials = trials_of(search)
    ended = [t for t in trials if t.state.name != "FAIL" or "failed" in t.user_attrs]
    rows = [(place(trials, t), t.user_attrs["key"], t.state.name, t.values, t.user_attrs.get("rungs")) for t in ended]
    return sorted(rows, key=lambda row: row[0])


if __name__ == "__main__":
    folder, count, last = sys.argv[1:]
    evolve.POPULATION = POPULATION
    search_for(a_search(Path(folder), int(count), Formula(int(last), "kill")), 1, Console(quiet=True))
