"""The crops that a file and its network are compared on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobileface.data.folder import SUFFIXES
from mobileface.data.images import MAX_BYTES, decode
from mobileface.data.synthetic import sample
from mobileface.data.verification_bin import read_bin
from mobileface.errors import InputError

FEW, MANY = 32, 256  # images: for float, whose differences are rounding; for int8, whose ranges come from them too
SEED = 20_190_922  # of the synthetic crops


def parity_images(source: Path | None = None, most: int = FEW) -> NDArray[np.uint8]:
    """At most `most` crops (N, 112, 112, 3) uint8 RGB, evenly spread over a folder (with its folders) or a .bin.

    None means synthetic faces, the same ones every time. Raises InputError for a source that is no folder or
    .bin, holds no image, or holds one that cannot be used.
    """
    if source is None:
        return np.stack([sample(SEED, identity, 0)[0] for identity in range(most)])
    if source.is_dir():
        files = sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        return _stack(source, [(str(files[i]), _read(files[i])) for i in _spread(len(files), most)])
    if source.is_file() and source.suffix == ".bin":
        encoded = read_bin(source)[0]
        return _stack(source, [(f"{source}: image {i}", encoded[i]) for i in _spread(len(encoded), most)])
    raise InputError(f"{source}: wanted a folder of aligned 112x112 crops or a verification .bin")


def _read(path: Path) -> bytes:
    """The file's bytes; one more than an image may have, so that decoding refuses a larger file."""
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _spread(count: int, most: int) -> list[int]:
    """At most `most` places of `count`, evenly spread."""
    return [int(i) for i in np.linspace(0, count - 1, min(count, most)).round()] if count else []


def _stack(source: Path, encoded: list[tuple[str, bytes]]) -> NDArray[np.uint8]:
    if not encoded:
        raise InputError(f"{source}: holds no image, wanted aligned 112x112 crops ({', '.join(SUFFIXES)})")
    return np.stack([decode(content, name) for name, content in encoded])
