"""PReLU as element-wise primitives: ONNX Runtime's PReLU kernel takes more than half of a network's time.

`MaxForm` and `SplitForm` equal PReLU for every finite input, bit for bit but for the sign of zero: rounding keeps
order, and what is added to a result is zero. LeakyReLU and hard-swish stay: ONNX Runtime runs them fastest as they are,
LeakyReLU as a part of the convolution before it and in int8 by a table (`benchmarks/onnx_forms.py`).
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


class AddForm(MaxForm):
    """x + max((a - 1) x, 0), equal but for rounding: PReLU in int8 where no slope is above 1.

    The runtimes have no fast maximum in int8, but products and sums; this maximum is a product's own range.
    """

    less: Tensor

    def __init__(self, slope: Tensor) -> None:
        super().__init__(slope)
        self.register_buffer("less", slope - 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return x + torch.relu(x * self.less)


def rewritten(prelu: nn.PReLU, name: str = "PReLU", int8: bool = False) -> nn.Module:
    """The same function on maps (B, C, H, W). InputError for a slope that is NaN or infinite."""
    slope = prelu.weight.detach().clone().reshape(-1, 1, 1)
    bad = torch.nonzero(~torch.isfinite(slope.flatten())).flatten().tolist()
    if bad:
        raise InputError(f"{name}: slope of channel {bad[0]} is {slope[bad[0]].item()}, wanted finite slopes")
    if not bool((slope <= 1).all()):
        return SplitForm(slope)
    return AddForm(slope) if int8 else MaxForm(slope)


def rewrite_activations(network: Net, int8: bool = False) -> Net:
    """Replace every `nn.PReLU` inside `network` by its rewritten form, in place; returns the network."""
    for path, part in list(network.named_modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, nn.PReLU):
                setattr(part, name, rewritten(child, f"{path}.{name}".lstrip("."), int8))
    return network
