"""LGAF: an IR-ResNet whose last map is read twice, in parts and as a whole, and fused by the quality of both.

Paper: Local and Global Feature Attention Fusion Network for Face Recognition. It has no public code; what it leaves
open is decided here and in `models.lgaf`, and listed in docs/papers.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import ClassVar

from mobileface.arch.checks import one_of, whole
from mobileface.arch.iresnet import IResNet, final_grid
from mobileface.arch.layers import Block, Layer, conv_unit, squeeze_excitation
from mobileface.errors import InputError

QUALITIES = ("energy", "entropy")
FUSIONS = ("add", "concat", "iaff")
LANETS = ("map", "printed")
MAX_HEADS = 64  # a bound on files from outside; the paper has up to 16
LANET_REDUCTION = 8  # ours; the paper prints no width
GATE_REDUCTION = 4  # of iAFF: r in its public code (Dai et al. 2021)


@dataclass(frozen=True)
class LGAF(IResNet):
    """An IR-ResNet trunk with the paper's head. The defaults are the paper's best, on top of the trunk's own fields.

    local_features (MHMS), global_features (GFE), attention (LGF): the columns of the paper's Table 1. Only global
    features are exactly the IR-ResNet. Both without attention are their sum (Method III).
    heads: MSNets of the MHMS ("b", Table 2); each gives embedding_dim / heads numbers.
    quality: what the attention goes by (Table 3). fusion: of both features (Table 4); "iaff" has gates of its own
    and reads no quality. lanet: "map", a gate for each place | "printed", equation 11, which takes the mean of the map
    first, so that one gate is left for a whole branch.
    A field that nothing reads with the others as they are must stay at its default.
    """

    family: ClassVar[str] = "lgaf"

    local_features: bool = True
    global_features: bool = True
    attention: bool = True
    heads: int = 4
    quality: str = "energy"
    fusion: str = "add"
    lanet: str = "map"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("local_features", "global_features", "attention"):
            one_of(name, getattr(self, name), (True, False))
        one_of("quality", self.quality, QUALITIES)
        one_of("fusion", self.fusion, FUSIONS)
        one_of("lanet", self.lanet, LANETS)
        whole("heads", self.heads, 1, MAX_HEADS)
        if not (self.local_features or self.global_features):
            raise InputError("local_features and global_features are False, wanted one of them or both")
        if self.attention and not (self.local_features and self.global_features):
            raise InputError("attention is True, wanted False without both local_features and global_features")
        for name, why in self.unread().items():
            if (value := getattr(self, name)) != (default := getattr(LGAF, name)):
                raise InputError(f"{name} is {value!r}, wanted the default {default!r}: nothing reads it {why}")
        if self.local_features and self.embedding_dim % self.heads:
            raise InputError(f"heads is {self.heads}, wanted a divisor of embedding_dim {self.embedding_dim}")

    def unread(self) -> dict[str, str]:
        """The fields that nothing reads with the others as they are, and why."""
        cases = (
            (not self.local_features, ("heads", "lanet"), "without local_features"),
            (not self.global_features, ("dropout", "last_norm"), "without global_features"),
            (not self.attention, ("quality", "fusion"), "without attention"),
            (self.attention and self.fusion == "iaff", ("quality",), "with fusion 'iaff'"),
        )
        return {name: why for holds, names, why in cases if holds for name in names}

    def plain(self) -> IResNet:
        """The IR-ResNet with the same trunk."""
        data = asdict(self)
        return IResNet(**{field.name: data[field.name] for field in fields(IResNet)})

    def walk(self) -> Iterator[Block]:
        """The blocks in order, equal neighbours in one `Block` with their multiplicity."""
        yield from self.trunk()
        dim = self.embedding_dim
        if self.local_features:
            layers = msnet(self.widths[-1], dim // self.heads, self.lanet)
            yield Block("mhms", "mhms", 0, self.heads, False, 1, layers)
        if self.global_features:
            yield self.head("gfe")
        if self.attention:
            layers = gates(dim) if self.fusion == "iaff" else weighted(dim, self.quality, self.fusion)
            yield Block("lgf", "lgf", None, 1, False, 1, layers)


@lru_cache(maxsize=1 << 10)
def msnet(channels: int, outputs: int, lanet: str) -> tuple[Layer, ...]:
    """One local feature: three scales (fields of 1, 3 and 5 px) with a LANet each, SE over them, linear (eqs. 11-13).

    Ours: a scale has a quarter of the map's channels; batch norm and PReLU behind each convolution, as in the trunk
    (two convolutions with nothing between them would be one); SE's reduction 16, that of the other family; ReLU in SE
    and LANet.
    """
    grid, width = final_grid(), max(1, channels // 4)
    values = 3 * width * grid * grid

    def conv(kernel: int, inputs: int, unit: str) -> tuple[Layer, ...]:
        return conv_unit(inputs, width, grid, kernel, 1, 1, "prelu", None, unit)

    return (
        *conv(1, channels, "scales.point.only."),
        *local_attention(width, grid, lanet, "scales.point."),
        *conv(3, channels, "scales.near.only."),
        *local_attention(width, grid, lanet, "scales.near."),
        *conv(3, channels, "scales.far.first."),
        *conv(3, width, "scales.far.second."),
        *local_attention(width, grid, lanet, "scales.far."),
        *squeeze_excitation(3 * width, "relu"),
        Layer("flatten", "flatten", 3 * width, values, 1),
        Layer("linear", "linear", values, outputs, 1, bias=True),
    )


def local_attention(width: int, grid: int, form: str, unit: str) -> tuple[Layer, ...]:
    """LANet (LS-CNN): two 1x1 convolutions with bias that make one gate for each place; see `LGAF.lanet`.

    Ours: "printed" ends in one channel as well. Equation 11 does not say how many values its gate has behind the mean.
    """
    inner = max(1, width // LANET_REDUCTION)
    pool = (Layer(f"{unit}lanet.pool", "pool", width, width, 1),) if form == "printed" else ()
    side = 1 if form == "printed" else grid
    return (
        *pool,
        Layer(f"{unit}lanet.reduce", "conv", width, inner, side, bias=True),
        Layer(f"{unit}lanet.act", "relu", inner, inner, side),
        Layer(f"{unit}lanet.expand", "conv", inner, 1, side, bias=True),
        Layer(f"{unit}lanet.gate", "sigmoid", 1, 1, side),
    )


def weighted(dim: int, quality: str, fusion: str) -> tuple[Layer, ...]:
    """The qualities of both features, each with statistics of its own; for "concat" a linear layer on 2 dim values."""
    linear = (Layer("linear", "linear", 2 * dim, dim, 1, bias=True),) if fusion == "concat" else ()
    return (
        Layer("local_quality", quality, dim, 1, 1),
        Layer("global_quality", quality, dim, 1, 1),
        *linear,
    )


def gates(dim: int) -> tuple[Layer, ...]:
    """iAFF on vectors: two rounds of a bottleneck, each giving a gate for every component."""
    inner = max(1, dim // GATE_REDUCTION)
    return tuple(
        layer
        for turn in ("first", "second")
        for layer in (
            Layer(f"{turn}.reduce", "linear", dim, inner, 1, bias=True),
            Layer(f"{turn}.act", "relu", inner, inner, 1),
            Layer(f"{turn}.expand", "linear", inner, dim, 1, bias=True),
            Layer(f"{turn}.gate", "sigmoid", dim, dim, 1),
        )
    )
