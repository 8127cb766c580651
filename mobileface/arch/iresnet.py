"""IR-ResNets: ArcFace's residual networks for 112x112 crops, with the conventions of their public codes as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from mobileface.arch.base import Arch
from mobileface.arch.checks import MAX_CHANNELS, MAX_DEPTH, named, number, one_of, whole, whole_numbers
from mobileface.arch.layers import INPUT_SIZE, Block, Layer, conv_unit, half

SHORTCUTS = ("conv", "subsample")
LAST_NORMS = ("bias", "plain")


@dataclass(frozen=True)
class IResNet(Arch):
    """An IR-ResNet: a stem of stride 1, four stages of residual units whose first has stride 2, a linear head.

    depths, widths: units and channels of each stage; the stem has the first width. The other fields are what the
    public codes do not agree on: InsightFace's iresnet (the defaults) | AdaFace's and TFace's IR.

    shortcut: "conv", 1x1 convolution and batch norm wherever a unit has a stride or other channels | "subsample",
    these only where channels change, else every second value (a max pool of kernel 1).
    dropout: rate in front of the linear layer, 0 | 0.4.
    last_norm: the batch norm behind it; "bias", its weight stays 1 | "plain", it has neither weight nor bias.
    eps: of every batch norm; InsightFace's older mxnet code has 2e-5.
    """

    family: ClassVar[str] = "iresnet"

    name: str
    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    embedding_dim: int = 512
    shortcut: str = "conv"
    dropout: float = 0.0
    last_norm: str = "bias"
    eps: float = 1e-5

    def __post_init__(self) -> None:
        for name, most in (("depths", MAX_DEPTH), ("widths", MAX_CHANNELS)):
            if isinstance(values := getattr(self, name), list):
                object.__setattr__(self, name, tuple(values))
            whole_numbers(name, getattr(self, name), 4, most)
        named(self.name)
        whole("embedding_dim", self.embedding_dim, 1, MAX_CHANNELS)
        one_of("shortcut", self.shortcut, SHORTCUTS)
        number("dropout", self.dropout, 0, 1)
        one_of("last_norm", self.last_norm, LAST_NORMS)
        number("eps", self.eps, 1e-12, 1)

    def walk(self) -> Iterator[Block]:
        """The blocks in order, equal neighbours in one `Block` with their multiplicity."""
        yield from self.trunk()
        yield self.head("head")

    def trunk(self) -> Iterator[Block]:
        """Stem, stages, and the batch norm of the last map, (B, widths[-1], 7, 7)."""
        channels, grid = self.widths[0], INPUT_SIZE
        unit = conv_unit(3, channels, grid, 3, 1, 1, "prelu")
        yield Block("stem", "stem", None, 1, False, grid, unit)
        for s, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            prefix = f"stages.{s}"
            first = residual_unit(channels, width, grid, 2, self.shortcut)
            channels, grid = width, half(grid)
            yield Block(prefix, prefix, 0, 1, True, grid, first)
            if depth > 1:
                more = residual_unit(width, width, grid, 1, self.shortcut)
                yield Block(prefix, prefix, 1, depth - 1, True, grid, more)
        norm = Layer("bn", "pre_norm", channels, channels, grid)
        yield Block("norm", "norm", None, 1, False, grid, (norm,))

    def head(self, stage: str) -> Block:
        """The 7x7 map becomes the embedding: [dropout], flatten, linear with bias, batch norm."""
        channels, grid, dim = self.widths[-1], final_grid(), self.embedding_dim
        values = channels * grid * grid
        layers = (
            *((Layer("dropout", "dropout", channels, channels, grid),) if self.dropout else ()),
            Layer("flatten", "flatten", channels, values, 1),
            Layer("linear", "linear", values, dim, 1, bias=True),
            Layer("bn", f"{self.last_norm}_norm", dim, dim, 1),
        )
        return Block(stage, "head", None, 1, False, 1, layers)


@lru_cache(maxsize=1 << 16)
def residual_unit(inputs: int, width: int, before: int, stride: int, shortcut: str) -> tuple[Layer, ...]:
    """Batch norm, 3x3 convolution, batch norm, PReLU, 3x3 convolution with the stride, batch norm; the shortcut.

    before: side of the input map, px. No activation behind the sum.
    """
    grid = half(before) if stride == 2 else before
    aside: tuple[Layer, ...] = ()
    if inputs != width or (stride == 2 and shortcut == "conv"):
        aside = conv_unit(inputs, width, grid, 1, stride, 1, None, None, "shortcut.")
    elif stride == 2:
        aside = (Layer("shortcut.pool", "max_pool", width, width, grid, 1, stride),)
    return (
        Layer("norm", "pre_norm", inputs, inputs, before),
        *conv_unit(inputs, width, before, 3, 1, 1, "prelu", None, "first."),
        *conv_unit(width, width, grid, 3, stride, 1, None, None, "second."),
        *aside,
    )


def final_grid() -> int:
    """Side of the map behind the four stages, px."""
    grid = INPUT_SIZE
    for _ in range(4):
        grid = half(grid)
    return grid
