"""Networks that behave like trained ones: batch norms fit their inputs, every channel has its own slope."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from mobileface import models
from mobileface.arch import Arch, SEMobileFaceNet, Stage
from mobileface.statistics import NormStatistics, end_step

NANO = SEMobileFaceNet("nano", 4, (Stage(8, 4, 1, 2), Stage(8, 4, 1, 1)), 8, 8)  # exported in two seconds


def lively(arch: Arch = NANO, slopes: tuple[float, float] = (0.05, 0.4)) -> nn.Module:
    """In eval mode. Random statistics instead would let a deep network amplify rounding without bound."""
    network, generator = models.build(arch), torch.Generator().manual_seed(0)
    for part in network.modules():
        if isinstance(part, nn.PReLU):
            part.weight.data.uniform_(*slopes, generator=generator)
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            if part.affine:
                part.weight.data.uniform_(0.7, 1.3, generator=generator)
                part.bias.data.normal_(0, 0.1, generator=generator)
            part.momentum = 1.0
        if isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
            part.bias.data.uniform_(0.5, 1.0, generator=generator)  # the exporter keeps equal tensors once
        if isinstance(part, NormStatistics):
            part.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.randint(0, 256, (8, 3, 112, 112), generator=generator).float())
        end_step(network)
    return network.eval()


@pytest.fixture(scope="session")
def make() -> Callable[..., nn.Module]:
    return lively


@pytest.fixture(scope="session")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (9, 112, 112, 3), dtype=np.uint8)


@pytest.fixture
def run(tmp_path: Path, make: Callable[..., nn.Module]) -> Path:
    """A run folder without plan and card."""
    folder, network = tmp_path / "run", make()
    folder.mkdir()
    (folder / "arch.json").write_text(json.dumps(network.arch.to_dict()))
    save_file(network.state_dict(), folder / "model.safetensors")
    return folder
