"""The rewritten PReLU against torch's own, exactly."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from export.activations import ConvForm, MaxForm, SplitForm, rewrite_activations, rewritten
from mobileface.errors import InputError

SLOPES = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, math.nextafter(1.0, 2), math.nextafter(1.0, 0), 2.0, -3.0, 0.25, 1e-300]),
    st.floats(-100, 100),
)
INPUTS = st.one_of(st.sampled_from([0.0, -0.0, 5e-324, -5e-324, 1e300, -1e300]), st.floats(-1e6, 1e6))


def prelu(slopes: list[float]) -> nn.PReLU:
    layer = nn.PReLU(len(slopes), dtype=torch.float64)
    layer.weight.data = torch.tensor(slopes, dtype=torch.float64)
    return layer


@given(st.lists(SLOPES, min_size=1, max_size=5), st.lists(INPUTS, min_size=1, max_size=20))
def test_equal_for_every_slope(slopes: list[float], values: list[float]) -> None:
    layer = prelu(slopes)
    x = torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, -1).expand(2, len(slopes), 3, -1)
    for dtype in (torch.float64, torch.float32):
        largest = torch.finfo(dtype).max
        layer, x = layer.to(dtype), x.clamp(-largest, largest).to(dtype)  # finite
        wanted = functional.prelu(x, layer.weight)
        by_hand = torch.where(x >= 0, x, x * layer.weight[:, None, None])
        found = rewritten(layer)(x)
        assert torch.equal(found, by_hand)
        assert torch.equal(found, wanted)
        product = x * (layer.weight[:, None, None] - 1)
        apart = (rewritten(layer, ConvForm)(x) - by_hand).abs()
        near = 4 * torch.finfo(dtype).eps * (x.abs() + product.abs())
        near += 2 * torch.finfo(dtype).tiny * torch.finfo(dtype).eps  # two of the smallest numbers there are
        assert (apart <= near)[torch.isfinite(product) & torch.isfinite(by_hand)].all()


def test_the_short_form_is_used_where_it_is_exact() -> None:
    assert type(rewritten(prelu([0.25, 0.0, -5.0, 1.0]))) is MaxForm
    assert type(rewritten(prelu([0.25, 1.0000001]))) is SplitForm
    assert type(rewritten(prelu([0.25, 1.0]), ConvForm)) is ConvForm
    assert type(rewritten(prelu([0.25, 1.5]), ConvForm)) is SplitForm
    x = torch.tensor([-1.0, 1.0]).reshape(1, 1, 1, 2)
    assert MaxForm(torch.full((1, 1, 1), 2.0))(x).tolist() != rewritten(prelu([2.0]))(x).tolist()


def test_every_prelu_is_replaced_and_nothing_else(make: Callable[..., nn.Module]) -> None:
    network = make()
    count = sum(isinstance(part, nn.PReLU) for part in network.modules())
    others = [type(part) for part in network.modules() if not isinstance(part, nn.PReLU)]
    pixels = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        wanted = network(pixels)
        assert torch.equal(rewrite_activations(network)(pixels), wanted)
    assert count > 5
    assert sum(isinstance(part, MaxForm) for part in network.modules()) == count
    assert [type(part) for part in network.modules() if not isinstance(part, MaxForm)] == others
    rest = nn.Sequential(nn.LeakyReLU(0.25), nn.Hardswish(), nn.ReLU())
    assert rewrite_activations(rest) is rest
    assert [type(part) for part in rest] == [nn.LeakyReLU, nn.Hardswish, nn.ReLU]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_slopes_that_are_no_number_are_refused(make: Callable[..., nn.Module], bad: float) -> None:
    network = make()
    network.get_submodule("stages.0.0.expand.act").weight.data[3] = bad
    message = rf"stages\.0\.0\.expand\.act: slope of channel 3 is {bad}, wanted finite slopes"
    with pytest.raises(InputError, match=message):
        rewrite_activations(network)
