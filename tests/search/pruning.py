"""Networks to prune: lively ones, the channels that go together, architectures as budgets."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mobileface.arch import SEMobileFaceNet
from mobileface.models.build import build
from search.budget import Budget
from search.cost import cost
from search.prune_channels import counts


def pixels(count: int = 4, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 112, 112, 3), dtype=np.uint8)


def outputs(network: nn.Module, images: NDArray[np.uint8]) -> torch.Tensor:
    with torch.no_grad():
        return network(torch.from_numpy(images).permute(0, 3, 1, 2).float())


def lively(arch: SEMobileFaceNet) -> nn.Module:
    """A network as after a training: gains, shifts and slopes of its own, statistics of what it is shown."""
    network, generator = build(arch), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.endswith(("bn.weight", "bn.bias", "act.weight")):
                value += 0.2 * torch.randn(value.shape, generator=generator)
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = None  # the mean over all images
        outputs(network.train(), pixels(8))
    return network.eval()


def chains(arch: SEMobileFaceNet) -> list[list[str]]:
    """Free convolutions whose channels are one number, by what residual connections tie; written out from the rows."""
    found, chain, width = [["head.conv"]], ["stem.conv"], arch.stem
    for number, row in enumerate(arch.stages):
        for block in range(row.depth):
            found.append([f"stages.{number}.{block}.expand.conv"])
            if not (width == row.width and (block > 0 or row.stride == 1)):
                found.append(chain)
                chain = []
            chain.append(f"stages.{number}.{block}.project.conv")
            width = row.width
    return [*found, chain]


def kill(network: nn.Module, convs: list[str], dead: list[int]) -> None:
    """Channels become zero for whatever reads them: at the last batch norm that gives them."""
    for conv in convs:
        prefix = conv.removesuffix("conv")
        names = {"stem.": ["stem_depthwise."], "head.": ["gdc."]}.get(prefix, [])
        names += [prefix.replace("expand", "depthwise")] if "expand" in prefix else []
        modules = dict(network.named_modules())
        for part in [prefix, *names]:
            if f"{part}bn" not in modules:
                continue
            for tensor in ("conv.weight", "bn.weight", "bn.bias"):
                network.get_parameter(f"{part}{tensor}").data[dead] = 0


def kill_inside(network: nn.Module, arch: SEMobileFaceNet, smaller: SEMobileFaceNet) -> None:
    """As many channels inside of SE as its narrower width leaves; the first ones."""
    for name, count in counts(arch).items():
        if name.endswith("se.reduce"):
            gone = count - counts(smaller)[name]
            for tensor in ("weight", "bias"):
                network.get_parameter(f"{name}.{tensor}").data[:gone] = 0


def residuals(arch: SEMobileFaceNet) -> list[bool]:
    return [block.residual for block in arch.walk() for _ in block.names()]


def exactly(arch: SEMobileFaceNet) -> Budget:
    return Budget("exact", max_flops=cost(arch).flops_lfrc, max_size_mib=cost(arch).size_mib)
