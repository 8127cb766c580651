"""Dead channels go and outputs stay; importances against slow loops."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from mobileface.arch import SEMobileFaceNet
from mobileface.zoo import ZOO
from search.budget import BUDGETS, Budget
from search.cost import cost
from search.prune_channels import Group, counts, resized
from search.prune_graph import _sense, prune
from tests.search.pruning import chains, exactly, kill, kill_inside, lively, outputs, pixels, residuals
from tests.strategies import ODD, archs, examples

NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if cost(arch).macs > 2e8 else [])
    for name, arch in ZOO.items()
    if isinstance(arch, SEMobileFaceNet)
]


def check_dead_channels(arch: SEMobileFaceNet, shares: Callable[[int], float], multiple: int) -> None:
    """Kill a share of each chain's channels; pruning to what is left finds just these, and nothing changes."""
    network, given = lively(arch), {}
    dead: dict[str, list[int]] = {}
    for number, chain in enumerate(chains(arch)):
        width = counts(arch)[chain[0]]
        left = max(1, round(width * shares(number)))
        left = width if left >= width else -(-left // multiple) * multiple
        if left < width:
            gone = sorted(np.random.default_rng(number).permutation(width)[: width - left].tolist())
            given |= dict.fromkeys(chain, left)
            dead |= dict.fromkeys(chain, gone)
    smaller = resized(arch, given)
    assert residuals(smaller) == residuals(arch)
    for chain in chains(arch):
        if chain[0] in dead:
            kill(network, chain, dead[chain[0]])
    kill_inside(network, arch, smaller)
    images = pixels()
    wanted, state = outputs(network, images), copy.deepcopy(network.state_dict())
    found, pruned = prune(network, arch, exactly(smaller), images, multiple=multiple)
    assert found == smaller
    assert pruned.arch == smaller
    assert sum(p.numel() for p in pruned.parameters()) == cost(smaller).params
    unit = nn.functional.normalize
    torch.testing.assert_close(unit(outputs(pruned, images)), unit(wanted), rtol=0, atol=1e-5)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_dead_channels_of_the_zoo_go_and_nothing_changes(name: str) -> None:
    arch = ZOO[name]
    assert isinstance(arch, SEMobileFaceNet)
    check_dead_channels(arch, lambda number: (0.5, 0.75, 1, 0.3)[number % 4], 4)


@examples(8)
@given(archs(max_stages=4), st.lists(st.floats(0.1, 1), min_size=1, max_size=9))
@example(ODD, [0.4, 1, 0.7])
def test_dead_channels_of_random_members_go_and_nothing_changes(arch: SEMobileFaceNet, shares: list[float]) -> None:
    rows, width = [], arch.stem
    for row in arch.stages:  # no row that begins without a residual connection could get one by narrower widths
        rows.append(dataclasses.replace(row, stride=row.stride if row.width == width else 2))
        width = row.width
    arch = dataclasses.replace(arch, stages=tuple(rows), embedding_dim=8)  # of one value only the sign would count
    check_dead_channels(arch, lambda number: shares[number % len(shares)], 1)


def test_torch_pruning_ties_what_residual_connections_tie(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(
        "search.prune_graph.fit", lambda arch, groups, *_: seen.extend(sorted(g.convs) for g in groups) or arch
    )
    for arch in (ZOO["mobilefacenet"], ODD):
        assert isinstance(arch, SEMobileFaceNet)
        seen.clear()
        prune(lively(arch), arch, BUDGETS["lfrc-light"], pixels(1))
        assert sorted(seen) == sorted(sorted(chain) for chain in chains(arch))


def test_what_is_built_anew_gives_what_the_pruned_module_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[nn.Module] = []
    monkeypatch.setattr("search.prune_graph._sense", lambda net, *rest: inside.append(net) or _sense(net, *rest))
    arch = ZOO["tiny"]
    budget = Budget(max_flops=0.5 * cost(arch).flops_lfrc)
    found, pruned = prune(lively(arch), arch, budget, pixels())
    assert found != arch
    images = pixels(8, seed=1)
    assert torch.equal(outputs(pruned, images), outputs(inside[0], images))
    assert torch.equal(outputs(pruned, images), outputs(prune(lively(arch), arch, budget, pixels())[1], images))


def test_importance_is_the_mean_square_of_all_derivatives_of_the_unit_embedding() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 2), nn.PReLU(4), nn.Flatten(), nn.Linear(4, 3))
    images = torch.randn(8, 3, 2, 2)
    _sense(network, images.repeat(500, 1, 1, 1), torch.Generator().manual_seed(0))
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    wanted = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for value in nn.functional.normalize(network(images)).flatten():
        network.zero_grad()
        value.backward(retain_graph=True)
        for name, parameter in network.named_parameters():
            wanted[name] += parameter.grad**2 / len(images)
    assert found.keys() == wanted.keys()
    for name, total in wanted.items():
        torch.testing.assert_close(found[name], total, rtol=0.2, atol=1e-5)


def test_a_channel_counts_by_the_weights_that_give_and_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hidden one: of the expansion, both batch norms, and the projection; squares of weights, times derivatives'."""
    found: dict[str, Any] = {}

    def sense(network: nn.Module, *rest: Any) -> None:
        _sense(network, *rest)
        found.update({n: (p.detach() ** 2 * p.grad) for n, p in network.named_parameters() if p.grad is not None})

    def fit_nothing(arch: SEMobileFaceNet, groups: list[Group], *_: Any) -> SEMobileFaceNet:
        found["importance"] = next(g.importance for g in groups if g.convs == (f"{block}.expand.conv",))
        return arch

    monkeypatch.setattr("search.prune_graph._sense", sense)
    monkeypatch.setattr("search.prune_graph.fit", fit_nothing)
    block, arch = "stages.1.0", ZOO["micro"]
    prune(lively(arch), arch, BUDGETS["lfrc-light"], pixels())
    for channel, importance in enumerate(found["importance"]):
        wanted = sum(float(found[f"{block}.{part}.bn.weight"][channel]) for part in ("expand", "depthwise"))
        wanted += float(found[f"{block}.expand.conv.weight"][channel].sum())
        wanted += float(found[f"{block}.project.conv.weight"][:, channel].sum())
        assert importance == pytest.approx(wanted, rel=1e-5)
        assert importance > 0
