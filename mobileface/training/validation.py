"""Held-out identities of the training data judge which checkpoint is best. Never a test list."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mobileface.data.faceset import FaceSet
from mobileface.data.images import BadImage, decode
from mobileface.evaluation import scores

MAX_IMAGES = 2000  # images of held-out identities that are embedded at each validation
BATCH = 100


@dataclass(frozen=True)
class HeldOut:
    """images (N, 112, 112, 3) uint8; pairs: indices of all genuine and all impostor pairs among them."""

    images: Tensor
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    same: NDArray[np.bool_]


def held_out(faces: FaceSet, indices: NDArray[np.int64], seed: int) -> tuple[HeldOut | None, list[str]]:
    """Read the held-out images (at most MAX_IMAGES, drawn by `seed`); None where there are none to compare.

    Second: what is wrong with each image that could not be used.
    """
    rng = np.random.Generator(np.random.Philox(key=[seed, 2]))
    chosen = np.sort(rng.permutation(indices)[:MAX_IMAGES])
    images, labels, skipped = [], [], []
    for i in chosen:
        try:
            images.append(decode(faces.read(int(i)), faces.key(int(i))))
            labels.append(faces.labels[i])
        except BadImage as error:
            skipped.append(str(error))
    first, second = np.triu_indices(len(images), 1)
    owner = np.array(labels)
    same = owner[first] == owner[second] if len(images) else np.zeros(0, bool)
    if not same.any() or same.all():
        return None, skipped
    pairs = (first.astype(np.int64), second.astype(np.int64), same)
    return HeldOut(torch.from_numpy(np.stack(images)), *pairs), skipped


@torch.inference_mode()
def validate(network: nn.Module, held: HeldOut, device: torch.device) -> dict[str, float]:
    """AUC and equal error rate over all pairs of the held-out images, without flip, in float32."""
    training = network.training
    network.eval()
    parts = []
    for start in range(0, len(held.images), BATCH):
        pixels = held.images[start : start + BATCH].to(device).permute(0, 3, 1, 2).float()
        parts.append(torch.nn.functional.normalize(network(pixels).float()).cpu())
    network.train(training)
    cosines = (torch.cat(parts) @ torch.cat(parts).T).numpy()[held.first, held.second]
    fpr, tpr = scores.roc(cosines, held.same)
    return {"auc": scores.auc(fpr, tpr), "eer": scores.eer(fpr, tpr)}
