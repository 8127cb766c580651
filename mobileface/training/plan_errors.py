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
    keys, tables = _walk(root, first["loc"])
    where = ".".join(keys) or "plan"
    if first["type"] == "missing":
        return f"{where!r} is missing{more}"
    return f"{where}: {_message(first, tables)}{more}"


def _message(error: Any, tables: list[Table]) -> str:
    """What is wrong with a value, in words, with the nearest known name; `tables` may stand at its place."""
    value, context = error["input"], error.get("ctx", {})
    found = "" if isinstance(value, dict | list | BaseModel) else f", found {value!r}"
    kinds = [kind for table in tables for kind in _kinds(table)]
    if error["type"] == "union_tag_invalid":
        tag = str(context["tag"])
        return f"{tag!r} is no kind here{nearest(tag, kinds)}; wanted one of {', '.join(kinds)}"
    if error["type"] == "union_tag_not_found":
        return f"kind is missing; wanted one of {', '.join(kinds)}"
    if error["type"] == "literal_error":
        known = re.findall("'([^']*)'", context["expected"])
        return f"{error['msg']}{found}{nearest(str(value), known)}"
    if error["type"] in ("model_type", "model_attributes_type") and tables:
        if isinstance(value, str) and (near := difflib.get_close_matches(value, kinds, n=1, cutoff=0.5)):
            return f"wanted {{kind: {near[0]}, ...}}{found}"
        known = sorted({name for table in tables for name in _fields(table)})
        return f"wanted a table of keys such as {', '.join(known)}{found}"
    return f"{error['msg'].removeprefix('Value error, ')}{found}"


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
