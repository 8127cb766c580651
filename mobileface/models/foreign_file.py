"""Read the tensors of a public checkpoint: a state dict in a PyTorch or safetensors file. No code of it is run."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from mobileface.arch.checks import shown
from mobileface.errors import InputError, one_line

MAX_BYTES = 4 << 30  # IR-101 with a head of 617,970 classes (WebFace12M) and their momentum is near 3 GiB
ZIP = b"PK\x03\x04"  # how torch.save has begun a file since 1.6
NETWORK, HEAD = "model.", "head."  # the parts of AdaFace's Lightning checkpoints


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The network's tensors on the CPU by name, memory-mapped where the format allows it.

    Taken: a state dict, or a checkpoint that holds one under `state_dict`; the prefix `module.` (DDP) and AdaFace's
    `model.` are taken off, and AdaFace's `head.` is left out. InputError for everything else, for files above 4 GiB,
    and for those that cannot be read without a class of theirs.
    """
    if not path.is_file():
        raise InputError(f"{path}: is no file; wanted a PyTorch (.pth, .pt, .ckpt) or .safetensors file")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path}: has {path.stat().st_size} bytes, wanted at most {MAX_BYTES}")
    found = _load(path)
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not found:
        what = "an empty table" if isinstance(found, dict) else f"a {type(found).__name__}"
        raise InputError(f"{path}: holds {what}, wanted a state dict: names and tensors")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            what = f"a {type(value).__name__} under {shown(name)}"
            raise InputError(f"{path}: holds {what}, wanted a state dict: names and tensors")
        if not _plain(value):
            raise InputError(
                f"{path}: {shown(name)} is sparse, nested, quantised or without values, wanted a plain tensor"
            )
    return _bare(found, path)


def _load(path: Path) -> object:
    """What the file holds."""
    with path.open("rb") as file:
        zipped = file.read(len(ZIP)) == ZIP
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if zipped:
            _check_stored(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on a TorchScript file, which is then refused
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except InputError:
        raise
    except Exception as error:  # a damaged file ends the readers in whatever comes first
        named = re.search(r"GLOBAL ([\w.]+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if named:
            raise InputError(
                f"{path}: needs the Python class {named[1]}, and no code is run for a file; in the environment it came "
                'from: torch.save(torch.load(FILE)["state_dict"], "bare.pth"), then import bare.pth'
            ) from None
        what = f"{type(error).__name__}: {one_line(error)[:120]}"
        raise InputError(f"{path}: cannot be read as a PyTorch or safetensors file ({what})") from None


def _check_stored(path: Path) -> None:
    """torch.save compresses nothing; what is compressed could fill the memory, and is no file of it."""
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise InputError(f"{path}: is a compressed archive, wanted a file as torch.save writes it")


def _plain(tensor: Tensor) -> bool:
    """Whether it has a shape, and a value in memory for each place of it."""
    special = tensor.is_nested or tensor.is_quantized or tensor.layout != torch.strided
    return not special and tensor.device.type == "cpu"


def _bare(found: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Names without the prefixes of what the network was trained in."""
    if all(name.startswith("module.") for name in found):
        found = {name.removeprefix("module."): tensor for name, tensor in found.items()}
    if not any(name.startswith(NETWORK) for name in found):
        return found
    if other := [name for name in found if not name.startswith((NETWORK, HEAD))]:
        raise InputError(f"{path}: holds {shown(other[0])} beside {NETWORK}*, wanted {NETWORK}* and {HEAD}* only")
    return {name.removeprefix(NETWORK): tensor for name, tensor in found.items() if name.startswith(NETWORK)}
