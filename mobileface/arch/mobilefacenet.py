"""SE-MobileFaceNets: inverted bottlenecks, one row of the table for each stretch of equal ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Self

from mobileface.arch.base import Arch
from mobileface.arch.checks import MAX_BLOCKS, MAX_CHANNELS, MAX_DEPTH, MAX_STAGES, known, named, one_of, whole
from mobileface.arch.layers import INPUT_SIZE, Block, Layer, conv_unit, half, squeeze_excitation
from mobileface.errors import InputError

ACTIVATIONS = ("prelu", "leaky_relu", "hard_swish")


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
        whole("depth", self.depth, 1, MAX_DEPTH)
        whole("width", self.width, 1, MAX_CHANNELS)
        one_of("stride", self.stride, (1, 2))
        one_of("kernel", self.kernel, (3, 5))
        one_of("se", self.se, (True, False))
        if isinstance(self.hidden, tuple) and len(self.hidden) != self.depth:
            raise InputError(f"hidden has {len(self.hidden)} numbers for {self.depth} blocks; give one for each")
        for hidden in self.hiddens():
            whole("hidden", hidden, 1, MAX_CHANNELS)

    def hiddens(self) -> tuple[int, ...]:
        """The hidden width of each block."""
        return self.hidden if isinstance(self.hidden, tuple) else (self.hidden,) * self.depth


@dataclass(frozen=True)
class SEMobileFaceNet(Arch):
    """An SE-MobileFaceNet (papers: MobileFaceNets; A Progressive Learning Framework, Table 1).

    stem: channels of the first 3x3 convolution, stride 2. stem_depthwise: a depthwise 3x3 behind it, as in the
    original MobileFaceNet. head: channels of the last 1x1 convolution and of the global depthwise convolution
    (GDC). embedding_dim: width of the linear 1x1 convolution and batch norm behind the GDC.
    """

    family: ClassVar[str] = "se_mobilefacenet"

    name: str
    stem: int
    stages: tuple[Stage, ...]
    head: int
    embedding_dim: int
    stem_depthwise: bool = False
    activation: str = "prelu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))
        named(self.name)
        for name in ("stem", "head", "embedding_dim"):
            whole(name, getattr(self, name), 1, MAX_CHANNELS)
        one_of("activation", self.activation, ACTIVATIONS)
        one_of("stem_depthwise", self.stem_depthwise, (True, False))
        whole("number of stages", len(self.stages), 1, MAX_STAGES)
        whole("number of blocks", sum(stage.depth for stage in self.stages), 1, MAX_BLOCKS)

    def walk(self) -> Iterator[Block]:
        """The blocks in order, equal neighbours in one `Block` with their multiplicity."""
        act, grid, channels = self.activation, half(INPUT_SIZE), self.stem
        yield Block("stem", "stem", None, 1, False, grid, conv_unit(3, self.stem, grid, 3, 2, 1, act))
        if self.stem_depthwise:
            unit = conv_unit(self.stem, self.stem, grid, 3, 1, self.stem, act)
            yield Block("stem", "stem_depthwise", None, 1, False, grid, unit)
        for s, stage in enumerate(self.stages):
            prefix, block = f"stages.{s}", 0
            for hidden, stride, repeat, inputs in _runs(stage, channels):
                layers = bottleneck(inputs, hidden, stage.width, grid, stage.kernel, stride, stage.se, act)
                grid = half(grid) if stride == 2 else grid
                residual = stride == 1 and inputs == stage.width
                yield Block(prefix, prefix, block, repeat, residual, grid, layers)
                block += repeat
            channels = stage.width
        yield Block("head", "head", None, 1, False, grid, conv_unit(channels, self.head, grid, 1, 1, 1, act))
        unit = conv_unit(self.head, self.head, 1, grid, 1, self.head, None, 0)
        yield Block("gdc", "gdc", None, 1, False, 1, unit)
        unit = conv_unit(self.head, self.embedding_dim, 1, 1, 1, 1, None)
        yield Block("embedding", "embedding", None, 1, False, 1, unit)

    @classmethod
    def from_dict(cls, data: dict[str, Any], source: str) -> Self:
        """Read plain data; `stages` is a list of rows. InputError that names the key, or the nearest known one."""
        stages = data.get("stages")
        if not isinstance(stages, list | tuple):
            raise InputError(f"{source}: stages is {type(stages).__name__}, wanted a list of rows")
        rows = tuple(Stage(**known(Stage, row, f"{source}: stages.{i}")) for i, row in enumerate(stages))
        return cls(**known(cls, {**data, "stages": rows}, source))


@lru_cache(maxsize=1 << 16)
def bottleneck(
    inputs: int, hidden: int, width: int, before: int, kernel: int, stride: int, se: bool, act: str
) -> tuple[Layer, ...]:
    """1x1 expansion, depthwise, linear 1x1 projection and SE on its output (Fig. 2 c, d).

    before: side of the input map, px, on which the expansion works.
    """
    grid = half(before) if stride == 2 else before
    return (
        *conv_unit(inputs, hidden, before, 1, 1, 1, act, None, "expand."),
        *conv_unit(hidden, hidden, grid, kernel, stride, hidden, act, None, "depthwise."),
        *conv_unit(hidden, width, grid, 1, 1, 1, None, None, "project."),
        *(squeeze_excitation(width, act) if se else ()),
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
