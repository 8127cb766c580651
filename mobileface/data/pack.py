"""Packing: an image folder into a .rec, a list of pairs into a .bin. Images are copied as they are encoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mobileface.data.folder import FolderFaces
from mobileface.data.images import decode
from mobileface.data.pairs import open_pairs
from mobileface.data.recordio import write_pack
from mobileface.data.verification_bin import write_bin
from mobileface.errors import InputError


def pack(source: str, to: Path, data: Path) -> str:
    """Write `to` (.rec or .bin) and return a line that says what it holds.

    Every image is decoded first: a bad one is an InputError that names it, and nothing is written.
    """
    if to.suffix == ".rec":
        faces = FolderFaces(Path(source))
        order = np.argsort(faces.labels, kind="stable")
        rows = ((int(faces.labels[i]), _checked(bytes(faces.read(i)), faces.key(i))) for i in order)
        write_pack(to, rows)
        return f"wrote {to}: {len(faces)} images of {len(faces.identities)} identities"
    if to.suffix == ".bin":
        pairs = open_pairs(source, data)
        ends = zip(pairs.first, pairs.second, pairs.same, strict=True)
        write_bin(to, ((_read(pairs, a), _read(pairs, b), bool(same)) for a, b, same in ends))
        return f"wrote {to}: {len(pairs.same)} pairs"
    raise InputError(f"{to}: is neither .rec nor .bin; wanted --to FILE.rec or --to FILE.bin")


def _read(pairs: object, i: int) -> bytes:
    return _checked(bytes(pairs.read(int(i))), pairs.key(int(i)))  # type: ignore[attr-defined]


def _checked(buffer: bytes, name: str) -> bytes:
    decode(buffer, name)
    return buffer
