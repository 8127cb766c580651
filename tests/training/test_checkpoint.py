"""Checkpoints: whole or not there, checked byte for byte, exact for every optimizer."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mobileface import models
from mobileface.arch import SEMobileFaceNet, Stage
from mobileface.errors import InputError, NonFiniteError
from mobileface.training import checkpoint
from mobileface.training.optimizer import make_optimizer
from mobileface.training.plan_phases import Optimizer
from tests.disks import mounted

NANO = SEMobileFaceNet("nano", 4, (Stage(8, 4, 1, 2), Stage(8, 4, 1, 1)), 8, 8)
STATE: dict[str, Any] = {"seen": 640, "best": 0.75, "skipped": ["\udcff<b>\n.jpg", "ä"], "none": None, "rate": 1 / 3}
TENSORS = {
    "network.weight": torch.randn(2, 3, generator=torch.Generator().manual_seed(0)),
    "network.count": torch.tensor(5),
    "terms.half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "optimizer.0.flags": torch.tensor([True, False]),
    "optimizer.0.empty": torch.zeros(0, 4),
}


def equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    """The same names, types, shapes and bits."""
    return one.keys() == two.keys() and all(
        one[name].dtype == two[name].dtype and torch.equal(one[name], two[name]) for name in one
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / "checkpoints" / "last.safetensors", TENSORS, STATE)
    return tmp_path / "checkpoints" / "last.safetensors"


def test_round_trip(saved: Path) -> None:
    tensors, state = checkpoint.load(saved)
    assert equal(tensors, TENSORS)
    assert state == STATE
    assert equal(load_file(saved), TENSORS)  # any reader of safetensors can read it
    assert list(saved.parent.iterdir()) == [saved]


def test_strides_do_not_matter(tmp_path: Path) -> None:
    tensor = torch.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4).to(memory_format=torch.channels_last)
    checkpoint.save(tmp_path / "a", {"t": tensor, "u": tensor.transpose(1, 2)}, {})
    found, _ = checkpoint.load(tmp_path / "a")
    assert torch.equal(found["t"], tensor)
    assert torch.equal(found["u"], tensor.transpose(1, 2))


def test_every_damaged_byte_is_found(saved: Path) -> None:
    """Header, plain state and tensors alike."""
    content = saved.read_bytes()
    assert len(content) < 2000
    for place in range(len(content)):
        for mask in (1, 0x80):
            damaged = bytearray(content)
            damaged[place] ^= mask
            saved.write_bytes(damaged)
            with pytest.raises(InputError, match=str(saved)) as caught:
                checkpoint.load(saved)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 100, -1])
def test_a_truncated_file_is_no_checkpoint(saved: Path, kept: int) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[:kept])
    with pytest.raises(InputError, match=r"is not a whole checkpoint"):
        checkpoint.load(saved)


def test_a_longer_file_is_no_checkpoint(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes() + b"\0")
    with pytest.raises(InputError, match=r"is not a whole checkpoint"):
        checkpoint.load(saved)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.safetensors: is not a whole checkpoint"):
        checkpoint.load(tmp_path / "no.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match=r"foreign\.safetensors: is damaged"):
        checkpoint.load(tmp_path / "foreign.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64])
def test_values_that_are_not_finite_are_refused(
    saved: Path, value: float, kind: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not written; a file that holds them, by whatever means, is not read."""
    tensor = torch.zeros(3, 3, dtype=kind)
    tensor[1, 2] = value
    tensors = {"good": torch.zeros(1), "terms.bad": tensor}
    with pytest.raises(NonFiniteError, match=r"last\.safetensors: not written, tensor 'terms\.bad' is not finite"):
        checkpoint.save(saved, tensors, {})
    assert equal(checkpoint.load(saved)[0], TENSORS)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_not_finite", lambda tensors: None)
        checkpoint.save(saved, tensors, {})
    with pytest.raises(InputError, match=r"last\.safetensors: tensor 'terms\.bad' holds a NaN or an infinity"):
        checkpoint.load(saved)


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def broken(*_: object, **__: object) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("where", "failure"), [("save_file", full), ("save_file", broken), ("fsync", full), ("replace", full)]
)
def test_a_full_disk_leaves_the_old_checkpoint(
    saved: Path, monkeypatch: pytest.MonkeyPatch, where: str, failure: Any
) -> None:
    before = saved.read_bytes()
    monkeypatch.setattr(checkpoint if where == "save_file" else os, where, failure)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(saved, {"new": torch.ones(1)}, {})
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    yield from mounted(tmp_path / "disk", "64k")


def test_a_disk_that_is_really_full(tiny_disk: Path) -> None:
    path = tiny_disk / "last.safetensors"
    checkpoint.save(path, TENSORS, STATE)
    with pytest.raises(OSError, match=r"No space left|cannot be written"):
        checkpoint.save(path, {"large": torch.ones(1 << 16)}, {})
    assert equal(checkpoint.load(path)[0], TENSORS)
    assert list(tiny_disk.iterdir()) == [path]
    checkpoint.save(path, {"small": torch.ones(1)}, {})  # the space was given back
    assert equal(checkpoint.load(path)[0], {"small": torch.ones(1)})


def made(kind: str) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer]:
    network = models.build(NANO).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    terms = nn.ModuleDict({"head": nn.Linear(8, 3)})
    return network, terms, make_optimizer(Optimizer(kind=kind, lr=0.01), network, terms)  # type: ignore[arg-type]


def steps(network: nn.Module, terms: nn.Module, optimizer: torch.optim.Optimizer, which: range) -> None:
    for step in which:
        pixels = torch.randint(0, 256, (4, 3, 112, 112), generator=torch.Generator().manual_seed(step)).float()
        terms["head"](network(pixels)).square().sum().backward()  # type: ignore[index]
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_gather_and_restore_go_on_exactly(tmp_path: Path, kind: str) -> None:
    """Memory layouts included: the fused optimizers go through memory, not through indices."""
    one, two = made(kind), made(kind)
    steps(*one, range(3))
    checkpoint.save(tmp_path / "c", checkpoint.gather(*one), {})
    tensors, _ = checkpoint.load(tmp_path / "c")
    checkpoint.restore(tensors, *two, tmp_path / "c")
    assert equal(checkpoint.gather(*two), checkpoint.gather(*one))
    for network, terms, optimizer in (one, two):
        steps(network, terms, optimizer, range(3, 6))
    assert equal(checkpoint.gather(*two), checkpoint.gather(*one))


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    network, terms, optimizer = made("sgd")
    other = nn.ModuleDict({"head": nn.Linear(8, 4)})
    with pytest.raises(InputError, match=r"last: belongs to another plan .*head\.weight"):
        checkpoint.restore(checkpoint.gather(network, other, optimizer), network, terms, optimizer, tmp_path / "last")
