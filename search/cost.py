"""What an architecture costs, in closed form from its walk. No torch, no NumPy.

Two rules count work: `macs` (multiply-adds of convolutions and linear layers, bias free) and `lfrc`, the official
counter of the Lightweight Face Recognition Challenge with its quirks (docs/papers.md): nothing else counts, one
costs (2 * Cin * k^2 - 1) * H * W * Cout / groups without bias, (2 * Cin * k^2) * ... with bias. Cin is not divided by
the groups before the 1 is taken off. A linear layer is a 1x1 convolution on one place.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from mobileface.arch import Arch, Block, Layer

MIB = 1 << 20
RULES = ("lfrc", "macs")
FOLDED = {  # by kind: values for each output in the exported network; 0 for kinds that are not here
    "batch_norm": 1,  # folded, it leaves the bias of the convolution before it
    "pre_norm": 4,  # nothing before it to fold it into
    "prelu": 1,  # the norms behind a linear layer leave nothing: it has a bias of its own
    "energy": 2,
    "entropy": 2,
}


@dataclass(frozen=True, slots=True)
class Cost:
    """Counts of one architecture (or a part of it).

    params: trained values. untrained: what a checkpoint holds beside them, statistics and weights that stay 1.
    folded: values of the exported network, batch norms folded; folded_weights: those of them that int8 stores
    in a byte (weights of convolutions and linear layers; biases and slopes stay float32).
    """

    macs: int = 0
    flops_lfrc: int = 0
    params: int = 0
    untrained: int = 0
    folded: int = 0
    folded_weights: int = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of the network in float32 with running statistics: what the size budget limits."""
        return 4 * (self.params + self.untrained)

    @property
    def size_mib(self) -> float:
        """`size_bytes` in MiB (2^20 bytes)."""
        return self.size_bytes / MIB

    @property
    def bytes_by_precision(self) -> dict[str, int]:
        """Bytes of weights in an exported file, batch norms folded (the graph itself comes on top)."""
        int8 = self.folded_weights + 4 * (self.folded - self.folded_weights)
        return {"fp32": 4 * self.folded, "fp16": 2 * self.folded, "int8": int8}

    def flops(self, rule: str) -> int:
        """The work by a rule of RULES."""
        return {"lfrc": self.flops_lfrc, "macs": self.macs}[rule]


@lru_cache(maxsize=1 << 16)
def layer_cost(layer: Layer) -> Cost:
    """The cost of one layer; layers that neither rule counts still have parameters."""
    params, untrained = layer.values()
    if weights := layer.weights():
        area = layer.grid * layer.grid
        once = 2 * layer.inputs * layer.kernel * layer.kernel - (0 if layer.bias else 1)
        lfrc = once * area * layer.outputs // layer.groups
        return Cost(weights * area, lfrc, params, untrained, params, weights)
    return Cost(0, 0, params, untrained, FOLDED.get(layer.kind, 0) * layer.outputs)


@lru_cache(maxsize=1 << 16)
def block_cost(layers: tuple[Layer, ...]) -> Cost:
    """The sum over the layers of one block."""
    return total((layer_cost(layer), 1) for layer in layers)


def total(costs: Iterable[tuple[Cost, int]]) -> Cost:
    """Sum of (cost, multiplicity)."""
    macs = flops = params = untrained = folded = weights = 0
    for c, n in costs:
        macs += n * c.macs
        flops += n * c.flops_lfrc
        params += n * c.params
        untrained += n * c.untrained
        folded += n * c.folded
        weights += n * c.folded_weights
    return Cost(macs, flops, params, untrained, folded, weights)


def cost(arch: Arch) -> Cost:
    """The cost of a whole architecture."""
    return total((block_cost(block.layers), block.repeat) for block in arch.walk())


def cost_by_stage(arch: Arch) -> list[tuple[str, int, int, Cost]]:
    """(stage, output grid in px, blocks, cost) in order: where the work and the bytes go."""
    rows: dict[str, list[Block]] = {}
    for block in arch.walk():
        rows.setdefault(block.stage, []).append(block)
    return [
        (
            stage,
            blocks[-1].grid,
            sum(block.repeat for block in blocks),
            total((block_cost(block.layers), block.repeat) for block in blocks),
        )
        for stage, blocks in rows.items()
    ]
