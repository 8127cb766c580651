"""Networks as the public codes define them, with their names: what tests hold ours to.

Each is fed what its own code feeds it: (B, 3, 112, 112), normalised, in its own order of channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def scrambled(net: nn.Module, seed: int = 0) -> nn.Module:
    """In eval mode, with numbers of its own in every batch norm, slope and bias; a frozen 1 stays 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.3, generator=generator)  # type: ignore[union-attr]
                part.running_var.uniform_(0.5, 1.5, generator=generator)  # type: ignore[union-attr]
                part.num_batches_tracked.fill_(7)  # type: ignore[union-attr]
                if part.affine:
                    part.bias.normal_(0, 0.2, generator=generator)
                    if part.weight.requires_grad:
                        part.weight.uniform_(0.5, 1.5, generator=generator)
            elif isinstance(part, nn.Conv2d | nn.Linear):
                part.weight.normal_(0, part.weight[0].numel() ** -0.5, generator=generator)
                if part.bias is not None:
                    part.bias.normal_(0, 0.2, generator=generator)
            elif isinstance(part, nn.PReLU):
                part.weight.uniform_(-0.1, 0.5, generator=generator)
    return net.eval()


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)


# -- arcface_torch


class ArcFaceUnit(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, eps: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs, eps)
        self.conv1 = conv(inputs, width, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(width, eps)
        self.prelu = nn.PReLU(width)
        self.conv2 = conv(width, width, 3, stride, 1)
        self.bn3 = nn.BatchNorm2d(width, eps)
        self.downsample = None
        if stride != 1 or inputs != width:
            self.downsample = nn.Sequential(conv(inputs, width, 1, stride), nn.BatchNorm2d(width, eps))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return y + (x if self.downsample is None else self.downsample(x))


class ArcFace(nn.Module):
    """InsightFace's iresnet; eps 2e-5 in ports of its mxnet models."""

    def __init__(
        self, depths: Sequence[int], widths: Sequence[int] = (64, 128, 256, 512), dim: int = 512, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.conv1 = conv(3, widths[0], 3, 1, 1)
        self.bn1 = nn.BatchNorm2d(widths[0], eps)
        self.prelu = nn.PReLU(widths[0])
        inputs = widths[0]
        for s, (depth, width) in enumerate(zip(depths, widths, strict=True), 1):
            first = ArcFaceUnit(inputs, width, 2, eps)
            units = [first, *(ArcFaceUnit(width, width, 1, eps) for _ in range(depth - 1))]
            self.add_module(f"layer{s}", nn.Sequential(*units))
            inputs = width
        self.bn2 = nn.BatchNorm2d(inputs, eps)
        self.dropout = nn.Dropout(0)
        self.fc = nn.Linear(inputs * 49, dim)
        self.features = nn.BatchNorm1d(dim, eps)
        self.features.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(x)))
        for s in range(1, 5):
            x = self.get_submodule(f"layer{s}")(x)
        return self.features(self.fc(self.dropout(self.bn2(x)).flatten(1)))


# -- AdaFace, TFace


class AdaFaceUnit(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer = (
            nn.MaxPool2d(1, stride)
            if inputs == width
            else nn.Sequential(conv(inputs, width, 1, stride), nn.BatchNorm2d(width))
        )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            conv(inputs, width, 3, 1, 1),
            nn.BatchNorm2d(width),
            nn.PReLU(width),
            conv(width, width, 3, stride, 1),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut_layer(x) + self.res_layer(x)


class AdaFace(nn.Module):
    """AdaFace's IR; it answers with (unit embedding, norm)."""

    def __init__(self, depths: Sequence[int], widths: Sequence[int] = (64, 128, 256, 512), dim: int = 512) -> None:
        super().__init__()
        first = widths[0]
        self.input_layer = nn.Sequential(conv(3, first, 3, 1, 1), nn.BatchNorm2d(first), nn.PReLU(first))
        units, inputs = [], first
        for depth, width in zip(depths, widths, strict=True):
            for n in range(depth):
                units.append(AdaFaceUnit(inputs, width, 2 if n == 0 else 1))
                inputs = width
        self.body = nn.Sequential(*units)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(inputs * 49, dim),
            nn.BatchNorm1d(dim, affine=False),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        raw = self.output_layer(self.body(self.input_layer(x)))
        norm = torch.linalg.vector_norm(raw, dim=1, keepdim=True)
        return raw / norm, norm


# -- the PyTorch MobileFaceNet


class ConvUnit(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, padding: int, groups: int = 1, act: bool = True
    ) -> None:
        super().__init__()
        self.conv = conv(inputs, outputs, kernel, stride, padding, groups)
        self.bn = nn.BatchNorm2d(outputs)
        if act:
            self.prelu = nn.PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return self.prelu(x) if hasattr(self, "prelu") else x


class DepthWise(nn.Module):
    def __init__(self, inputs: int, hidden: int, width: int, stride: int, residual: bool) -> None:
        super().__init__()
        self.conv = ConvUnit(inputs, hidden, 1, 1, 0)
        self.conv_dw = ConvUnit(hidden, hidden, 3, stride, 1, hidden)
        self.project = ConvUnit(hidden, width, 1, 1, 0, act=False)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.conv_dw(self.conv(x)))
        return x + y if self.residual else y


class Residual(nn.Module):
    def __init__(self, width: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.model = nn.Sequential(*(DepthWise(width, hidden, width, 1, True) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class MobileFaceNet(nn.Module):
    """y1; `narrow` divides all widths but the embedding's. Its own code ends in a division by the norm."""

    def __init__(self, dim: int, narrow: int = 1) -> None:
        super().__init__()
        w = 64 // narrow
        self.conv1 = ConvUnit(3, w, 3, 2, 1)
        self.conv2_dw = ConvUnit(w, w, 3, 1, 1, w)
        self.conv_23 = DepthWise(w, 2 * w, w, 2, False)
        self.conv_3 = Residual(w, 2 * w, 4)
        self.conv_34 = DepthWise(w, 4 * w, 2 * w, 2, False)
        self.conv_4 = Residual(2 * w, 4 * w, 6)
        self.conv_45 = DepthWise(2 * w, 8 * w, 2 * w, 2, False)
        self.conv_5 = Residual(2 * w, 4 * w, 2)
        self.conv_6_sep = ConvUnit(2 * w, 8 * w, 1, 1, 0)
        self.conv_6_dw = ConvUnit(8 * w, 8 * w, 7, 1, 0, 8 * w, act=False)
        self.linear = nn.Linear(8 * w, dim, bias=False)
        self.bn = nn.BatchNorm1d(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_3(self.conv_23(self.conv2_dw(self.conv1(x))))
        x = self.conv_5(self.conv_45(self.conv_4(self.conv_34(x))))
        return self.bn(self.linear(self.conv_6_dw(self.conv_6_sep(x)).flatten(1)))
