"""A network with more blocks in a row, and the same function."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from mobileface.arch import SEMobileFaceNet
from mobileface.errors import InputError
from mobileface.models import build
from mobileface.models.mobilefacenet import Bottleneck
from mobileface.models.network import Network


def deeper(arch: SEMobileFaceNet, row: int, blocks: int) -> SEMobileFaceNet:
    """The architecture with so many blocks more at the end of a row, as wide inside as the row's widest block.

    (After a pruning the last one is often the thinnest.)

    row: from 0; -1 is the last one, of the smallest maps.
    """
    rows = list(arch.stages)
    if not -len(rows) <= row < len(rows):
        raise InputError(
            f"row is {row}; {arch.name} has {len(rows)} rows, wanted 0 to {len(rows) - 1}, or -1 for the last"
        )
    old = rows[row]
    hidden = old.hidden if isinstance(old.hidden, int) else old.hidden + (max(old.hidden),) * blocks
    rows[row] = replace(old, hidden=hidden, depth=old.depth + blocks)
    return replace(arch, stages=tuple(rows))


@torch.no_grad()
def deepen(
    network: nn.Module, arch: SEMobileFaceNet, row: int, blocks: int, seed: int = 0
) -> tuple[SEMobileFaceNet, Network]:
    """The network with new residual blocks at the end of a row (see `deeper`); it gives what it gave, bit for bit.

    A new block begins as nothing beside its input: the gain of the batch norm behind its projection is 0 (Goyal et al.
    2017, https://arxiv.org/abs/1706.02677, section 5.1), and so is what SE makes of it. The gain is the first to move.
    """
    larger = deeper(arch, row, blocks)
    made, place = build(larger, seed), row % len(arch.stages)
    made.load_state_dict({**made.state_dict(), **network.state_dict()})
    for block in range(arch.stages[place].depth, larger.stages[place].depth):
        new = made.get_submodule(f"stages.{place}.{block}")
        assert isinstance(new, Bottleneck)
        assert new.residual
        new.get_parameter("project.bn.weight").zero_()
    return larger, made.eval()
