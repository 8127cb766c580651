"""A run whose training has not ended has no card yet: what its plan and its log can say in the place of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mobileface.plain_yaml import read_yaml
from mobileface.report.read import Json, RunFiles, number, objects, string

Budget = Callable[[Path], dict[str, Any]]


def filled_in(files: RunFiles, budget: Budget | None) -> RunFiles:
    """`files` with a card of what is known, if there is a plan and no card; else as they are.

    `budget` makes the card's budget of a run folder that holds plan.yaml and arch.json.
    """
    if files.card or files.plan is None:
        return files
    plan = read_plan(files.plan)
    last = files.log.steps[-1] if files.log and files.log.steps else {}
    seen, wanted = number(last, "images"), sum(number(phase, "images") or 0.0 for phase in objects(plan, "phases"))
    training: Json = {}
    if seen is not None and files.log:
        training = files.log.start | {"images_seen": seen, "seconds": number(last, "seconds")}
        training["phases"] = objects(plan, "phases")[:1]  # for its name; a ladder has two or more
    known = budget is not None and (files.path / "arch.json").is_file()
    card = {
        "name": string(plan, "name"),
        "unfinished": f"{seen or 0:,.0f} of {wanted:,.0f} images seen" if wanted else "its training has not ended",
        "budget": budget(files.path) if known and budget is not None else None,
        "training": training,
    }
    return replace(files, card=card)


def read_plan(plan: str) -> Json:
    """The plan as plain data; empty if it is not readable."""
    try:
        found = read_yaml(plan)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
