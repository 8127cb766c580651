"""Small networks whose norm or maps are known by how they are made."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from mobileface.arch import LGAF
from mobileface.embedders.network import NetworkEmbedder
from mobileface.models import build

SMALL = LGAF("small", (1, 1, 1, 1), (16, 16, 16, 16), 8, heads=2, shortcut="subsample")


class Sharpness(nn.Module):
    """Its norm is the mean difference of neighbouring pixels: it falls with blur and with resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.AvgPool2d(16)  # the last map: 7 x 7
        self.unused = nn.Parameter(torch.zeros(1))  # says on which device it lies

    def forward(self, pixels: Tensor) -> Tensor:
        self.stages(pixels)
        across = (pixels[..., 1:] - pixels[..., :-1]).abs().mean((1, 2, 3))
        down = (pixels[..., 1:, :] - pixels[..., :-1, :]).abs().mean((1, 2, 3))
        return torch.stack([across, down], 1)


def embedder(network: nn.Module) -> NetworkEmbedder:
    return NetworkEmbedder(network, Path("no-file"), "00")


def lgaf(seed: int = 0, arch: LGAF = SMALL) -> NetworkEmbedder:
    """An LGAF with random weights and statistics, in eval mode."""
    network = build(arch, seed)
    generator = torch.Generator().manual_seed(seed)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d):
            part.running_mean = torch.randn(part.num_features, generator=generator) / 4
            part.running_var = 0.5 + torch.rand(part.num_features, generator=generator)
    return embedder(network)
