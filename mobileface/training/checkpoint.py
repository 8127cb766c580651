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

from mobileface.distributed import gather_rows, shard
from mobileface.errors import InputError, NonFiniteError, one_line
from mobileface.files import atomic_path
from mobileface.losses.classifier import Classifier

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


def cut_over_ranks(terms: nn.Module) -> dict[Tensor, int]:
    """The parameters of which each rank holds a share of the rows, and the rows of the whole."""
    return {m.centres: m.num_classes for m in terms.modules() if isinstance(m, Classifier)}


def gather(network: nn.Module, terms: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All tensors of a run, named: class centres whole, so that any number of ranks can go on. Every rank must call
    it, and the first one gets it all."""
    cut = cut_over_ranks(terms)
    cut_names = {f"terms.{name}": cut[p] for name, p in terms.named_parameters() if p in cut}
    tensors = {f"network.{name}": t for name, t in network.state_dict().items()}
    for name, tensor in terms.state_dict().items():
        rows = cut_names.get(f"terms.{name}")
        tensors[f"terms.{name}"] = tensor if rows is None else gather_rows(tensor, rows)
    for index, (parameter, entry) in enumerate(_states(optimizer)):
        for key, value in entry.items():
            if value is not None:
                tensor = torch.as_tensor(value)
                shared = parameter in cut and tensor.shape == parameter.shape
                tensors[f"optimizer.{index}.{key}"] = gather_rows(tensor, cut[parameter]) if shared else tensor
    return tensors


def restore(
    tensors: dict[str, Tensor], network: nn.Module, terms: nn.Module, optimizer: torch.optim.Optimizer, path: Path
) -> None:
    """Put the tensors of `gather` back. InputError when they belong to another network or other terms."""
    try:
        network.load_state_dict(part(tensors, "network."))
        terms.load_state_dict(_own_rows(part(tensors, "terms."), terms))
    except RuntimeError as error:
        raise InputError(f"{path}: belongs to another plan ({one_line(error)})") from None
    cut = cut_over_ranks(terms)
    parameters = [parameter for parameter, _ in _states(optimizer)]
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in part(tensors, "optimizer.").items():
        index, key = name.split(".", 1)
        rows = cut.get(parameters[int(index)])
        states.setdefault(int(index), {})[key] = tensor if rows is None else _shard(tensor, rows)
    plain = optimizer.state_dict()
    optimizer.load_state_dict({**plain, "state": states})
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if value.shape == parameter.shape:  # fused optimizers walk memory: it must lie as the parameter does
                state[key] = torch.empty_like(parameter, requires_grad=False).copy_(value)


def start_from(tensors: dict[str, Tensor], network: nn.Module, terms: nn.Module, leave: tuple[str, ...] = ()) -> None:
    """Load network and terms of another phase's checkpoint; what that phase did not have, or not in this shape,
    stays as it is, and so do the terms' tensors whose names begin with one of `leave`."""
    network.load_state_dict(part(tensors, "network."))
    own = terms.state_dict()
    there = _own_rows(part(tensors, "terms."), terms)
    fits = {n: t for n, t in there.items() if n in own and t.shape == own[n].shape and not n.startswith(leave)}
    terms.load_state_dict(fits, False)


def _states(optimizer: torch.optim.Optimizer) -> list[tuple[Tensor, dict[str, Any]]]:
    """(parameter, its state) in the order of the optimizer's own numbers."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return [(p, optimizer.state.get(p, {})) for p in parameters]


def _own_rows(tensors: dict[str, Tensor], terms: nn.Module) -> dict[str, Tensor]:
    cut = cut_over_ranks(terms)
    rows = {name: cut[p] for name, p in terms.named_parameters() if p in cut}
    return {name: _shard(t, rows[name]) if name in rows else t for name, t in tensors.items()}


def _shard(tensor: Tensor, rows: int) -> Tensor:
    own = shard(rows)
    return tensor[own.start : own.stop] if tensor.ndim and len(tensor) == rows else tensor


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under a prefix, the prefix taken off."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _not_finite(tensors: dict[str, Tensor]) -> str | None:
    """The first tensor that holds a NaN or an infinity; looked at in slices, since class centres are large."""

    def finite(tensor: Tensor) -> bool:
        return all(bool(torch.isfinite(part).all()) for part in tensor.reshape(-1).split(1 << 22))

    return next((n for n, t in tensors.items() if t.is_floating_point() and not finite(t)), None)


def _checksum(tensors: dict[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
