"""Plans: every key, misspelt or wrong, defaults, every shipped recipe, and back from the YAML."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mobileface.errors import InputError
from mobileface.factory import budget_verdict, find_plan_arch
from mobileface.training import plan as plans
from mobileface.training.plan import parse_plan, read_plan
from tests.training.plans import FULL, SMALL

SHIPPED = sorted((Path(__file__).resolve().parents[2] / "recipes").glob("*.yaml"))
RECIPES = [path for path in SHIPPED if "steps" not in yaml.safe_load(path.read_text())]  # the others are roads


def tables(value: Any, *path: str | int) -> Iterator[tuple[str | int, ...]]:
    """The place of every table in plain data."""
    if isinstance(value, dict):
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(inner, dict | list):
            yield from tables(inner, *path, key)


KEYS = [
    (*path, key)
    for path in tables(FULL)
    for key in reduce(lambda value, part: value[part], path, FULL)
    if key != "kind"  # without it nobody knows which table it is
]


def changed(path: tuple[str | int, ...], change: Callable[[Any, Any], None]) -> dict[str, Any]:
    """FULL, copied, with `change(table, key)` done at `path`."""
    data = value = copy.deepcopy(FULL)
    for part in path[:-1]:
        value = value[part]
    change(value, path[-1])
    return data


def test_every_key_of_the_full_plan_is_read() -> None:
    found = parse_plan(FULL, "x").model_dump(by_alias=True, mode="json", exclude_none=True)
    wanted = copy.deepcopy(FULL)
    wanted["data"]["train"][1]["labelled"] = True  # a default
    assert found == wanted
    tables_of_the_plan = {type(part).__name__ for part in _models(parse_plan(FULL, "x"))}
    every = {cls.__name__ for cls in _subclasses(plans.Table) if cls.__module__.startswith("mobileface.")}
    margins = {"Softmax", "ArcFace", "CosFace", "SphereFace", "MagFace", "AdaFace"}  # of which one was taken
    assert every - tables_of_the_plan == margins | {
        "Range",
        "Plain",
        "Curricular",
        "PlainSampler",
        "ClassUniformSampler",
    }


def _models(value: Any) -> Iterator[Any]:
    if isinstance(value, plans.Table):
        yield value
        for name in type(value).model_fields:
            yield from _models(getattr(value, name))
    elif isinstance(value, list):
        for inner in value:
            yield from _models(inner)


def _subclasses(cls: type) -> Iterator[type]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


@pytest.mark.parametrize("path", KEYS, ids=lambda path: ".".join(map(str, path)))
def test_a_misspelt_key_gets_the_nearest_name(path: tuple[str | int, ...]) -> None:
    def misspell(table: Any, key: str) -> None:
        table[key[:-1] + 2 * key[-1]] = table.pop(key)

    wrong = ".".join(map(str, path)) + str(path[-1])[-1]
    with pytest.raises(InputError) as caught:
        parse_plan(changed(path, misspell), "my.yaml")
    text = str(caught.value)
    assert text.startswith(f"my.yaml: unknown key {wrong!r} (did you mean {path[-1]!r}?); known here: ")
    assert "\n" not in text


@pytest.mark.parametrize("path", KEYS, ids=lambda path: ".".join(map(str, path)))
def test_a_wrong_value_names_its_key(path: tuple[str | int, ...]) -> None:
    def spoil(table: Any, key: str) -> None:
        table[key] = [{"no": "value"}, float("nan")]

    try:
        parse_plan(changed(path, spoil), "my.yaml")
    except InputError as error:
        text = str(error)
        assert str(path[-1]) in text
        assert "\n" not in text
        assert len(text) < 500
    else:
        pytest.fail("was taken")


@pytest.mark.parametrize("key", ["name", "data"])
def test_what_has_no_default_is_asked_for(key: str) -> None:
    data = {name: value for name, value in SMALL.items() if name != key}
    with pytest.raises(InputError, match=f"^my.yaml: '{key}' is missing$"):
        parse_plan(data, "my.yaml")


def test_everything_else_has_a_default() -> None:
    plan = parse_plan(SMALL, "x")
    assert plan.phases[0].terms[0].kind == "classification"
    assert (plan.seed, plan.compile, plan.precision, plan.budget) == (0, "auto", "auto", None)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_shipped_recipes(recipe: Path) -> None:
    plan = read_plan(recipe)
    assert plan.name == recipe.stem
    if plan.budget is not None:
        assert budget_verdict(plan, find_plan_arch(plan))["fits"]
    begins_with_a_run = plan.name.startswith(("octuplet", "student-int8", "prune"))
    assert (plan.arch is None) == begins_with_a_run
    assert plan.data.licence != "not stated"
    assert plan.checkpoint.every_images < plan.phases[0].images


def test_there_are_recipes() -> None:
    assert {"demo.yaml", "distill-real.yaml"} <= {path.name for path in RECIPES}


@pytest.mark.parametrize("data", [SMALL, FULL, *(yaml.safe_load(path.read_text()) for path in RECIPES)])
def test_a_written_plan_is_read_back(tmp_path: Path, data: dict[str, Any]) -> None:
    plan = parse_plan(data, "x")
    (tmp_path / "plan.yaml").write_text(plan.to_yaml())
    again = read_plan(tmp_path / "plan.yaml")
    assert again == plan
    assert again.to_yaml() == plan.to_yaml()


@settings(max_examples=50)
@given(
    st.floats(1e-300, 1e300),
    st.integers(1, 10**18),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
def test_numbers_and_texts_survive_the_yaml(rate: float, images: int, licence: str) -> None:
    phase = {"images": images, "optimizer": {"lr": rate}}
    data = {**SMALL, "data": {**SMALL["data"], "licence": licence}, "phases": [phase]}
    plan = parse_plan(data, "x")
    assert parse_plan(yaml.safe_load(plan.to_yaml()), "x") == plan


def test_short_forms() -> None:
    text = """
name: short
arch: micro
compile: off
data: {train: [{folder: f}]}
teacher: {model: t.onnx}
phases:
- optimizer: {kind: adamw, lr: 2e-3}
  images: 420_000
  views: {clean: [flip, cutout]}
  terms: [distillation, {kind: classification, margin: cosface}]
"""
    plan = parse_plan(yaml.safe_load(text), "x")
    phase = plan.phases[0]
    assert (plan.compile, phase.optimizer.lr, phase.images) == ("off", 0.002, 420_000)
    assert [step.kind for step in phase.views.clean] == ["flip", "cutout"]
    assert phase.terms[1].margin.cosine == 0.35  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("terms", "online", "wanted"),
    [
        (["distillation"], False, True),
        (["distillation", "relational_distillation"], True, False),
        (["logit_distillation"], True, True),  # for the teacher's class centres
    ],
)
def test_when_the_teacher_embeds_all_images_beforehand(terms: list[str], online: bool, wanted: bool) -> None:
    teacher = {"model": "t", "online": online}
    assert parse_plan({**SMALL, "teacher": teacher, "phases": [{"terms": terms}]}, "x").wants_targets is wanted
    assert not parse_plan(SMALL, "x").wants_targets
