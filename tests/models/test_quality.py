"""LGAF's qualities: their measures and statistics, and the attention weights that come from them."""

from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mobileface.models import build
from mobileface.models.lgaf import WeightedConcatenation, WeightedSum, shares
from mobileface.models.quality import FeatureQuality, energy, entropy
from mobileface.statistics import NormStatistics, end_step
from tests.models.by_hand import measure, pixels, with_statistics
from tests.strategies import examples, lgaf_setting

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
    """Equations 7 and 8, all steps so far with the weights of a moving mean; eval mode freezes them."""
    net = build(lgaf_setting(name)).double().train()
    qualities = [net.get_submodule(f"lgf.{which}_quality") for which in ("local", "global")]
    steps = []
    for images in (pixels(6, torch.float64), pixels(6, torch.float64).flip(0)[:4] / 3):
        steps.append([kind(features) for features in features_of(net, images)])  # type: ignore[operator]
        end_step(net)
    for quality, first, second in zip(qualities, *steps, strict=True):
        mean, std = (0.99 * first.mean() + second.mean()) / 1.99, (0.99 * first.std() + second.std()) / 1.99
        assert quality.statistics.mean.item() == pytest.approx(mean.item(), rel=1e-9)
        assert quality.statistics.std.item() == pytest.approx(std.item(), rel=1e-9)
    assert qualities[0].statistics.mean != qualities[1].statistics.mean
    before = copy.deepcopy(net.state_dict())
    net.eval()(pixels(6, torch.float64) / 2)
    end_step(net)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", ["energy", "entropy"])
def test_before_the_first_step_all_features_count_alike(kind: str, training: bool) -> None:
    net = build(lgaf_setting("paper" if kind == "energy" else kind)).train(training)
    seen = [[], []]
    for found, which in zip(seen, ("local", "global"), strict=True):
        net.get_submodule(f"lgf.{which}_quality").register_forward_hook(lambda p, i, out, to=found: to.append(out))
    local, whole = features_of(net, pixels(3))
    net(pixels(3))
    for own, other in zip(*seen, strict=True):
        for share in shares(own, other):
            assert share.flatten().tolist() == [0.5, 0.5, 0.5]
    assert local.std() > 0
    assert whole.std() > 0


def test_features_of_a_small_scale_have_entropies_that_differ() -> None:
    """Their entropies lie within 0.001 of log D: with AdaFace's 0.001 on the deviation they would be one quality."""
    generator = torch.Generator().manual_seed(0)
    features = 0.1 * torch.randn(256, 512, generator=generator)
    quality = FeatureQuality("entropy").train()
    quality(features)
    end_step(quality)
    found = quality.eval()(features)[:, 0] - 1
    assert quality.statistics.std < 1e-3
    assert found.std().item() == pytest.approx(0.333, rel=0.05)  # h, as for any other scale
    assert (found[::2] - found[1::2]).abs().min() > 0


def test_a_checkpoint_holds_four_numbers_more() -> None:
    names = {name for name in build(lgaf_setting("paper")).state_dict() if name.startswith("lgf.")}
    assert names == {f"lgf.{w}_quality.statistics.{k}" for w in ("local", "global") for k in ("mean", "std", "steps")}
    assert not [name for name in build(lgaf_setting("sum")).state_dict() if name.startswith("lgf.")]


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
