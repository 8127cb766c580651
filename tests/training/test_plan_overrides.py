"""`--set KEY=VALUE`: what it changes and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobileface.errors import InputError
from mobileface.training.plan import Plan, parse_plan, read_plan
from tests.training.plans import FULL, SMALL, write


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("phases.0.images=20000", lambda plan: plan.phases[0].images == 20000),
        ("phases.0.optimizer.lr=2e-3", lambda plan: plan.phases[0].optimizer.lr == 2e-3),
        ("phases.0.terms.1.weight=0.25", lambda plan: plan.phases[0].terms[1].weight == 0.25),
        ("phases.0.views.clean=[flip]", lambda plan: [v.kind for v in plan.phases[0].views.clean] == ["flip"]),
        ("export.formats=[]", lambda plan: plan.export.formats == []),
        ("compile=off", lambda plan: plan.compile == "off"),
        ("data.licence=a=b, c", lambda plan: plan.data.licence == "a=b, c"),
        ("data.train.0={rec: other.rec}", lambda plan: plan.data.train[0].rec == "other.rec"),
        ("budget=", lambda plan: plan.budget is None),
    ],
)
def test_overrides(tmp_path: Path, override: str, value: Callable[[Plan], bool]) -> None:
    assert not value(parse_plan(FULL, "x"))
    assert value(read_plan(write(tmp_path / "p.yaml", FULL), [override]))


def test_an_override_makes_tables_that_are_not_there_and_the_last_one_wins(tmp_path: Path) -> None:
    recipe = write(tmp_path / "p.yaml", SMALL)
    overrides = ["checkpoint.every_images=5", "checkpoint.every_images=6", "data.synthetic.images=3"]
    plan = read_plan(recipe, overrides)
    assert plan.checkpoint.every_images == 6
    assert plan.data.synthetic is not None
    assert plan.data.synthetic.images == 3


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("phases.0.images", "wanted KEY=VALUE, such as"),
        ("phases.1.images=5", r"'1' is no place in a list of 1; wanted 0\.\.0"),
        ("phases.first.images=5", "'first' is no place in a list of 1"),
        ("phases.\u00b2.images=5", "is no place in a list of 1"),
        ("name.x=5", "'x' is not inside a table or a list"),
        ("name.x.y=5", "'x' is not inside a table or a list"),
        ("seed=[1", "the value is not YAML"),
        ("seed=2020-99-99", "the value is not YAML"),
        ("seed=!!python/name:os.system x", "the value is not YAML"),
        ("sed=5", r"unknown key 'sed' \(did you mean 'seed'\?\)"),
        ("phases.0.image=5", r"unknown key 'phases\.0\.image' \(did you mean 'images'\?\)"),
        ("=5", "unknown key ''"),
    ],
)
def test_bad_overrides(tmp_path: Path, override: str, wanted: str) -> None:
    with pytest.raises(InputError, match=wanted) as caught:
        read_plan(write(tmp_path / "p.yaml", FULL), [override])
    assert "\n" not in str(caught.value)


parts = st.sampled_from(["phases", "data", "train", "0", "1", "-1", "name", "optimizer", "", "arch", "\u0663"])
values = st.text(max_size=8) | st.sampled_from(
    ["!!int x", "!!bool x", "!!timestamp x", "2001-02-30", "&a [*a]", "{<<: 3}", "? {a: b}", "[" * 2000, "0x", "~"]
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("recipe") / "p.yaml", FULL)


@settings(max_examples=80)
@given(st.lists(parts, min_size=1, max_size=4), values)
def test_any_override_gives_a_plan_or_one_line(recipe: Path, keys: list[str], value: str) -> None:
    try:
        assert isinstance(read_plan(recipe, [".".join(keys) + "=" + value]), Plan)
    except InputError as error:
        assert str(error).isprintable() or "--set" in str(error)
