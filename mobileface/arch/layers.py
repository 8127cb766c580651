"""Layers and blocks, of which the walks of all families are made."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

INPUT_SIZE = 112  # px; side of the aligned RGB crop
SE_REDUCTION = 16  # SE-MobileFaceNet: its paper's FLOPs pin it down to 14..17, see docs/papers.md; LGAF: ours
HELD = {  # by kind: values for each output that are trained, and that a checkpoint holds beside them
    "batch_norm": (2, 2),
    "pre_norm": (2, 2),
    "bias_norm": (1, 3),  # a bias, and the weight that stays 1
    "plain_norm": (0, 2),
    "prelu": (1, 0),
    "energy": (0, 2),  # mean and deviation
    "entropy": (0, 2),
}


class Layer(NamedTuple):
    """One layer. `grid` is the side of its output map in px, 1 for a vector.

    kind: conv, linear; batch_norm (right behind a convolution), pre_norm (a batch norm in front of one),
    bias_norm and plain_norm (behind a linear layer; its weight is 1, or it has neither weight nor bias); prelu,
    leaky_relu, hard_swish, relu, sigmoid; pool (the mean of the map), max_pool, flatten, dropout; energy and
    entropy (a feature's quality). What has no bearing on shape and cost stands in the architecture alone: the eps of
    batch norms, the rate of a dropout.
    """

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

    def weights(self) -> int:
        """Values of the kernel of a convolution or linear layer; 0 for other kinds."""
        if self.kind not in ("conv", "linear"):
            return 0
        return self.inputs * self.kernel * self.kernel * self.outputs // self.groups

    def values(self) -> tuple[int, int]:
        """How many values are trained, and how many a checkpoint holds beside them (counts of batches left out)."""
        trained, beside = HELD.get(self.kind, (int(self.bias), 0))
        return self.weights() + trained * self.outputs, beside * self.outputs


class Block(NamedTuple):
    """`repeat` equal blocks in a row, the first named `prefix.first`; layer names are inside the block.

    residual: the block's input is added to its output, as it is or by way of the layers under `shortcut.`.
    """

    stage: str  # the row it belongs to, for tables: stem, stages.0, ..., head
    prefix: str
    first: int | None  # index of the first block of the run; None: the prefix is the whole name
    repeat: int
    residual: bool
    grid: int  # side of its output map, px
    layers: tuple[Layer, ...]

    def names(self) -> list[str]:
        """Module names of the blocks in this run."""
        if self.first is None:
            return [self.prefix]
        return [f"{self.prefix}.{self.first + k}" for k in range(self.repeat)]


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


def half(grid: int) -> int:
    """Side of the map behind a padded convolution of stride 2."""
    return (grid + 1) // 2
