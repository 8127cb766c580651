"""What every network has in common: built from a walk, pixels in, raw embeddings out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mobileface.arch import Arch, Block
from mobileface.models.blocks import module, place


class Network(nn.Module):
    """Pixels (B, 3, 112, 112) float RGB 0..255 -> raw embeddings (B, D), by the blocks of a walk in their order.

    The normalisation to [-1, 1] is its first operation, so that every caller hands in plain pixels.
    """

    def __init__(self, arch: Arch) -> None:
        super().__init__()
        self.arch = arch
        for block in arch.walk():
            for name in block.names():
                place(self, name, self.container(block))
                for layer in block.layers:
                    place(self, f"{name}.{layer.name}", module(layer))

    def container(self, block: Block) -> nn.Module:
        """The module that a block's layers are put into."""
        return nn.Sequential()

    def initialise(self, generator: torch.Generator) -> None:
        """Set the initial values."""
        raise NotImplementedError

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, 112, 112) in 0..255 -> (B, D), not normalised."""
        x = normalised(pixels)
        for part in self.children():
            x = part(x)
        return x.flatten(1)


def normalised(pixels: Tensor) -> Tensor:
    """0..255 -> -1..1."""
    return (pixels - 127.5) / 127.5


def fan_out(conv: nn.Conv2d) -> int:
    """How many output values one input value reaches."""
    return conv.out_channels * conv.kernel_size[0] * conv.kernel_size[1] // conv.groups
