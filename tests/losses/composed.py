"""A classification loss written out in float64, and classifiers with given centres to hold against it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mobileface.losses.classifier import Classifier

ANGLES = {"arcface": (1.0, 0.5), "sphereface": (1.35, 0.0), "combined": (1.0, 0.3)}


SCALE = 8.0


def problem(batch: int, classes: int, dim: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.nn.functional.normalize(torch.randn(batch, dim, generator=generator, dtype=torch.float64))
    embeddings *= torch.rand(batch, 1, generator=generator, dtype=torch.float64) * 40 + 12  # norms that MagFace keeps
    labels = torch.randint(0, classes, (batch,), generator=generator)
    return embeddings, torch.randn(classes, dim, generator=generator, dtype=torch.float64) * 3, labels


def own_logit(name: str, own: Tensor, norm: Tensor) -> Tensor:
    """The margin's logit of one sample, from the formula, for the defaults (AdaFace: mean 20, std 100)."""
    theta = torch.arccos(own)
    if name == "softmax":
        return own
    if name == "cosface":
        return own - 0.35
    if name == "adaface":
        z = max(-1.0, min(1.0, 0.333 * (float(norm.detach()) - 20) / (100 + 1e-3)))
        return torch.cos(theta - 0.4 * z) - (0.4 * z + 0.4)
    if name == "magface":
        factor, radians = 1.0, 0.45 + (0.8 - 0.45) * (norm - 10) / 100
    else:
        factor, radians = ANGLES[name]
    last = (math.pi - radians) / factor
    last = last if isinstance(last, Tensor) else torch.tensor(last, dtype=torch.float64)
    logit = torch.cos(factor * theta + radians) if theta <= last else own - torch.cos(last) - 1
    return logit - (0.2 if name == "combined" else 0)


def other_logit(name: str, cos: Tensor, target: float) -> Tensor:
    hard = float(cos.detach()) > target
    if name == "support_vector" and hard:
        return 1.2 * cos + 0.2
    if name == "curricular" and hard:
        return cos * (0.0 + cos)
    return cos


def oracle(margin: str, negatives: str, embeddings: Tensor, centres: Tensor, labels: Tensor) -> Tensor:
    values = []
    for x, y in zip(embeddings, labels.tolist(), strict=True):
        norm = x.norm()
        cosines = [(x / norm) @ (c / c.norm()) for c in centres]
        target = own_logit(margin, cosines[y], norm)
        others = [other_logit(negatives, c, float(target.detach())) for j, c in enumerate(cosines) if j != y]
        value = torch.logsumexp(SCALE * torch.stack([target, *others]), 0) - SCALE * target
        values.append(value + (35 * (norm / 110**2 + 1 / norm) if margin == "magface" else 0))
    return torch.stack(values)


def made(margin: Any, negatives: Any, centres: Tensor, **options: Any) -> Classifier:
    term = Classifier(*centres.shape, margin, SCALE, negatives, **options).to(centres.dtype)
    term.centres.data.copy_(centres)
    return term


def graded(values: Tensor, *inputs: Tensor) -> list[Tensor]:
    spread = torch.arange(1, len(values) + 1, dtype=values.dtype)  # no two samples weigh the same
    return [values.detach(), *torch.autograd.grad((values * spread).sum(), inputs)]
