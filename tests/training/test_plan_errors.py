"""The words of a plan's errors: of each kind one line, in our language, and one fault counts once."""

from __future__ import annotations

import copy
from functools import reduce
from typing import Any

import pytest
from pydantic import BaseModel

from mobileface.errors import InputError
from mobileface.training import plan as plans
from mobileface.training.plan import parse_plan
from tests.training.plans import FULL, SMALL
from tests.training.test_plan import KEYS


def refused(data: dict[str, Any]) -> str:
    with pytest.raises(InputError, match=r"^my\.yaml: ") as caught:
        parse_plan(data, "my.yaml")
    return str(caught.value).removeprefix("my.yaml: ")


def term(**keys: Any) -> dict[str, Any]:
    return {"phases": [{"terms": [{"kind": "classification", **keys}]}]}


def contract(**keys: Any) -> dict[str, Any]:
    return {"teacher": {"model": "t", "contract": {"scale": 1, "mean": [0, 0, 0], "std": [1, 1, 1], **keys}}}


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"name": 3}, "name: wanted text, found 3"),
        ({"name": None}, "name: wanted text, found nothing"),
        ({"seed": "x"}, "seed: wanted a whole number, found 'x'"),
        ({"seed": 1.5}, "seed: wanted a whole number, found 1.5"),
        ({"seed": "9" * 5000}, f"seed: wanted a whole number of fewer digits, found '{'9' * 79}…"),
        ({"seed": 2**32}, "seed: wanted a number below 4294967296, found 4294967296"),
        ({"seed": {"a": 1}}, "seed: wanted a whole number, found a table"),
        ({"activation_checkpointing": "maybe"}, "activation_checkpointing: wanted true or false, found 'maybe'"),
        ({"precision": "fp8"}, "precision: wanted auto, fp32 or bf16, found 'fp8' (did you mean 'fp32'?)"),
        ({"watch": 20_000}, "watch: wanted at most 10000, found 20000"),
        ({"evaluate": "lfw"}, "evaluate: wanted a list such as [lfw], found 'lfw'"),
        ({"evaluate": {"lfw": 1}}, "evaluate: wanted a list, found a table"),
        ({"evaluate": [None]}, "evaluate.0: wanted text, found nothing"),
        ({"data": {"train": {"folder": "f"}}}, "data.train: wanted a list of tables of keys such as exclude, folder, "
         "include, labelled, rec, scores, found a table"),
        ({"phases": [{"sampler": []}]}, "phases.0.sampler: wanted one of plain, pk, class_uniform, or a table of its "
         "keys with that kind, found an empty list"),
        (term(views="clean"), "phases.0.terms.0.views: wanted a list such as [clean], found 'clean'"),
        (term(balance=0.9), "phases.0.terms.0.balance: wanted a table of keys such as beta, found 0.9"),
        (term(sample=True, scale=False), "phases.0.terms.0.scale: wanted a number above 0, found false"),
        ({"phases": [{}] * 101}, "phases: wanted a list of at most 100, found a list of 101"),
        (contract(mean=0.5), "teacher.contract.mean: wanted a list of three numbers, found 0.5"),
        (contract(mean=[0, 0]), "teacher.contract.mean: wanted a list of three numbers, found a list of 2"),
        ({"phases": [{"views": {"clean": "adafase"}}]},
         "phases.0.views.clean: 'adafase' is no set of steps here; wanted a list, or one of octuplet, adaface, qgface"),
        ({"phases": [{"views": {"clean": ["flip", 3]}}]},
         "phases.0.views.clean.1: wanted one of flip, affine, brightness, saturation, photometric, crop_paste, "
         "resized_crop, low_resolution, resolution, jpeg, motion_blur, cutout, or a table of its keys with that kind, "
         "found 3"),
        ({"phases": [{1: 2}]}, "phases.0.1: wanted a key that is text, found 1"),
    ],
)  # fmt: skip
def test_what_was_found_and_what_is_wanted(changes: dict[str, Any], wanted: str) -> None:
    assert refused({**SMALL, **changes}) == wanted


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"arch": 3}, "arch: wanted text, or a table of keys, found 3"),
        ({"budget": 3}, "budget: wanted text, or a table of keys such as latency, max_dim, max_flops, max_ms, "
         "max_size_mib, name, rule, found 3"),
        ({"budget": {"max_flops": -3}}, "budget.max_flops: wanted a number above 0, found -3"),
        ({"budget": {"rule": "mac"}}, "budget.rule: wanted lfrc or macs, found 'mac' (did you mean 'macs'?)"),
        ({"budget": {"max_flop": 3}}, "unknown key 'budget.max_flop' (did you mean 'max_flops'?); known here: "
         "latency, max_dim, max_flops, max_ms, max_size_mib, name, rule"),
        (term(threshold=2), "phases.0.terms.0.threshold: wanted at most 1, or none, found 2"),
        (term(threshold="non"), "phases.0.terms.0.threshold: wanted a number, or none, found 'non' (did you mean "
         "'none'?)"),
    ],
)  # fmt: skip
def test_a_value_that_may_be_of_two_kinds_is_one_error(changes: dict[str, Any], wanted: str) -> None:
    assert refused({**SMALL, **changes}) == wanted


def test_two_errors_in_a_table_that_may_be_a_name_are_two() -> None:
    text = refused({**SMALL, "budget": {"max_flops": -3, "max_dim": 0}})
    assert text == "budget.max_flops: wanted a number above 0, found -3 (and 1 more)"


FOREIGN = ("Input should", "valid ", "Extra inputs", "value_error", "validation", "unable", "interpret", "Keys should")
WRONG: list[Any] = [3, -1, 1.5, "no such", "", None, True, [], {}, [[1]], [None], {"no": 1}, {1: 2}, 1e300, "9" * 5000]


@pytest.mark.parametrize("path", KEYS, ids=lambda path: ".".join(map(str, path)))
def test_no_error_is_in_the_words_of_pydantic(path: tuple[str | int, ...]) -> None:
    """Every key with every kind of wrong value: one short line that names the key, or the table that it is in."""
    lines = []
    for value in WRONG:
        data = copy.deepcopy(FULL)
        reduce(lambda table, part: table[part], path[:-1], data)[path[-1]] = value  # type: ignore[index]
        try:
            parse_plan(data, "my.yaml")
        except InputError as error:
            lines.append(str(error))
    assert lines
    for line in lines:
        assert "\n" not in line
        assert len(line) < 500
        assert not [words for words in FOREIGN if words in line], line


def test_names_are_the_only_texts_of_a_form() -> None:
    """What an error says of them is said for all."""
    forms = {
        rule.pattern
        for table in (plans.Table, *_subclasses(plans.Table))
        for field in table.model_fields.values()
        for rule in field.metadata
        if getattr(rule, "pattern", None)
    }
    assert forms == {r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"}


def _subclasses(table: type[BaseModel]) -> list[type[BaseModel]]:
    """Those of plans: `search` has tables of its own."""
    own = [sub for sub in table.__subclasses__() if sub.__module__.startswith("mobileface.")]
    return [found for sub in own for found in (sub, *_subclasses(sub))]
