"""Held-out identities of the training data judge which checkpoint is best. Never a test list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mobileface.data.degrade import at_side
from mobileface.data.faceset import FaceSet
from mobileface.data.images import SIZE, BadImage, decode
from mobileface.evaluation import scores

MAX_IMAGES = 2000  # images of held-out identities that are embedded at each validation
BATCH = 100
AT = "auc_at_"


@dataclass(frozen=True)
class HeldOut:
    """images (N, 112, 112, 3) uint8; pairs: indices of all genuine and all impostor pairs among them; sides: px that
    the second image of a pair is shrunk to, in turn."""

    images: Tensor
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    same: NDArray[np.bool_]
    sides: Sequence[int] = (SIZE,)
    people: int = 0

    def described(self) -> str:
        """Who judges, in one line."""
        sides = "" if list(self.sides) == [SIZE] else f", one image of each at {', '.join(map(str, self.sides))} px"
        return (
            f"validation: {self.people:,} people held out, {len(self.images):,} images, {len(self.same):,} pairs "
            f"({self.same.sum():,} of one person){sides}"
        )

    @property
    def numbers(self) -> list[str]:
        """What `validate` gives."""
        return ["auc", "eer", *(f"{AT}{side}" for side in self.sides if len(self.sides) > 1)]


def held_out(
    faces: FaceSet, indices: NDArray[np.int64], seed: int, sides: Sequence[int] = (SIZE,)
) -> tuple[HeldOut | None, list[str]]:
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
    return HeldOut(torch.from_numpy(np.stack(images)), *pairs, sides, len(np.unique(owner))), skipped


def in_words(score: Mapping[str, float]) -> str:
    """What `validate` gives, for one line; of each side the AUC."""
    each = [f"{name.removeprefix(AT)} px {value:.4f}" for name, value in score.items() if name.startswith(AT)]
    sides = f" ({', '.join(each)})" if each else ""
    return f"held-out AUC {score['auc']:.4f}{sides}, EER {score['eer']:.4f}"


@torch.inference_mode()
def validate(network: nn.Module, held: HeldOut, device: torch.device) -> dict[str, float]:
    """AUC and equal error rate over all pairs of the held-out images, without flip, in float32.

    Means over the sides, of which `auc_at_SIDE` holds each if there are several.
    """
    training = network.training
    network.eval()
    clean = _embedded(network, held.images, device, SIZE)
    found = {}
    for side in held.sides:
        poor = clean if side == SIZE else _embedded(network, held.images, device, side)
        fpr, tpr = scores.roc((clean @ poor.T).numpy()[held.first, held.second], held.same)
        found[side] = scores.auc(fpr, tpr), scores.eer(fpr, tpr)
    network.train(training)
    auc, eer = (float(np.mean(values)) for values in zip(*found.values(), strict=True))
    each = [values[0] for values in found.values()] if len(found) > 1 else []
    return dict(zip(held.numbers, [auc, eer, *each], strict=True))


def _embedded(network: nn.Module, images: Tensor, device: torch.device, side: int) -> Tensor:
    """(N, D) of length one, on the CPU, of images that were shrunk to `side`, px."""
    parts = []
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        if side != SIZE:
            batch = torch.from_numpy(np.stack([at_side(image, side) for image in batch.numpy()]))
        pixels = batch.to(device).permute(0, 3, 1, 2).float()
        parts.append(torch.nn.functional.normalize(network(pixels).float()).cpu())
    return torch.cat(parts)
