"""Deeper networks give what the network gave, bit for bit, and their new blocks learn."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from mobileface.arch import SEMobileFaceNet, Stage
from mobileface.errors import InputError
from mobileface.models.build import build
from mobileface.zoo import ZOO
from search.deepen import deepen, deeper
from tests.strategies import ODD, archs, examples


def trained(arch: SEMobileFaceNet) -> nn.Module:
    """Not as it was initialised: statistics of some images, biases and gains of their own."""
    network = build(arch, 3).train()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        network(torch.rand(4, 3, 112, 112, generator=generator) * 255)
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


@examples(10)
@given(archs(max_stages=3, max_depth=2), st.integers(0, 2), st.integers(1, 3))
@example(ODD, 3, 2)
def test_it_gives_what_it_gave_bit_for_bit(arch: SEMobileFaceNet, row: int, blocks: int) -> None:
    row %= len(arch.stages)
    network, pixels = trained(arch), torch.rand(2, 3, 112, 112) * 255
    larger, deep = deepen(network, arch, row, blocks)
    hiddens = arch.stages[row].hiddens()
    assert larger.stages[row].hiddens() == (*hiddens, *[sorted(hiddens)[-1]] * blocks)
    assert larger.stages[:row] + larger.stages[row + 1 :] == arch.stages[:row] + arch.stages[row + 1 :]
    assert deep.arch == larger
    with torch.no_grad():
        assert torch.equal(deep(pixels), network(pixels))
        assert torch.equal(deep.train()(pixels), network.train()(pixels))


def test_the_new_blocks_learn() -> None:
    """The gain gets a gradient at once, and all their other weights as soon as it has moved."""
    arch = ZOO["tiny"]
    assert isinstance(arch, SEMobileFaceNet)
    deep = deepen(trained(arch), arch, -1, 1)[1].train()
    new = deep.get_submodule("stages.2.2")
    optimizer = torch.optim.SGD(deep.parameters(), 0.1)
    moved = []
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.normalize(deep(torch.rand(4, 3, 112, 112) * 255))[:, 0].sum().backward()
        moved.append({name for name, p in new.named_parameters() if p.grad is not None and p.grad.any()})
        optimizer.step()
    assert moved[0] <= {"project.bn.weight", "project.bn.bias"}
    assert "project.bn.weight" in moved[0]
    assert {"expand.conv.weight", "depthwise.conv.weight", "project.conv.weight", "se.expand.weight"} <= moved[1]


def test_the_paper_s_step_4_to_step_5_is_one_block_more() -> None:
    step4, step5 = ZOO["lfrc-step4"], ZOO["lfrc-step5"]
    assert isinstance(step4, SEMobileFaceNet)
    assert isinstance(step5, SEMobileFaceNet)
    assert deeper(step4, -1, 1).stages[-1] == step5.stages[-1] == Stage(256, 256, 24, 1)


@pytest.mark.parametrize("row", [3, -4])
def test_rows_that_are_not_there(row: int) -> None:
    arch = ZOO["tiny"]
    assert isinstance(arch, SEMobileFaceNet)
    with pytest.raises(InputError, match=rf"row is {row}; tiny has 3 rows, wanted 0 to 2, or -1 for the last"):
        deeper(arch, row, 1)
