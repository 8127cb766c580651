"""Layers whose backward pass torch does slowly on a CPU, by other operations: the same functions, gradients and names.

On a GPU, in eval mode and in exports these are torch's own layers.
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
    """A depthwise nn.Conv2d with a stride, an odd kernel and half of it as padding.

    Under a CPU's bf16 autocast it is computed without the stride, and every stride-th value taken: oneDNN has no fast
    backward pass in bf16 with one.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H / stride, W / stride), rounded up."""
        if input.device.type != "cpu" or not torch.is_autocast_enabled("cpu") or not torch.is_grad_enabled():
            return super().forward(input)
        whole = F.conv2d(input, self.weight, self.bias, padding=self.padding, groups=self.groups)
        rows, columns = self.stride
        if torch.compiler.is_compiling():
            return whole[:, :, ::rows, ::columns]
        taken: Tensor = _Taken.apply(whole, rows, columns)
        return taken


class _Taken(torch.autograd.Function):
    """x[:, :, ::rows, ::columns]. torch's own gradient of it leaves channels_last, which the convolution then mends."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: int, columns: int) -> Tensor:
        ctx.shape, ctx.steps = x.shape, (rows, columns)
        return x[:, :, ::rows, ::columns].contiguous(memory_format=torch.channels_last)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        grad_x = torch.empty(ctx.shape, dtype=grad.dtype, memory_format=torch.channels_last).zero_()
        grad_x[:, :, :: ctx.steps[0], :: ctx.steps[1]] = grad
        return grad_x, None, None
