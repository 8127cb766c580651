"""The modules that an architecture's walk is made of; their names are the walk's names."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mobileface.arch import Layer
from mobileface.errors import InputError
from mobileface.models.fast import PReLU, StridedDepthwise
from mobileface.models.quality import FeatureQuality
from mobileface.models.strided import StridedPointwise


def module(layer: Layer) -> nn.Module:
    """One layer of the walk as a torch module."""
    if layer.kind not in MODULES:
        raise InputError(f"layer {layer.name}: kind {layer.kind!r} is not known; known: {', '.join(MODULES)}")
    return MODULES[layer.kind](layer)


def _conv(layer: Layer) -> nn.Module:
    size = (layer.kernel, layer.stride, layer.padding)
    kind: type[nn.Conv2d] = nn.Conv2d
    if layer.stride > 1 and layer.groups == layer.inputs > 1:
        kind = StridedDepthwise
    elif layer.stride > 1 and layer.kernel == 1:
        kind = StridedPointwise
    return kind(layer.inputs, layer.outputs, *size, groups=layer.groups, bias=layer.bias)


def _bias_norm(layer: Layer) -> nn.Module:
    norm = nn.BatchNorm1d(layer.outputs)
    norm.weight.requires_grad_(False)  # a parameter nevertheless: InsightFace's state dicts hold it
    return norm


MODULES: dict[str, Callable[[Layer], nn.Module]] = {
    "conv": _conv,
    "linear": lambda layer: nn.Linear(layer.inputs, layer.outputs, layer.bias),
    "batch_norm": lambda layer: nn.BatchNorm2d(layer.outputs),
    "pre_norm": lambda layer: nn.BatchNorm2d(layer.outputs),
    "bias_norm": _bias_norm,
    "plain_norm": lambda layer: nn.BatchNorm1d(layer.outputs, affine=False),
    "prelu": lambda layer: PReLU(layer.outputs),  # one slope a channel, from 0.25
    "leaky_relu": lambda layer: nn.LeakyReLU(0.25),
    "hard_swish": lambda layer: nn.Hardswish(),
    "relu": lambda layer: nn.ReLU(),
    "sigmoid": lambda layer: nn.Sigmoid(),
    "pool": lambda layer: nn.AdaptiveAvgPool2d(1),
    "max_pool": lambda layer: nn.MaxPool2d(layer.kernel, layer.stride),
    "flatten": lambda layer: nn.Flatten(),
    "dropout": lambda layer: nn.Dropout(),
    "energy": lambda layer: FeatureQuality("energy"),
    "entropy": lambda layer: FeatureQuality("entropy"),
}


class Gated(nn.Sequential):
    """x times the gate that its layers make of x, (B, C, 1, 1) or (B, 1, H, W): (B, C, H, W) -> (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """The gated map."""
        return x * super().forward(x)


class Parallel(nn.Module):
    """Its parts' answers to the same input, side by side in dimension 1."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> (B, sum of the parts' widths, ...)."""
        return torch.cat([part(x) for part in self.children()], 1)


# by the last word of a name; any other is a sequence
CONTAINERS: dict[str, Callable[[], nn.Module]] = {
    "se": Gated,  # squeeze-and-excitation
    "lanet": Gated,
    "scales": Parallel,
    "mhms": Parallel,
}


def place(net: nn.Module, name: str, part: nn.Module) -> None:
    """Put `part` under a dotted name, as state dicts write it; containers on the way are made."""
    *path, last = name.split(".")
    for step in path:
        if step not in dict(net.named_children()):
            net.add_module(step, CONTAINERS.get(step, nn.Sequential)())
        net = net.get_submodule(step)
    net.add_module(last, part)
