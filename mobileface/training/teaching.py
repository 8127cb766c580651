"""The teacher's embeddings: of all training images, once, kept in the user's cache; or of a step's views, in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mobileface.data.faces import FaceSource
from mobileface.data.faceset import FaceSet
from mobileface.data.images import BadImage, decode
from mobileface.embedders.contract import Embedder, embed_with_flip
from mobileface.embedders.network import NetworkEmbedder
from mobileface.errors import InputError
from mobileface.training import checkpoint

BATCH = 64
TARGETS = "targets"


def teacher_targets(
    teacher: Embedder,
    faces: FaceSet,
    cache: Path,
    progress: Callable[[int], None] = lambda done: None,
    threads: int = 1,
) -> NDArray[np.float32]:
    """(N, D) unit vectors: embedding of the clean crop plus that of its flip, normalised (design: decided so).

    Kept under `cache`, one file a source, keyed by the teacher's hash, its contract and the source's content
    names and sizes. An image that does not decode gets zeros; training skips it as well. `threads` batches are
    embedded at a time, and give the same whatever their number.
    """
    parts, done = [], 0
    for source in faces.sources:
        key = json.dumps([teacher.sha256, teacher.contract.to_dict(), source.fingerprint()], sort_keys=True)
        path = cache / "teachers" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"
        part = _cached(path, (len(source), teacher.dim))
        if part is None:
            part = np.zeros((len(source), teacher.dim), np.float32)
            _embed_all(teacher, source, part, partial(_count, progress, done), threads)
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


def _count(progress: Callable[[int], None], before: int, done: int) -> None:
    progress(before + done)


def _embed_all(
    teacher: Embedder, source: FaceSource, out: NDArray[np.float32], progress: Callable[[int], None], threads: int
) -> None:
    """Fill `out`, batch by batch."""
    batches = [range(first, min(first + BATCH, len(out))) for first in range(0, len(out), BATCH)]
    pool = ThreadPoolExecutor(threads)
    try:
        for rows, _ in zip(batches, pool.map(lambda rows: _embed(teacher, source, rows, out), batches), strict=True):
            progress(rows.stop)
    finally:  # after an error or Ctrl-C, only the batches at hand are waited for
        pool.shutdown(cancel_futures=True)


def _embed(teacher: Embedder, source: FaceSource, rows: Sequence[int], out: NDArray[np.float32]) -> None:
    """Fill the rows of `out`."""
    images, good = [], []
    for i in rows:
        try:
            images.append(decode(source.read(i), source.key(i)))
            good.append(i)
        except BadImage:
            continue
    if not images:
        return
    both = embed_with_flip(teacher, np.stack(images))
    length = np.linalg.norm(both, axis=1, keepdims=True)
    if not np.isfinite(length).all() or (length == 0).any():
        raise InputError(f"{teacher.path}: gives embeddings without a length for some images; wrong contract?")
    out[good] = both / length


@torch.no_grad()
def embed_view(teacher: Embedder, images: Tensor, pixels: Tensor) -> Tensor:
    """(B, D) unit embeddings, on the device of `pixels`, of just what the student sees: no flip is added.

    images: uint8 RGB (B, 112, 112, 3) on the CPU; pixels: the same as float32 (B, 3, 112, 112) on the training's
    device, where a network of ours embeds them, in the training's precision. An ONNX file runs on the CPU. An
    embedding without a length becomes NaN, and the training stops.
    """
    if isinstance(teacher, NetworkEmbedder):
        raw = teacher.network(pixels).float()
    else:
        raw = torch.from_numpy(teacher(images.numpy())).to(pixels.device)
    return raw / torch.linalg.vector_norm(raw, dim=1, keepdim=True)
