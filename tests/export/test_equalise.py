"""Channels of like range, and the same function."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mobileface.models.equalise import LEAST, equalise
from mobileface.models.fuse import fuse
from mobileface.zoo import ZOO

Make = Callable[..., nn.Module]
Pixels = NDArray[np.uint8]


def pixels(images: Pixels) -> Tensor:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float64))


def largest(network: nn.Module, layer: str, images: Pixels) -> Tensor:
    """Of each channel of what a layer gives."""
    found: list[Tensor] = []
    hook = network.get_submodule(layer).register_forward_hook(lambda part, args, out: found.append(out))
    with torch.no_grad():
        network(pixels(images))
    hook.remove()
    return found[0].abs().amax((0, 2, 3))


@pytest.mark.parametrize("name", ["nano", "leaky_relu", "iresnet-micro", "lgaf-micro"])
def test_the_same_function(make: Make, images: Pixels, name: str) -> None:
    """Up to rounding in float64: scales are divided out again."""
    arch = make().arch if name == "nano" else ZOO.get(name) or replace(make().arch, activation=name)
    network = fuse(make(arch)).double()
    with torch.no_grad():
        wanted = network(pixels(images[:2]))
        before = {key: value.clone() for key, value in network.state_dict().items()}
        assert equalise(network, images) is network
        torch.testing.assert_close(network(pixels(images[:2])), wanted, rtol=1e-10, atol=1e-10)
    changed = [key for key, value in network.state_dict().items() if not torch.equal(value, before[key])]
    assert len(changed) > 4


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["nano", "iresnet-micro", "lgaf-micro"])
def test_batch_norms_that_are_not_folded(make: Make, images: Pixels, name: str, training: bool) -> None:
    """The same function too; and folding it gives what making the folded network equal gives."""
    network = make(ZOO.get(name) or make().arch).double()
    batch = pixels(images[:4])
    with torch.no_grad():
        wanted = embedded(network, batch, training)
        folded = equalise(fuse(network), images).state_dict()
        before = {key: value.clone() for key, value in network.state_dict().items()}
        assert equalise(network, images) is network
        torch.testing.assert_close(embedded(network, batch, training), wanted, rtol=1e-8, atol=1e-8)
    found = fuse(network).state_dict()
    for key, value in folded.items():
        torch.testing.assert_close(found[key], value, rtol=1e-10, atol=1e-10)
    changed = [key for key, value in network.state_dict().items() if not torch.equal(value, before[key])]
    assert len(changed) > 4
    assert not any("running" in key for key in changed)


def embedded(network: nn.Module, batch: Tensor, training: bool) -> Tensor:
    """What a copy gives, so that the statistics stay."""
    torch.manual_seed(0)  # dropout
    found: Tensor = copy.deepcopy(network).train(training)(batch)
    return found


def test_ranges_in_front_of_a_depthwise_layer_are_equal(make: Make, images: Pixels) -> None:
    """One channel is a hundred times as wide as the others; in front of a full convolution the ratio's root is left."""
    network = fuse(make()).double()
    for layer in ("stages.1.0.expand.conv", "stages.1.0.depthwise.conv"):
        part = network.get_submodule(layer)
        part.weight.data[1] *= 50
        part.bias.data[1] *= 50
    narrow = largest(network, "stages.1.0.depthwise.conv", images)
    assert narrow.max() / narrow.min() > 20
    equalise(network, images)
    wide = largest(network, "stages.1.0.expand.conv", images)
    torch.testing.assert_close(wide, wide.max().expand_as(wide))
    share = (narrow / narrow.max()).clamp_min(LEAST)
    found = largest(network, "stages.1.0.depthwise.conv", images)
    torch.testing.assert_close(found / found.max(), narrow / narrow.max() / share.sqrt(), rtol=1e-6, atol=1e-9)


def test_what_others_read_and_what_is_not_linear_in_scale_stays(make: Make, images: Pixels) -> None:
    """The sum of a residual block reads what the layer before it gives; hard-swish is not homogeneous."""
    network = fuse(make())
    stem = network.stem.conv.weight.clone()
    residual = network.stages[0][0].residual
    equalise(network, images)
    assert torch.equal(network.stem.conv.weight, stem) == residual
    swish = fuse(make(replace(make().arch, activation="hard_swish")))
    before = {key: value.clone() for key, value in swish.state_dict().items()}
    equalise(swish, images)
    acts = ("se.reduce", "se.expand")  # a ReLU stands between them in some architectures
    for key, value in swish.state_dict().items():
        assert any(act in key for act in acts) or torch.equal(value, before[key]), key


def test_a_silent_channel(make: Make, images: Pixels) -> None:
    network = fuse(make())
    layer = network.get_submodule("stages.1.0.expand.conv")
    layer.weight.data[2], layer.bias.data[2] = 0, 0
    equalise(network, images)
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())
    assert not layer.weight[2].any()
