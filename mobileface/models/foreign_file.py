"""Read the tensors of a public checkpoint: a state dict in a PyTorch or safetensors file. No code of it is run."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from contextlib import suppress
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mobileface.arch.checks import shown
from mobileface.errors import InputError, one_line

MAX_BYTES = 4 << 30  # IR-101 with a head of 617,970 classes (WebFace12M) and their momentum is near 3 GiB
ZIP = b"PK\x03\x04"  # how torch.save has begun a file since 1.6
MAX_CLASSES = 64  # that a checkpoint names beside its tensors; Lightning's name a few
WRAPPERS = ("module.", "model.", "net.")  # DDP's, AdaFace's (Lightning), CVLface's
WANTED = "wanted a state dict (.pth, .pt, .ckpt, .safetensors)"
ONNX = re.compile(rb"\x08[\x01-\x1f][\x12\x1a\x22\x28\x32\x3a\x42]")  # ir_version, then another of ModelProto's fields
HEAD = "head."  # the classifier beside `model.` in AdaFace's checkpoints


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The network's tensors on the CPU by name, memory-mapped where the format allows it.

    Taken: a state dict, or a checkpoint that holds one under `state_dict`; the prefixes `module.` (DDP), `model.`
    (AdaFace) and `net.` (CVLface) are taken off, and AdaFace's `head.` is left out, as are the objects (callbacks,
    settings) that a checkpoint holds beside its state dict. InputError for all else, and for files above 4 GiB.
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
        start = file.read(8)
    if path.suffix == ".onnx" or (path.suffix != ".safetensors" and ONNX.match(start)):
        raise InputError(
            f"{path}: is an ONNX file, {WANTED}; an ONNX file is used as it is, as a teacher or in "
            "`mobileface evaluate`"
        )
    if path.suffix == ".tflite" or start[4:] == b"TFL3":
        raise InputError(f"{path}: is a TFLite file, {WANTED}")
    zipped = start.startswith(ZIP)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if zipped:
            _check_stored(path)
        _check_calls(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on a TorchScript file, which is then refused
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
            except pickle.UnpicklingError:
                found = _beside_objects(path) if zipped else None
                if found is None:
                    raise
                return found
    except InputError:
        raise
    except Exception as error:  # a damaged file ends the readers in whatever comes first
        named = re.search(r"GLOBAL ([\w.]+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if named:
            raise InputError(
                f"{path}: needs the Python class {named[1]}, and no code is run for a file; where you trust it, in the "
                'environment it came from: torch.save(torch.load(FILE, weights_only=False)["state_dict"], "bare.pth"), '
                "then import bare.pth"
            ) from None
        words = "" if isinstance(error, pickle.UnpicklingError) else f": {one_line(error)[:120]}"  # torch's are a page
        what = f"{type(error).__name__}{words}"
        raise InputError(f"{path}: cannot be read as a PyTorch or safetensors file ({what}), {WANTED}") from None


class Table:
    """Stands for a class of what a checkpoint holds beside its tensors, whether an object or a table of its own."""

    def __new__(cls, *given: object, **named: object) -> Any:
        """A kind of table that the reader lets both be."""
        return OrderedDict()


class Number:
    """Stands for what numpy's scalars are made of, which are given their value in another way."""

    def __init__(self, *given: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _beside_objects(path: Path) -> object:
    """What a checkpoint holds, with tables for the objects in it; None unless it has a state dict of its own."""
    with suppress(Exception):  # the first error is the one that says what is in the way
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        if len(names) <= MAX_CLASSES:
            stand_ins: list[Any] = [(Number if name.startswith("numpy.") else Table, name) for name in names]
            with torch.serialization.safe_globals(stand_ins):
                found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
                return found
    return None


def _check_stored(path: Path) -> None:
    """torch.save compresses nothing; what is compressed could fill the memory, and is no file of it."""
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise InputError(f"{path}: is a compressed archive, wanted a file as torch.save writes it")


def _check_calls(path: Path) -> None:
    """A pickle may ask for `bytearray(2**40)`, and no state dict does. (Nothing in the file is compressed.)"""
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        if content.find(b"\nbytearray\n") >= 0:
            raise InputError(f"{path}: asks for a bytearray, wanted tensors only")


def _plain(tensor: Tensor) -> bool:
    """Whether it has a shape, and a value in memory for each place of it."""
    special = tensor.is_nested or tensor.is_quantized or tensor.layout != torch.strided
    return not special and tensor.device.type == "cpu"


def _bare(found: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Names without the prefixes of what the network was trained in, and without a classifier beside it."""
    for wrapper in WRAPPERS:
        if not any(name.startswith(wrapper) for name in found):
            continue
        if other := [name for name in found if not name.startswith((wrapper, HEAD))]:
            raise InputError(f"{path}: holds {shown(other[0])} beside {wrapper}*, wanted {wrapper}* and {HEAD}* only")
        found = {name.removeprefix(wrapper): tensor for name, tensor in found.items() if name.startswith(wrapper)}
    return found
