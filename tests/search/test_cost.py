"""The closed form against three counts of the built network: fvcore, torch's own, and a slow one with hooks."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mobileface.arch import LGAF, Arch, IResNet, Layer, SEMobileFaceNet, Stage
from mobileface.models.build import network
from mobileface.models.fuse import fuse
from mobileface.zoo import ZOO
from search.cost import RULES, cost, cost_by_stage, layer_cost, total
from search.count_built import fvcore_macs
from tests.strategies import (
    LGAF_SETTINGS,
    ODD,
    ZOO_NAMES,
    archs,
    examples,
    iresnets,
    lgaf_setting,
    lgafs,
    stages,
    unfilled,
)


def torch_macs(net: nn.Module, image: Tensor) -> int:
    """torch counts a multiply-add as two."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(image)
    flops = counter.get_total_flops()
    assert flops % 2 == 0
    return flops // 2


def lfrc_by_hooks(net: nn.Module, image: Tensor) -> int:
    """The challenge's counter on modules as they run, output value by output value of one channel's group.

    Convolution without bias: (2 Cin k^2 - 1) Ho Wo Cout, divided by the groups; with bias the -1 falls away.
    Fully connected: 2 in out, less `out` without bias. Nothing else counts.
    """
    counted: list[int] = []

    def conv(part: nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        each = 2 * part.in_channels * part.kernel_size[0] * part.kernel_size[1]
        if part.bias is None:
            each -= 1
        values = output.shape[1] * output.shape[2] * output.shape[3]
        assert values * each % part.groups == 0
        counted.append(values * each // part.groups)

    def linear(part: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        counted.append(2 * part.in_features * part.out_features - (part.out_features if part.bias is None else 0))

    hooks = []
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            hooks.append(part.register_forward_hook(conv))
        elif isinstance(part, nn.Linear):
            hooks.append(part.register_forward_hook(linear))
    with torch.no_grad():
        net(image)
    for hook in hooks:
        hook.remove()
    return sum(counted)


def stored(net: nn.Module) -> int:
    """Values of a checkpoint's float tensors: not num_batches_tracked, nor what a step adds up."""
    return sum(value.numel() for value in net.state_dict().values() if value.is_floating_point())


def check_built(arch: Arch) -> None:
    """Everything but fvcore, which is slow on big networks."""
    spent, (net, image) = cost(arch), unfilled(arch)
    assert spent.macs == torch_macs(net, image)
    assert spent.flops_lfrc == lfrc_by_hooks(net, image)
    assert spent.params == sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert spent.params + spent.untrained == stored(net) == arch.values()
    folded = fuse(net)
    assert spent.folded == stored(folded)
    weights = sum(part.weight.numel() for part in folded.modules() if isinstance(part, nn.Conv2d | nn.Linear))
    assert spent.folded_weights == weights


@pytest.mark.parametrize("name", ZOO_NAMES)
def test_zoo_entries_cost_what_the_network_costs(name: str) -> None:
    check_built(ZOO[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", LGAF_SETTINGS)
def test_every_setting_of_lgaf_costs_what_the_network_costs(name: str) -> None:
    check_built(lgaf_setting(name))
    assert fvcore_macs(lgaf_setting(name)) == cost(lgaf_setting(name)).macs


@pytest.mark.parametrize("name", ZOO_NAMES)
def test_fvcore_counts_the_same_on_zoo_entries(name: str) -> None:
    assert fvcore_macs(ZOO[name]) == cost(ZOO[name]).macs


@examples(20)
@given(archs() | iresnets() | lgafs())
@example(ODD)
def test_random_members_cost_what_the_network_costs(arch: Arch) -> None:
    check_built(arch)


@examples(12)
@given(archs() | iresnets() | lgafs())
@example(ODD)
def test_fvcore_counts_the_same_on_random_members(arch: Arch) -> None:
    assert fvcore_macs(arch) == cost(arch).macs


@pytest.mark.parametrize(
    ("layer", "macs", "lfrc", "params"),
    [
        # 56 x 56 x 64 values of 3 * 9 products each
        (Layer("stem", "conv", 3, 64, 56, 3, 2, padding=1), 5_419_008, 10_637_312, 1728),
        # depthwise: Cin is not divided by the groups before the 1 is taken off: (2 * 64 * 9 - 1) * 56 * 56
        (Layer("dw", "conv", 64, 64, 56, 3, 1, 64, padding=1), 1_806_336, 3_609_536, 576),
        # groups of two channels: (2 * 128 * 9 - 1) * 7 * 7 * 128 / 64
        (Layer("grouped", "conv", 128, 128, 7, 3, 1, 64), 112_896, 225_694, 2304),
        # with bias: 2 * 24 * 1, and a value more for each output
        (Layer("gate", "conv", 24, 1, 1, bias=True), 24, 48, 25),
        # fully connected: 2 * 100 * 7 with bias, 7 fewer without
        (Layer("fc", "linear", 100, 7, 1, bias=True), 700, 1400, 707),
        (Layer("fc", "linear", 100, 7, 1), 700, 1393, 700),
        (Layer("norm", "batch_norm", 64, 64, 56), 0, 0, 128),
        (Layer("norm", "pre_norm", 64, 64, 56), 0, 0, 128),
        (Layer("norm", "bias_norm", 64, 64, 1), 0, 0, 64),
        (Layer("norm", "plain_norm", 64, 64, 1), 0, 0, 0),
        (Layer("quality", "entropy", 64, 1, 1), 0, 0, 0),
        (Layer("act", "prelu", 64, 64, 56), 0, 0, 64),
        (Layer("act", "hard_swish", 64, 64, 56), 0, 0, 0),
        (Layer("pool", "pool", 64, 64, 1), 0, 0, 0),
    ],
)
def test_single_layers_by_hand(layer: Layer, macs: int, lfrc: int, params: int) -> None:
    found = layer_cost(layer)
    assert (found.macs, found.flops_lfrc, found.params) == (macs, lfrc, params)


@examples(100)
@given(stages(max_depth=4), st.integers(1, 40))
def test_equal_hidden_widths_cost_the_same_in_both_forms(stage: Stage, hidden: int) -> None:
    one = dataclasses.replace(stage, hidden=hidden)
    each = dataclasses.replace(stage, hidden=(hidden,) * stage.depth)
    assert cost(SEMobileFaceNet("a", 8, (one,), 8, 8)) == cost(SEMobileFaceNet("a", 8, (each,), 8, 8))


@examples(100)
@given(archs())
def test_stages_sum_up_to_the_whole(arch: Arch) -> None:
    rows = cost_by_stage(arch)
    assert total((part, 1) for _, _, _, part in rows) == cost(arch)
    wanted = ["stem", *(f"stages.{s}" for s in range(len(arch.stages))), "head", "gdc", "embedding"]
    assert [stage for stage, *_ in rows] == wanted
    assert [blocks for _, _, blocks, _ in rows[1:-3]] == [stage.depth for stage in arch.stages]


def test_grids_by_stage() -> None:
    grids = [grid for _, grid, _, _ in cost_by_stage(ODD)]
    assert grids == [56, 28, 14, 7, 4, 2, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("name", ZOO_NAMES)
def test_bytes_of_an_exported_file(name: str) -> None:
    """Those of the fused network's tensors; int8: weights of convolutions and linear layers in a byte, the rest not."""
    with torch.device("meta"):
        net = network(ZOO[name])
    whole = {key: value for key, value in net.state_dict().items() if value.is_floating_point()}
    assert cost(ZOO[name]).size_bytes == sum(value.nbytes for value in whole.values())
    assert cost(ZOO[name]).size_mib == sum(value.nbytes for value in whole.values()) / 2**20
    folded = fuse(net).state_dict()
    fp32 = {key: value for key, value in folded.items() if value.is_floating_point()}
    matrices = [key for key, value in fp32.items() if value.ndim >= 2]
    wanted = {
        "fp32": sum(value.nbytes for value in fp32.values()),
        "fp16": sum(value.half().nbytes for value in fp32.values()),
        "int8": sum((value.to(torch.int8) if key in matrices else value).nbytes for key, value in fp32.items()),
    }
    assert cost(ZOO[name]).bytes_by_precision == wanted


@examples(50)
@given(iresnets() | lgafs())
def test_rows_of_residual_networks_sum_up_to_the_whole(arch: IResNet) -> None:
    rows = cost_by_stage(arch)
    assert total((part, 1) for _, _, _, part in rows) == cost(arch)
    trunk = [("stem", 112, 1), *((f"stages.{s}", 56 >> s, depth) for s, depth in enumerate(arch.depths))]
    assert [(stage, grid, blocks) for stage, grid, blocks, _ in rows[:5]] == trunk
    heads = [("head", 1, 1)]
    if isinstance(arch, LGAF):
        modules = (
            ("mhms", arch.heads, arch.local_features),
            ("gfe", 1, arch.global_features),
            ("lgf", 1, arch.attention),
        )
        heads = [(name, 1, blocks) for name, blocks, there in modules if there]
    assert [(stage, grid, blocks) for stage, grid, blocks, _ in rows[5:]] == [("norm", 7, 1), *heads]


def test_rules_by_name() -> None:
    spent = cost(ZOO["micro"])
    assert {rule: spent.flops(rule) for rule in RULES} == {"lfrc": spent.flops_lfrc, "macs": spent.macs}
