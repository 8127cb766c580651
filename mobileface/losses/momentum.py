"""A slowly following copy of the network (MoCo, He et al. 2020)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from mobileface.statistics import Stepped


class MomentumEncoder(Stepped):
    """The network as it was, on the average: behind each step w <- m w + (1 - m) w of the network, buffers too.

    It takes what the network takes, without gradient, in training mode: its batch norms see the batch. Part of the
    checkpoint; no optimizer moves it.
    """

    def __init__(self, network: nn.Module, momentum: float) -> None:
        super().__init__()
        self.copy = copy.deepcopy(network).requires_grad_(False)
        self.copy.zero_grad(set_to_none=True)
        self.momentum = momentum
        self._network = (network,)  # not a part of this one

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, 112, 112) -> (B, D)."""
        embedded: Tensor = self.copy(pixels)
        return embedded

    @torch.no_grad()
    def end_step(self) -> None:
        """Follow the network by one step."""
        (network,) = self._network
        own, theirs = self.copy.state_dict(), network.state_dict()
        for name, tensor in own.items():
            if tensor.is_floating_point():
                tensor.lerp_(theirs[name], 1 - self.momentum)
            else:
                tensor.copy_(theirs[name])
