"""A road of trainings, prunings and deepenings: `python -m search.road ROAD.yaml [--data DIR] [--out DIR]`.

Exit code 0: done, 1: over budget, 2: bad input.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import Field, ValidationError, model_validator

from mobileface.arch import MAX_DEPTH, Arch, load_arch
from mobileface.errors import CheckFailed, InputError, guarded, run_command
from mobileface.plain_yaml import read_yaml_file
from mobileface.training.plan import MAX_PLAN_BYTES, BudgetLimits, Plan, parse_plan
from mobileface.training.plan_errors import explain
from mobileface.training.plan_phases import wrapped
from mobileface.training.plan_table import Positive, Table
from search.budget import Budget, find_budget, require_fits
from search.prune import begun_from, has_begun, prune_run, verdict, with_budget
from search.prune_channels import require_prunable, require_reachable

if TYPE_CHECKING:
    from rich.console import Console

BEFORE = "before"  # the word for the step before, where a plan wants a run
FIRST = ("arch", "start")  # keys of the first step's plan


class Train(Table):
    """Train the step before further; the first step gives the network as well, by the plan's arch or start."""

    kind: Literal["train"]
    plan: dict[str, Any] = Field({})


class Prune(Table):
    """Prune until a budget holds, in steps, each followed by a training (see `search.prune`)."""

    kind: Literal["prune"]
    budget: str | BudgetLimits
    steps: Positive = 1
    plan: dict[str, Any] = Field({})


class Deepen(Table):
    """Add blocks to a row, from 0, or -1 for the last (see `search.deepen`), and train."""

    kind: Literal["deepen"]
    row: int = -1
    blocks: int = Field(ge=1, le=MAX_DEPTH)
    plan: dict[str, Any] = Field({})


Step = Annotated[Train | Prune | Deepen, Field(discriminator="kind")]


class Road(Table):
    """Steps in their order.

    plan: keys that the steps' plans have in common; a step's own replace them, but for its phases, which say what they
    change of the common ones. A teacher called `before` is the step before. budget: of the network at the end.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")
    budget: str | BudgetLimits
    plan: dict[str, Any] = Field({})
    steps: list[Step] = Field(min_length=1, max_length=100)

    @model_validator(mode="after")
    def _begins(self) -> Road:
        if self.steps[0].kind != "train":
            raise ValueError(f"steps.0: is {self.steps[0].kind}; wanted train, with the plan's arch or start")
        return self

    @model_validator(mode="after")
    def _plans_hold_their_own(self) -> Road:
        """What would be replaced is not given."""
        steps = [(f"steps.{number}.plan", step.plan, number > 0) for number, step in enumerate(self.steps)]
        for where, plan, later in [("plan", self.plan, True), *steps]:
            if given := plan.keys() & {"name", "budget", *(FIRST if later else ())}:
                ours = "the road has name and budget, the plan of steps.0 arch or start"
                raise ValueError(f"{where}: has {min(given)}; {ours}")
        return self


def read_road(path: Path, data: Path | None) -> tuple[Road, list[Plan]]:
    """A road from YAML and the plan of each step, `--data` in them. InputError that names step and key."""
    if not path.is_file():
        raise InputError(f"{path}: no such road; wanted a YAML file")
    try:
        road = Road.model_validate(read_yaml_file(path, "road", MAX_PLAN_BYTES))
    except ValidationError as error:
        raise InputError(f"{path}: {explain(error, Road)}") from None
    except ValueError as error:
        raise InputError(f"{path}: is not YAML ({error})") from None
    for budget in [road.budget, *(step.budget for step in road.steps if isinstance(step, Prune))]:
        find_budget(_plain(budget))
    return road, [_plan(road, number, data, f"{path}: steps.{number}.plan") for number in range(len(road.steps))]


def go(road: Road, plans: list[Plan], out: Path, console: Console) -> Path:
    """Make all steps, each in a folder of `out`; returns the last one's run folder. What is done is not made again.

    CheckFailed before a training, behind the last pruning, of a network that is over the road's budget; what is known
    of that, and of rows and prunings, before the first one.
    """
    from mobileface.training.whole import find_plan_arch, train_run

    limits, run = find_budget(_plain(road.budget)), out
    _look_ahead(road, find_plan_arch(plans[0]), limits)
    pruned = max((number for number, step in enumerate(road.steps) if isinstance(step, Prune)), default=-1)
    for number, (step, plan) in enumerate(zip(road.steps, plans, strict=True)):
        folder = out / f"{number + 1}-{step.kind}"
        console.print(f"{road.name}: step {number + 1} of {len(road.steps)}, {step.kind}", highlight=False)
        if isinstance(step, Prune):
            run = prune_run(run, find_budget(_plain(step.budget)), step.steps, plan, folder, console)
            continue
        budget = limits if number > pruned else None
        if plan.start == BEFORE:
            begun = _deepened(run, step, budget, folder, plan.seed) if isinstance(step, Deepen) else run
            plan = begun_from(plan, run, begun)
        arch = find_plan_arch(plan)
        run = train_run(with_budget(plan, budget), arch, folder, verdict(arch, budget), console)
    require_fits(load_arch(run / "arch.json"), limits)
    return run


def _look_ahead(road: Road, arch: Arch, limits: Budget) -> None:
    """Refuse now what would be refused behind trainings; how wide a pruning leaves the network is not known."""
    from search.deepen import deeper
    from search.prune_graph import check_family, check_packages

    known = True
    for step in road.steps:
        if isinstance(step, Deepen):
            arch = deeper(check_family(arch), step.row, step.blocks)
        elif isinstance(step, Prune):
            check_packages()
            check = require_prunable if known else require_reachable
            wanted = find_budget(_plain(step.budget))
            check(check_family(arch), wanted)
            if step is road.steps[-1]:
                _require_within(wanted, limits)
            known = False
    if known:
        require_fits(arch, limits)
    else:
        require_reachable(check_family(arch), limits)


def _require_within(pruned: Budget, limits: Budget) -> None:
    """CheckFailed for a pruning that ends where the road's budget is still passed."""
    given = {name: getattr(pruned, name) for name in ("max_flops", "max_size_mib", "max_ms")}
    given = {name: left for name, left in given.items() if left is not None}
    if len(given) > 1:
        return  # which of them it will end at is not known
    alike = (pruned.rule, pruned.latency) == (limits.rule, limits.latency)
    for name, left in given.items():
        allowed = getattr(limits, name)
        if alike and allowed is not None and left > allowed:
            raise CheckFailed(f"the last step prunes to {name} {left:g}; the road's budget allows {allowed:g}")


def _deepened(run: Path, step: Deepen, budget: Budget | None, folder: Path, seed: int) -> Path:
    """The deeper network, from which the step's training begins."""
    from mobileface.embedders.network import load_network
    from search.deepen import deepen, deeper
    from search.prune_graph import check_family, write_network

    begun = folder.with_name(f"{folder.name}-start")
    arch = check_family(load_arch(run / "arch.json"))
    named = replace(arch, name=f"{arch.name[:80]}-deeper")
    wanted = deeper(named, step.row, step.blocks)
    if not has_begun(folder):
        verdict(wanted, budget)
        write_network(begun, *deepen(load_network(run), named, step.row, step.blocks, seed))
    elif load_arch(begun / "arch.json") != wanted:
        raise InputError(f"{folder}: holds another deepening; give another --out")
    return begun


def _plan(road: Road, number: int, data: Path | None, source: str) -> Plan:
    """The plan of one step; behind the first one it starts from the step before."""
    own = road.steps[number].plan
    given: dict[str, Any] = {**road.plan, **own, "name": f"{road.name}-{number + 1}"}
    if isinstance(common := road.plan.get("phases"), list) and isinstance(own.get("phases"), list):
        try:
            given["phases"] = wrapped([*common, *own["phases"]])[len(common) :]
        except ValueError as error:
            raise InputError(f"{source}: phases: {error}") from None
    if number:
        given["start"] = BEFORE
    if data is not None and isinstance(given.get("data"), dict):
        given["data"] = {**given["data"], "root": os.fspath(data)}
    return parse_plan(given, source)


def _plain(budget: str | BudgetLimits) -> str | dict[str, Any]:
    return budget if isinstance(budget, str) else budget.model_dump()


def road_command(
    file: Annotated[Path, typer.Argument(metavar="ROAD", help="YAML, such as recipes/prune-and-deepen.yaml")],
    data: Annotated[Path | None, typer.Option("--data", help="folder that the plans' paths begin in")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="folder; runs/NAME unless told otherwise")] = None,
    cache: Annotated[Path | None, typer.Option("--cache", help="folder for indexes and a teacher's embeddings")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
) -> None:
    """Go a road: train, prune, deepen. Goes on where it was stopped."""

    def run() -> None:
        from rich.console import Console

        from mobileface.files import use_cache

        road, plans = read_road(file, data)
        use_cache(cache)
        made = go(road, plans, out or Path("runs") / road.name, Console(soft_wrap=True, markup=False, emoji=False))
        print(f"run: {made}; to judge and export it: mobileface make {made}/plan.yaml --out {made}")

    raise typer.Exit(guarded(run, debug, goes_on=True))


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(road_command, "python -m search.road", argv)


if __name__ == "__main__":
    sys.exit(main())
