"""Read a pickle of plain values without running anything that it asks for.

A pickle is a program for a small stack machine. This is such a machine with only the instructions that lists,
tuples, bytes, text, bools, whole numbers and NumPy arrays of bytes or bools need. It imports nothing and
calls nothing that the file names: the few names in pickles of such values stand for the functions in
`pickled_names.py`, any other name is refused. Instructions and results are bounded, so that a small file
cannot fill the memory. The opcodes are those of Python's `pickletools`.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable
from typing import NoReturn, TypeVar

from mobileface.data.pickled_names import NAMES, Array, Call, DType, Refused
from mobileface.errors import InputError

MAX_STEPS = 1 << 24  # instructions; a pickled image takes about ten
MAX_LINE = 1 << 23  # bytes of a line in protocol 0, where an image is an escaped string
ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"\\": b"\\", b"'": b"'", b'"': b'"'}  # of Python 2's repr

T = TypeVar("T")


class Machine:
    """The state of the reader: stack, marks and memo."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self.data, self.at = data, 0
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        self.bytes_left = len(data)  # that text may turn into: no more than the file holds, if none is reused

    def fail(self, what: str) -> NoReturn:
        raise Refused(what)

    def take(self, count: int) -> bytes:
        if not 0 <= count <= len(self.data) - self.at:
            self.fail(f"is cut off: wanted {count} bytes, {len(self.data) - self.at} are left")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, count: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(count), "little", signed=signed)

    def line(self, limit: int = MAX_LINE) -> bytes:
        end = self.data.find(b"\n", self.at, self.at + limit)
        if end < 0:
            self.fail("is cut off: wanted the end of a line")
        return self.take(end + 1 - self.at)[:-1]

    def decimal(self, text: bytes) -> int:
        if not re.fullmatch(rb"-?[0-9]{1,18}", text):
            self.fail(f"found {text[:20]!r}, wanted a whole number")
        return int(text)

    def skip(self, count: int) -> None:
        self.take(count)

    def tuple_of(self, count: int) -> None:
        self.push(tuple([self.pop(object) for _ in range(count)][::-1]))

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self, kind: type[T]) -> T:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            self.fail("takes a value where there is none")
        value = self.stack.pop()
        if not isinstance(value, kind):
            self.fail(f"found a {type(value).__name__}, wanted a {kind.__name__}")
        return value

    def since_mark(self) -> list[object]:
        if not self.marks:
            self.fail("takes values up to a mark where there is none")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def remember(self, slot: int) -> None:
        value = self.pop(object)
        self.memo[slot] = value
        self.push(value)

    def recall(self, slot: int) -> None:
        if slot not in self.memo:
            self.fail(f"recalls value {slot}, which was not kept")
        self.push(self.memo[slot])

    def text(self, data: bytes, encoding: str = "utf-8") -> None:
        try:
            self.push(data.decode(encoding, "surrogatepass" if encoding == "utf-8" else "strict"))
        except UnicodeDecodeError:
            self.fail("holds text that does not decode")

    def extend(self, values: list[object]) -> None:
        target = self.pop(list)
        target.extend(values)
        self.push(target)

    def append(self) -> None:
        value = self.pop(object)
        self.extend([value])

    def whole_number(self, text: bytes) -> None:
        """Protocol 0 writes bools as the numbers 00 and 01."""
        self.push(text == b"01" if text in (b"00", b"01") else self.decimal(text))

    def string(self) -> None:
        """Python 2's text, which is bytes: a quoted line with escapes."""
        line = self.line()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            self.fail("holds a string without quotes")

        def plain(found: re.Match[bytes]) -> bytes:
            code = found[1]
            if len(code) == 3:
                return bytes([int(code[1:], 16)])
            return ESCAPES.get(code) or self.fail(f"holds a string with the escape {code!r}")

        self.push(re.sub(rb"\\(x[0-9a-fA-F]{2}|.)", plain, line[1:-1]))

    def name_of(self, module: str, name: str) -> None:
        found = NAMES.get((module, name))
        if found is None:
            named = f"{module[:80]}.{name[:80]}"
            self.fail(f"names {named!r}, wanted images and bools only; it was not run")
        self.push(found)

    def global_lines(self) -> None:
        module, name = self.line(), self.line()
        self.name_of(module.decode("latin-1"), name.decode("latin-1"))

    def global_stack(self) -> None:
        name, module = self.pop(str), self.pop(str)
        self.name_of(module, name)

    def reduce(self) -> None:
        arguments = self.pop(tuple)
        value = self.pop(Call).function(arguments)
        self.bytes_left -= len(value) if isinstance(value, bytes) else 0
        if self.bytes_left < 0:
            self.fail("makes more bytes than the file holds")
        self.push(value)

    def build(self) -> None:
        state, target = self.pop(tuple), self.pop(object)
        if not isinstance(target, DType | Array):
            self.fail(f"sets the state of a {type(target).__name__}, wanted a NumPy array")
        target.set_state(state)
        self.push(target)


STEPS: dict[bytes, Callable[[Machine], None]] = {
    b"\x80": lambda m: m.skip(1),  # protocol
    b"\x95": lambda m: m.skip(8),  # frame
    b"(": lambda m: m.marks.append(len(m.stack)),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"I": lambda m: m.whole_number(m.line()),
    b"L": lambda m: m.push(m.decimal(m.line().removesuffix(b"L"))),
    b"J": lambda m: m.push(m.number(4, signed=True)),
    b"K": lambda m: m.push(m.number(1)),
    b"M": lambda m: m.push(m.number(2)),
    b"\x8a": lambda m: m.push(m.number(m.number(1), signed=True)),
    b"C": lambda m: m.push(m.take(m.number(1))),  # bytes
    b"B": lambda m: m.push(m.take(m.number(4))),
    b"\x8e": lambda m: m.push(m.take(m.number(8))),
    b"\x96": lambda m: m.push(m.take(m.number(8))),  # a bytearray; nothing here changes it
    b"U": lambda m: m.push(m.take(m.number(1))),  # strings of Python 2
    b"T": lambda m: m.push(m.take(m.number(4, signed=True))),
    b"S": lambda m: m.string(),
    b"\x8c": lambda m: m.text(m.take(m.number(1))),
    b"X": lambda m: m.text(m.take(m.number(4))),
    b"\x8d": lambda m: m.text(m.take(m.number(8))),
    b"V": lambda m: m.text(m.line(), "raw-unicode-escape"),
    b"]": lambda m: m.push([]),
    b"l": lambda m: m.push(m.since_mark()),
    b"a": lambda m: m.append(),
    b"e": lambda m: m.extend(m.since_mark()),
    b")": lambda m: m.push(()),
    b"t": lambda m: m.push(tuple(m.since_mark())),
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"p": lambda m: m.remember(m.decimal(m.line())),
    b"q": lambda m: m.remember(m.number(1)),
    b"r": lambda m: m.remember(m.number(4)),
    b"\x94": lambda m: m.remember(len(m.memo)),
    b"g": lambda m: m.recall(m.decimal(m.line())),
    b"h": lambda m: m.recall(m.number(1)),
    b"j": lambda m: m.recall(m.number(4)),
    b"c": lambda m: m.global_lines(),
    b"\x93": lambda m: m.global_stack(),
    b"R": lambda m: m.reduce(),
    b"b": lambda m: m.build(),
}


def load(data: bytes | mmap.mmap, name: str) -> object:
    """The value that the pickle `data` holds; `name` is for messages. Raises InputError for anything else."""
    machine = Machine(data)
    try:
        return run(machine)
    except Refused as error:
        raise InputError(f"{name}: byte {machine.at}: {error}") from None


def run(machine: Machine) -> object:
    for _ in range(MAX_STEPS):
        code = machine.take(1)
        if code == b".":
            return machine.pop(object)
        if code not in STEPS:
            machine.fail(f"has the pickle instruction {code!r}, wanted images and bools only; it was not run")
        STEPS[code](machine)
    machine.fail(f"takes more than {MAX_STEPS} pickle instructions")
