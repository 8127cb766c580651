"""The same network with channels of like range, so that one scale for a whole tensor serves them all in int8.

After Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction,
https://arxiv.org/abs/1906.04721, section 4.1. Ours: ranges are those of values on crops, not those of weights, which
have a scale for each channel anyway.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from mobileface.models.fuse import fuse
from mobileface.models.iresnet import PreciseHead
from mobileface.models.quality import FeatureQuality

Net = TypeVar("Net", bound=nn.Module)

SCALED = (nn.PReLU, nn.LeakyReLU, nn.ReLU)  # f(s x) = s f(x) for s > 0
LEAST = 0.01  # of the widest channel's range: what is narrower on the crops may be wider on other faces
BATCH = 16


@torch.no_grad()
def equalise(network: Net, crops: NDArray[np.uint8]) -> Net:
    """Change the scales of channels in a network, in place, to the same function; returns the network.

    Where a convolution, an activation with f(s x) = s f(x) and a convolution follow one another and nothing else reads
    what is between them, channel c of the first is divided by s_c and what the second makes of it is multiplied. s_c
    is the channel's range on the crops (N, 112, 112, 3) uint8 RGB as a share of the widest channel's; in front of a
    convolution over all channels its square root, for there it goes into the spread of the weights. A batch norm that
    stands behind the first, not yet folded, is divided in its stead.
    """
    fused, own = fuse(network), dict(network.named_parameters())
    pairs = _pairs(fused)
    ranges = _ranges(fused, [first for first, _ in pairs], crops)
    for (first, second), largest in zip(pairs, ranges, strict=True):
        share = (largest / largest.max().clamp_min(torch.finfo(largest.dtype).tiny)).clamp_min(LEAST)
        giver, taken = _last(network, fused, first), own[f"{second}.weight"]
        alone = taken.shape[1] == 1
        scale = share if alone else share.sqrt()
        weight, bias = own[f"{giver}.weight"], own.get(f"{giver}.bias")
        weight.div_(scale.view(-1, *[1] * (weight.ndim - 1)))
        if bias is not None:
            bias.div_(scale)
        taken.mul_(scale.view((-1, 1, 1, 1) if alone else (1, -1, 1, 1)))
    return network


def _last(network: nn.Module, fused: nn.Module, name: str) -> str:
    """The name of the batch norm that folding takes into a layer, or the layer's own where there is none."""
    path, _, layer = name.rpartition(".")
    parts = network.get_submodule(path).named_children()
    behind = next((f"{path}.{two}".lstrip(".") for (one, _), (two, _) in pairwise(parts) if one == layer), name)
    return name if behind in dict(fused.named_modules()) else behind


class _Tracer(fx.Tracer):
    """Goes into all modules with parts but those whose code depends on values."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        """Whether a module is one operation."""
        return not list(module.children()) or isinstance(module, PreciseHead | FeatureQuality)


def _pairs(network: nn.Module) -> list[tuple[str, str]]:
    """Names of convolutions with only an activation of `SCALED` between them; the second one full or depthwise."""
    found = []
    for node in _Tracer().trace(network).nodes:
        chain = [node]
        while len(chain) < 3 and len(chain[-1].users) == 1:
            chain.append(next(iter(chain[-1].users)))
        if len(chain) < 3 or any(step.op != "call_module" for step in chain):
            continue
        names = [str(step.target) for step in chain]
        first, activation, second = map(network.get_submodule, names)
        if not isinstance(first, nn.Conv2d) or not isinstance(activation, SCALED) or not isinstance(second, nn.Conv2d):
            continue
        if second.groups in (1, second.out_channels):
            found.append((names[0], names[2]))
    return found


def _ranges(network: nn.Module, names: list[str], crops: NDArray[np.uint8]) -> list[Tensor]:
    """The largest absolute value of each channel of what each layer gives for the crops."""
    found = [torch.zeros_like(network.get_parameter(f"{name}.weight")[:, 0, 0, 0]) for name in names]

    def look(place: int, output: Tensor) -> None:
        found[place] = torch.maximum(found[place], output.abs().amax((0, 2, 3)))

    hooks = [
        network.get_submodule(name).register_forward_hook(lambda part, args, output, place=place: look(place, output))
        for place, name in enumerate(names)
    ]
    try:
        for start in range(0, len(crops), BATCH):
            pixels = torch.from_numpy(crops[start : start + BATCH].transpose(0, 3, 1, 2).astype(np.float32))
            network(pixels.to(found[0]) if found else pixels)
    finally:
        for hook in hooks:
            hook.remove()
    return found
