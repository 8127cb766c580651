"""Search for the best network within a budget: `python -m search.run SPACE --budget lfrc-light --trials 60`.

Exit code 0: done, 1: no network of the space fits, or a worker was killed, 2: bad input, 130: interrupted. The same
command goes on where it was stopped; with more --trials it goes further.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from contextlib import ExitStack
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobileface.errors import INTERRUPTED, CheckFailed, InputError, guarded, nearest, run_command
from mobileface.files import locked
from search.budget import (
    CUSTOM,
    Budget,
    Latency,
    MaxDim,
    MaxFlops,
    MaxMs,
    MaxSize,
    Name,
    Rule,
    chosen_budget,
    find_budget,
)

if TYPE_CHECKING:
    import optuna
    from rich.console import Console

    from mobileface.training.plan import Plan
    from search.work import Search

RECIPE = Path("recipes/search-small.yaml")
STOPS = (signal.SIGINT, signal.SIGTERM)
LOOK_S = 2.0  # how often the study is looked at while others work on it


def search_for(search: Search, workers: int, console: Console) -> Path:
    """Run the search to its end; returns the page. What was found is written on Ctrl-C and errors as well.

    With several workers each is a process of its own. CheckFailed if one was killed and its trial is left.
    """
    from search.found import Watch, write_found
    from search.study import JOURNAL, reachable, take_up
    from search.work import work

    score = search.opened(console)  # what is wrong with the data is said before anything is begun
    with reachable(search.storage), ExitStack() as held:
        search.out.mkdir(parents=True, exist_ok=True)
        _require_ours(search)
        if search.storage is None:
            held.enter_context(locked(search.out))  # a journal is for one command; a database for many
            (search.out / f"{JOURNAL}.lock").unlink(missing_ok=True)  # of a killed process: nobody else is here
        study = search.study()
        if lost := take_up(study, search.out, alone=search.storage is None):
            console.print(f"{lost} trials that were broken off are taken up again", highlight=False)
        watch = Watch(search, study, workers, console)
        try:
            if workers == 1:
                work(search, score, lambda study: watch.look())
            else:
                del score  # each opens its own; what they share was cached by this one
                _work_in_processes(search, study, watch, workers, console)
        finally:
            take_up(study, search.out, alone=False)
            page = write_found(search, study)
    if page is None:
        raise CheckFailed(f"none of {watch.tally().finished} trials came to a score; {search.out} holds their folders")
    return page


def _require_ours(search: Search) -> None:
    """InputError for a folder of something else: what was found is written over what is there."""
    from search.study import BOUND, JOURNAL

    mark = JOURNAL if search.storage is None else BOUND
    if not (search.out / mark).exists() and [p for p in search.out.iterdir() if not p.name.startswith(".")]:
        raise InputError(f"{search.out}: is not empty and holds no {mark}; give another --out")


def _work_in_processes(search: Search, study: optuna.Study, watch: Any, workers: int, console: Console) -> None:
    """Start `workers` processes and wait for them. Ctrl-C goes to each once; the error of one ends them all."""
    from search.study import take_up

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    context = multiprocessing.get_context("spawn")
    running: list[BaseProcess] = [
        context.Process(target=_worker, args=(search, os.getpid()), name=f"worker {number}")
        for number in range(1, workers + 1)
    ]
    killed = 0
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as a cluster ends a job: like Ctrl-C
    resource_tracker.ensure_running()  # it unblocks the signals that we block now
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # a worker inherits it and hears of them when it can say so
    try:
        for process in running:
            process.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        with console.status("") as status:
            while running:
                wait([process.sentinel for process in running], LOOK_S)
                ended = [process for process in running if process.exitcode is not None]
                running = [process for process in running if process not in ended]
                for process in ended:
                    killed += _was_killed(process, console)
                if killed:
                    take_up(study, search.out, alone=False)
                watch.look()
                status.update(watch.in_words())
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        begun = {process.pid: process for process in running if process.pid is not None}
        for pid, process in begun.items():
            if process.exitcode is None:
                os.kill(pid, signal.SIGINT)
        for process in begun.values():
            process.join()
        watch.look()
    if killed and (left := search.trials - watch.tally().finished) > 0:
        raise CheckFailed(f"{killed} workers were killed and {left} trials are left; the same command goes on")


def _was_killed(process: BaseProcess, console: Console) -> bool:
    """Whether a process that has ended was killed; its error is ours."""
    code = process.exitcode or 0
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code > 0:
        kind = InputError if code == InputError.exit_code else CheckFailed
        raise kind(f"{process.name} ended with exit code {code}, see above")
    if code < 0:
        console.print(f"{process.name} was killed ({signal.Signals(-code).name}); its trial is taken up again")
    return code < 0


def _worker(search: Search, parent: int) -> None:
    """What one process does; it says nothing but why it ended."""
    from rich.console import Console

    from search.work import work

    os.setpgrp()  # Ctrl-C in a terminal reaches the parent alone, which hands it on
    quiet = Console(quiet=True)

    def run() -> int:
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored behind a shell's `&`
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
            work(search, search.opened(quiet), lambda study: None, parent)
        except KeyboardInterrupt:
            return INTERRUPTED
        return 0

    sys.exit(guarded(run))


def plan_search(
    space: str, budget: Budget | None, plan: Plan, score: str, against: str, trials: int, seed: int, **where: Any
) -> Search:
    """A search of the command line's words. InputError for what cannot be; CheckFailed if no network fits.

    budget: that of the plan unless told.
    """
    import numpy as np

    from search.sampling import Sampler
    from search.score import open_score
    from search.space import find_space
    from search.study import shown
    from search.work import AGAINST, Search

    found = find_space(space)
    limits = budget or _budget_of(plan)
    if against not in AGAINST:
        raise InputError(f"--against is {against!r}{nearest(against, AGAINST)}, wanted one of {', '.join(AGAINST)}")
    if against == "ms" and limits.latency is None:
        raise InputError(f"--against ms, and budget {limits.name} names no latency table; wanted budget.latency")
    if where["storage"] is not None:
        shown(where["storage"])
    sampler = Sampler(found, limits)
    if limits.latency is not None:  # milliseconds are no sum that it could count: whether any fits, a draw shows
        sampler.draw(np.random.default_rng(seed))
    meant = plan.model_dump(mode="json", by_alias=True, exclude={"arch", "budget", "evaluate", "export"})
    meant["data"].pop("root")  # another machine has it elsewhere
    return Search(
        found,
        limits,
        against,
        trials,
        sum(phase.images for phase in plan.phases),
        seed,
        opened=partial(open_score, score, plan),
        settings={"score": score, "plan": meant},
        **where,
    )


def _budget_of(plan: Plan) -> Budget:
    if plan.budget is None:
        raise InputError(f"{plan.name} names no budget; wanted --budget NAME, or limits such as --max-flops 1e8")
    return find_budget(plan.budget if isinstance(plan.budget, str) else plan.budget.model_dump())


def report(
    space: Annotated[str, typer.Argument(help="lfrc, small, or a file of a space (YAML or JSON)")],
    trials: Annotated[int, typer.Option(min=1, max=100_000, help="networks to try in all")],
    budget: Name = None,
    max_flops: MaxFlops = None,
    rule: Rule = "lfrc",
    max_size_mib: MaxSize = None,
    max_dim: MaxDim = None,
    max_ms: MaxMs = None,
    latency: Latency = None,
    recipe: Annotated[Path, typer.Option(help="plan of the training that scores a network")] = RECIPE,
    data: Annotated[Path | None, typer.Option(help="folder that the recipe's paths begin in")] = None,
    out: Annotated[Path | None, typer.Option(help="folder of the search; runs/search-SPACE unless told")] = None,
    score: Annotated[str, typer.Option(help="train, distill, or a score of untrained networks, see docs")] = "train",
    against: Annotated[str, typer.Option(help="cost to hold the score against: flops, size, ms")] = "flops",
    storage: Annotated[
        str | None,
        typer.Option(help="postgresql+psycopg://USER@HOST/NAME, shared by machines; a file in OUT unless told"),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=256, help="processes on this machine")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="the same seed, the same search (with one worker)")] = 0,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="recipe's keys: phases.0.images=8000")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
) -> None:
    """Find networks within a budget, the recipe's unless told, that no other one beats in both score and cost.

    Goes on where it was stopped.
    """

    def run() -> None:
        from rich.console import Console

        from mobileface.training.whole import load_plan

        plan = load_plan(recipe, data, overrides or [])
        told = chosen_budget(budget, Budget(CUSTOM, rule, max_flops, max_size_mib, max_dim, max_ms, latency))
        if told is None and rule != "lfrc":
            raise InputError(f"--rule {rule} and no limit; wanted --max-flops with it")
        where = {"out": out or Path("runs") / f"search-{Path(space).stem}", "storage": storage}
        search = plan_search(space, told, plan, score, against, trials, seed, **where)
        console = Console(soft_wrap=True, markup=False, emoji=False)
        print(f"page: {search_for(search, workers, console)}")

    raise typer.Exit(guarded(run, debug, goes_on=True))


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(report, "python -m search.run", argv)


if __name__ == "__main__":
    sys.exit(main())
