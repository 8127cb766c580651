"""Built networks: the function, against one written out by hand from the table; initialisation; gradients."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from torch import Tensor, nn

from mobileface.arch import Arch, Layer, SEMobileFaceNet
from mobileface.errors import InputError
from mobileface.models import build
from mobileface.models.blocks import module
from mobileface.zoo import ZOO
from tests.models.by_hand import State, normed, pixels, prelu, randomised
from tests.strategies import ODD, archs, examples

SMALL = [ZOO[name] for name in ("micro", "tiny", "student-real", "mobilefacenet")]
LEAKY = dataclasses.replace(ZOO["micro"], name="leaky", activation="leaky_relu")

# -- the function


def activated(x: Tensor, s: State, at: str, kind: str) -> Tensor:
    if kind == "prelu":
        return prelu(x, s, at)
    return torch.where(x >= 0, x, x / 4) if kind == "leaky_relu" else x * (x + 3).clamp(0, 6) / 6


def unit(x: Tensor, s: State, at: str, act: str | None, stride: int, padding: int, groups: int) -> Tensor:
    x = normed(F.conv2d(x, s[f"{at}.conv.weight"], None, stride, padding, groups=groups), s, f"{at}.bn")
    return x if act is None else activated(x, s, f"{at}.act", act)


def by_hand(arch: SEMobileFaceNet, s: State, image: Tensor) -> Tensor:
    """SE-MobileFaceNet from its rows, without the walk: Fig. 2 of the paper, Table 1 of MobileFaceNets."""
    act, channels = arch.activation, arch.stem
    x = unit(image / 127.5 - 1, s, "stem", act, 2, 1, 1)
    if arch.stem_depthwise:
        x = unit(x, s, "stem_depthwise", act, 1, 1, channels)
    for number, row in enumerate(arch.stages):
        for block, hidden in enumerate(row.hiddens()):
            at, stride = f"stages.{number}.{block}", row.stride if block == 0 else 1
            y = unit(x, s, f"{at}.expand", act, 1, 0, 1)
            y = unit(y, s, f"{at}.depthwise", act, stride, (row.kernel - 1) // 2, hidden)
            y = unit(y, s, f"{at}.project", None, 1, 0, 1)
            if row.se:
                gate = y.mean((2, 3), keepdim=True)
                gate = F.conv2d(gate, s[f"{at}.se.reduce.weight"], s[f"{at}.se.reduce.bias"])
                gate = activated(gate, s, f"{at}.se.act", act)
                gate = F.conv2d(gate, s[f"{at}.se.expand.weight"], s[f"{at}.se.expand.bias"])
                y = y / (1 + torch.exp(-gate))
            x = x + y if stride == 1 and channels == row.width else y
            channels = row.width
    x = unit(x, s, "head", act, 1, 0, 1)
    x = unit(x, s, "gdc", None, 1, 0, arch.head)  # its kernel is the whole map
    return unit(x, s, "embedding", None, 1, 0, 1)[:, :, 0, 0]


@pytest.mark.parametrize("arch", [*SMALL, LEAKY, ODD], ids=lambda arch: arch.name)
def test_the_network_is_its_table_written_out(arch: Arch) -> None:
    net, image = randomised(arch), pixels(2, torch.float64)
    with torch.inference_mode():
        wanted = by_hand(arch, net.state_dict(), image)
        found = net(image)
    assert found.shape == (2, arch.embedding_dim)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9 * float(wanted.abs().max()))


@examples(8)
@given(archs(max_stages=3, max_depth=2))
@example(ODD)
def test_random_members_give_one_embedding_an_image(arch: Arch) -> None:
    with torch.inference_mode():
        found = build(arch).eval()(pixels(2))
    assert found.shape == (2, arch.embedding_dim)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize(("value", "wanted"), [(127.5, 0.0), (0.0, -1.0), (255.0, 1.0)])
def test_pixels_are_normalised_inside(value: float, wanted: float) -> None:
    net, seen = build(ZOO["micro"]).eval(), []
    net.get_submodule("stem.conv").register_forward_pre_hook(lambda part, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        net(torch.full((1, 3, 112, 112), value))
    assert torch.equal(seen[0], torch.full((1, 3, 112, 112), wanted))


@pytest.mark.parametrize("arch", [ZOO["micro"], ODD], ids=lambda arch: arch.name)
def test_images_of_a_batch_do_not_meet_in_eval_mode(arch: Arch) -> None:
    net, images = randomised(arch), pixels(4, torch.float64)
    with torch.inference_mode():
        together = net(images)
        alone = torch.cat([net(image[None]) for image in images])
        turned = net(images.flip(0)).flip(0)
    torch.testing.assert_close(alone, together, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(turned, together, rtol=1e-11, atol=1e-11)


def test_memory_format_and_training_mode_keep_the_function() -> None:
    net, images = build(ZOO["micro"]), pixels(4)
    plain = net.eval()(images)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    last = net(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, plain, rtol=1e-4, atol=1e-5)
    trained = net.train()(images)
    torch.testing.assert_close(trained.mean(0), torch.zeros(32), rtol=0, atol=1e-5)  # ends in a batch norm
    assert trained.shape == plain.shape


# -- initialisation


def assert_initialised(net: nn.Module) -> None:
    """He et al. 2015, eq. 15: std sqrt(2 / ((1 + a^2) n)), n the outputs that one input value reaches, a = 0.25."""
    for name, part in net.named_modules():
        if isinstance(part, nn.Conv2d):
            reached = part.weight.shape[0] / part.groups * part.weight.shape[2] * part.weight.shape[3]
            std, count = math.sqrt(2 / (1 + 0.25**2) / reached), part.weight.numel()
            values = part.weight.detach().double()
            assert abs(float(values.mean())) < 5 * std / math.sqrt(count), name
            if count >= 64:
                ratio = float((values**2).mean()) / std**2  # a chi-square: its spread is sqrt(2 / count)
                assert abs(ratio - 1) < 6 * math.sqrt(2 / count), name
            assert part.bias is None or not part.bias.any(), name
        elif isinstance(part, nn.BatchNorm2d):
            assert torch.equal(part.weight, torch.ones(part.num_features)), name
            assert not part.bias.any(), name
            assert not part.running_mean.any(), name  # type: ignore[union-attr]
            assert torch.equal(part.running_var, torch.ones(part.num_features)), name  # type: ignore[arg-type]
        elif isinstance(part, nn.PReLU):
            assert torch.equal(part.weight, torch.full_like(part.weight, 0.25)), name


@pytest.mark.parametrize("arch", SMALL, ids=lambda arch: arch.name)
def test_initial_values_are_as_stated(arch: Arch) -> None:
    assert_initialised(build(arch, seed=3))


def test_a_seed_is_all_that_decides() -> None:
    torch.manual_seed(1)
    one = build(ZOO["micro"], seed=5).state_dict()
    torch.manual_seed(2)
    again, other = build(ZOO["micro"], seed=5).state_dict(), build(ZOO["micro"], seed=6).state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["stem.conv.weight"], other["stem.conv.weight"])


def test_prelu_has_a_slope_for_each_channel() -> None:
    net = build(ZOO["mobilefacenet"])
    slopes = {name: part.num_parameters for name, part in net.named_modules() if isinstance(part, nn.PReLU)}
    assert slopes["stem.act"] == 64
    assert slopes["stages.2.0.depthwise.act"] == 256
    assert len(slopes) == 3 + 2 * (1 + 4 + 1 + 6 + 1 + 2)


def test_an_unknown_layer_is_named() -> None:
    with pytest.raises(InputError, match=r"layer x: kind 'swish' is not known; known: conv, linear, batch_norm"):
        module(Layer("x", "swish", 1, 1, 1))


# -- gradients


@pytest.mark.parametrize("arch", [*SMALL, LEAKY, ODD, ZOO["lfrc-step5"]], ids=lambda arch: arch.name)
def test_the_gradient_reaches_every_parameter(arch: Arch) -> None:
    net = build(arch).train()
    found = net(pixels(4))
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    (found * weights).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name
