"""What names in a pickle of plain values stand for: functions of this file, never what they name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

Values = tuple[object, ...]


class Refused(ValueError):
    """The pickle holds something that is not wanted in it."""


@dataclass(frozen=True)
class DType:
    """A NumPy dtype: "u1" (uint8) or "b1" (bool)."""

    kind: str

    def set_state(self, state: Values) -> None:
        """A plain dtype's state tells nothing new: (3, "|", no subdtype, no names, no fields, -1, -1, 0)."""
        parts = any(value is not None for value in state[2:5])
        if not 5 <= len(state) <= 9 or parts or any(type(value) is not int for value in state[5:]):
            raise Refused("describes a NumPy dtype with parts, wanted plain bytes or bools")


@dataclass
class Array:
    """A NumPy array: `kind` is "u1" or "b1" (empty before its state was read), `data` its bytes."""

    kind: str = ""
    shape: tuple[int, ...] = ()
    data: bytes = b""

    def set_state(self, state: Values) -> None:
        """(version, shape, dtype, is it in Fortran's order, data), as numpy.ndarray.__reduce__ gives it."""
        if self.kind or len(state) != 5:
            raise Refused("sets the state of a NumPy array in a way that NumPy does not")
        filled = array(state[4], state[2], state[1])
        self.kind, self.shape, self.data = filled.kind, filled.shape, filled.data


@dataclass(frozen=True)
class Call:
    """What a name in the pickle became."""

    function: Callable[[Values], object]


def array(data: object, dtype: object, shape: object) -> Array:
    """An Array of checked parts; no other dtype comes through, so no array of objects."""
    if not isinstance(dtype, DType) or not isinstance(data, bytes):
        raise Refused("holds a NumPy array that is not of uint8 or bool")
    if not isinstance(shape, tuple) or len(shape) > 4:
        raise Refused("holds a NumPy array without a shape")
    if not all(type(side) is int and side >= 0 for side in shape) or prod(shape) != len(data):
        raise Refused(f"holds a NumPy array of {len(data)} bytes for another shape")
    return Array(dtype.kind, shape, data)


def text(value: object) -> str:
    """The start of a text, or of Python 2's bytes, as text; empty for anything else."""
    if isinstance(value, bytes):
        return value[:20].decode("latin-1")
    return value[:20] if isinstance(value, str) else ""


def encode(values: Values) -> bytes:
    """_codecs.encode(text, "latin1"), with which protocols 0 to 2 of Python 3 write bytes."""
    if len(values) != 2 or not isinstance(values[0], str) or text(values[1]) not in ("latin1", "latin-1"):
        raise Refused("encodes something else than text as latin1")
    try:
        return values[0].encode("latin-1")
    except UnicodeEncodeError:
        raise Refused("encodes text that is not latin1") from None


def empty_bytes(values: Values) -> bytes:
    """bytes(), with which protocols 0 to 2 write the empty bytes."""
    if values:
        raise Refused("makes bytes from something")
    return b""


def dtype(values: Values) -> DType:
    """numpy.dtype("u1", False, True)"""
    kind = text(values[0]) if values else ""
    if kind not in ("u1", "b1"):
        raise Refused(f"holds a NumPy dtype {kind!r}, wanted 'u1' (uint8) or 'b1' (bool)")
    return DType(kind)


def ndarray(values: Values) -> object:
    """numpy.ndarray is only ever the argument of the next."""
    raise Refused("makes a NumPy array in a way that NumPy does not")


def reconstruct(values: Values) -> Array:
    """numpy._core.multiarray._reconstruct(numpy.ndarray, (0,), b"b"): an empty array; its state follows."""
    if not values or values[0] != Call(ndarray):
        raise Refused("reconstructs something else than a NumPy array")
    return Array()


def frombuffer(values: Values) -> Array:
    """numpy._core.numeric._frombuffer(data, dtype, shape, order), which protocol 5 uses."""
    if len(values) not in (4, 5):
        raise Refused("makes a NumPy array in a way that NumPy does not")
    return array(*values[:3])


def scalar(values: Values) -> bool:
    """numpy._core.multiarray.scalar(dtype, data): a NumPy bool."""
    if len(values) != 2 or values[0] != DType("b1") or values[1] not in (b"\0", b"\1"):
        raise Refused("holds a NumPy scalar that is not a bool")
    return values[1] == b"\1"


NAMES: dict[tuple[str, str], Call] = {
    ("_codecs", "encode"): Call(encode),
    ("__builtin__", "bytes"): Call(empty_bytes),
    ("builtins", "bytes"): Call(empty_bytes),
    ("numpy", "dtype"): Call(dtype),
    ("numpy", "ndarray"): Call(ndarray),
    ("numpy.core.multiarray", "_reconstruct"): Call(reconstruct),  # NumPy 1
    ("numpy._core.multiarray", "_reconstruct"): Call(reconstruct),  # NumPy 2
    ("numpy.core.multiarray", "scalar"): Call(scalar),
    ("numpy._core.multiarray", "scalar"): Call(scalar),
    ("numpy.core.numeric", "_frombuffer"): Call(frombuffer),
    ("numpy._core.numeric", "_frombuffer"): Call(frombuffer),
}
