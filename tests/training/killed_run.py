"""Train in children that kill themselves: `python killed_run.py PLAN.json TARGETS.npy|- RUN MOMENT [RUN MOMENT ...]`.

`make` in the place of the targets does all of `mobileface make PLAN --out RUN`, each time with an empty cache.

A moment is KIND:NUMBER. `step:3` kills before the third step; `save_file:2` when half of the second checkpoint
file is written; `fsync:5`, `replace:1` before such a call and `replaced:1` behind it; `log:4` in the middle of the
fourth row; `cpu:0.3` after that share of the processor time of a whole training, wherever that is. `never:0` is the
whole training. Prints one line for each child: its wait status and its processor time.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mobileface import factory
from mobileface.training import checkpoint, loop
from mobileface.training.plan import parse_plan
from mobileface.training.runlog import RunLog
from mobileface.training.sources import open_faces


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at(number: int, function: Callable[..., Any], before: Callable[..., Any], after: Callable[..., Any]) -> Any:
    """`function`, with a call of `before` or `after` around its call `number` (from 1)."""
    calls = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            before(*args)
        result = function(*args, **kwargs)
        if calls == number:
            after(*args)
        return result

    return counted


def nothing(*args: Any) -> None:
    """Go on."""


def half_a_file(tensors: Any, path: Path, metadata: Any) -> None:
    os.truncate(path, path.stat().st_size // 2)
    die()


def half_a_row(log: RunLog, row: dict[str, Any]) -> None:
    log._file.write(json.dumps(row).encode()[:20])
    log._file.flush()
    die()


def set_trap(kind: str, number: float, whole: float) -> None:
    """Make this process die at the moment."""
    count = int(number)
    if kind == "cpu":
        signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process in the kernel: no Python runs any more
        signal.setitimer(signal.ITIMER_PROF, number * whole)
    elif kind == "step":
        loop.step = at(count, loop.step, lambda *_: die(), nothing)
    elif kind == "save_file":
        checkpoint.save_file = at(count, checkpoint.save_file, nothing, half_a_file)
    elif kind == "log":
        RunLog.write = at(count, RunLog.write, half_a_row, nothing)  # type: ignore[method-assign]
    elif kind in ("fsync", "replace"):
        setattr(os, kind, at(count, getattr(os, kind), lambda *_: die(), nothing))
    elif kind == "replaced":
        os.replace = at(count, os.replace, nothing, lambda *_: die())
    elif kind != "never":
        raise ValueError(kind)


def train(plan_file: Path, targets_file: str, run: Path) -> None:
    plan = parse_plan(json.loads(plan_file.read_text()), str(plan_file))
    targets = None if targets_file == "-" else np.load(targets_file)
    faces = open_faces(plan)
    loop.train(plan, factory.find_plan_arch(plan), run, faces, targets, Console(quiet=True), 0)


def make(recipe: Path, _: str, run: Path) -> None:
    loop.default_workers = lambda: 0
    os.environ["MOBILEFACE_CACHE"] = str(run) + ".cache"
    factory.make(recipe, None, run, [], Console(quiet=True))


def main(plan_file: str, targets_file: str, *rest: str) -> None:
    whole = 0.0
    for run, moment in zip(rest[::2], rest[1::2], strict=True):
        kind, number = moment.split(":")
        work = partial(make if targets_file == "make" else train, Path(plan_file), targets_file, Path(run))
        child = os.fork()  # the libraries are loaded once for all children
        if not child:
            set_trap(kind, float(number), whole)
            work()
            os._exit(0)
        _, status, used = os.wait4(child, 0)
        spent = used.ru_utime + used.ru_stime
        whole = spent if kind == "never" else whole
        print(status, round(spent, 3), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
