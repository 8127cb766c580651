"""The teacher's embeddings: of all training images, once, kept in the user's cache; or of a step's views, in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mobileface.data.faces import UNLABELLED, FaceSource
from mobileface.data.faceset import FaceSet
from mobileface.data.images import BadImage, decode
from mobileface.embedders.contract import Embedder, embed_with_flip
from mobileface.embedders.network import NetworkEmbedder
from mobileface.errors import InputError
from mobileface.evaluation import scores
from mobileface.training import checkpoint

BATCH = 64
TARGETS = "targets"
PART = 1 << 18  # images in one file of the cache
COMPARED = 2000  # images that are compared with each other to see whether the teacher knows faces


def teacher_targets(
    teacher: Embedder,
    faces: FaceSet,
    cache: Path,
    progress: Callable[[int], None] = lambda done: None,
    threads: int = 1,
) -> NDArray[np.float32]:
    """(N, D) unit vectors: embedding of the clean crop plus that of its flip, normalised (design: decided so); without
    the flip where the teacher's contract says so.

    Kept under `cache`, one file for each PART images of a source, keyed by the teacher's hash, its contract and the
    source's names and sizes; what an interrupted part had lies beside it and is not embedded again. An image that does
    not decode gets zeros; training skips it as well. `threads` batches are embedded at a time, and give the same
    whatever their number.
    """
    targets, done = np.zeros((len(faces), teacher.dim), np.float32), 0
    for source in faces.sources:
        key = json.dumps([teacher.sha256, teacher.contract.to_dict(), source.fingerprint()], sort_keys=True)
        name = hashlib.sha256(key.encode()).hexdigest()[:32]
        for first in range(0, len(source), PART):
            rows = range(first, min(first + PART, len(source)))
            path = cache / "teachers" / f"{name}{f'-{first // PART}' if first else ''}.safetensors"
            part = targets[done : done + len(rows)]
            if (found := _cached(path, part.shape)) is not None:
                part[:] = found
            else:
                _embed_part(teacher, source, rows, part, path, partial(_count, progress, done), threads)
            done += len(rows)
    return targets


def labels_told_apart(targets: NDArray[np.float32], labels: NDArray[np.int64]) -> float | None:
    """AUC of the targets' cosines over all pairs of images of some labelled identities; None without such pairs.

    targets: (N, D), zeros for an image without; labels: (N,). A teacher whose contract is wrong shows here.
    """
    rng = np.random.Generator(np.random.Philox(key=[0, 5]))
    usable = np.flatnonzero((labels != UNLABELLED) & targets.any(axis=1))
    order = rng.permutation(labels.max(initial=0) + 1)
    chosen = usable[np.argsort(order[labels[usable]], kind="stable")][:COMPARED]
    first, second = np.triu_indices(len(chosen), 1)
    same = labels[chosen][first] == labels[chosen][second]
    if not same.any() or same.all():
        return None
    vectors = targets[chosen].astype(np.float64)
    cosines = (vectors @ vectors.T)[first, second]
    return scores.auc(*scores.roc(cosines, same))


def _cached(path: Path, shape: tuple[int, ...] | None) -> NDArray[np.float32] | None:
    """The cached targets, of this shape unless None; None where there are none or they are damaged."""
    try:
        part = checkpoint.load(path)[0][TARGETS]  # its checksum finds every damaged byte
    except (InputError, KeyError):
        return None
    return part.numpy() if shape in (None, tuple(part.shape)) and part.dtype == torch.float32 else None


def _count(progress: Callable[[int], None], before: int, done: int) -> None:
    progress(before + done)


def _embed_part(
    teacher: Embedder,
    source: FaceSource,
    rows: range,
    out: NDArray[np.float32],
    path: Path,
    progress: Callable[[int], None],
    threads: int,
) -> None:
    """Fill `out`, (len(rows), D), and keep it as `path`; from where an interrupt or an error ended it the last time."""
    begun = path.with_suffix(".begun.safetensors")
    first = done = 0
    if (found := _cached(begun, None)) is not None and found.shape[1:] == out.shape[1:] and len(found) <= len(out):
        first = done = len(found)
        out[:first] = found
    try:
        for done in _embed_all(teacher, source, rows, out, first, threads):
            progress(done)
    except BaseException:
        if done:
            checkpoint.save(begun, {TARGETS: torch.from_numpy(out[:done])}, {})
        raise
    checkpoint.save(path, {TARGETS: torch.from_numpy(out)}, {})
    begun.unlink(missing_ok=True)


def _embed_all(
    teacher: Embedder, source: FaceSource, rows: range, out: NDArray[np.float32], first: int, threads: int
) -> Iterator[int]:
    """Fill `out`, (len(rows), D), batch by batch from row `first` on; gives how many are filled.

    With one thread for the teacher, a second one reads ahead.
    """
    batches = [rows[start : start + BATCH] for start in range(first, len(rows), BATCH)]
    in_turn = Lock() if threads == 1 else nullcontext()
    pool = ThreadPoolExecutor(max(2, threads))
    try:
        work = partial(_embed, teacher, source, rows.start, out, in_turn)
        for batch, _ in zip(batches, pool.map(work, batches), strict=True):
            yield batch.stop - rows.start
    finally:  # after an error or Ctrl-C nothing is waited for: batches at hand fill rows that nobody reads
        pool.shutdown(wait=False, cancel_futures=True)


def _embed(
    teacher: Embedder,
    source: FaceSource,
    start: int,
    out: NDArray[np.float32],
    in_turn: AbstractContextManager[Any],
    batch: range,
) -> None:
    """Fill the rows of `out` that belong to a batch; row 0 is that of image `start`."""
    images, good = [], []
    for i in batch:
        try:
            images.append(decode(source.read(i), source.key(i)))
            good.append(i - start)
        except BadImage:
            continue
    if not images:
        return
    with in_turn:
        both = teacher.contract.flip == "sum"
        raw = embed_with_flip(teacher, np.stack(images)) if both else teacher(np.stack(images))
    length = np.linalg.norm(raw, axis=1, keepdims=True)
    if not np.isfinite(length).all() or (length == 0).any():
        raise InputError(f"{teacher.path}: gives embeddings without a length for some images; wrong contract?")
    out[good] = raw / length


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
