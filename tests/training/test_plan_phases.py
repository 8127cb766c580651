"""Plans whose phases wrap one another."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from mobileface.errors import InputError
from mobileface.training.plan import parse_plan
from mobileface.training.plan_phases import losses
from mobileface.training.trainer import RANGES
from tests.training.plans import FULL, SMALL

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


INT8: dict[str, Any] = {
    **SMALL,
    "phases": yaml.safe_load(
        "[{name: int8, quantise: int8}, {name: more}, {name: float, quantise: off}, {name: last}]"
    ),
}


@pytest.mark.parametrize("data", [LADDER, INT8])
def test_a_plan_that_was_filled_up_reads_back_the_same(data: dict[str, Any]) -> None:
    plan = parse_plan(data, "x")
    assert parse_plan(yaml.safe_load(plan.to_yaml()), "x") == plan


def test_later_phases_are_in_int8_until_one_turns_it_off() -> None:
    phases = parse_plan(INT8, "x").phases
    assert [phase.in_int8 for phase in phases] == [True, True, False, False]
    assert [losses(phase)[-1] for phase in phases] == ["int8", "int8", "arcface", "arcface"]


def test_int8_is_not_compiled() -> None:
    parse_plan({**INT8, "compile": "on"}, "x")  # its other phases are
    alone = {**SMALL, "phases": [{"name": "a", "quantise": "int8"}], "compile": "on"}
    with pytest.raises(InputError, match="phase a: quantise is not compiled; wanted compile: off or auto"):
        parse_plan(alone, "x")


@pytest.mark.parametrize("value", [None, True, "int4"])
def test_quantise_is_int8_or_off(value: object) -> None:
    with pytest.raises(InputError, match=r"phases\.0\.quantise: wanted .*int8.*off"):
        parse_plan({**SMALL, "phases": [{"quantise": value}]}, "x")


def test_no_term_takes_the_place_of_the_ranges() -> None:
    kinds = {term["kind"] for term in FULL["phases"][0]["terms"]}
    assert len(kinds) > 8
    assert RANGES not in kinds


def test_phases_without_a_name_are_numbered() -> None:
    plan = parse_plan({**SMALL, "phases": [{}, {}, {"name": "last"}]}, "x")
    assert [phase.name for phase in plan.phases] == ["phase-1", "phase-2", "last"]
