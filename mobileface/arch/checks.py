"""Checks on plain data from outside: what is wrong ends in one line that says what was found and what is wanted."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from mobileface.errors import InputError, nearest

# bounds on files from outside
MAX_CHANNELS, MAX_DEPTH, MAX_STAGES, MAX_BLOCKS, MAX_NAME = 8192, 512, 64, 2048, 100


def whole(name: str, value: Any, least: int, most: int) -> None:
    """InputError unless `value` is a whole number in these bounds."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InputError(f"{name} is {shown(value)}, wanted a whole number from {least} to {most}")


def whole_numbers(name: str, values: Any, count: int, most: int) -> None:
    """InputError unless `values` is a tuple of `count` whole numbers from 1 to `most`."""
    if not isinstance(values, tuple) or len(values) != count:
        found = f"{len(values)} numbers" if isinstance(values, tuple) else shown(values)
        raise InputError(f"{name} is {found}, wanted a list of {count} whole numbers")
    for value in values:
        whole(name, value, 1, most)


def number(name: str, value: Any, least: float, below: float) -> None:
    """InputError unless `value` is a number of at least `least` and less than `below`; YAML reads 1e-5 as text."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value < below:
        raise InputError(f"{name} is {shown(value)}, wanted a number from {least:g} to below {below:g}")


def one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """InputError unless `value` is one of `allowed`, of the same type."""
    if not any(value is a or (value == a and type(value) is type(a)) for a in allowed):
        raise InputError(f"{name} is {shown(value)}, wanted one of {', '.join(map(str, allowed))}")


def named(value: Any) -> None:
    """InputError unless `value` is a name that can be printed."""
    if not (isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()):
        raise InputError(f"name is {shown(value)}, wanted 1 to {MAX_NAME} printable characters")


def known(kind: type, data: Any, where: str) -> dict[str, Any]:
    """The keyword arguments for the dataclass `kind`, refusing unknown and missing keys by name."""
    if not isinstance(data, dict):
        raise InputError(f"{where}: is {type(data).__name__}, wanted a table")
    names = [field.name for field in fields(kind)]
    for key in data:
        if key not in names:
            hint = nearest(key[:MAX_NAME], names) if isinstance(key, str) else ""
            raise InputError(f"{where}: unknown key {shown(key)}{hint}; known: {', '.join(names)}")
    required = [f.name for f in fields(kind) if f.default is f.default_factory]  # both MISSING
    if missing := [name for name in required if name not in data]:
        raise InputError(f"{where}: {missing[0]!r} is missing")
    return data


def shown(value: Any) -> str:
    """A value from outside as an error's text shows it: short, whatever it is."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    if value is None or isinstance(value, int | float | str):
        return repr(value[:MAX_NAME]) + " …" if isinstance(value, str) and len(value) > MAX_NAME else repr(value)
    return f"a {type(value).__name__}"
