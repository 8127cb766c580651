"""The teacher's embeddings of the training images, computed once and kept in the user's cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mobileface.data.faceset import FaceSet
from mobileface.data.images import BadImage, decode
from mobileface.embedders.contract import Embedder
from mobileface.errors import InputError
from mobileface.training import checkpoint

BATCH = 64
TARGETS = "targets"


def teacher_targets(
    teacher: Embedder, faces: FaceSet, cache: Path, progress: Callable[[int], None] = lambda done: None
) -> NDArray[np.float32]:
    """(N, D) unit vectors: embedding of the clean crop plus that of its flip, normalised (design: decided so).

    Kept under `cache`, one file a source, keyed by the teacher's hash, its contract and the source's content
    names and sizes. An image that does not decode gets zeros; training skips it as well.
    """
    parts, done = [], 0
    for source in faces.sources:
        key = json.dumps([teacher.sha256, teacher.contract.to_dict(), source.fingerprint()], sort_keys=True)
        path = cache / "teachers" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"
        part = _cached(path, (len(source), teacher.dim))
        if part is None:
            part = np.zeros((len(source), teacher.dim), np.float32)
            for first in range(0, len(source), BATCH):
                rows = range(first, min(first + BATCH, len(source)))
                _embed(teacher, source, rows, part)
                progress(done + rows.stop)
            checkpoint.save(path, {TARGETS: torch.from_numpy(part)}, {})
        done += len(source)
        parts.append(part)
    return np.concatenate(parts)


def _cached(path: Path, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """The cached targets, or None where there are none or they are damaged."""
    try:
        part = checkpoint.load(path)[0][TARGETS]  # its checksum finds every damaged byte
    except (InputError, KeyError):
        return None
    return part.numpy() if part.shape == shape and part.dtype == torch.float32 else None


def _embed(teacher: Embedder, source: object, rows: Sequence[int], out: NDArray[np.float32]) -> None:
    """Fill the rows of `out`."""
    images, good = [], []
    for i in rows:
        try:
            images.append(decode(source.read(i), source.key(i)))  # type: ignore[attr-defined]
            good.append(i)
        except BadImage:
            continue
    if not images:
        return
    pixels = np.stack(images)
    both = teacher(pixels) + teacher(np.ascontiguousarray(pixels[:, :, ::-1]))
    length = np.linalg.norm(both, axis=1, keepdims=True)
    if not np.isfinite(length).all() or (length == 0).any():
        raise InputError(f"{teacher.path}: gives embeddings without a length for some images; wrong contract?")
    out[good] = both / length
