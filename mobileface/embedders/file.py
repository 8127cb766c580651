"""What the files of all runtimes have in common as embedders: the contract, the embedding and the quality by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobileface.embedders.contract import InputContract, check_finite
from mobileface.errors import InputError, one_line

CONTRACT_KEY = "mobileface.contract"  # in the metadata of our exports: the contract as JSON
GREY = 127
Outputs = dict[str, NDArray[Any]]


class FileEmbedder:
    """uint8 RGB images (B, 112, 112, 3) -> raw embeddings (B, dim) float32, computed by a file on its own runtime.

    The embedding is the output named `embedding`, else the only output with two dimensions. Our exports (those with
    the key `mobileface.contract` in their metadata) give a unit `embedding` and its norm before normalisation as
    `quality`; their product, the raw embedding, is returned. A runtime gives `_run`: outputs by name for as many images
    as it takes at once (`batch`; None: any number), the rest is here.
    """

    libraries: tuple[str, ...]

    def __init__(self, path: Path, digest: str, contract: InputContract, batch: int | None, ours: bool) -> None:
        self.path, self.sha256, self.contract = path, digest, contract
        self._batch = batch
        found = self._run(np.full((1, 112, 112, 3), GREY, np.uint8))
        self._embedding = pick_embedding(path, found)
        self._quality = "quality" if ours and {"embedding", "quality"} <= found.keys() else None
        self.dim = int(found[self._embedding].shape[1])

    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        """Outputs by name, those of one dimension or more, for one piece: at most the runtime's batch."""
        raise NotImplementedError

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        step = self._batch or max(len(images), 1)
        pieces = [self._embed(images[start : start + step]) for start in range(0, len(images), step)]
        return check_finite(np.concatenate([np.empty((0, self.dim), np.float32), *pieces]), self.path)

    def _embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = self._run(images)
        raw = found[self._embedding].astype(np.float32, copy=False)
        if raw.shape != (len(images), self.dim):
            raise InputError(
                f"{self.path}: output {self._embedding!r} is {raw.shape} for {len(images)} images, "
                f"wanted {(len(images), self.dim)}"
            )
        if self._quality is None:
            return raw
        quality = found[self._quality]
        if quality.shape != (len(images),):
            raise InputError(
                f"{self.path}: output {self._quality!r} is {quality.shape} for {len(images)} images, "
                f"wanted {(len(images),)}"
            )
        with np.errstate(all="ignore"):  # a NaN or an infinity is named by the caller
            return raw * quality.astype(np.float32)[:, None]


def padded(pixels: NDArray[Any], batch: int | None) -> NDArray[Any]:
    """The images (N, ...) and the last one again, up to a batch size that is fixed in the file."""
    missing = (batch or 0) - len(pixels)
    return np.concatenate([pixels, np.repeat(pixels[-1:], missing, axis=0)]) if missing > 0 else pixels


def stored_contract(path: Path, stored: str | None) -> InputContract:
    """The contract in a file's metadata. InputError where there is none, or none that can be used."""
    if stored is None:
        raise InputError(
            f"{path}: does not say how its input is normalised, wanted --scale, --mean and --std, in a recipe "
            "teacher.contract (x' = (x / scale - mean) / std)"
        )
    try:
        return InputContract.from_dict(json.loads(stored))
    except (ValueError, RecursionError, InputError) as error:
        raise InputError(f"{path}: metadata {CONTRACT_KEY!r} cannot be used: {one_line(error)}") from None


def pick_embedding(path: Path, found: Outputs) -> str:
    """The name of the embedding among a file's outputs."""
    flat = [name for name, value in found.items() if value.ndim == 2 and value.dtype.kind in "fiu"]
    if "embedding" in flat:
        return "embedding"
    if len(flat) == 1:
        return flat[0]
    shapes = {name: list(value.shape) for name, value in found.items()}
    raise InputError(
        f"{path}: outputs are {shapes}, wanted `embedding` (N, D) or just one of two dimensions, of numbers"
    )
