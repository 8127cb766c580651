"""SE-MobileFaceNets."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mobileface.arch import Block
from mobileface.models.network import Network, fan_out


class MobileFaceNet(Network):
    """SE-MobileFaceNet. The last batch norm stands before the flatten, where exporters can fold it."""

    def container(self, block: Block) -> nn.Module:
        """A bottleneck for each block of a row."""
        return nn.Sequential() if block.first is None else Bottleneck(block.residual)

    def initialise(self, generator: torch.Generator) -> None:
        """Kaiming-normal (fan out, slope of PReLU 0.25) convolutions, zero biases; batch norms 1 and 0.

        The sources differ (`docs/papers.md`); ours is He et al. 2015, eq. 15 with the slope that PReLU starts from.
        A squeeze-and-excitation gate starts near sigmoid(0) = 0.5.
        """
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                std = (2 / (1 + 0.25**2) / fan_out(part)) ** 0.5
                with torch.no_grad():
                    part.weight.normal_(0, std, generator=generator)
                    if part.bias is not None:
                        part.bias.zero_()


class Bottleneck(nn.Sequential):
    """Expansion, depthwise, projection, SE; plus its input where shapes allow (Fig. 2 of the paper)."""

    def __init__(self, residual: bool) -> None:
        super().__init__()
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, width, H / stride, W / stride)."""
        y = super().forward(x)
        return x + y if self.residual else y
