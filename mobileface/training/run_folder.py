"""Whose folder is it? A run folder goes on with the plan and architecture that it was begun with, and no other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from mobileface.arch import Arch, load_arch
from mobileface.errors import InputError
from mobileface.training.plan import Plan, read_plan


def check_run_folder(run: Path, plan: Plan, arch: Arch) -> None:
    """A new folder, or one that holds a run of the same plan and architecture; anything else is an InputError.

    A run that failed before it saved anything does not count: its plan is what has to be mended.
    """
    if not os.fspath(run).isprintable():
        raise InputError(f"{run}: wanted a name of printable text for a run folder (TensorBoard takes no other)")
    if (run / "plan.yaml").exists() and not (run / "checkpoints").exists():
        return
    if (run / "plan.yaml").exists():
        before, now = (_what_counts(p).to_yaml() for p in (read_plan(run / "plan.yaml"), plan))
        if before != now:
            raise InputError(f"{run}: holds a run of another plan ({_difference(before, now)}); give another --out")
        if (run / "arch.json").exists() and load_arch(run / "arch.json") != arch:
            raise InputError(f"{run}: was begun when {arch.name} had other rows (arch.json); give another --out")
    elif run.exists() and [p for p in run.iterdir() if not p.name.startswith(".") and p.name != "arch.json"]:
        raise InputError(f"{run}: is not empty and holds no plan.yaml; give another --out")


def _what_counts(plan: Plan) -> Plan:
    """The plan without what may change while a run goes on: how many bad images it puts up with."""
    return plan.model_copy(update={"data": plan.data.model_copy(update={"max_corrupt": 0})})


def _difference(before: str, now: str) -> str:
    """The first key in which two plans differ, and how many more there are."""
    old, new = _flat(yaml.safe_load(before)), _flat(yaml.safe_load(now))
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    first = f"{keys[0]}={old.get(keys[0], 'not set')} there, {keys[0]}={new.get(keys[0], 'not set')} here"
    return first if len(keys) == 1 else f"{first}, and {len(keys) - 1} more"


def _flat(value: Any, key: str = "") -> dict[str, str]:
    """Key by key, the ways down joined by dots."""
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        return {name: text for k, v in inner for name, text in _flat(v, f"{key}.{k}" if key else str(k)).items()}
    return {key: str(value)}
