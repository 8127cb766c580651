"""Activation checkpointing changes memory, and nothing else."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from mobileface.models import build
from mobileface.training.recompute import recompute_blocks
from mobileface.zoo import find_arch


def trained(network: nn.Module, steps: int = 2) -> tuple[list[Tensor], dict[str, Tensor], int]:
    """Gradients of the last step, state after it, bytes kept for the backward pass of the first."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    generator = torch.Generator().manual_seed(0)
    count = 0
    for _ in range(steps):
        pixels = torch.randint(0, 256, (3, 3, 112, 112), generator=generator).float()
        network.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = network(pixels).square().mean()
        count = count or sum(kept.values())
        loss.backward()
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.grad is not None:
                    parameter -= 0.01 * parameter.grad
    return [p.grad.clone() for p in network.parameters() if p.grad is not None], network.state_dict(), count


@pytest.mark.parametrize("name", ["micro", "tiny"])
def test_gradients_and_statistics_are_the_same(name: str) -> None:
    plain = build(find_arch(name), 0).train()
    other = copy.deepcopy(plain)
    recompute_blocks(other)
    gradients, state, bytes_kept = trained(plain)
    found, found_state, fewer = trained(other)
    assert len(found) == len(gradients)
    for got, wanted in zip(found, gradients, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-7, rtol=1e-5)
    assert found_state.keys() == state.keys()
    for key, value in state.items():
        torch.testing.assert_close(found_state[key], value, atol=1e-6, rtol=1e-5)
    assert any(key.endswith("num_batches_tracked") and value == 2 for key, value in found_state.items())
    assert fewer < 0.5 * bytes_kept


def test_a_copy_stands_on_its_own() -> None:
    network = build(find_arch("micro"), 0).train()
    recompute_blocks(network)
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    pixels = torch.full((2, 3, 112, 112), 100.0)
    assert network(pixels).abs().sum() > 0
    assert other(pixels).abs().sum() == 0


def test_eval_mode_and_no_grad_compute_once() -> None:
    network = build(find_arch("micro"), 0)
    pixels = torch.full((2, 3, 112, 112), 100.0)
    wanted = network.eval()(pixels)
    recompute_blocks(network)
    assert torch.equal(network(pixels), wanted)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network.train()
    with torch.no_grad():
        network(pixels)
    tracked = [key for key in before if key.endswith("num_batches_tracked")]
    assert {int(network.state_dict()[key] - before[key]) for key in tracked} == {1}
