"""What one training step knows, as the terms see it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mobileface.errors import InputError


@dataclass(frozen=True)
class Forward:
    """One step's embeddings and targets.

    embeddings: view name -> (B, D) float32, not normalised. labels: (B,) int64. teacher: (B, D of the teacher)
    float32, unit length, or None where the phase has no teacher. scores: (B,) quality of each image, or None where
    the data set names none. momentum: (B, D) embeddings of the clean view by a momentum encoder, or None without one.
    """

    embeddings: dict[str, Tensor]
    labels: Tensor
    teacher: Tensor | None = None
    scores: Tensor | None = None
    momentum: Tensor | None = None

    def unit(self, view: str) -> Tensor:
        """(B, D) embeddings of length one; see `unit`."""
        return unit(self.embeddings[view])

    def norms(self, view: str) -> Tensor:
        """(B,) Euclidean lengths of the raw embeddings."""
        return torch.linalg.vector_norm(self.embeddings[view], dim=1)


def unit(embeddings: Tensor) -> Tensor:
    """(B, D) scaled to length one. An embedding of length 0 stays 0 and has gradient 0, where F.normalize gives it
    one of 1e12."""
    lengths = torch.linalg.vector_norm(embeddings, dim=1, keepdim=True)
    zero = lengths == 0
    return (embeddings / lengths.masked_fill(zero, 1)).masked_fill(zero, 0)


def check_labels(labels: Tensor, classes: int) -> None:
    """InputError that names the first label outside 0..classes - 1. Not on a GPU, which would have to be waited for: a
    training's labels are those of its split."""
    if labels.device.type != "cpu":
        return
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        sample = int(wrong.nonzero()[0])
        label = int(labels[sample])
        hint = " (-1 = unlabelled)" if label == -1 else ""
        raise InputError(f"sample {sample} of the batch has label {label}{hint}; wanted 0..{classes - 1}")
