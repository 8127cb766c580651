"""LGAF's head against slow loops in float64, written from the paper's equations; gradients, precision, first values."""

from __future__ import annotations

import copy
import dataclasses
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from torch import Tensor, nn

from mobileface.arch import LGAF
from mobileface.models import build
from mobileface.models.quality import FeatureQuality
from mobileface.statistics import end_step
from tests.models.by_hand import State, measure, normed, pixels, prelu, randomised, with_statistics
from tests.strategies import LGAF_SETTINGS, examples, lgaf_setting, lgafs, only_global


def fit(part: FeatureQuality, inputs: tuple[Tensor]) -> None:
    """The first time: mean and deviation near the measure of the first image."""
    if part.statistics.std == 0:
        part.statistics.mean.fill_(0.8 * measure(inputs[0][0].tolist(), part.measure))
        part.statistics.std.fill_(part.statistics.mean / 2 + 1)


# -- the head, one image and one place at a time


EPS = 1e-5  # of the batch norms


def lanet(x: Tensor, s: State, at: str, form: str) -> Tensor:
    """(C, H, W): each place times sigmoid(W2 relu(W1 x)); "printed": one gate, of the mean (equation 11)."""

    def gate(values: Tensor) -> Tensor:
        inner = (s[f"{at}.reduce.weight"][:, :, 0, 0] @ values + s[f"{at}.reduce.bias"]).clamp(min=0)
        return 1 / (1 + torch.exp(-(s[f"{at}.expand.weight"][:, :, 0, 0] @ inner + s[f"{at}.expand.bias"])))

    y = x.clone()
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            y[:, i, j] *= gate(x.mean((1, 2)) if form == "printed" else x[:, i, j])
    return y


def squeezed(x: Tensor, s: State, at: str) -> Tensor:
    """(C, H, W): each channel times its gate."""
    inner = (s[f"{at}.reduce.weight"][:, :, 0, 0] @ x.mean((1, 2)) + s[f"{at}.reduce.bias"]).clamp(min=0)
    gates = torch.sigmoid(s[f"{at}.expand.weight"][:, :, 0, 0] @ inner + s[f"{at}.expand.bias"])
    return torch.stack([gates[c] * x[c] for c in range(len(x))])


def msnet(x: Tensor, s: State, at: str, form: str) -> Tensor:
    """Equations 12 and 13 on one image's map (C, 7, 7)."""

    def conv(x: Tensor, name: str, padding: int) -> Tensor:
        y = F.conv2d(x[None], s[f"{at}.scales.{name}.conv.weight"], padding=padding)
        return prelu(normed(y, s, f"{at}.scales.{name}.bn", EPS), s, f"{at}.scales.{name}.act")[0]

    point, near = conv(x, "point.only", 0), conv(x, "near.only", 1)
    far = conv(conv(x, "far.first", 1), "far.second", 1)
    seen = [lanet(y, s, f"{at}.scales.{n}.lanet", form) for n, y in (("point", point), ("near", near), ("far", far))]
    return s[f"{at}.linear.weight"] @ squeezed(torch.cat(seen), s, f"{at}.se").reshape(-1) + s[f"{at}.linear.bias"]


def indicator(x: Tensor, s: State, at: str, kind: str) -> float:
    """Equation 6, with the 0.000001 that keeps the deviation from zero."""
    mean, std = float(s[f"{at}.statistics.mean"]), float(s[f"{at}.statistics.std"])
    return min(max(0.333 * (measure(x.tolist(), kind) - mean) / (std + 1e-6), -1), 1) + 1


def fused(local: Tensor, whole: Tensor, s: State, arch: LGAF) -> Tensor:
    """Equations 9 and 10 and their alternatives, on one image's features (D,)."""
    if not arch.attention:
        return local + whole
    if arch.fusion == "iaff":
        mixed = local + whole
        for turn in ("first", "second"):
            inner = (s[f"lgf.{turn}.reduce.weight"] @ mixed + s[f"lgf.{turn}.reduce.bias"]).clamp(min=0)
            gate = torch.sigmoid(s[f"lgf.{turn}.expand.weight"] @ inner + s[f"lgf.{turn}.expand.bias"])
            mixed = gate * local + (1 - gate) * whole
        return mixed
    own = indicator(local, s, "lgf.local_quality", arch.quality)
    other = indicator(whole, s, "lgf.global_quality", arch.quality)
    assert 0 < own < 2  # the test is of something
    assert 0 < other < 2
    parts = (own / (own + other) * local, other / (own + other) * whole)
    if arch.fusion == "concat":
        return s["lgf.linear.weight"] @ torch.cat(parts) + s["lgf.linear.bias"]
    return parts[0] + parts[1]


def by_hand(arch: LGAF, s: State, x: Tensor) -> Tensor:
    """The last map of one image (C, 7, 7) -> its embedding (D,)."""
    local = torch.zeros(0)
    if arch.local_features:
        local = torch.cat([msnet(x, s, f"mhms.{head}", arch.lanet) for head in range(arch.heads)])
    if not arch.global_features:
        return local
    whole = s["head.linear.weight"] @ x.reshape(-1) + s["head.linear.bias"]
    whole = normed(whole[None], s, "head.bn", arch.eps)[0]
    return fused(local, whole, s, arch) if arch.local_features else whole


@pytest.mark.parametrize("name", LGAF_SETTINGS)
def test_the_head_is_the_papers_equations(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arch = lgaf_setting(name)
    monkeypatch.setattr("tests.models.test_lgaf.EPS", arch.eps)
    net, maps = randomised(arch), []
    net.get_submodule("norm").register_forward_hook(lambda part, inputs, output: maps.append(output))
    for part in net.modules():
        if isinstance(part, FeatureQuality):  # statistics that fit, for qualities that are not clipped
            part.register_forward_pre_hook(fit)
    with torch.inference_mode():
        found = net(pixels(2, torch.float64))
        alone = net(pixels(2, torch.float64)[:1])
        wanted = torch.stack([by_hand(arch, net.state_dict(), x) for x in maps[0]])
    assert found.shape == (2, arch.embedding_dim)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9 * float(wanted.abs().max()))
    torch.testing.assert_close(alone, found[:1], rtol=1e-11, atol=1e-11)


@examples(5)
@given(lgafs())
def test_only_the_global_feature_is_the_plain_network(arch: LGAF) -> None:
    arch = only_global(arch)
    net, plain = randomised(arch), build(arch.plain(), seed=9).double().eval()
    assert list(net.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(net.state_dict())
    with torch.inference_mode():
        assert torch.equal(net(pixels(2, torch.float64)), plain(pixels(2, torch.float64)))


# -- gradients, precision, compilation


@pytest.mark.parametrize("name", LGAF_SETTINGS)
def test_the_gradient_reaches_every_trained_parameter(name: str) -> None:
    net = build(lgaf_setting(name)).train()
    for part in [part for name, part in net.named_modules() if name.endswith(".reduce")]:
        nn.init.ones_(part.bias)  # no gate of so few ReLUs is closed for all four images
    found = net(pixels(4))
    (found * torch.randn(found.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    for key, parameter in net.named_parameters():
        if not parameter.requires_grad:
            assert key == "head.bn.weight"
            continue
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.abs().sum() > 0 or key == "head.linear.bias", key  # the batch norm takes it away


@pytest.mark.parametrize("name", ["paper", "concat", "iaff", "sum"])
def test_bf16_embeddings_are_near_those_of_float32(name: str) -> None:
    net = with_statistics(build(lgaf_setting(name))).eval()
    with torch.inference_mode():
        exact = net(pixels(4))
        with torch.autocast("cpu", torch.bfloat16):
            found = net(pixels(4)).float()
    assert F.cosine_similarity(found, exact).min() > 0.99


@pytest.mark.slow
def test_a_step_compiles_in_one_graph() -> None:
    net = with_statistics(build(lgaf_setting("paper"))).train()
    other = copy.deepcopy(net)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about its own internals here
        faster = torch.compile(net, fullgraph=True, dynamic=False)
        found = faster(pixels(4))
        found.square().sum().backward()
    wanted = other(pixels(4))
    wanted.square().sum().backward()
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    for (name, one), two in zip(net.named_parameters(), other.parameters(), strict=True):
        if two.requires_grad:
            scale = float(two.grad.abs().max())
            torch.testing.assert_close(one.grad, two.grad, rtol=0, atol=1e-2 * scale + 1e-4, msg=name)
    end_step(net, other)
    for which in ("local", "global"):
        one, two = (n.get_submodule(f"lgf.{which}_quality.statistics") for n in (net, other))
        assert one.mean.item() != 4.0
        torch.testing.assert_close((one.mean, one.std), (two.mean, two.std), rtol=1e-4, atol=0)


# -- initialisation


@pytest.mark.parametrize("shortcut", ["conv", "subsample"])
def test_both_features_start_on_one_scale_and_gates_near_one_half(shortcut: str) -> None:
    """A component of the global feature has the variance 1 of its batch norm."""
    arch = dataclasses.replace(lgaf_setting("paper"), widths=(8, 12, 16, 64), embedding_dim=64, shortcut=shortcut)
    net, gates = build(arch).train(), []
    for name, part in net.named_modules():
        if name.endswith(".gate"):
            part.register_forward_hook(lambda part, inputs, output: gates.append(output.detach()))
    local = net.get_submodule("mhms")(torch.randn(16, 64, 7, 7, generator=torch.Generator().manual_seed(0)))
    assert float(local.detach().square().mean()) == pytest.approx(1, rel=0.25)
    assert len(gates) == 4 * 4  # three LANets and an SE in each head
    assert all((gate - 0.5).abs().max() < 0.2 for gate in gates)


def test_the_trunk_starts_as_the_plain_network_does() -> None:
    arch = lgaf_setting("paper")
    plain, state = build(arch.plain(), seed=4).state_dict(), build(arch, seed=4).state_dict()
    trunk = [name for name in plain if name.startswith(("stem.", "stages.", "norm."))]
    assert len(trunk) > 30
    assert all(torch.equal(plain[name], state[name]) for name in trunk)
