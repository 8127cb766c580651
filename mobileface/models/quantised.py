"""What int8 makes of a network, computed in float32: every value is rounded to the 256 that int8 has.

As the runtimes do it: weights symmetric per output channel, -127..127 of max|w|; every tensor between two operations
per tensor in 0..255 with a zero point, in a range that was observed on images. Jacob et al. 2018,
https://arxiv.org/abs/1712.05877, whose rounding in training this is as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mobileface.models.blocks import Gated, Parallel
from mobileface.models.fuse import fuse
from mobileface.models.iresnet import ResidualUnit
from mobileface.models.lgaf import IterativeFusion, WeightedSum
from mobileface.models.mobilefacenet import Bottleneck

WEIGHTED = (nn.Conv2d, nn.Linear)
ELEMENTWISE = (nn.PReLU, nn.LeakyReLU, nn.Hardswish, nn.ReLU, nn.Sigmoid)
# beside these: what a network adds up, multiplies, averages or puts side by side outside of its layers
JOINING = (nn.AdaptiveAvgPool2d, nn.BatchNorm2d, nn.BatchNorm1d, Gated, Parallel, ResidualUnit, WeightedSum)
MOST_WEIGHT, MOST_VALUE = 127, 255
LEAST_RANGE = 1e-12  # of a tensor that was zero on every image
ROUNDED = "rounded_to_int8"  # a tensor's mark, so that it is not rounded again


def int8_points(fused: nn.Module) -> list[str]:
    """Names of the modules of a fused network whose results int8 rounds, in the order of its modules.

    A `Gated` is a point for its product, a residual block for its sum.
    """
    kinds = (*WEIGHTED, *ELEMENTWISE, *JOINING, IterativeFusion)
    return [n for n, m in fused.named_modules() if isinstance(m, kinds) or (isinstance(m, Bottleneck) and m.residual)]


class Ranges(nn.Module):
    """The least and the most value of each point's input and output; zero always lies between them."""

    bounds: Tensor  # (points, input and output, least and most)

    def __init__(self, points: int) -> None:
        super().__init__()
        self.register_buffer("bounds", torch.zeros(points, 2, 2))

    def widen(self, point: int, side: int, x: Tensor) -> None:
        """Take in what was seen of a tensor."""
        least, most = self.bounds[point, side].unbind()
        least.copy_(torch.minimum(least, x.min()))
        most.copy_(torch.maximum(most, x.max()))

    def grids(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point (int32) of each, (points, 2)."""
        least, most = self.bounds.unbind(2)
        scales = ((most - least) / MOST_VALUE).clamp_min(LEAST_RANGE)
        return scales, (-least / scales).round().clamp(0, MOST_VALUE).to(torch.int32)


class Int8Network(nn.Module):
    """Pixels (B, 3, 112, 112) -> raw embeddings (B, D), as `network` would give them in int8 with its norms folded.

    keep: names of points (see `int8_points`) that stay float: their weights are not rounded, and a tensor is float
    where neither what makes it nor what reads it is in int8. (What a sum or product adds up inside of its own module
    is rounded by its makers alone.) With all of them kept it is the fused network, bit for bit.

    Parameters and batch norms are `network`'s own; the fold is done anew in every forward, with its running
    statistics, so that training it trains `network`. A gradient goes straight through the rounding, and is zero for
    values outside of the range. Always in float32, also under autocast: bf16 has too few digits for int8's steps.
    """

    def __init__(self, network: nn.Module, keep: Iterable[str] = ()) -> None:
        super().__init__()
        self.network = network
        self._fused = (fuse(network),)  # a tuple, so that its tensors, never used, are no part of this module
        self.points = {name: number for number, name in enumerate(int8_points(self.fused))}
        self.keep = frozenset(keep)
        if unknown := self.keep - self.points.keys():
            raise ValueError(f"keep: {min(unknown)!r} is no part that int8 rounds")
        self.ranges = Ranges(len(self.points))
        self._observing = False
        self._before_relu = _before_relu(self.fused)  # one operation with it: its own result is never stored
        for name in self.points:
            module = self.fused.get_submodule(name)
            module.register_forward_pre_hook(partial(self._enters, name))
            module.register_forward_hook(partial(self._leaves, name))

    @property
    def fused(self) -> nn.Module:
        """The network that is run: `network` without its folded batch norms; its own tensors are stale."""
        return self._fused[0]

    def forward(self, pixels: Tensor) -> Tensor:
        """float RGB 0..255 -> what int8 would give."""
        tensors = folded(self.network, self.fused)
        self._scales, self._zeros = self.ranges.grids()
        if not self._observing:
            for name in self.points.keys() - self.keep:
                if isinstance(self.fused.get_submodule(name), WEIGHTED):
                    tensors[f"{name}.weight"] = rounded_weight(tensors[f"{name}.weight"])
        with torch.autocast(pixels.device.type, enabled=False):
            found: Tensor = functional_call(self.fused, tensors, (pixels.float(),))
        return found

    @torch.no_grad()
    def observe(self, pixels: Tensor) -> None:
        """Widen the ranges to what the float network makes of these images."""
        self._observing = True
        try:
            self(pixels)
        finally:
            self._observing = False

    def _enters(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(self._stored(name, 0, x) for x in args)

    def _leaves(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return output if name in self._before_relu else self._stored(name, 1, output)

    def _stored(self, name: str, side: int, x: Tensor) -> Tensor:
        """A tensor as it comes back from where it is stored in int8; or noted, while ranges are observed."""
        number = self.points[name]
        if self._observing:
            self.ranges.widen(number, side, x)
            return x
        if name in self.keep or hasattr(x, ROUNDED):
            return x
        result = rounded(x, self._scales[number, side], self._zeros[number, side])
        setattr(result, ROUNDED, True)
        return result


def rounded(x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """The nearest of scale * (0 - zero), ..., scale * (255 - zero)."""
    if torch.is_grad_enabled() and x.requires_grad:
        return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, MOST_VALUE)
    grid = (x * (1 / scale)).round_()  # torch's operation takes three times as long for the same bits
    return grid.clamp_(-zero, MOST_VALUE - zero).mul_(scale)


def rounded_weight(weight: Tensor) -> Tensor:
    """(D, ...) -> the nearest multiples of each row's max / 127."""
    scale = (weight.detach().abs().flatten(1).amax(1) / MOST_WEIGHT).clamp_min(LEAST_RANGE)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -MOST_WEIGHT, MOST_WEIGHT)


def folded(network: nn.Module, fused: nn.Module) -> dict[str, Tensor]:
    """The tensors of `fused`, which is `fuse(network)`, by name, as functions of those of `network`: with gradients
    to weights, gains and shifts. The running statistics are constants."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    there = dict(fused.named_modules())
    for path, part in network.named_modules():
        for (layer, _), (norm, module) in pairwise(part.named_children()) if isinstance(part, nn.Sequential) else ():
            if (gone := _join(path, norm)) not in there:
                tensors |= _folded(tensors, _join(path, layer), gone, module.eps)  # type: ignore[arg-type]
    wanted = [*dict(fused.named_parameters()), *dict(fused.named_buffers())]
    return {name: tensors[name] for name in wanted}


def _folded(tensors: dict[str, Tensor], layer: str, norm: str, eps: float) -> dict[str, Tensor]:
    """Weight and bias of a layer with the norm behind it, as `fuse` has them."""
    weight, bias = tensors[f"{layer}.weight"], tensors.get(f"{layer}.bias")
    scale = 1 / torch.sqrt(tensors[f"{norm}.running_var"].double() + eps)
    scale = scale * tensors[f"{norm}.weight"].double() if f"{norm}.weight" in tensors else scale
    centred = (0 if bias is None else bias.double()) - tensors[f"{norm}.running_mean"].double()
    shift = tensors[f"{norm}.bias"].double() if f"{norm}.bias" in tensors else 0
    return {
        f"{layer}.weight": (weight.double() * scale.view(-1, *[1] * (weight.ndim - 1))).to(weight.dtype),
        f"{layer}.bias": (shift + centred * scale).to(weight.dtype),
    }


def _before_relu(fused: nn.Module) -> set[str]:
    """Names of layers that a ReLU follows at once."""
    found = set()
    for path, part in fused.named_modules():
        for (name, one), (_, two) in pairwise(part.named_children()) if isinstance(part, nn.Sequential) else ():
            if isinstance(one, WEIGHTED) and isinstance(two, nn.ReLU):
                found.add(_join(path, name))
    return found


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
