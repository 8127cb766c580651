"""Plans whose phases wrap one another."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from mobileface.training.plan import parse_plan
from tests.training.plans import SMALL

LADDER: dict[str, Any] = {
    **SMALL,
    "phases": [
        {"name": "arcface", "images": 500, "batch": 32, "optimizer": {"kind": "adamw", "lr": "2e-2"}},
        {"name": "combined", "add": [{"kind": "classification", "margin": "combined", "scale": 32}]},
        {"name": "svgs", "add": [{"kind": "classification", "negatives": "support_vector"}], "images": 200},
        {"name": "regular", "add": ["intra", {"kind": "inter", "weight": 0.5}], "optimizer": {"lr": 0.001}},
        {"name": "mining", "drop": ["intra"], "add": ["triplet"], "sampler": "pk", "patience": 2},
    ],
}


def test_a_phase_adds_to_the_one_before() -> None:
    plan = parse_plan(LADDER, "x")
    arcface, combined, svgs, regular, mining = plan.phases
    assert [phase.images for phase in plan.phases] == [500, 500, 200, 200, 200]
    assert {phase.batch for phase in plan.phases} == {32}
    assert [phase.optimizer.lr for phase in plan.phases] == pytest.approx([0.02, 0.002, 0.002, 0.001, 0.002])
    assert {phase.optimizer.kind for phase in plan.phases} == {"adamw"}
    kinds = [[term.kind for term in phase.terms] for phase in plan.phases]
    first = ["classification"]
    assert kinds == [first, first, first, [*first, "intra", "inter"], [*first, "inter", "triplet"]]
    losses: list[Any] = [phase.terms[0] for phase in plan.phases]
    assert [loss.margin.kind for loss in losses] == ["arcface", *["combined"] * 4]
    assert [loss.scale for loss in losses] == [64, 32, 32, 32, 32]
    assert [loss.negatives.kind for loss in losses] == ["plain", "plain", *["support_vector"] * 3]
    assert [phase.sampler.kind for phase in plan.phases] == [*["plain"] * 4, "pk"]
    assert [phase.patience for phase in plan.phases] == [0, 0, 0, 0, 2]
    assert mining.terms[1] == regular.terms[2]
    assert arcface.schedule == combined.schedule == svgs.schedule


def test_a_plan_that_was_filled_up_reads_back_the_same() -> None:
    plan = parse_plan(LADDER, "x")
    assert parse_plan(yaml.safe_load(plan.to_yaml()), "x") == plan


def test_phases_without_a_name_are_numbered() -> None:
    plan = parse_plan({**SMALL, "phases": [{}, {}, {"name": "last"}]}, "x")
    assert [phase.name for phase in plan.phases] == ["phase-1", "phase-2", "last"]
