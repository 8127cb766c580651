"""Predicted milliseconds in the budget command: what they are, and as a limit."""

from __future__ import annotations

import re

import pytest

from mobileface.errors import CheckFailed
from mobileface.training.plan import BudgetLimits, parse_plan
from mobileface.zoo import ZOO
from search.budget import Budget, find_budget, main, require_fits
from tests.search.budgets import OURS, PROMISED, Capture, answer, complaint

# micro's 1x1 convolutions (side, inputs, outputs with 16 for 8), from the table in the zoo
MICRO_MACS = (
    56**2 * 8 * 16 + 28**2 * 16 * 16  # stages.0: 8 is computed as 16
    + 28**2 * 8 * 16 + 14**2 * 16 * 16  # stages.1
    + 14**2 * 16 * 16 * 2
    + 14**2 * 16 * 32 + 7**2 * 32 * 16  # stages.2
    + 7**2 * 16 * 32  # head
)  # fmt: skip


def test_a_latency_table_predicts_milliseconds(capsys: Capture, table: str) -> None:
    found = answer(capsys, "micro", "--latency", table)
    assert set(found) == PROMISED | OURS | {"ms"}
    assert found["ms"] == pytest.approx(2 + MICRO_MACS / 1e6)
    assert (found["fits"], found["budget"]) == (None, None)
    assert main(["micro", "--latency", table]) == 0
    assert f"  {found['ms']:.2f} ms an image on one thread, predicted\n" in capsys.readouterr().out
    assert answer(capsys, "micro", "--budget", "lfrc-light", "--latency", table)["ms"] == found["ms"]


def test_milliseconds_are_a_limit(capsys: Capture, table: str) -> None:
    used = 2 + MICRO_MACS / 1e6
    found = answer(capsys, "micro", "--max-ms", "2.5", "--latency", table, code=1)
    assert found["over"] == {"ms": pytest.approx(used / 2.5)}
    assert (found["budget"]["max_ms"], found["budget"]["latency"]) == (2.5, table)
    assert answer(capsys, "micro", "--max-ms", "3.5", "--max-dim", "32", "--latency", table)["fits"] is True
    assert main(["micro", "--max-ms", "2.5", "--latency", table]) == 1
    wanted = f"OVER: {used:.2f} ms, allowed 2.5 ms ({table}) ({used / 2.5:.2f} times)"
    assert wanted in capsys.readouterr().out
    with pytest.raises(CheckFailed, match=re.escape(f"{used:.2f} ms, allowed 2.5 ms")):
        require_fits(ZOO["micro"], find_budget({"max_ms": 2.5, "latency": table}))
    assert Budget(max_ms=2.5, latency=table).limited()


def test_a_plan_may_limit_milliseconds(table: str) -> None:
    plan = parse_plan(
        {"name": "x", "arch": "micro", "data": {"train": [{"folder": "x"}]}, "budget": {"max_ms": 3, "latency": table}},
        "plan",
    )
    assert isinstance(plan.budget, BudgetLimits)
    assert find_budget(plan.budget.model_dump()) == Budget(max_ms=3, latency=table)


def test_teachers_have_no_milliseconds(capsys: Capture, table: str) -> None:
    assert "iresnet50 is a network of iresnet" in complaint(capsys, "iresnet50", "--latency", table)
