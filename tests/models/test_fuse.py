"""Folding batch norms: the same function to float64's rounding, nothing left over, the original untouched."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import example, given
from torch import nn

from mobileface.arch import Arch
from mobileface.models import build
from mobileface.models.fuse import fuse
from mobileface.zoo import ZOO
from tests.strategies import LGAF_SETTINGS, ODD, archs, examples, iresnets, lgaf_setting, lgafs

SMALL = ("micro", "tiny", "student-real", "mobilefacenet", "iresnet-micro", "lgaf-micro")
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def shaken(net: nn.Module) -> nn.Module:
    """In float64, every batch norm with random statistics, gains of both signs, and shifts."""
    generator = torch.Generator().manual_seed(0)
    for part in net.double().modules():
        if isinstance(part, NORMS):
            n = part.num_features
            part.running_mean = torch.randn(n, generator=generator, dtype=torch.float64)
            part.running_var = 0.5 + 1.5 * torch.rand(n, generator=generator, dtype=torch.float64)
            if not part.affine:
                continue
            sign = 1 - 2 * torch.randint(0, 2, (n,), generator=generator)
            part.weight.data = sign * (0.5 + torch.rand(n, generator=generator, dtype=torch.float64))
            part.bias.data.normal_(0, 0.5, generator=generator)
        elif isinstance(part, nn.PReLU):
            part.weight.data.uniform_(-0.2, 0.5, generator=generator)
    return net


def assert_folded(arch: Arch) -> None:
    net = shaken(build(arch)).train()
    before = copy.deepcopy(net.state_dict())
    folded = fuse(net)
    images = torch.randint(0, 256, (2, 3, 112, 112), generator=torch.Generator().manual_seed(1)).double()
    with torch.inference_mode():
        found, wanted = folded(images), copy.deepcopy(net).eval()(images)
    assert found.dtype == torch.float64
    assert float((found - wanted).abs().max()) <= 1e-10 * max(1.0, float(wanted.abs().max()))
    stays = [f"{name}.{la.name}" for b in arch.walk() for name in b.names() for la in b.layers if la.kind == "pre_norm"]
    assert [name for name, part in folded.named_modules() if isinstance(part, NORMS)] == stays
    assert not [name for name, part in folded.named_modules() if part.training]
    assert net.training
    assert list(before) == list(net.state_dict())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize("name", SMALL)
def test_folded_zoo_entries_are_the_same_function(name: str) -> None:
    assert_folded(ZOO[name])


@examples(8)
@given(archs(max_stages=4, max_depth=2) | iresnets() | lgafs())
@example(ODD)
def test_folded_random_members_are_the_same_function(arch: Arch) -> None:
    assert_folded(arch)


@pytest.mark.parametrize("name", LGAF_SETTINGS)
def test_folded_settings_of_lgaf_are_the_same_function(name: str) -> None:
    assert_folded(lgaf_setting(name))


@pytest.mark.parametrize("name", ["lfrc-step0", "lfrc-step5"])
def test_no_batch_norm_is_left_in_the_big_ones(name: str) -> None:
    parts = list(fuse(build(ZOO[name])).modules())
    assert not [part for part in parts if isinstance(part, nn.BatchNorm2d)]
    assert all(part.bias is not None for part in parts if isinstance(part, nn.Conv2d))


def test_float32_stays_float32() -> None:
    net = build(ZOO["micro"]).eval()
    images = torch.full((1, 3, 112, 112), 200.0)
    folded = fuse(net)
    assert {p.dtype for p in folded.parameters()} == {torch.float32}
    torch.testing.assert_close(folded(images), net(images), rtol=1e-4, atol=1e-5)


def test_folding_twice_changes_nothing() -> None:
    once = fuse(shaken(build(ZOO["micro"])))
    twice = fuse(once)
    assert list(once.state_dict()) == list(twice.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(once.parameters(), twice.parameters(), strict=True))


def test_any_convolution_is_folded_with_its_settings() -> None:
    conv = nn.Conv2d(4, 6, (3, 1), stride=(2, 1), padding=(1, 0), groups=2, bias=True)
    net = shaken(nn.Sequential(conv, nn.BatchNorm2d(6, eps=0.1))).eval()
    x = torch.randn(3, 4, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    folded = fuse(net)
    assert len(folded) == 1  # type: ignore[arg-type]
    torch.testing.assert_close(folded(x), net(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("settings", [{}, {"affine": False}, {"bias": False}, {"eps": 0.1}])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_takes_in_what_stands_behind_it(settings: dict[str, float], bias: bool) -> None:
    norm = nn.BatchNorm1d(3, **{k: v for k, v in settings.items() if k != "bias"})  # type: ignore[arg-type]
    if "bias" in settings:
        norm.register_parameter("bias", None)
    net = nn.Sequential(nn.Linear(4, 3, bias=bias), norm, nn.Sigmoid()).double().eval()
    generator = torch.Generator().manual_seed(0)
    norm.running_mean = torch.randn(3, generator=generator).double()
    norm.running_var = torch.rand(3, generator=generator).double() + 0.5
    x = torch.randn(5, 4, dtype=torch.float64, generator=generator)
    folded = fuse(net)
    assert [type(part) for part in folded] == [nn.Linear, nn.Sigmoid]
    torch.testing.assert_close(folded(x), net(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "parts",
    [
        (nn.Conv2d(2, 3, 1), nn.Flatten(), nn.BatchNorm1d(75)),  # a channel has several values
        (nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3, padding=1)),  # zeros of the padding come behind it
        (nn.Conv2d(2, 2, 1), nn.ReLU(), nn.BatchNorm2d(2)),
    ],
)
def test_what_would_not_be_exact_stays(parts: tuple[nn.Module, ...]) -> None:
    net = shaken(nn.Sequential(*parts)).eval()
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    folded = fuse(net)
    assert len(list(folded.children())) == len(parts)
    torch.testing.assert_close(folded(x), net(x))


def test_parts_that_do_not_follow_each_other_are_left_alone() -> None:
    """Only in a sequence is the order of the children that of the computation."""

    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x) + self.bn(x)

    net = shaken(Aside()).eval()
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fuse(net)(x), net(x), rtol=0, atol=0)


def test_a_batch_norm_without_a_convolution_right_before_it_stays() -> None:
    net = shaken(
        nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1), nn.ReLU(), nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    ).eval()
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    folded = fuse(net)
    assert [type(part) for part in folded.children()] == [type(part) for part in net.children()]
    torch.testing.assert_close(folded(x), net(x))


def test_a_batch_norm_without_statistics_is_refused() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, track_running_stats=False))
    with pytest.raises(ValueError, match="without running statistics"):
        fuse(net)
