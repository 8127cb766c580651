"""A plan's validation errors in one line each: where, what was found, what is wanted."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from mobileface.errors import nearest

Table = type[BaseModel]
MAX_SHOWN = 80  # characters of a value


def explain(error: ValidationError, root: Table) -> str:
    """The most telling error in words, and how many more there are; unknown keys get the nearest known name."""
    found: dict[tuple[str, ...], list[tuple[Any, list[Table]]]] = {}  # by the keys that lead there
    for one in error.errors(include_url=False):
        keys, tables = _place(root, one)
        found.setdefault(keys, []).append((one, tables))
    for keys in [keys for keys in found if any(keys != other and keys == other[: len(keys)] for other in found)]:
        del found[keys]  # what could stand there instead of the table, inside of which something is wrong
    keys = min(found, key=lambda keys: min(_rank(one) for one, _ in found[keys]))
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    (first, tables), *_ = found[keys]
    where = ".".join(keys) if keys else "plan"
    if first["type"] == "extra_forbidden":
        known = sorted(name for table in tables for name in _fields(table))
        return f"unknown key {where!r}{nearest(keys[-1], known)}; known here: {', '.join(known)}{more}"
    if first["type"] == "missing" and isinstance(first["loc"][-1], int):  # a place in a list of a fixed length
        return f"{'.'.join(keys[:-1])}: wanted {TUPLE}, found {_shown(first['input'])}{more}"
    if first["type"] == "missing":
        return f"{where!r} is missing{more}"
    return f"{where}: {_message(found[keys])}{more}"


def _message(errors: Sequence[tuple[Any, list[Table]]]) -> str:
    """What is wrong with a value, in words; of several errors each says something else that could stand there."""
    error, tables = errors[0]
    if error["type"] == "union_tag_invalid":
        tag, kinds = str(error["ctx"]["tag"]), [kind for table in tables for kind in _kinds(table)]
        return f"{_shown(tag)} is no kind here{nearest(tag, kinds)}; wanted one of {', '.join(kinds)}"
    if error["type"] == "union_tag_not_found":
        return f"kind is missing; wanted one of {', '.join(kind for table in tables for kind in _kinds(table))}"
    if error["type"] == "value_error":  # the words are the plan's own
        return str(error["msg"].removeprefix("Value error, "))
    value = error["input"]
    wanted = [_wanted(one, value, own) for one, own in errors]
    choices = [name for one, _ in errors for name in _choices(one)]
    return f"wanted {', or '.join(dict.fromkeys(wanted))}, found {_shown(value)}{nearest(str(value), choices)}"


TUPLE = "a list of three numbers"  # mean and std of a contract: the only ones of a fixed length
WANTED = {  # by the type of pydantic's error; in braces what its context holds
    "string_type": "text",
    "string_pattern_mismatch": "a name of letters, digits, '.', '_' and '-', at most 100, none of the last three first",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "a table of keys",
    "list_type": "a list",
    "tuple_type": TUPLE,
    "invalid_key": "a key that is text",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "a number below {lt}",
    "less_than_equal": "at most {le}",
    "too_short": "a list of {min_length} or more",
    "too_long": "a list of at most {max_length}",
}


def _wanted(error: Any, value: Any, tables: list[Table]) -> str:
    """What could stand at the place of an error; `tables` may, or may be in the list that may."""
    kinds = [kind for table in tables for kind in _kinds(table)]
    several = len(tables) > 1
    if error["type"] == "literal_error":
        *others, last = _choices(error)
        return f"{', '.join(others)} or {last}" if others else last
    if error["type"] in ("model_type", "model_attributes_type"):
        if isinstance(value, str) and (near := difflib.get_close_matches(value, kinds, n=1, cutoff=0.5)):
            return f"{{kind: {near[0]}, ...}}"
        if several:
            return f"one of {', '.join(kinds)}, or a table of its keys with that kind"
        return f"a table of keys such as {', '.join(sorted({name for table in tables for name in _fields(table)}))}"
    if error["type"] == "list_type" and tables:
        of = kinds if several else sorted(_fields(tables[0]))
        return f"a list of {'' if several else 'tables of keys such as '}{', '.join(of)}"
    if error["type"] == "list_type" and isinstance(value, str | int | float) and len(str(value)) < MAX_SHOWN:
        return f"a list such as [{value}]"
    limits = {name: f"{limit:.12g}" for name, limit in error.get("ctx", {}).items() if isinstance(limit, int | float)}
    return WANTED[error["type"]].format(**limits) if error["type"] in WANTED else str(error["msg"])


def _choices(error: Any) -> list[str]:
    """The texts that may stand at the place of an error; none where it is not one of some texts."""
    return re.findall("'([^']*)'", error["ctx"]["expected"]) if error["type"] == "literal_error" else []


def _shown(value: Any) -> str:
    """A value in a few words, as a plan would have it."""
    if isinstance(value, dict | BaseModel):
        return "a table"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" if value else "an empty list"
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _rank(error: Any) -> int:
    """A misspelt key explains why another is missing."""
    return 0 if error["type"] in ("extra_forbidden", "invalid_key") else 1


def _place(root: Table, error: Any) -> tuple[tuple[str, ...], list[Table]]:
    """The keys that lead to an error and the models that may stand there; for an unknown key, where it stands."""
    loc = error["loc"]
    if error["type"] != "extra_forbidden":
        keys, tables = _walk(root, loc)
        return tuple(keys), tables
    keys, tables = _walk(root, loc[:-1])
    return (*keys, str(loc[-1])), tables


def _walk(root: Table, loc: Sequence[int | str]) -> tuple[list[str], list[Table]]:
    """The keys of a path as a plan has them, and the models that may stand at its end.

    pydantic's path also names kinds of tagged unions and members of plain ones: those are no keys.
    """
    keys, tables = [], [root]
    for part in loc:
        if isinstance(part, int):  # a place in a list: the list's items are what we hold already
            keys.append(str(part))
        elif kinds := [table for table in tables if _is_kind(table, part)]:
            tables = kinds
        elif inner := [_fields(table)[part].annotation for table in tables if part in _fields(table)]:
            keys.append(part)
            tables = [model for annotation in inner for model in _models(annotation)]
    return keys, tables


def _fields(table: Table) -> dict[str, Any]:
    return {(field.alias or name): field for name, field in table.model_fields.items()}


def _is_kind(table: Table, part: str) -> bool:
    """Whether `part` is the table's value of `kind`."""
    return part in _kinds(table)


def _kinds(table: Table) -> tuple[str, ...]:
    """The values that the table's `kind` may have; none where it has no kinds."""
    field = table.model_fields.get("kind")
    return () if field is None else typing.get_args(field.annotation)


def _models(annotation: Any) -> list[Table]:
    """The models inside of an annotation such as list[A | B]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in _models(argument)]
