"""What a source of face images is: encoded images by index, with labels. Decoding is done in `images.py`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

UNLABELLED = -1  # label of an image whose identity is not known: distillation may use it, a classifier not


class FaceSource(Protocol):
    """Encoded images by index. Readers are random-access and safe to use in forked workers."""

    name: str
    labels: NDArray[np.int64]  # (N,), 0..C-1 or UNLABELLED

    def __len__(self) -> int: ...

    def read(self, i: int) -> bytes | memoryview:
        """The encoded image `i`."""
        ...

    def key(self, i: int) -> str:
        """The name of image `i` in messages: a file name or a record's key."""
        ...

    def fingerprint(self) -> str:
        """Hex SHA-256 over the sorted names and sizes: what a data set's hash is made of."""
        ...


def hash_names_and_sizes(entries: Iterable[tuple[str, int]]) -> str:
    """Hex SHA-256 over sorted (name, size in bytes)."""
    digest = hashlib.sha256()
    for name, size in sorted(entries):
        digest.update(f"{name}\t{size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
