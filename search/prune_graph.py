"""Channels taken out of a network: torch-pruning's dependency graph and importances, and an `Arch` of what is left."""

from __future__ import annotations

import copy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mobileface.arch import INPUT_SIZE, Arch, SEMobileFaceNet
from mobileface.errors import InputError
from mobileface.files import atomic_folder, write_json
from mobileface.models.build import network as network_of
from mobileface.models.network import Network
from mobileface.training import checkpoint
from search.budget import Budget
from search.prune_channels import MULTIPLE, Group, counts, fit, is_free

BATCH = 4  # each batch is one random direction: few images in many batches scatter less


def prune(
    network: nn.Module, arch: Arch, budget: Budget, images: NDArray[np.uint8], seed: int = 0, multiple: int = MULTIPLE
) -> tuple[SEMobileFaceNet, Network]:
    """The network without its least important channels, as much smaller as the budget asks (see `fit`).

    images: (N, 112, 112, 3) uint8 RGB, on which channels count. The result is built anew from its architecture and in
    eval mode; the network given stays as it is. Its inner widths of SE follow the widths, so these lose channels too.
    InputError for another family, CheckFailed for a budget that no pruning reaches.
    """
    import torch_pruning

    arch = check_family(arch)
    whole = copy.deepcopy(network).eval().requires_grad_(True)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    _sense(whole, pixels, torch.Generator().manual_seed(seed))
    # a tuple: of a tensor torch-pruning would first try to feed the images one by one, and call the stem used twice
    example = (torch.zeros(1, 3, INPUT_SIZE, INPUT_SIZE),)
    graph = torch_pruning.DependencyGraph().build_dependency(whole, example)
    importance = torch_pruning.importance.GroupHessianImportance(group_reduction="sum", normalizer=None)
    found: dict[str, tuple[Any, Group]] = {}  # by the convolution at the root of torch-pruning's group
    names = {module: name for name, module in whole.named_modules()}
    for linked in graph.get_all_groups(ignored_layers=[whole.get_submodule("embedding.conv")]):
        giving = [names.get(d.target.module, "") for d, _ in linked if graph.is_out_channel_pruning_fn(d.handler)]
        found[giving[0]] = linked, Group(tuple(filter(is_free, giving)), tuple(importance(linked).tolist()))
    pruned = fit(arch, [group for _, group in found.values() if group.convs], budget, multiple)
    left = counts(pruned)
    for root, (linked, group) in found.items():
        if gone := group.least(len(group.importance) - left[root]):
            linked.prune(gone)
    rebuilt = network_of(pruned)
    rebuilt.load_state_dict(whole.state_dict())
    return pruned, rebuilt.eval()


def check_packages() -> None:
    """InputError where torch-pruning is not installed."""
    if find_spec("torch_pruning") is None:
        raise InputError("torch-pruning is missing, wanted: pip install 'mobileface[search]'")


def check_family(arch: Arch) -> SEMobileFaceNet:
    """The architecture as it is. InputError unless it is an SE-MobileFaceNet: others have no widths by block."""
    if not isinstance(arch, SEMobileFaceNet):
        raise InputError(f"{arch.name}: is of the family {arch.family}; wanted {SEMobileFaceNet.family}")
    return arch


def write_network(folder: Path, arch: SEMobileFaceNet, network: nn.Module) -> None:
    """A folder that a plan can start from, all of it or nothing."""
    with atomic_folder(folder) as made:
        checkpoint.save(made / "model.safetensors", network.state_dict(), {})
        write_json(made / "arch.json", arch.to_dict())


def _sense(network: nn.Module, pixels: Tensor, generator: torch.Generator) -> None:
    """Leave in each parameter's `grad` how much the unit embedding moves with it: the mean of its squared derivatives.

    That is the diagonal of J^T J, the Hessian of half the squared distance to what the network gives now (Optimal
    Brain Damage, LeCun et al. 1989; the distillation's own loss has no gradient here), by Hutchinson's estimate: random
    directions, another for each image, so that those of a batch do not mix in the mean. A channel counts by the sum of
    that times the squared weight; torch-pruning leaves a depthwise convolution to the batch norm behind it.
    """
    sums = {parameter: torch.zeros_like(parameter) for parameter in network.parameters()}
    for batch in pixels.split(BATCH):
        unit = nn.functional.normalize(network(batch))
        network.zero_grad()
        (unit * torch.randn(unit.shape, generator=generator)).sum().backward()
        for parameter, total in sums.items():
            assert parameter.grad is not None
            total += parameter.grad.square()
    for parameter, total in sums.items():
        parameter.grad = total / len(pixels)
