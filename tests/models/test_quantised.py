"""A network in int8: against obvious loops in float64, gradients in closed form, parts that stay float bit for bit."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mobileface.arch import Arch
from mobileface.models import build
from mobileface.models.fuse import fuse
from mobileface.models.quantised import Int8Network, Ranges, int8_points, rounded, rounded_weight
from mobileface.zoo import ZOO
from tests.export.conftest import NANO, lively

FAMILIES = ("micro", "iresnet-micro", "lgaf-micro")


def pixels(count: int = 4) -> Tensor:
    return torch.randint(0, 256, (count, 3, 112, 112), generator=torch.Generator().manual_seed(3)).float()


def ranged(network: nn.Module, keep: tuple[str, ...] = ()) -> Int8Network:
    int8 = Int8Network(network, keep)
    int8.observe(pixels())
    return int8


def by_hand(x: NDArray[np.float64], scale: float, zero: int) -> NDArray[np.float64]:
    """One value after another."""
    found = np.empty_like(x)
    for place, value in np.ndenumerate(x):
        found[place] = (min(max(round(value / scale) + zero, 0), 255) - zero) * scale
    return found


@pytest.mark.parametrize(("least", "most"), [(-1.0, 1.1), (-0.3, 2.9), (0.0, 6.0), (-5.0, 0.0), (0.0, 0.0)])
@pytest.mark.parametrize("learning", [True, False])
def test_values_are_rounded_as_a_loop_does(least: float, most: float, learning: bool) -> None:
    ranges = Ranges(1)
    ranges.widen(0, 1, torch.tensor([least, most]))
    scales, zeros = ranges.grids()
    scale = max((most - least) / 255, 1e-12)
    zero = min(max(round(-least / scale), 0), 255)
    assert float(scales[0, 1]) == pytest.approx(scale, rel=1e-6)
    assert int(zeros[0, 1]) == zero
    x = torch.randn(200, generator=torch.Generator().manual_seed(0)).mul(3).requires_grad_(learning)
    with torch.set_grad_enabled(learning):
        found = rounded(x, scales[0, 1], zeros[0, 1]).detach()
    wanted = by_hand(x.detach().double().numpy(), float(scales[0, 1]), zero)
    np.testing.assert_allclose(found.double().numpy(), wanted, rtol=1e-6, atol=1e-12)
    assert float(rounded(torch.zeros(1), scales[0, 1], zeros[0, 1])) == 0  # so that padding is exact


def test_a_range_holds_zero_and_all_that_was_seen() -> None:
    ranges = Ranges(2)
    for values in ([3.0, 5.0], [2.0, 4.0], [-1.0, 0.5]):
        ranges.widen(1, 0, torch.tensor(values))
        if min(values) > 0:
            assert ranges.bounds[1, 0, 0] == 0
    assert ranges.bounds[1, 0].tolist() == [-1, 5]
    assert not ranges.bounds[0].any()
    assert not ranges.bounds[1, 1].any()


@pytest.mark.parametrize("shape", [(6, 3, 3, 3), (6, 1, 3, 3), (4, 9)])
def test_weights_are_rounded_row_by_row(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    weight[1] *= 100
    weight[2] = 0
    found = rounded_weight(weight).double().numpy()
    for row, wanted in zip(found, weight.double().numpy(), strict=True):
        scale = max(float(np.abs(wanted).max()) / 127, 1e-12)
        levels = [round(value / scale) for value in wanted.ravel()]
        assert max(map(abs, levels)) in (127, 0)
        np.testing.assert_allclose(row.ravel(), np.array(levels) * scale, rtol=1e-6)


def test_the_gradient_goes_straight_through_inside_of_the_range() -> None:
    x = torch.tensor([-2.0, -1.0, -0.4, 0.3, 1.9, 2.1], requires_grad=True)
    scale, zero = torch.tensor(3 / 255), torch.tensor(85, dtype=torch.int32)  # -1 to 2
    (rounded(x, scale, zero) * torch.arange(1.0, 7)).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 2, 3, 4, 5, 0]
    weight = torch.randn(3, 5, requires_grad=True)
    (rounded_weight(weight) * 7).sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.full((3, 5), 7.0))


class Two(nn.Module):
    """A convolution with a batch norm, a slope, and a linear layer: small enough for a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.unit = nn.Sequential()
        self.unit.add_module("conv", nn.Conv2d(3, 2, 1, bias=False))
        self.unit.add_module("norm", nn.BatchNorm2d(2))
        self.unit.add_module("act", nn.LeakyReLU(0.25))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.linear(self.flatten(self.pool(self.unit(x))))
        return found


def test_a_whole_network_is_what_a_loop_makes_of_it() -> None:
    torch.manual_seed(0)
    two = Two().eval()
    norm = two.unit.get_submodule("norm")
    assert isinstance(norm, nn.BatchNorm2d)
    norm.running_mean, norm.running_var = torch.tensor([0.2, -0.1]), torch.tensor([2.0, 0.5])
    norm.weight.data, norm.bias.data = torch.tensor([1.5, -0.7]), torch.tensor([0.1, 0.2])
    x = torch.randn(3, 3, 2, 2)
    int8 = Int8Network(two)
    int8.observe(x)
    with torch.no_grad():
        found = int8(x).double().numpy()

    def stored(values: NDArray[np.float64]) -> NDArray[np.float64]:
        least, most = min(float(plain[-1].min()), 0), max(float(plain[-1].max()), 0)
        scale = (most - least) / 255
        return by_hand(values, scale, round(-least / scale))

    def row_by_row(weight: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack([by_hand(row, float(np.abs(row).max()) / 127, 127) for row in weight])

    gain = np.array([1.5, -0.7]) / np.sqrt(np.array([2.0, 0.5]) + 1e-5)
    conv = two.unit.get_submodule("conv").get_parameter("weight").detach().double().numpy()[:, :, 0, 0] * gain[:, None]
    bias = np.array([0.1, 0.2]) - np.array([0.2, -0.1]) * gain
    linear, shift = (p.detach().double().numpy() for p in two.linear.parameters())
    plain = [x.double().numpy()]  # the float network's tensors, which ranges are taken from
    value = stored(plain[-1])
    for step in (
        lambda v, w: np.einsum("oc,bchw->bohw", w(conv), v) + bias[:, None, None],
        lambda v, w: np.where(v > 0, v, 0.25 * v),
        lambda v, w: v.mean(axis=(2, 3)),
        lambda v, w: v @ w(linear).T + shift,
    ):
        plain.append(step(plain[-1], lambda w: w))
        value = stored(step(value, row_by_row))
    np.testing.assert_allclose(found, value, atol=1e-5)
    assert np.abs(value - plain[-1]).max() > 1e-3  # or this would show nothing


@pytest.mark.parametrize("name", FAMILIES)
def test_with_all_kept_it_is_the_folded_network_bit_for_bit(name: str) -> None:
    network = lively(ZOO[name])
    with torch.no_grad():
        wanted = fuse(network)(pixels(2))
        kept = ranged(network, tuple(int8_points(fuse(network))))(pixels(2))
        rounded_one = ranged(network)(pixels(2))
    assert torch.equal(kept, wanted)
    cosine = torch.cosine_similarity(rounded_one, wanted)
    assert float(cosine.min()) > 0.8
    assert float(cosine.max()) < 1 - 1e-7


def test_a_kept_layer_has_its_weights_and_the_others_do_not() -> None:
    network = lively()
    whole, less = ranged(network), ranged(network, ("embedding.conv",))
    used: dict[str, Tensor] = {}
    for int8, label in ((whole, "whole"), (less, "less")):
        layer = int8.fused.get_submodule("embedding.conv")
        layer.register_forward_hook(lambda m, a, o, label=label: used.__setitem__(label, m.weight.detach().clone()))
        with torch.no_grad():
            int8(pixels(1))
    weight = fuse(network).get_submodule("embedding.conv").get_parameter("weight").detach()
    assert torch.equal(used["less"], weight)
    assert torch.equal(used["whole"], rounded_weight(weight))
    assert not torch.equal(used["whole"], weight)


def test_a_name_that_is_no_part_is_refused() -> None:
    with pytest.raises(ValueError, match=r"keep: 'stem\.norm' is no part that int8 rounds"):
        Int8Network(lively(), ["stem.norm"])


@pytest.mark.parametrize("arch", [NANO, ZOO["iresnet-micro"]], ids=lambda arch: arch.name)
def test_training_it_trains_the_network_and_nothing_else(arch: Arch) -> None:
    network = build(arch, 0).train()
    int8 = ranged(network)
    before = copy.deepcopy(network.state_dict())
    bounds = int8.ranges.bounds.clone()
    with torch.autocast("cpu", torch.bfloat16):
        embedded = int8(pixels(2))
    assert embedded.dtype == torch.float32
    embedded.square().sum().backward()
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert {n.removeprefix("network.") for n, p in int8.named_parameters() if p.requires_grad} == trained
    assert not [name for name in trained if network.get_parameter(name).grad is None]
    assert all(torch.equal(network.state_dict()[name], t) for name, t in before.items())
    assert torch.equal(int8.ranges.bounds, bounds)
    assert set(int8.state_dict()) == {f"network.{name}" for name in before} | {"ranges.bounds"}
