"""Strided 1x1 convolutions: values and gradients are those of torch's own in float64, whatever lies in memory how."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from mobileface.models import build
from mobileface.models.strided import StridedPointwise
from mobileface.zoo import ZOO


def plain(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """torch's convolution in float64, which oneDNN has no part in."""
    return nn.functional.conv2d(x.double(), layer.weight.double(), layer.bias, layer.stride)


@pytest.mark.parametrize("channels", [1, 4, 12, 16, 40])
@pytest.mark.parametrize(("side", "stride"), [(28, 2), (15, 2), (13, 3)])
def test_gradients_of_maps_with_channels_last(channels: int, side: int, stride: int) -> None:
    """Fewer than 16 channels: where oneDNN's own gradient of the weight is wrong, or the process ends."""
    generator = torch.Generator().manual_seed(0)
    layer = StridedPointwise(channels, 8, 1, stride, bias=False)
    x = torch.randn(4, side, side, channels, generator=generator).permute(0, 3, 1, 2).requires_grad_()
    found, wanted = layer(x), plain(layer, x)
    towards = torch.randn(found.shape, generator=generator)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)
    one = torch.autograd.grad(found, (x, layer.weight), towards)
    two = torch.autograd.grad(wanted, (x, layer.weight), towards.double())
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-3)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), found, rtol=1e-4, atol=1e-5)


def test_every_strided_1x1_convolution_of_a_network_is_one() -> None:
    for name in ("iresnet-micro", "lgaf-micro"):
        strided = [p for p in build(ZOO[name]).modules() if isinstance(p, nn.Conv2d) and p.stride != (1, 1)]
        pointwise = [part for part in strided if part.kernel_size == (1, 1)]
        assert len(pointwise) == 4
        assert all(isinstance(part, StridedPointwise) for part in pointwise)


def test_training_with_channels_last_pixels_gives_the_gradients_of_float64() -> None:
    """As the training loop feeds them."""
    net = build(ZOO["iresnet-micro"]).train()
    exact = copy.deepcopy(net).double()
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randint(0, 256, (4, 112, 112, 3), generator=torch.Generator().manual_seed(0)).permute(0, 3, 1, 2)
    towards = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
    (net(images.float()) * towards).sum().backward()
    (exact(images.double()) * towards).sum().backward()
    for (name, one), two in zip(net.named_parameters(), exact.parameters(), strict=True):
        if one.grad is not None:
            scale = max(float(two.grad.abs().max()), 1e-3)  # type: ignore[union-attr]
            torch.testing.assert_close(one.grad.double(), two.grad, rtol=0, atol=1e-2 * scale, msg=name)
