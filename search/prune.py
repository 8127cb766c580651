"""Prune a trained SE-MobileFaceNet until it fits: `python -m search.prune RUN --budget B [--data DIR]`.

Exit code 0: done, 1: no pruning reaches the budget, 2: bad input.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobileface.arch import Arch, SEMobileFaceNet, load_arch
from mobileface.errors import InputError, guarded, run_command
from search.budget import (
    BUDGETS,
    CUSTOM,
    Budget,
    Latency,
    MaxFlops,
    MaxMs,
    MaxSize,
    Name,
    Rule,
    chosen_budget,
    judge,
    per_stage,
    require_fits,
)
from search.cost import cost
from search.prune_channels import require_prunable, towards

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console
    from torch import nn

    from mobileface.data.faceset import FaceSet
    from mobileface.training.plan import Plan

IMAGES = 256  # on which channels count
TASK = "prune.json"


def prune_run(run: Path, budget: Budget, steps: int, plan: Plan, out: Path, console: Console) -> Path:
    """Prune in steps of equal ratios, each followed by a training; returns the last one's run folder, out/STEPS.

    Step k lies in out/k; out/k-start is what its training begins with. Steps that are done are not made again, and a
    step whose training has saved nothing yet is pruned anew: what stopped it may have been what the plan says.
    plan: its `start` is a word for the run, and a teacher of the same word is the run itself, unpruned. Every step
    trains its first phase, the last step all of them.
    """
    from mobileface.embedders.network import load_network
    from mobileface.files import locked
    from mobileface.training.loop import finished_facts
    from mobileface.training.whole import plan_faces, train_run
    from search.prune_graph import check_family, check_packages, prune, write_network

    check_packages()
    for file, wanted in (("arch.json", "a run folder"), ("model.safetensors", "a run whose training is over")):
        if not (run / file).is_file():
            raise InputError(f"{run}: has no {file}; wanted {wanted} to prune")
    whole = check_family(load_arch(run / "arch.json"))
    require_prunable(whole, budget)
    with locked(out):
        _same_task(run, budget, steps, out)
        faces = plan_faces(plan, console)
        auc, before, folder = None, whole, run
        for step in range(1, steps + 1):
            previous, folder, begun = folder, out / str(step), out / f"{step}-start"
            if not has_begun(folder):
                auc = _held_out_auc(plan, faces, load_network(previous)) if step == 1 else auc
                target = towards(whole, budget, step / steps)
                with console.status(f"step {step} of {steps}: pruning"):
                    pruned, network = prune(load_network(previous), before, target, _images(plan, faces), plan.seed)
                named = replace(pruned, name=f"{whole.name[:80]}-{cost(pruned).flops_lfrc / 1e6:.0f}M")
                write_network(begun, named, network)
            arch = check_family(load_arch(begun / "arch.json"))
            limits, phases = (budget, plan.phases) if step == steps else (None, plan.phases[:1])
            ours = plan.model_copy(update={"name": f"{plan.name[:90]}-{step}", "phases": phases})
            ours = with_budget(begun_from(ours, run, begun), limits)
            train_run(ours, arch, folder, verdict(arch, limits), console)
            facts = finished_facts(folder)
            assert facts is not None
            first, last = _first_auc(folder), facts["held_out_auc"]
            console.print(f"step {step} of {steps}: {_costs(before, arch)}, {_aucs(auc, first, last)}", highlight=False)
            auc, before = last, arch
    return folder


def has_begun(folder: Path) -> bool:
    """Whether a training has saved anything there."""
    return (folder / "checkpoints").exists() or (folder / "model.safetensors").exists()


def verdict(arch: Arch, budget: Budget | None) -> dict[str, Any]:
    """What a card says of the cost. CheckFailed over budget."""
    return {**(judge(arch, None) if budget is None else require_fits(arch, budget)), "per_stage": per_stage(arch)}


def with_budget(plan: Plan, budget: Budget | None) -> Plan:
    """The plan with this budget, by name where it has one."""
    from mobileface.training.plan import BudgetLimits

    limits = None if budget is None else BudgetLimits(**asdict(budget))
    named = budget is not None and BUDGETS.get(budget.name) == budget
    return plan.model_copy(update={"budget": budget.name if budget is not None and named else limits})


def begun_from(plan: Plan, run: Path, begun: Path) -> Plan:
    """The plan with `begun` as its start; a teacher that its start was a word for as well is `run`."""
    teacher = plan.teacher
    if teacher is not None and teacher.model == plan.start:
        teacher = teacher.model_copy(update={"model": os.fspath(run)})
    return plan.model_copy(update={"start": os.fspath(begun), "teacher": teacher})


def _same_task(run: Path, budget: Budget, steps: int, out: Path) -> None:
    """Note what `out` is for; InputError where something else was begun there. Each step's training checks the plan."""
    from mobileface.files import sha256, write_json

    task = {"run": sha256(run / "model.safetensors"), "budget": asdict(budget), "steps": steps}
    if has_begun(out / "1") and (out / TASK).exists():
        try:
            there = json.loads((out / TASK).read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{out / TASK}: is not JSON ({error}); give another --out") from None
        if other := [key for key in task if not isinstance(there, dict) or there.get(key) != task[key]]:
            raise InputError(f"{out}: was begun with other {other[0]}; give another --out")
    elif not (out / TASK).exists() and [path for path in out.iterdir() if not path.name.startswith(".")]:
        raise InputError(f"{out}: is not empty and holds no {TASK}; give another --out")
    else:
        write_json(out / TASK, task)


def _images(plan: Plan, faces: FaceSet) -> NDArray[np.uint8]:
    """(N, 112, 112, 3) RGB: IMAGES training images, drawn by the plan's seed; fewer where there are fewer good ones."""
    import numpy as np

    from mobileface.data.faceset import split_identities
    from mobileface.data.images import BadImage, decode

    def good() -> Iterator[NDArray[np.uint8]]:
        split = split_identities(faces, plan.data.validate_.identities, plan.seed, plan.data.min_images)
        for i in np.random.default_rng([plan.seed, 6]).permutation(split.train):
            try:
                yield decode(faces.read(int(i)), faces.key(int(i)))
            except BadImage:
                continue

    found = list(islice(good(), IMAGES))
    if not found:
        raise InputError(f"{plan.name}: no training image can be read")
    return np.stack(found)


def _held_out_auc(plan: Plan, faces: FaceSet, network: nn.Module) -> float | None:
    """On the plan's held-out people, as its training judges; None where nobody is held out."""
    import torch

    from mobileface.data.faceset import split_identities
    from mobileface.training.validation import held_out, validate

    split = split_identities(faces, plan.data.validate_.identities, plan.seed, plan.data.min_images)
    held, _ = held_out(faces, split.held_out, plan.seed, plan.data.validate_.sides)
    return None if held is None else validate(network, held, torch.device("cpu"))["auc"]


def _first_auc(folder: Path) -> float | None:
    """What the training found before its first step."""
    from mobileface.report.read import read_log

    return next((row["auc"] for row in read_log(folder / "log.jsonl").validations), None)


def _costs(before: SEMobileFaceNet, after: SEMobileFaceNet) -> str:
    one, two = cost(before), cost(after)
    return (
        f"{one.flops_lfrc / 1e6:.1f} -> {two.flops_lfrc / 1e6:.1f} MFLOPs (lfrc rule), "
        f"{one.size_mib:.2f} -> {two.size_mib:.2f} MiB"
    )


def _aucs(before: float | None, pruned: float | None, trained: float | None) -> str:
    if pruned is None or trained is None:
        return "nobody is held out to judge it"
    known = "" if before is None else f"{before:.4f} -> "
    return f"held-out AUC {known}{pruned:.4f} pruned -> {trained:.4f} trained"


def prune_command(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="run folder of the network to prune")],
    budget: Name = None,
    max_flops: MaxFlops = None,
    rule: Rule = "lfrc",
    max_size_mib: MaxSize = None,
    max_ms: MaxMs = None,
    latency: Latency = None,
    steps: Annotated[int, typer.Option(min=1, max=100, help="prunings, each followed by a training")] = 3,
    recipe: Annotated[Path, typer.Option(help="plan of the trainings")] = Path("recipes/prune-real.yaml"),
    data: Annotated[Path | None, typer.Option("--data", help="folder that the recipe's paths begin in")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="folder; runs/NAME-pruned unless told otherwise")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="phases.0.images=20000")] = None,
    cache: Annotated[Path | None, typer.Option("--cache", help="folder for indexes and a teacher's embeddings")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
) -> None:
    """Prune a trained network until it fits a budget. Goes on where it was stopped."""

    def run() -> None:
        from rich.console import Console

        from mobileface.files import use_cache
        from mobileface.training.whole import load_plan

        limits = chosen_budget(budget, Budget(CUSTOM, rule, max_flops, max_size_mib, None, max_ms, latency))
        if limits is None:
            raise InputError("no budget is given; wanted --budget NAME, or --max-flops, --max-size-mib, --max-ms")
        plan = load_plan(recipe, data, overrides or [])
        if plan.start is None:
            raise InputError(f"{recipe}: has arch; wanted start, a word that stands for the network to prune")
        use_cache(cache)
        folder = out or Path("runs") / f"{run_folder.resolve().name}-pruned"
        console = Console(soft_wrap=True, markup=False, emoji=False)
        made = prune_run(run_folder, limits, steps, plan, folder, console)
        print(f"run: {made}; to judge and export it: mobileface make {made}/plan.yaml --out {made}")

    raise typer.Exit(guarded(run, debug, goes_on=True))


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(prune_command, "python -m search.prune", argv)


if __name__ == "__main__":
    sys.exit(main())
