"""The search's command line: what it refuses, whose budget it keeps to, and what becomes of its winner."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import search.run
from mobileface.errors import InputError
from mobileface.zoo import find_arch
from search import sampling
from search.budget import BUDGETS, Budget
from search.cost import cost
from search.run import plan_search
from tests.search.searches import a_search

FACES = {"synthetic": {"identities": 6, "images": 4, "held_out": 4, "pairs": 20}, "train": [{"rec": "train.rec"}]}
PHASE = {"name": "p", "images": 64, "batch": 8}
RECIPE = {"name": "r", "arch": "tiny", "data": FACES, "budget": {"max_flops": 1e8}, "phases": [PHASE], "compile": "off"}
RECIPE["export"] = {"formats": ["onnx"]}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(RECIPE))
    return file


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["smal"], 2, "did you mean 'small'?"),
        (["small", "--budget", "lfrc-lite"], 2, "did you mean 'lfrc-light'?"),
        (["small", "--against", "flop"], 2, "--against is 'flop' (did you mean 'flops'?)"),
        (["small", "--against", "ms"], 2, "budget custom names no latency table"),
        (["small", "--set", "budget.max_flops=1e3"], 1, "allowed 0.00 M"),
        (["small", "--max-flops", "1e4"], 1, "allowed 0.01 M"),
        (["small", "--max-flops", "1e8", "--budget", "lfrc-light"], 2, "--budget and --max-… are both given"),
        (["small", "--set", "sed=3"], 2, "did you mean 'seed'?"),
        (["small", "--rule", "macs"], 2, "--rule macs and no limit; wanted --max-flops with it"),
        (["small", "--max-ms", "1e-3", "--latency", "onnx-fp32"], 1, "of 0.001 ms (onnx-fp32)"),
        (["small", "--score", "trian"], 2, "did you mean 'train'?"),
        (["small", "--storage", "x:secret"], 2, "--storage is no address of a database"),
        (["small", "--data", "no\\where", "--set", "data.synthetic=null"], 2, "no\\where/train.rec"),
    ],
)
def test_what_cannot_be_is_one_line(
    tmp_path: Path,
    recipe: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.setattr(sampling, "MOST_DRAWS", 20)
    more = ["--trials", "2", "--recipe", str(recipe), "--out", str(tmp_path / "out")]
    assert search.run.main([*words, *more]) == code
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert said in lines[0]
    assert "secret" not in lines[0]


def test_a_budget_is_named_or_the_recipes(recipe: Path, tmp_path: Path) -> None:
    from mobileface.training.plan import parse_plan

    plan = parse_plan(RECIPE, "r")
    where = {"out": tmp_path, "storage": None}
    assert plan_search("small", None, plan, "train", "flops", 1, 0, **where).budget.max_flops == 1e8
    assert plan_search("small", BUDGETS["lfrc-light"], plan, "train", "flops", 1, 0, **where).budget.max_size_mib == 20
    bare = plan.model_copy(update={"budget": None})
    with pytest.raises(InputError, match="r names no budget; wanted --budget NAME, or limits such as --max-flops"):
        plan_search("small", None, bare, "train", "flops", 1, 0, **where)


def test_costs_are_by_the_budgets_rule(tmp_path: Path) -> None:
    arch = find_arch("tiny")
    assert a_search(tmp_path, 1).cost(arch) == cost(arch).flops_lfrc
    assert a_search(tmp_path, 1, budget=Budget("b", "macs", 1e8)).cost(arch) == cost(arch).macs
    assert a_search(tmp_path, 1, against="size").cost(arch) == cost(arch).size_mib


@pytest.mark.slow
def test_a_winner_is_trained_and_exported_like_any_network(tmp_path: Path, recipe: Path) -> None:
    out = tmp_path / "found"
    words = ["--trials", "3", "--recipe", str(recipe), "--out", str(out), "--score", "params", "--workers", "2"]
    assert search.run.main(["small", *words]) == 0
    from mobileface.cli import main

    made = ["make", str(recipe), "--out", str(tmp_path / "run"), "--set", f"arch={out / 'winner.yaml'}"]
    assert main(made) == 0
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    assert card["arch"]["name"] == json.loads((out / "pareto.json").read_text())["winner"]
    assert (tmp_path / "run" / "export").is_dir()
