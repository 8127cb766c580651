"""Architectures as data: frozen rows of absolute channel counts, and the one walk over their layers.

Building (`models`), counting (`search.cost`) and pruning all use `Arch.walk()`; a test holds the module names of
the built network to it. Standard library only, so that a budget is checked in milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from mobileface.errors import InputError, nearest
from mobileface.plain_yaml import read_yaml

INPUT_SIZE = 112  # px; side of the aligned RGB crop
ACTIVATIONS = ("prelu", "leaky_relu", "hard_swish")
SE_REDUCTION = 16  # the paper's FLOPs pin it down to 14..17; see docs/papers.md
MAX_CHANNELS, MAX_DEPTH, MAX_STAGES, MAX_NAME = 8192, 512, 64, 100  # bounds on files from outside
MAX_FILE_BYTES = 1 << 20


class Layer(NamedTuple):
    """One layer. `grid` is the side of its output map in px; kind: conv, batch_norm, prelu, leaky_relu,
    hard_swish, sigmoid, pool."""

    name: str
    kind: str
    inputs: int
    outputs: int
    grid: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    bias: bool = False
    padding: int = 0  # px of zeros on each side


class Block(NamedTuple):
    """`repeat` equal blocks in a row, the first named `prefix.first`; layer names are inside the block."""

    stage: str  # the row it belongs to, for tables: stem, stages.0, ..., head
    prefix: str
    first: int | None  # index of the first block of the run; None: the prefix is the whole name
    repeat: int
    residual: bool
    layers: tuple[Layer, ...]

    def names(self) -> list[str]:
        """Module names of the blocks in this run."""
        if self.first is None:
            return [self.prefix]
        return [f"{self.prefix}.{self.first + k}" for k in range(self.repeat)]


@dataclass(frozen=True)
class Stage:
    """A row of the table: `depth` inverted bottlenecks; the first has the stride.

    hidden: input channels of the depthwise convolution ("t" in Table 1), one number for the row or, after
    pruning, one for each block. width: output channels ("c"). se: squeeze-and-excitation on the block's output.
    """

    hidden: int | tuple[int, ...]
    width: int
    depth: int
    stride: int
    kernel: int = 3
    se: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.hidden, list):
            object.__setattr__(self, "hidden", tuple(self.hidden))
        _whole("depth", self.depth, 1, MAX_DEPTH)
        _whole("width", self.width, 1, MAX_CHANNELS)
        _one_of("stride", self.stride, (1, 2))
        _one_of("kernel", self.kernel, (3, 5))
        _one_of("se", self.se, (True, False))
        if isinstance(self.hidden, tuple) and len(self.hidden) != self.depth:
            raise InputError(f"hidden has {len(self.hidden)} numbers for {self.depth} blocks; give one for each")
        for hidden in self.hiddens():
            _whole("hidden", hidden, 1, MAX_CHANNELS)

    def hiddens(self) -> tuple[int, ...]:
        """The hidden width of each block."""
        return self.hidden if isinstance(self.hidden, tuple) else (self.hidden,) * self.depth


@dataclass(frozen=True)
class Arch:
    """An SE-MobileFaceNet (papers: MobileFaceNets; A Progressive Learning Framework, Table 1).

    stem: channels of the first 3x3 convolution, stride 2. stem_depthwise: a depthwise 3x3 behind it, as in the
    original MobileFaceNet. head: channels of the last 1x1 convolution and of the global depthwise convolution
    (GDC). embedding_dim: width of the linear 1x1 convolution and batch norm behind the GDC.
    """

    name: str
    stem: int
    stages: tuple[Stage, ...]
    head: int
    embedding_dim: int
    stem_depthwise: bool = False
    activation: str = "prelu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))
        if not (isinstance(self.name, str) and 0 < len(self.name) <= MAX_NAME and self.name.isprintable()):
            raise InputError(f"name is {_shown(self.name)}, wanted 1 to {MAX_NAME} printable characters")
        for name in ("stem", "head", "embedding_dim"):
            _whole(name, getattr(self, name), 1, MAX_CHANNELS)
        _one_of("activation", self.activation, ACTIVATIONS)
        _one_of("stem_depthwise", self.stem_depthwise, (True, False))
        _whole("number of stages", len(self.stages), 1, MAX_STAGES)

    def walk(self) -> Iterator[Block]:
        """The blocks in order, equal neighbours in one `Block` with their multiplicity."""
        act, grid, channels = self.activation, _half(INPUT_SIZE), self.stem
        yield Block("stem", "stem", None, 1, False, conv_unit(3, self.stem, grid, 3, 2, 1, act))
        if self.stem_depthwise:
            unit = conv_unit(self.stem, self.stem, grid, 3, 1, self.stem, act)
            yield Block("stem", "stem_depthwise", None, 1, False, unit)
        for s, stage in enumerate(self.stages):
            prefix, block = f"stages.{s}", 0
            for hidden, stride, repeat, inputs in _runs(stage, channels):
                layers = bottleneck(inputs, hidden, stage.width, grid, stage.kernel, stride, stage.se, act)
                grid = _half(grid) if stride == 2 else grid
                residual = stride == 1 and inputs == stage.width
                yield Block(prefix, prefix, block, repeat, residual, layers)
                block += repeat
            channels = stage.width
        yield Block("head", "head", None, 1, False, conv_unit(channels, self.head, grid, 1, 1, 1, act))
        unit = conv_unit(self.head, self.head, 1, grid, 1, self.head, None, padding=0)
        yield Block("gdc", "gdc", None, 1, False, unit)
        unit = conv_unit(self.head, self.embedding_dim, 1, 1, 1, 1, None)
        yield Block("embedding", "embedding", None, 1, False, unit)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, `family` first; `from_dict` reads it back."""
        return {"family": FAMILY, **asdict(self)}


FAMILY = "se_mobilefacenet"


@lru_cache(maxsize=1 << 16)
def conv_unit(
    inputs: int,
    outputs: int,
    grid: int,
    kernel: int,
    stride: int,
    groups: int,
    act: str | None,
    padding: int | None = None,
    unit: str = "",
) -> tuple[Layer, ...]:
    """Convolution without bias ("same" padding unless told), batch norm and, unless linear, the activation.

    `unit` stands before the names, as in `expand.`conv.
    """
    padding = kernel // 2 if padding is None else padding
    conv = Layer(f"{unit}conv", "conv", inputs, outputs, grid, kernel, stride, groups, padding=padding)
    norm = Layer(f"{unit}bn", "batch_norm", outputs, outputs, grid)
    return (conv, norm) if act is None else (conv, norm, Layer(f"{unit}act", act, outputs, outputs, grid))


@lru_cache(maxsize=1 << 16)
def bottleneck(
    inputs: int, hidden: int, width: int, before: int, kernel: int, stride: int, se: bool, act: str
) -> tuple[Layer, ...]:
    """1x1 expansion, depthwise, linear 1x1 projection and SE on its output (Fig. 2 c, d).

    before: side of the input map, px, on which the expansion works.
    """
    grid = _half(before) if stride == 2 else before
    return (
        *conv_unit(inputs, hidden, before, 1, 1, 1, act, None, "expand."),
        *conv_unit(hidden, hidden, grid, kernel, stride, hidden, act, None, "depthwise."),
        *conv_unit(hidden, width, grid, 1, 1, 1, None, None, "project."),
        *(squeeze_excitation(width, act) if se else ()),
    )


@lru_cache(maxsize=1 << 16)
def squeeze_excitation(width: int, act: str) -> tuple[Layer, ...]:
    """Global mean, two 1x1 convolutions with bias, sigmoid gate. The inner activation is our choice."""
    inner = max(1, width // SE_REDUCTION)
    return (
        Layer("se.pool", "pool", width, width, 1),
        Layer("se.reduce", "conv", width, inner, 1, bias=True),
        Layer("se.act", act, inner, inner, 1),
        Layer("se.expand", "conv", inner, width, 1, bias=True),
        Layer("se.gate", "sigmoid", width, width, 1),
    )


def _runs(stage: Stage, inputs: int) -> Iterator[tuple[int, int, int, int]]:
    """(hidden, stride, repeat, inputs) of neighbours that are equal; the first block stands alone if it must."""
    hiddens = stage.hiddens()
    start = 0
    while start < len(hiddens):
        stride = stage.stride if start == 0 else 1
        end = start + 1
        if stride == 1 and inputs == stage.width:
            while end < len(hiddens) and hiddens[end] == hiddens[start]:
                end += 1
        yield hiddens[start], stride, end - start, inputs
        inputs, start = stage.width, end


def _half(grid: int) -> int:
    return (grid + 1) // 2  # a padded convolution of stride 2


def arch_from_dict(data: Any, source: str = "arch") -> Arch:
    """Read an architecture from plain data. Raises InputError that names the key, or the nearest known one."""
    if not isinstance(data, dict):
        raise InputError(f"{source}: is {type(data).__name__}, wanted a table with the keys of an architecture")
    data = dict(data)
    family = data.pop("family", FAMILY)
    if family != FAMILY:
        raise InputError(f"{source}: family {_shown(family)} is not known; known: {FAMILY}")
    stages = data.get("stages")
    if not isinstance(stages, list | tuple):
        raise InputError(f"{source}: stages is {type(stages).__name__}, wanted a list of rows")
    try:
        rows = tuple(Stage(**_known(Stage, row, f"{source}: stages.{i}")) for i, row in enumerate(stages))
        return Arch(**_known(Arch, {**data, "stages": rows}, source))
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(source) else f"{source}: {text}") from None


def load_arch(path: Path) -> Arch:
    """Read an architecture from a YAML or JSON file, or from a run folder's arch.json."""
    file = path / "arch.json" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{path}: no architecture there; wanted a YAML or JSON file, or a run folder")
    if file.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"{file}: is larger than {MAX_FILE_BYTES} bytes; not an architecture")
    try:
        text = file.read_text(encoding="utf-8")
        data = json.loads(text) if file.suffix == ".json" else read_yaml(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read as an architecture ({error})") from None
    if isinstance(data, dict):
        data.setdefault("name", file.stem)
    return arch_from_dict(data, str(file))


def _known(kind: type, data: Any, where: str) -> dict[str, Any]:
    """The keyword arguments for `kind`, refusing unknown and missing keys by name."""
    if not isinstance(data, dict):
        raise InputError(f"{where}: is {type(data).__name__}, wanted a table")
    names = [field.name for field in fields(kind)]
    for key in data:
        if key not in names:
            hint = nearest(key[:MAX_NAME], names) if isinstance(key, str) else ""
            raise InputError(f"{where}: unknown key {_shown(key)}{hint}; known: {', '.join(names)}")
    required = [f.name for f in fields(kind) if f.default is f.default_factory]  # both MISSING
    if missing := [name for name in required if name not in data]:
        raise InputError(f"{where}: {missing[0]!r} is missing")
    return data


def _whole(name: str, value: Any, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InputError(f"{name} is {_shown(value)}, wanted a whole number from {least} to {most}")


def _one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if not any(value is a or (value == a and type(value) is type(a)) for a in allowed):
        raise InputError(f"{name} is {_shown(value)}, wanted one of {', '.join(map(str, allowed))}")


def _shown(value: Any) -> str:
    """A value from outside as an error's text shows it: short, whatever it is."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    if value is None or isinstance(value, int | float | str):
        return repr(value[:MAX_NAME]) + " …" if isinstance(value, str) and len(value) > MAX_NAME else repr(value)
    return f"a {type(value).__name__}"
