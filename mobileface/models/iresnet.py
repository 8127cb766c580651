"""IR-ResNets."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mobileface.arch import Block, IResNet
from mobileface.models.network import Network, fan_out

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


class ResidualNetwork(Network):
    """IR-ResNet: the walk says what it is made of, its architecture the eps of batch norms and the dropout's rate."""

    arch: IResNet

    def __init__(self, arch: IResNet) -> None:
        super().__init__(arch)
        for part in self.modules():
            if isinstance(part, NORMS):
                part.eps = arch.eps
            elif isinstance(part, nn.Dropout):
                part.p = arch.dropout

    def container(self, block: Block) -> nn.Module:
        """A residual unit for each unit of a stage, and the head."""
        if block.residual:
            return ResidualUnit()
        return PreciseHead() if block.prefix == "head" else nn.Sequential()

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """As the public code of the convention that `shortcut` stands for; batch norms 1 and 0, slopes 0.25.

        "conv" (InsightFace): convolutions N(0, 0.1); weights and biases of the linear layer within 1 / sqrt(fan in),
        torch's own. "subsample" (AdaFace): both kaiming-normal (fan out, gain of ReLU), the bias zero.
        """
        public = self.arch.shortcut == "conv"
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                part.weight.normal_(0, 0.1 if public else (2 / fan_out(part)) ** 0.5, generator=generator)
            elif isinstance(part, nn.Linear):
                if public:
                    bound = part.in_features**-0.5
                    part.weight.uniform_(-bound, bound, generator=generator)
                    part.bias.uniform_(-bound, bound, generator=generator)
                else:
                    part.weight.normal_(0, (2 / part.out_features) ** 0.5, generator=generator)
                    part.bias.zero_()


class PreciseHead(nn.Sequential):
    """[Dropout], flatten, linear, batch norm: in its weights' type (float32) under autocast too, as InsightFace's code
    has it. In bf16 an embedding would have three digits."""

    linear: nn.Linear

    def forward(self, x: Tensor) -> Tensor:
        """The last map (B, C, 7, 7) -> (B, D)."""
        device = x.device.type
        if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
            return super().forward(x)
        with torch.autocast(device, enabled=False):
            return super().forward(x.to(self.linear.weight.dtype))


class ResidualUnit(nn.Module):
    """Its layers in their order, plus the input, which goes by way of `shortcut` where shapes differ."""

    norm: nn.Module
    first: nn.Module
    second: nn.Module
    shortcut: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, width, H / stride, W / stride)."""
        y = self.second(self.first(self.norm(x)))
        return y + (self.shortcut(x) if hasattr(self, "shortcut") else x)
