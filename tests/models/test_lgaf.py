"""LGAF's head against slow loops in float64, written from the paper's equations; its statistics, its gradients."""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mobileface.arch import LGAF
from mobileface.models import build
from mobileface.models.lgaf import WeightedConcatenation, WeightedSum, shares
from mobileface.models.quality import FeatureQuality, energy, entropy
from mobileface.statistics import NormStatistics, end_step
from tests.models.by_hand import State, normed, pixels, prelu, randomised
from tests.strategies import LGAF_SETTINGS, examples, lgaf_setting, lgafs


def with_statistics(net: nn.Module) -> nn.Module:
    """Statistics of their own for each quality, such that both kinds of indicator are neither clipped nor equal."""
    for number, part in enumerate(p for p in net.modules() if isinstance(p, FeatureQuality)):
        part.statistics.mean.fill_((4.0, 3.0)[number])
        part.statistics.std.fill_((2.0, 3.0)[number])
    return net


def fit(part: FeatureQuality, inputs: tuple[Tensor]) -> None:
    """The first time: mean and deviation near the measure of the first image."""
    if part.statistics.mean == 20:
        part.statistics.mean.fill_(0.8 * measure(inputs[0][0].tolist(), part.measure))
        part.statistics.std.fill_(part.statistics.mean / 2 + 1)


# -- the head, one image and one place at a time


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


EPS = 1e-5  # of the batch norms


def measure(x: list[float], kind: str) -> float:
    """The norm (equation 5), or the entropy of exp |x| / sum exp |x|."""
    if kind == "energy":
        return math.sqrt(sum(v * v for v in x))
    exponents = [math.exp(abs(v)) for v in x]
    chances = [e / sum(exponents) for e in exponents]
    return -sum(p * math.log(p) for p in chances)


def indicator(x: Tensor, s: State, at: str, kind: str) -> float:
    """Equation 6, with the 0.001 that keeps the deviation from zero."""
    mean, std = float(s[f"{at}.statistics.mean"]), float(s[f"{at}.statistics.std"])
    return min(max(0.333 * (measure(x.tolist(), kind) - mean) / (std + 0.001), -1), 1) + 1


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
    arch = dataclasses.replace(arch, local_features=False, global_features=True, attention=False, fusion="add")
    net, plain = randomised(arch), build(arch.plain(), seed=9).double().eval()
    assert list(net.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(net.state_dict())
    with torch.inference_mode():
        assert torch.equal(net(pixels(2, torch.float64)), plain(pixels(2, torch.float64)))


# -- attention weights


@given(st.floats(0, 2), st.floats(0, 2))
@examples(200)
def test_shares_are_equation_9_and_halves_where_it_is_nothing_by_nothing(local: float, whole: float) -> None:
    own, other = shares(*(torch.tensor([[value]], dtype=torch.float64) for value in (local, whole)))
    assert own.item() + other.item() == pytest.approx(1, abs=1e-15)
    if local + whole > 0:
        assert own.item() == pytest.approx(local / (local + whole), abs=1e-12)
    else:
        assert own.item() == other.item() == 0.5


@pytest.mark.parametrize(("local", "whole", "share"), [(0, 0, 0.5), (0, 2, 0), (2, 0, 1), (0.5, 1.5, 0.25)])
def test_shares_in_float32(local: float, whole: float, share: float) -> None:
    own, other = shares(torch.tensor([[local]], dtype=torch.float32), torch.tensor([[whole]], dtype=torch.float32))
    assert (own.item(), other.item()) == (share, 1 - share)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", ["energy", "entropy"])
def test_no_gradient_flows_through_the_weights(kind: str, training: bool) -> None:
    """d out / d feature is the weight itself: the weights are constants."""
    fusion = WeightedSum()
    fusion.local_quality, fusion.global_quality = FeatureQuality(kind), FeatureQuality(kind)
    with_statistics(fusion.double()).train(training)
    generator = torch.Generator().manual_seed(0)
    local, whole, towards = (torch.randn(5, 8, generator=generator).double() for _ in range(3))
    local, whole = local.requires_grad_(), (2 * whole).requires_grad_()
    own, other = shares(fusion.local_quality(local), fusion.global_quality(whole))
    assert not own.requires_grad
    assert own.std() > 1e-3
    found = torch.autograd.grad(fusion(local, whole), (local, whole), towards)
    torch.testing.assert_close(found, (own * towards, other * towards), rtol=1e-12, atol=0)


def test_weights_of_a_concatenation_stand_before_the_linear_layer() -> None:
    fusion = WeightedConcatenation()
    fusion.local_quality, fusion.global_quality = FeatureQuality("energy"), FeatureQuality("energy")
    fusion.linear = nn.Linear(8, 4, bias=False)
    with_statistics(fusion).eval()
    local, whole = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    own, other = shares(fusion.local_quality(local), fusion.global_quality(whole))
    weight = fusion.linear.weight
    torch.testing.assert_close(fusion(local, whole), own * local @ weight[:, :4].T + other * whole @ weight[:, 4:].T)


# -- qualities and their statistics


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=9))
def test_measures_are_slow_loops(values: list[float]) -> None:
    features = torch.tensor([values], dtype=torch.float64)
    assert energy(features).item() == pytest.approx(measure(values, "energy"), rel=1e-12, abs=1e-15)
    assert entropy(features).item() == pytest.approx(measure(values, "entropy"), rel=1e-9, abs=1e-12)


def test_entropy_is_largest_where_all_components_are_as_large() -> None:
    features = torch.tensor([[3.0, -3.0, 3.0, -3.0], [0.0, 0.0, 0.0, 0.0], [200.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(entropy(features), torch.tensor([math.log(4), math.log(4), 0.0]))


def features_of(net: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Local and global features as the network computed them."""
    seen: dict[str, Tensor] = {}
    hooks = [
        net.get_submodule(name).register_forward_hook(lambda part, inputs, output, n=name: seen.update({n: output}))
        for name in ("mhms", "head")
    ]
    net(images)
    for hook in hooks:
        hook.remove()
    return seen["mhms"].detach(), seen["head"].detach()


@pytest.mark.parametrize(("name", "kind"), [("paper", energy), ("entropy", entropy), ("concat", energy)])
def test_each_branch_has_statistics_that_a_step_moves(name: str, kind: object) -> None:
    """Equations 7 and 8: 0.01 of the new step; eval mode freezes them."""
    net = build(lgaf_setting(name)).double().train()
    local, whole = features_of(net, pixels(6, torch.float64))
    qualities = [net.get_submodule(f"lgf.{which}_quality") for which in ("local", "global")]
    assert all((q.statistics.mean.item(), q.statistics.std.item()) == (20, 100) for q in qualities)
    end_step(net)
    for quality, features in zip(qualities, (local, whole), strict=True):
        values = kind(features)  # type: ignore[operator]
        assert quality.statistics.mean.item() == pytest.approx(0.99 * 20 + 0.01 * values.mean().item(), rel=1e-12)
        assert quality.statistics.std.item() == pytest.approx(0.99 * 100 + 0.01 * values.std().item(), rel=1e-12)
    assert qualities[0].statistics.mean != qualities[1].statistics.mean
    before = copy.deepcopy(net.state_dict())
    net.eval()(pixels(6, torch.float64) / 2)
    end_step(net)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_a_checkpoint_holds_four_numbers_more() -> None:
    names = {name for name in build(lgaf_setting("paper")).state_dict() if name.startswith("lgf.")}
    assert names == {f"lgf.{w}_quality.statistics.{k}" for w in ("local", "global") for k in ("mean", "std")}
    assert not [name for name in build(lgaf_setting("sum")).state_dict() if name.startswith("lgf.")]


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


@pytest.mark.parametrize("kind", ["energy", "entropy"])
def test_a_quality_is_computed_in_float32_under_autocast(kind: str) -> None:
    quality = with_statistics(FeatureQuality(kind)).train()
    features = 3 * torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    half = features.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = quality(half)
    sums = quality.statistics.step.sums.clone()
    assert found.dtype == quality.statistics.mean.dtype == torch.float32
    assert torch.equal(found, quality.eval()(half.float()))
    values = (energy if kind == "energy" else entropy)(half.float()).double()
    torch.testing.assert_close(sums, torch.stack([torch.tensor(4.0).double(), values.sum(), values.square().sum()]))


@pytest.mark.parametrize("name", ["paper", "concat", "iaff", "sum"])
def test_bf16_embeddings_are_near_those_of_float32(name: str) -> None:
    net = with_statistics(build(lgaf_setting(name))).eval()
    with torch.inference_mode():
        exact = net(pixels(4))
        with torch.autocast("cpu", torch.bfloat16):
            found = net(pixels(4)).float()
    assert F.cosine_similarity(found, exact).min() > 0.99


@pytest.mark.parametrize("kind", ["energy", "entropy"])
def test_the_fusion_is_one_graph_for_the_compiler(kind: str) -> None:
    """`fullgraph`: an error wherever the tracer would have to leave it, in training with its statistics too."""
    net = with_statistics(build(lgaf_setting("paper" if kind == "energy" else kind))).train()
    fusion, features = net.get_submodule("lgf"), torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(0))
    wanted = fusion(*features)
    sums = [part.step.sums.clone() for part in fusion.modules() if isinstance(part, NormStatistics)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about its own internals here
        found = torch.compile(fusion, backend="eager", fullgraph=True)(*features)
    torch.testing.assert_close(found, wanted)
    twice = [part.step.sums for part in fusion.modules() if isinstance(part, NormStatistics)]
    torch.testing.assert_close(twice, [2 * value for value in sums])


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
