"""Layers whose backward pass torch does slowly on a CPU, by other operations: the same functions, gradients and names.

Measured by benchmarks/train_speed.py; on a GPU, in eval mode and in exports these are torch's own layers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class PReLU(nn.PReLU):
    """nn.PReLU, one slope a channel. torch's backward on a CPU selects element by element, without vectors."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, ...) -> the same shape."""
        plain = input.device.type != "cpu" or torch.compiler.is_compiling()
        if self.training and torch.is_grad_enabled() and not plain:
            result: Tensor = _PReLU.apply(input, self.weight)
            return result
        return super().forward(input)


class _PReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(x, slopes)
        return F.prelu(x, slopes.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, slopes = ctx.saved_tensors
        shape = (1, -1, *[1] * (x.ndim - 2))
        positive = torch.ops.aten.threshold_backward(grad, x, 0)  # grad where x > 0, else 0
        negative = grad - positive
        grad_x = torch.addcmul(positive, negative, slopes.to(grad.dtype).view(shape))
        by_channel = negative.mul_(x).movedim(1, -1).flatten(0, -2)
        ones = by_channel.new_ones(1, len(by_channel))
        return grad_x, (ones @ by_channel)[0].to(slopes.dtype)  # a product adds faster than a sum


class StridedDepthwise(nn.Conv2d):
    """A depthwise nn.Conv2d with a stride, in float32 also under a CPU's bf16 autocast: there oneDNN has no fast
    backward pass in bf16 for it, a sixth of the speed of float32."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H / stride, W / stride), in the type that autocast would give."""
        if input.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float()).to(torch.get_autocast_dtype("cpu"))
