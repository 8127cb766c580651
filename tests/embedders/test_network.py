"""Run folders as embedders, against the network itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mobileface import models
from mobileface.embedders.contract import InputContract
from mobileface.embedders.network import load_network
from mobileface.embedders.opening import open_embedder
from mobileface.errors import InputError
from mobileface.files import sha256
from mobileface.models.network import Network
from mobileface.zoo import ZOO


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with an untrained network whose batch norms hold statistics of their own."""
    network = models.build(ZOO["micro"])
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(generator=torch.Generator().manual_seed(len(name)))
    (tmp_path / "arch.json").write_text(json.dumps(ZOO["micro"].to_dict()))
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    return tmp_path


def test_run_folder_gives_what_the_network_gives(run: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    embedder = open_embedder(run)
    found = embedder(images)
    network = models.build(ZOO["micro"]).eval()
    network.load_state_dict(load_file(run / "model.safetensors"))
    with torch.no_grad():
        wanted = network(torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert (found.dtype, embedder.dim, embedder.contract) == (np.float32, 32, InputContract())
    assert embedder.sha256 == sha256(run / "model.safetensors")
    np.testing.assert_allclose(embedder(images[1:2]), found[1:2], atol=1e-4)  # eval mode: no batch statistics
    np.testing.assert_array_equal(open_embedder(run / "model.safetensors")(images), found)


def test_flip_may_be_set_but_not_the_normalisation(run: Path) -> None:
    assert open_embedder(run, InputContract(flip="none")).contract.flip == "none"
    with pytest.raises(InputError, match=r"takes RGB in 0\.\.255, wanted no scale, mean, std or layout"):
        open_embedder(run, InputContract(scale=255.0))


HUGE = {"family": "iresnet", "name": "huge", "depths": [512] * 4, "widths": [8192] * 4}


def test_a_small_file_does_not_fill_the_memory(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights of this architecture would take nine terabytes."""
    monkeypatch.setattr("mobileface.embedders.network.network_of", lambda arch: pytest.fail("built"))
    (run / "arch.json").write_text(json.dumps(HUGE))
    with pytest.raises(InputError, match=r"model\.safetensors: holds [\d,]+ values, wanted 2,[\d,]{15} for .*arch"):
        open_embedder(run)


@pytest.mark.parametrize("name", ["micro", "iresnet-micro", "lgaf-micro"])
def test_no_initial_values_are_drawn_from_a_seed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = models.build(ZOO[name], seed=3)
    monkeypatch.setattr(Network, "initialise", lambda *_: pytest.fail("drawn"))
    (tmp_path / "arch.json").write_text(json.dumps(ZOO[name].to_dict()))
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    found = load_network(tmp_path).state_dict()
    assert found.keys() == network.state_dict().keys()
    assert all(torch.equal(value, found[key]) for key, value in network.state_dict().items())


def test_damaged_run_folders(run: Path) -> None:
    weights = run / "model.safetensors"
    state, content = load_file(weights), weights.read_bytes()
    name = next(key for key in state if key.endswith("weight"))
    with_nan = {**state, name: torch.full_like(state[name], float("nan"))}
    save_file(with_nan, weights)
    with pytest.raises(InputError, match=rf"tensor '{name}' holds a NaN"):
        open_embedder(run)
    save_file({key: value for key, value in state.items() if key != name}, weights)
    with pytest.raises(InputError, match=r"model\.safetensors: holds [\d,]+ values, wanted [\d,]+ for .*arch\.json"):
        open_embedder(run)
    save_file({key + "x" * (key == name): value for key, value in state.items()}, weights)
    with pytest.raises(InputError, match=r"model\.safetensors: cannot be loaded into .*arch\.json"):
        open_embedder(run)
    for cut in (0, 7, len(content) - 1):
        weights.write_bytes(content[:cut])
        with pytest.raises(InputError, match=r"model\.safetensors: cannot be loaded"):
            open_embedder(run)
    weights.unlink()
    with pytest.raises(InputError, match=r"holds no model\.safetensors, wanted a run folder"):
        open_embedder(run)
    (run / "arch.json").unlink()
    with pytest.raises(InputError, match=r"holds no arch\.json"):
        open_embedder(run)
