"""The modules that an architecture's walk is made of; their names are the walk's names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mobileface.arch import Layer
from mobileface.errors import InputError


def module(layer: Layer) -> nn.Module:
    """One layer of the walk as a torch module."""
    if layer.kind == "conv":
        size = (layer.kernel, layer.stride, layer.padding)
        return nn.Conv2d(layer.inputs, layer.outputs, *size, groups=layer.groups, bias=layer.bias)
    if layer.kind not in MODULES:
        raise InputError(f"layer {layer.name}: kind {layer.kind!r} is not known; known: conv, {', '.join(MODULES)}")
    return MODULES[layer.kind](layer.outputs)


MODULES: dict[str, Callable[[int], nn.Module]] = {
    "batch_norm": nn.BatchNorm2d,
    "prelu": nn.PReLU,  # one slope a channel, from 0.25
    "leaky_relu": lambda channels: nn.LeakyReLU(0.25),
    "hard_swish": lambda channels: nn.Hardswish(),
    "sigmoid": lambda channels: nn.Sigmoid(),
    "pool": lambda channels: nn.AdaptiveAvgPool2d(1),
}


class SqueezeExcitation(nn.Sequential):
    """x times a gate of its channel means: (B, C, H, W) -> (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """The gated map."""
        return x * super().forward(x)


class Bottleneck(nn.Sequential):
    """Expansion, depthwise, projection, SE; plus its input where shapes allow (Fig. 2 of the paper)."""

    def __init__(self, units: OrderedDict[str, nn.Module], residual: bool) -> None:
        super().__init__(units)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, width, H / stride, W / stride)."""
        y = super().forward(x)
        return x + y if self.residual else y


def sequence(layers: tuple[Layer, ...]) -> nn.Sequential:
    """Layers named `unit.layer` as nested modules; plain names as one sequence."""
    if all("." not in layer.name for layer in layers):
        return nn.Sequential(OrderedDict((layer.name, module(layer)) for layer in layers))
    units: OrderedDict[str, nn.Module] = OrderedDict()
    for unit in dict.fromkeys(layer.name.split(".")[0] for layer in layers):
        own = [layer for layer in layers if layer.name.split(".")[0] == unit]
        parts = OrderedDict((layer.name.split(".", 1)[1], module(layer)) for layer in own)
        units[unit] = SqueezeExcitation(parts) if unit == "se" else nn.Sequential(parts)
    return nn.Sequential(units)


def initialise(net: nn.Module, generator: torch.Generator) -> None:
    """Kaiming-normal (fan out, slope of PReLU 0.25) convolutions, zero biases; batch norms 1 and 0.

    The sources differ (`docs/papers.md`); ours is He et al. 2015, eq. 15 with the slope that PReLU starts from.
    A squeeze-and-excitation gate starts near sigmoid(0) = 0.5.
    """
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            fan_out = part.out_channels * part.kernel_size[0] * part.kernel_size[1] // part.groups
            std = (2 / (1 + 0.25**2) / fan_out) ** 0.5
            with torch.no_grad():
                part.weight.normal_(0, std, generator=generator)
                if part.bias is not None:
                    part.bias.zero_()
