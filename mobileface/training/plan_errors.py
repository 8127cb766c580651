"""A plan's validation errors in one line each: where, what was found, what is wanted."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from mobileface.errors import nearest

Table = type[BaseModel]


def explain(error: ValidationError, root: Table) -> str:
    """The most telling error in words, and how many more there are; unknown keys get the nearest known name."""
    first = min(error.errors(include_url=False), key=_rank)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        *loc, key = first["loc"]
        keys, tables = _walk(root, loc)
        known = sorted(name for table in tables for name in _fields(table))
        where = ".".join([*keys, str(key)])
        return f"unknown key {where!r}{nearest(str(key), known)}; known here: {', '.join(known)}{more}"
    where = ".".join(_walk(root, first["loc"])[0]) or "plan"
    if first["type"] == "missing":
        return f"{where!r} is missing{more}"
    message = first["msg"].removeprefix("Value error, ")
    found = "" if isinstance(first["input"], dict | list | BaseModel) else f", found {first['input']!r}"
    return f"{where}: {message}{found}{more}"


def _rank(error: Any) -> int:
    """A misspelt key explains why another is missing; that a table is no text (a name) explains nothing."""
    if error["type"] in ("extra_forbidden", "invalid_key"):
        return 0
    return 2 if error["loc"][-1:] == ("str",) else 1


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
            tables = [model for annotation in inner for model in _models(annotation)] or tables
    return keys, tables


def _fields(table: Table) -> dict[str, Any]:
    return {(field.alias or name): field for name, field in table.model_fields.items()}


def _is_kind(table: Table, part: str) -> bool:
    """Whether `part` is the table's value of `kind`."""
    field = table.model_fields.get("kind")
    return field is not None and part in typing.get_args(field.annotation)


def _models(annotation: Any) -> list[Table]:
    """The models inside of an annotation such as list[A | B]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in _models(argument)]
