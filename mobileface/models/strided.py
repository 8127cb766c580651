"""A 1x1 convolution with a stride whose backward pass is safe on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class StridedPointwise(nn.Conv2d):
    """nn.Conv2d of kernel 1, no padding and a stride: the same function, gradients and names.

    oneDNN (3.12, in torch 2.13) writes past its workspace when it computes the gradient of such a weight from a
    channels_last map with fewer channels than its vectors hold: wrong numbers or a crash
    (https://github.com/uxlfoundation/oneDNN/issues/6035). So on a CPU, where gradients are asked for, every
    stride-th value is taken first; the convolution that is left has no stride. Elsewhere it is torch's own.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, H / stride, W / stride), rounded up."""
        if input.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(input)
        rows, columns = self.stride
        return nn.functional.conv2d(input[:, :, ::rows, ::columns], self.weight, self.bias, groups=self.groups)
