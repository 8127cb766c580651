"""IR-ResNets against one written out by hand from the public codes' conventions; initialisation; what is trained."""

from __future__ import annotations

import dataclasses
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from torch import Tensor, nn

from mobileface.arch import IResNet
from mobileface.models import build
from mobileface.models.build import network
from mobileface.zoo import ZOO
from tests.models.by_hand import State, normed, pixels, prelu, randomised
from tests.strategies import examples, iresnets

INSIGHTFACE = ZOO["iresnet-micro"]
assert isinstance(INSIGHTFACE, IResNet)
ADAFACE = dataclasses.replace(
    INSIGHTFACE, name="adaface", widths=(8, 8, 16, 16), shortcut="subsample", dropout=0.4, last_norm="plain"
)
MXNET = dataclasses.replace(INSIGHTFACE, name="mxnet", eps=0.02)  # far from 1e-5, so that a wrong one shows
ALL = [INSIGHTFACE, ADAFACE, MXNET]


# -- the function


def unit(x: Tensor, s: State, at: str, stride: int, arch: IResNet) -> Tensor:
    """BN, 3x3, BN, PReLU, 3x3 with the stride, BN; plus the input."""
    eps = arch.eps
    y = F.conv2d(normed(x, s, f"{at}.norm", eps), s[f"{at}.first.conv.weight"], padding=1)
    y = prelu(normed(y, s, f"{at}.first.bn", eps), s, f"{at}.first.act")
    y = F.conv2d(y, s[f"{at}.second.conv.weight"], stride=stride, padding=1)
    y = normed(y, s, f"{at}.second.bn", eps)
    if x.shape[1] != y.shape[1] or (stride == 2 and arch.shortcut == "conv"):
        return y + normed(F.conv2d(x, s[f"{at}.shortcut.conv.weight"], stride=stride), s, f"{at}.shortcut.bn", eps)
    return y + x[:, :, ::stride, ::stride]


def by_hand(arch: IResNet, s: State, image: Tensor) -> Tensor:
    """IR-ResNet without the walk: stem of stride 1, four stages, BN, linear with bias, BN of vectors."""
    x = F.conv2d((image - 127.5) / 127.5, s["stem.conv.weight"], padding=1)
    x = prelu(normed(x, s, "stem.bn", arch.eps), s, "stem.act")
    for stage, depth in enumerate(arch.depths):
        for number in range(depth):
            x = unit(x, s, f"stages.{stage}.{number}", 2 if number == 0 else 1, arch)
    x = normed(x, s, "norm.bn", arch.eps).reshape(len(x), -1)
    x = x @ s["head.linear.weight"].T + s["head.linear.bias"]
    return normed(x, s, "head.bn", arch.eps)


@pytest.mark.parametrize("arch", ALL, ids=lambda arch: arch.name)
def test_the_network_is_its_definition_written_out(arch: IResNet) -> None:
    net, image = randomised(arch), pixels(2, torch.float64)
    with torch.inference_mode():
        wanted, found = by_hand(arch, net.state_dict(), image), net(image)
        alone = torch.cat([net(one[None]) for one in image])
    assert found.shape == (2, arch.embedding_dim)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9 * float(wanted.abs().max()))
    torch.testing.assert_close(alone, found, rtol=1e-11, atol=1e-11)


@examples(6)
@given(iresnets())
def test_random_members_are_their_definition(arch: IResNet) -> None:
    net, image = randomised(arch), pixels(1, torch.float64)
    with torch.inference_mode():
        wanted, found = by_hand(arch, net.state_dict(), image), net(image)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8 * float(wanted.abs().max()))


# -- the public layouts, so that their weights can be loaded


def insightface_shapes(depths: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The float tensors of InsightFace's iresnet in the order of its state dict (arcface_torch, backbones/iresnet)."""

    def norm(channels: int) -> list[tuple[int, ...]]:
        return [(channels,)] * 4  # weight, bias, mean, variance

    shapes = [(64, 3, 3, 3), *norm(64), (64,)]
    before = 64
    for width, depth in zip((64, 128, 256, 512), depths, strict=True):
        for number in range(depth):
            shapes += [*norm(before), (width, before, 3, 3), *norm(width), (width,), (width, width, 3, 3), *norm(width)]
            shapes += [(width, before, 1, 1), *norm(width)] if number == 0 else []
            before = width
    return [*shapes, *norm(512), (512, 512 * 7 * 7), (512,), *norm(512)]


def test_tensors_are_insightfaces_one_by_one() -> None:
    with torch.device("meta"):
        state = network(ZOO["iresnet18"]).state_dict()
    assert [tuple(t.shape) for t in state.values() if t.is_floating_point()] == insightface_shapes((2, 2, 2, 2))


def test_tensors_of_adafaces_convention() -> None:
    """No convolution beside 64 -> 64, no weight and bias in the last batch norm; nothing else differs."""
    with torch.device("meta"):
        ours = network(ZOO["iresnet18"]).state_dict()
        theirs = network(dataclasses.replace(ADAFACE, depths=(2, 2, 2, 2), widths=(64, 128, 256, 512))).state_dict()
    gone = {name for name in ours if name.startswith("stages.0.0.shortcut.")} | {"head.bn.weight", "head.bn.bias"}
    assert set(theirs) == set(ours) - gone


# -- initialisation


@pytest.mark.parametrize("arch", [INSIGHTFACE, ADAFACE], ids=lambda arch: arch.name)
def test_initial_values_are_those_of_the_public_code(arch: IResNet) -> None:
    """InsightFace: N(0, 0.1), and torch's U(+- 1 / sqrt(in)) for the linear layer. AdaFace: sqrt(2 / fan out)."""
    net = build(arch, seed=3)
    public = arch.shortcut == "conv"
    for name, part in net.named_modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            fan_out = part.weight.shape[0] * math.prod(part.weight.shape[2:])
            std = 0.1 if public else math.sqrt(2 / fan_out)
            if isinstance(part, nn.Linear) and public:
                std = 1 / math.sqrt(3 * part.in_features)
                assert part.weight.detach().abs().max() <= 1 / math.sqrt(part.in_features)
                assert 0 < part.bias.detach().abs().max() <= 1 / math.sqrt(part.in_features)
            elif isinstance(part, nn.Linear):
                assert not part.bias.any()
            ratio = float(part.weight.detach().double().square().mean()) / std**2
            assert abs(ratio - 1) < 6 * math.sqrt(2 / part.weight.numel()), name
        elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) and part.affine:
            assert torch.equal(part.weight, torch.ones(part.num_features)), name
            assert not part.bias.any(), name
        elif isinstance(part, nn.PReLU):
            assert torch.equal(part.weight, torch.full_like(part.weight, 0.25)), name


def test_a_seed_is_all_that_decides() -> None:
    torch.manual_seed(1)
    one = build(INSIGHTFACE, seed=5).state_dict()
    torch.manual_seed(2)
    again, other = build(INSIGHTFACE, seed=5).state_dict(), build(INSIGHTFACE, seed=6).state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["head.linear.bias"], other["head.linear.bias"])


# -- conventions


@pytest.mark.parametrize("arch", ALL, ids=lambda arch: arch.name)
def test_every_batch_norm_has_the_eps(arch: IResNet) -> None:
    norms = [part for part in network(arch).modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert len(norms) > 15
    assert {part.eps for part in norms} == {arch.eps}


def test_dropout_acts_in_training_alone_and_at_its_rate() -> None:
    net = build(ADAFACE).train()
    dropout = net.get_submodule("head.dropout")
    torch.manual_seed(0)
    share = float((dropout(torch.ones(100_000)) == 0).double().mean())
    assert share == pytest.approx(0.4, abs=0.01)
    ones = torch.ones(10)
    assert torch.equal(net.eval().get_submodule("head.dropout")(ones), ones)


# -- precision


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("arch", [INSIGHTFACE, ADAFACE], ids=lambda arch: arch.name)
def test_the_head_is_computed_in_float32_under_autocast(arch: IResNet, training: bool) -> None:
    """Float64 arithmetic on the bf16 map, to float32's rounding; that of bf16 would be 1e-2."""
    net, maps = randomised(dataclasses.replace(arch, dropout=0.0)).float().train(training), []
    net.get_submodule("norm").register_forward_hook(lambda part, inputs, output: maps.append(output.detach()))
    with torch.autocast("cpu", torch.bfloat16):
        found = net(pixels(4))
    assert (found.dtype, maps[0].dtype) == (torch.float32, torch.bfloat16)
    s = {name: value.double() for name, value in net.state_dict().items()}
    before = maps[0].double().flatten(1) @ s["head.linear.weight"].T + s["head.linear.bias"]
    if training:
        s["head.bn.running_mean"], s["head.bn.running_var"] = before.mean(0), before.var(0, correction=0)
    wanted = normed(before, s, "head.bn", arch.eps)
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))
    found.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.requires_grad)


def test_the_compiler_takes_the_head_under_autocast_as_one_graph() -> None:
    net = randomised(ADAFACE).float()
    with torch.autocast("cpu", torch.bfloat16), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about its own internals here
        found = torch.compile(net, backend="eager", fullgraph=True)(pixels(2))
        torch.testing.assert_close(found, net(pixels(2)))
    assert found.dtype == torch.float32


# -- gradients


@pytest.mark.parametrize("arch", ALL, ids=lambda arch: arch.name)
def test_the_gradient_reaches_all_but_the_weight_that_stays_one(arch: IResNet) -> None:
    net = build(arch).train()
    found = net(pixels(4))
    (found * torch.randn(found.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    without = [name for name, parameter in net.named_parameters() if not parameter.requires_grad]
    assert without == (["head.bn.weight"] if arch.last_norm == "bias" else [])
    for name, parameter in net.named_parameters():
        if name in without:
            assert parameter.grad is None
            assert torch.equal(parameter, torch.ones(arch.embedding_dim))
        else:
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0 or name == "head.linear.bias", name  # the batch norm takes it away
