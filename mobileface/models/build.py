"""An architecture's rows become a network."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from mobileface.arch import Arch
from mobileface.models.blocks import Bottleneck, initialise, sequence


class MobileFaceNet(nn.Module):
    """SE-MobileFaceNet: pixels (B, 3, 112, 112) float RGB 0..255 -> raw embeddings (B, D).

    The normalisation to [-1, 1] is its first operation, so that every caller hands in plain pixels. The last
    batch norm stands before the flatten, where exporters can fold it.
    """

    def __init__(self, arch: Arch) -> None:
        super().__init__()
        self.arch = arch
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        for block in arch.walk():
            for name in block.names():
                body = sequence(block.layers)
                if block.first is not None:
                    body = Bottleneck(OrderedDict(body.named_children()), block.residual)
                _place(blocks, name, body)
        for name, part in blocks.items():
            self.add_module(name, part)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, 112, 112) in 0..255 -> (B, D), not normalised."""
        x = (pixels - 127.5) / 127.5
        for part in self.children():
            x = part(x)
        return x.flatten(1)


def _place(blocks: OrderedDict[str, nn.Module], name: str, body: nn.Module) -> None:
    """Put `stages.0.1` into nested sequences, as state dicts name it."""
    head, _, rest = name.partition(".")
    if not rest:
        blocks[head] = body
        return
    stage, _, block = rest.partition(".")
    outer = blocks.setdefault(head, nn.Sequential())
    if stage not in dict(outer.named_children()):
        outer.add_module(stage, nn.Sequential())
    dict(outer.named_children())[stage].add_module(block, body)


def build(arch: Arch, seed: int = 0) -> MobileFaceNet:
    """The network of an architecture, initialised from `seed` (see `blocks.initialise`)."""
    net = MobileFaceNet(arch)
    initialise(net, torch.Generator().manual_seed(seed))
    return net
