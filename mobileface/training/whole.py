"""A whole training: the plan's data and teacher, the loop, and a run folder with its card."""

from __future__ import annotations

import datetime
import math
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from mobileface.arch import Arch, arch_from_dict, load_arch
from mobileface.card import describe_data, describe_start, describe_teacher, versions
from mobileface.data.faceset import FaceSet
from mobileface.distributed import first_then_others, rank
from mobileface.files import atomic_path, locked, write_json
from mobileface.training.plan import Plan, read_plan
from mobileface.training.run_folder import check_run_folder
from mobileface.training.sources import data_root, open_faces, start_folder, teach, write_synthetic_once
from mobileface.zoo import find_arch


def load_plan(recipe: Path, data: Path | None, overrides: list[str]) -> Plan:
    """The recipe with `--data` and `--set` in it."""
    root = [] if data is None else [f"data.root={yaml.safe_dump(os.fspath(data), width=math.inf)}"]
    return read_plan(recipe, [*overrides, *root])


def find_plan_arch(plan: Plan) -> Arch:
    """The architecture that a plan names or holds, or that of the run it begins with."""
    if plan.arch is None:
        return load_arch(start_folder(plan) / "arch.json")
    return find_arch(plan.arch) if isinstance(plan.arch, str) else arch_from_dict({"name": plan.name, **plan.arch})


def plan_faces(plan: Plan, console: Console) -> FaceSet:
    """The plan's training faces; synthetic ones are drawn first, once."""
    if plan.data.synthetic:
        write_synthetic_once(plan.data.synthetic, data_root(plan), console)
    return open_faces(plan)


def train_run(plan: Plan, arch: Arch, run: Path, budget: dict[str, Any], console: Console) -> Path:
    """Data, teacher, training and card; returns the run folder. A training that is done is not made again.

    budget: what the card holds of it, `search.budget`'s verdict with `per_stage`.
    """
    check_run_folder(run, plan, arch)
    with first_then_others():
        faces = plan_faces(plan, console)
    console.print(
        f"{plan.name}: {arch.name} ({budget['flops_lfrc'] / 1e6:.1f} MFLOPs by the lfrc rule, "
        f"{budget['size_mib']:.2f} MiB), {len(faces):,} images of {faces.num_identities:,} identities, in {run}",
        highlight=False,
    )
    from mobileface.training.loop import finished_facts, train

    with locked(run) if rank() == 0 else nullcontext():
        if (done := finished_facts(run)) is not None and (run / "card.json").exists():
            console.print(
                f"{run}: this training is done, {done['images_seen']:,} images; to train anew give another --out, to "
                f"train further a recipe with start: {run}",
                highlight=False,
            )
            return run  # the card says on what it was trained; today's data may be other
        with first_then_others() as first:
            teacher, targets = teach(plan, faces, console)
            if first:
                write_json(run / "arch.json", arch.to_dict())
                with atomic_path(run / "plan.yaml") as temporary:
                    temporary.write_text(plan.to_yaml(), encoding="utf-8")
        online = teacher if plan.teacher is not None and plan.teacher.online else None
        facts = train(plan, arch, run, faces, targets, console, online=online)
        if rank() > 0:
            return run
        card: dict[str, Any] = {
            "name": plan.name,
            "created": now(),
            "arch": arch.to_dict(),
            "budget": budget,
            "data": describe_data(faces, plan.data.licence, facts["skipped"]),
            "teacher": describe_teacher(teacher),
            "start": None if plan.start is None else describe_start(start_folder(plan)),
            "training": facts,
            "versions": versions(),
            "results": [],
        }
        write_json(run / "card.json", card)
    return run


def now() -> str:
    """The time for a card."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
