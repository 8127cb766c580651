"""A network of ours as an embedder, and how a run folder becomes one."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from mobileface.arch import load_arch
from mobileface.embedders.contract import InputContract, check_finite
from mobileface.errors import InputError, one_line
from mobileface.files import sha256
from mobileface.models.build import network as network_of

WEIGHTS = "model.safetensors"


class NetworkEmbedder:
    """uint8 RGB images (B, 112, 112, 3) -> raw embeddings (B, dim) float32, computed by a module.

    `network` takes float RGB pixels (B, 3, 112, 112) in 0..255; it is put into eval mode and used where its
    parameters lie.
    """

    libraries: tuple[str, ...] = ("torch", "numpy")

    def __init__(self, network: nn.Module, path: Path, digest: str, contract: InputContract | None = None) -> None:
        self.network = network.eval()
        self.path = path
        self.sha256 = digest
        self.contract = contract or InputContract()
        self.dim = int(self._embed(np.zeros((1, 112, 112, 3), np.uint8)).shape[1])

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return check_finite(self._embed(images), self.path)

    @torch.inference_mode()
    def _embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        device = next(self.network.parameters()).device
        # (B, 112, 112, 3) contiguous, seen as (B, 3, 112, 112): this *is* channels_last, no copy needed
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).to(device)
        return self.network(pixels.float()).float().cpu().numpy()


def load_network(folder: Path) -> nn.Module:
    """The trained network of a run folder (arch.json + model.safetensors), in eval mode, on the CPU.

    Raises InputError for files that are missing or damaged, that do not fit each other, or that hold a NaN. As many
    values as the architecture asks for must be there before anything is built: a small hostile file takes no memory.
    """
    for name in ("arch.json", WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"{folder}: holds no {name}, wanted a run folder with arch.json and {WEIGHTS}")
    weights = folder / WEIGHTS
    arch = load_arch(folder / "arch.json")
    try:
        if (found := _values(weights)) != (wanted := arch.values()):
            raise InputError(f"{weights}: holds {found:,} values, wanted {wanted:,} for {folder / 'arch.json'}")
        network, state = network_of(arch), load_file(weights)
        network.load_state_dict(state)
    except (SafetensorError, RuntimeError) as error:  # RuntimeError: keys or shapes of another architecture
        raise InputError(f"{weights}: cannot be loaded into {folder / 'arch.json'} ({one_line(error)})") from None
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(f"{weights}: tensor {name!r} holds a NaN or an infinity, wanted finite weights")
    return network.eval()


def _values(weights: Path) -> int:
    """How many floating-point values a safetensors file holds, by its header."""
    with safe_open(weights, framework="pt") as file:
        tensors = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118
        return sum(math.prod(tensor.get_shape()) for tensor in tensors if "F" in tensor.get_dtype())


def open_run(folder: Path, contract: InputContract, threads: int | None = None) -> NetworkEmbedder:
    """The embedder of a run folder, on a GPU if there is one. `threads` sets torch's number of threads."""
    if threads is not None:
        torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = load_network(folder).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return NetworkEmbedder(network, folder, sha256(folder / WEIGHTS), contract)
