"""What a network computes on the way to its embedding: the norms of its branches, and any module's output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from mobileface.embedders.contract import Embedder
from mobileface.models.lgaf import FusionNetwork

BATCH = 64
BRANCHES = {"local": "mhms", "global": "head"}  # an LGAF's, and the modules that give them
Images = NDArray[np.uint8]
Norms = Callable[[Images], dict[str, NDArray[np.float64]]]  # (B, 112, 112, 3) -> (B,) by branch


def norms_of(embedder: Embedder) -> Norms:
    """Images -> the norms of their "embedding", and of the "local" and the "global" feature of an LGAF with both."""
    network = getattr(embedder, "network", None)

    def measure(images: Images) -> dict[str, NDArray[np.float64]]:
        if not has_branches(network):
            return {"embedding": lengths(embedder(images))}
        with outputs(network, list(BRANCHES.values())) as found:
            embeddings = embedder(images)
        parts = {name: found[module].float().cpu().numpy() for name, module in BRANCHES.items()}
        return {name: lengths(features) for name, features in ({"embedding": embeddings} | parts).items()}

    return measure


def has_branches(network: object) -> TypeGuard[FusionNetwork]:
    """Whether it is an LGAF with local and global features."""
    return isinstance(network, FusionNetwork) and network.arch.local_features and network.arch.global_features


def lengths(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """(B, D) -> (B,) Euclidean norms, computed in float64."""
    norms: NDArray[np.float64] = np.linalg.norm(features.astype(np.float64), axis=1)
    return norms


def in_batches(measure: Norms, images: Images) -> dict[str, NDArray[np.float64]]:
    """`measure` of any number of images (N, 112, 112, 3), BATCH at a time."""
    parts = [measure(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@contextmanager
def outputs(network: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """What the named modules give in the (last) forward pass inside of the block, by name, without a graph."""
    found: dict[str, Tensor] = {}

    def keeper(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda module, inputs, output: found.update({name: output.detach()})

    handles = [network.get_submodule(name).register_forward_hook(keeper(name)) for name in names]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
