"""Device, precision and compilation: choices, and what happens where they fail."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from mobileface.errors import InputError
from mobileface.models import build
from mobileface.training import device
from mobileface.training.device import autocast, compiled, enough_memory, keep_freed_memory, pick_precision
from mobileface.zoo import ZOO

CPU = torch.device("cpu")


def broken(network: nn.Module, dynamic: bool) -> Callable[..., Any]:
    """What torch.compile gives where there is no C++ compiler: it fails at the first call."""

    def call(pixels: torch.Tensor) -> torch.Tensor:
        network(pixels)  # statistics have already moved when the backend fails
        raise RuntimeError("no C++ compiler\nwas found")

    return call


def test_auto_goes_on_without_a_compiler_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", broken)
    network = build(ZOO["micro"]).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    said: list[str] = []
    forward, is_compiled = compiled(network, "auto", [2], CPU, "fp32", said.append)
    assert forward is network
    assert not is_compiled
    assert len(said) == 1
    assert "no C++ compiler was found" in said[0]
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_on_refuses_where_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(InputError, match="compile: on, but"):
        compiled(build(ZOO["micro"]).train(), "on", [2], CPU, "fp32", print)


def test_off_does_not_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda network: pytest.fail("compiled"))
    network = build(ZOO["micro"])
    assert compiled(network, "off", [2], CPU, "fp32", print) == (network, False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch warns about its own internals while it compiles
def test_compiled_network_computes_the_same_and_starts_untouched() -> None:
    network = build(ZOO["micro"]).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    forward, is_compiled = compiled(network, "auto", [4], CPU, "fp32", print)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(p.grad is None for p in network.parameters())
    if not is_compiled:
        pytest.skip("torch.compile does not work on this machine")
    pixels = torch.rand(4, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 255
    pixels = pixels.to(memory_format=torch.channels_last)
    fast = forward(pixels)
    network.load_state_dict(before)
    torch.testing.assert_close(fast, network(pixels), rtol=1e-3, atol=1e-4)


def test_every_size_of_a_batch_is_compiled_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(torch, "compile", lambda network, dynamic: lambda x: (seen.append(len(x)), network(x))[1])
    compiled(build(ZOO["micro"]).train(), "auto", [2, 3], CPU, "fp32", print)
    assert seen == [2, 3]


def test_too_little_memory_is_one_line_that_says_what_helps() -> None:
    wanted = "memory is too small .+; wanted a smaller batch, a larger accumulate, or activation_checkpointing"
    with pytest.raises(InputError, match=wanted), enough_memory():
        torch.empty(1 << 60)
    with pytest.raises(InputError, match="memory is too small"), enough_memory():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
    with pytest.raises(RuntimeError, match="something else"), enough_memory():
        raise RuntimeError("something else")


def test_keeping_freed_memory_goes_unnoticed_where_it_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        """A C library without mallopt."""

    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: Other())
    keep_freed_memory()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for glibc's allocator")
def test_the_memory_of_a_tensor_that_was_freed_is_kept() -> None:
    """In processes of their own: what they hold, MiB, behind 64 MiB that were freed, over what they held before."""
    script = """
import torch
from mobileface.training.device import keep_freed_memory
{}
def held():
    return int(open("/proc/self/statm").read().split()[1]) * 4 // 1024
torch.ones(1)
before = held()
torch.ones(1 << 24)
print(held() - before)
"""
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", script.format(call)], capture_output=True, text=True).stdout)
        for call in ("keep_freed_memory()", "")
    )
    assert kept > 48 > 16 > given_back


def test_precision_that_is_named_is_used() -> None:
    assert pick_precision("fp32", CPU) == "fp32"
    assert pick_precision("bf16", CPU) == "bf16"
    assert pick_precision("auto", CPU) in ("fp32", "bf16")


def test_autocast_follows_the_precision() -> None:
    a = torch.ones(2, 2)
    with autocast(CPU, "bf16"):
        assert (a @ a).dtype == torch.bfloat16
    with autocast(CPU, "fp32"):
        assert (a @ a).dtype == torch.float32
