"""PReLU as primitives: ONNX Runtime's own kernel branches by sign, and takes more than half of a network's time.

`MaxForm` and `SplitForm` equal PReLU for every finite input, bit for bit but for the sign of zero: rounding keeps
order, and what is added to a result is zero. `ConvForm` is the fastest in ONNX Runtime, and rounds once more. LeakyReLU
and hard-swish stay: ONNX Runtime runs them fastest as they are, LeakyReLU as a part of the convolution before it and in
int8 by a table (`benchmarks/onnx_forms.py`).
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from mobileface.errors import InputError

Net = TypeVar("Net", bound=nn.Module)


class MaxForm(nn.Module):
    """max(x, a x) on maps (B, C, H, W): PReLU where no slope a (C, 1, 1) is above 1; negative ones may be."""

    slope: Tensor

    def __init__(self, slope: Tensor) -> None:
        super().__init__()
        self.register_buffer("slope", slope)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return torch.maximum(x, x * self.slope)


class SplitForm(MaxForm):
    """max(x, 0) + a min(x, 0): PReLU for any slope, at two operations more."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return torch.relu(x) + x.clamp(max=0) * self.slope


class ConvForm(MaxForm):
    """x + max((a - 1) x, 0), the product as a depthwise convolution: equal but for rounding where no slope is above 1.

    ONNX Runtime keeps maps in blocks of channels between convolutions and sums, and turns them around for a maximum. In
    int8 it has no fast maximum at all; this one is a convolution's own range.
    """

    less: Tensor

    def __init__(self, slope: Tensor) -> None:
        super().__init__(slope)
        self.register_buffer("less", (slope - 1).reshape(-1, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return x + torch.relu(nn.functional.conv2d(x, self.less, groups=len(self.less)))


def rewritten(prelu: nn.PReLU, form: type[MaxForm] = MaxForm, name: str = "PReLU") -> nn.Module:
    """The same function on maps (B, C, H, W): `form`, or `SplitForm` where a slope is above 1.

    InputError for a slope that is NaN or infinite.
    """
    slope = prelu.weight.detach().clone().reshape(-1, 1, 1)
    bad = torch.nonzero(~torch.isfinite(slope.flatten())).flatten().tolist()
    if bad:
        raise InputError(f"{name}: slope of channel {bad[0]} is {slope[bad[0]].item()}, wanted finite slopes")
    if not bool((slope <= 1).all()):
        return SplitForm(slope)
    return MaxForm(slope) if len(slope) == 1 else form(slope)  # one slope for all channels is no convolution's


def rewrite_activations(network: Net, form: type[MaxForm] = MaxForm) -> Net:
    """Replace every `nn.PReLU` inside `network` by its `rewritten` form, in place; returns the network."""
    for path, part in list(network.named_modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, nn.PReLU):
                setattr(part, name, rewritten(child, form, f"{path}.{name}".lstrip(".")))
    return network
