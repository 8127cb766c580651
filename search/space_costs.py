"""What every choice of a space costs. Networks are chains of parts (stem, rows, head), and their costs sums over them.

What a part costs depends on its own genes, the activation and the channels that the part before hands on.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobileface.arch import INPUT_SIZE, SEMobileFaceNet, Stage
from mobileface.arch.layers import half
from mobileface.arch.mobilefacenet import bottleneck
from mobileface.errors import InputError
from search.cost import Cost, block_cost, cost_by_stage
from search.space import Space

MOST_COSTS = 1 << 20  # of one part: its choices by all that may come before it; the most in lfrc are 62,430
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """A stretch of the network.

    genes: their places in the space. options (n, genes): all choices of them that mean something. follows
    (states, n): the state that the next part begins from, an activation and a number of channels, by the one that
    this part begins from. costs (states, n, 2): work by the rule, and bytes in float32 with running statistics.
    """

    genes: tuple[int, ...]
    options: Numbers
    follows: Numbers
    costs: Numbers


def parts(space: Space, rule: str) -> list[Part]:
    """The chain of a space's networks; the first part begins from one state, the last ends in one."""
    chain = _Chain(space, rule)
    found = [chain.stem()]
    for at in space.stages:
        if f"{at}reduction.hidden" in space.places:
            found.append(chain.row(f"{at}reduction.", f"{at}width", None))
            found.append(chain.row(at, None, f"{at}depth"))
        else:
            found.append(chain.row(at, f"{at}width", f"{at}depth"))
    return [*found, chain.head()]


class _Chain:
    """Makes the parts in order; keeps the channels that the next one may begin from, and the side of their map, px."""

    def __init__(self, space: Space, rule: str) -> None:
        self.space, self.rule = space, rule
        self.activations = self._choices("activation")
        self.channels: list[int] = []
        self.grid, self.reductions = half(INPUT_SIZE), 0

    def stem(self) -> Part:
        """The first convolution, and the depthwise one behind it."""
        names = ["activation", "stem", "stem_depthwise"]
        options = self._options(names, states=1)
        self.channels = sorted(self._choices("stem"))
        follows, costs = [], []
        for genes in options.tolist():
            values = {name: self._choices(name)[place] for name, place in zip(names, genes, strict=True)}
            follows.append(genes[0] * len(self.channels) + self.channels.index(values["stem"]))
            costs.append(self._count(_probe(1, **values)["stem"]))
        return self._part(names, options, np.array([follows]), np.array([costs]))

    def row(self, prefix: str, width: str | None, depth: str | None) -> Part:
        """Equal bottlenecks. Without the gene `width` they are as wide as what they are given; without `depth` it is
        the one block of stride 2."""
        own = [f"{prefix}hidden", f"{prefix}kernel", f"{prefix}se"]
        names = [*own, *filter(None, (width, depth))]
        before = self.channels
        options = self._options(names, states=len(self.activations) * len(before))
        depths = self._values(options, names, depth) if depth else np.ones(len(options), np.int64)
        means = (depths > 0) | (options[:, [name != depth for name in names]] == 0).all(axis=1)
        options, depths = options[means], depths[means]

        wide = self._values(options, names, width)[None] if width else np.array(before)[:, None]
        made = np.where(depths > 0, wide, np.array(before)[:, None])  # channels, (before, options)
        after, known = np.unique(made).tolist(), np.unique([*before, *wide.flat]).tolist()
        given, wide, made = (np.searchsorted(known, channels) for channels in (np.array(before)[:, None], wide, made))
        hidden, kernel, se = (options[:, place] for place in range(3))
        squeezes = np.array(self._choices(own[2]))[se][:, None]
        costs = []
        for activation in self.activations:
            stride = 1 if depth else 2
            expand, depthwise, project, squeeze = self._units(own[0], own[1], known, stride, activation)
            others = expand[wide, hidden] + depthwise[hidden, kernel] + project[wide, hidden] + squeezes * squeeze[wide]
            whole = expand[given, hidden] - expand[wide, hidden] + depths[:, None] * others
            costs.append(np.where(depths[:, None] > 0, whole, 0))
        turns = np.arange(len(self.activations))[:, None, None] * len(after)
        follows = turns + np.searchsorted(after, np.array(known)[made])
        self.channels = after
        if depth is None:
            self.grid, self.reductions = half(self.grid), self.reductions + 1
        return self._part(names, options, np.concatenate(follows), np.concatenate(costs))

    def head(self) -> Part:
        """From the last map to the embedding."""
        names = ["head", "embedding_dim"]
        options = self._options(names, states=len(self.activations) * len(self.channels))
        heads, dims = self._choices("head"), self._choices("embedding_dim")
        last = np.array([[self._count(_probe(1, head=h, embedding_dim=d)["embedding"]) for d in dims] for h in heads])
        costs = []
        for activation, width in product(self.activations, self.channels):
            probes = [_probe(self.reductions, width, activation=activation, head=head) for head in heads]
            first = np.array([self._count(probe["head"]) + self._count(probe["gdc"]) for probe in probes])
            costs.append(first[options[:, 0]] + last[options[:, 0], options[:, 1]])
        return self._part(names, options, np.zeros((len(costs), len(options)), np.int64), np.stack(costs))

    def _units(self, hidden: str, kernel: str, widths: list[int], stride: int, activation: str) -> tuple[Numbers, ...]:
        """Costs of what a bottleneck is made of: expansion (widths, hidden, 2), depthwise convolution
        (hidden, kernels, 2), projection (widths, hidden, 2), squeeze-and-excitation (widths, 2)."""

        def count(unit: str, inputs: int = 1, hidden: int = 1, width: int = 1, kernel: int = 3) -> Numbers:
            layers = bottleneck(inputs, hidden, width, self.grid, kernel, stride, True, activation)
            return self._count(block_cost(tuple(layer for layer in layers if layer.name.startswith(unit))))

        hiddens, kernels = self._choices(hidden), self._choices(kernel)
        return (
            np.array([[count("expand.", inputs=width, hidden=h) for h in hiddens] for width in widths]),
            np.array([[count("depthwise.", hidden=h, kernel=k) for k in kernels] for h in hiddens]),
            np.array([[count("project.", hidden=h, width=width) for h in hiddens] for width in widths]),
            np.array([count("se.", width=width) for width in widths]),
        )

    def _count(self, cost: Cost) -> Numbers:
        return np.array([cost.flops(self.rule), cost.size_bytes])

    def _choices(self, name: str) -> tuple[Any, ...]:
        return self.space.genes[self.space.places[name]].choices

    def _values(self, options: Numbers, names: list[str], name: str) -> Numbers:
        return np.array(self._choices(name))[options[:, names.index(name)]]

    def _options(self, names: list[str], states: int) -> Numbers:
        """Every combination of choices, (n, names); InputError where there are too many to be counted."""
        counts = [len(self._choices(name)) for name in names]
        if (most := prod(counts) * states) > MOST_COSTS:
            where = f"{self.space.name}: {', '.join(names)} have {most:,} combinations with what comes before"
            raise InputError(f"{where}, wanted {MOST_COSTS:,} or less; leave out choices")
        return np.indices(counts).reshape(len(counts), -1).T

    def _part(self, names: list[str], options: Numbers, follows: Numbers, costs: Numbers) -> Part:
        return Part(tuple(self.space.places[name] for name in names), options, follows, costs)


def _probe(
    reductions: int, width: int = 1, stem: int = 1, head: int = 1, embedding_dim: int = 1, **others: Any
) -> dict[str, Cost]:
    """Costs by stage of a network that is there for its stem, head or embedding alone."""
    stages = (Stage(1, width, 1, 2, se=False),) * reductions
    arch = SEMobileFaceNet("probe", stem, stages, head, embedding_dim, **others)
    return {stage: cost for stage, _, _, cost in cost_by_stage(arch)}
