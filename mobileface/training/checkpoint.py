"""Checkpoints: one safetensors file each, written whole or not at all, with a checksum, and no pickle.

Tensors: `network.*`, `terms.*`, `optimizer.INDEX.KEY`. Everything else is plain JSON in the file's metadata.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mobileface.errors import InputError, NonFiniteError, one_line
from mobileface.files import atomic_path

META, CHECKSUM = "mobileface", "sha256"


def save(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write tensors and plain state atomically; the old file stays until the new one is whole.

    NonFiniteError, before anything is written, for a NaN or an infinity (an overflown running variance, say).
    """
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if bad := _not_finite(ready):
        raise NonFiniteError(f"{path}: not written, tensor {bad!r} is not finite; the file before it stays")
    text = json.dumps(state)
    metadata = {META: text, CHECKSUM: _checksum(ready, text)}
    with atomic_path(path) as temporary:
        try:
            save_file(ready, temporary, metadata)
        except SafetensorError as error:  # a full disk is reported so
            raise OSError(f"{path}: cannot be written ({one_line(error)}); the checkpoint before it stays") from None


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save` wrote. InputError for a damaged file, and for a NaN or infinity in any tensor."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, FileNotFoundError) as error:
        raise InputError(f"{path}: is not a whole checkpoint ({one_line(error)})") from None
    text = metadata.get(META, "")
    if not text or metadata.get(CHECKSUM) != _checksum(tensors, text):
        raise InputError(f"{path}: is damaged: its checksum does not fit; delete it to go on without it")
    if bad := _not_finite(tensors):
        raise InputError(f"{path}: tensor {bad!r} holds a NaN or an infinity; wanted finite values")
    return tensors, json.loads(text)


def gather(network: nn.Module, terms: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All tensors of a run, named."""
    tensors = {f"network.{name}": t for name, t in network.state_dict().items()}
    tensors |= {f"terms.{name}": t for name, t in terms.state_dict().items()}
    for index, entry in optimizer.state_dict()["state"].items():
        for key, value in entry.items():
            if value is not None:
                tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value)
    return tensors


def restore(
    tensors: dict[str, Tensor], network: nn.Module, terms: nn.Module, optimizer: torch.optim.Optimizer, path: Path
) -> None:
    """Put the tensors of `gather` back. InputError when they belong to another network or other terms."""
    try:
        network.load_state_dict(part(tensors, "network."))
        terms.load_state_dict(part(tensors, "terms."))
    except RuntimeError as error:
        raise InputError(f"{path}: belongs to another plan ({one_line(error)})") from None
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in part(tensors, "optimizer.").items():
        index, key = name.split(".", 1)
        states.setdefault(int(index), {})[key] = tensor
    plain = optimizer.state_dict()
    optimizer.load_state_dict({**plain, "state": states})
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if value.shape == parameter.shape:  # fused optimizers walk memory: it must lie as the parameter does
                state[key] = torch.empty_like(parameter, requires_grad=False).copy_(value)


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under a prefix, the prefix taken off."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _not_finite(tensors: dict[str, Tensor]) -> str | None:
    """The first tensor that holds a NaN or an infinity."""
    return next((n for n, t in tensors.items() if t.is_floating_point() and not torch.isfinite(t).all()), None)


def _checksum(tensors: dict[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
