"""What a step's terms read: the embeddings of each view of a batch, and what is known of its images."""

from __future__ import annotations

import torch
from torch import Tensor

from mobileface.data.loading import Batch
from mobileface.losses.contrastive import Contrastive
from mobileface.losses.forward import Forward
from mobileface.training.device import autocast, to_device
from mobileface.training.plan_phases import Phase
from mobileface.training.plan_terms import TAUGHT
from mobileface.training.teaching import embed_view
from mobileface.training.trainer import Trainer


def embed(trainer: Trainer, batch: Batch, seed: int) -> tuple[Forward, Tensor]:
    """What the terms may read of a batch, and the raw embeddings of all its views, one view after another.

    All views go through the network in one pass, so batch norms see them together. Dropout draws from `seed`.
    """
    views = [view.to(trainer.device, non_blocking=True) for view in (batch.images, *batch.degraded)]
    pixels = (torch.cat(views) if len(views) > 1 else views[0]).permute(0, 3, 1, 2).float()
    labels, teacher, scores = _rows(trainer, batch)  # before the network: a GPU is not waited for
    with autocast(trainer.device, trainer.precision):
        torch.manual_seed(seed)  # dropout draws from torch's own generator
        embedded = (trainer.int8 or trainer.forward)(pixels)
    clean = pixels[: len(batch.images)]
    if trainer.online is not None and _is_taught(trainer.phase):
        with autocast(trainer.device, trainer.precision):
            teacher = embed_view(trainer.online, batch.images, clean)
    names = ("clean", "degraded")[: len(embedded) // len(batch.images)]
    embeddings = dict(zip(names, embedded.float().split(len(batch.images)), strict=True))
    return Forward(embeddings, labels, teacher, scores, _momentum(trainer, clean)), embedded


def _rows(trainer: Trainer, batch: Batch) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """(labels, the teacher's cached embeddings, scores) of a batch, on their way to the device."""
    taught = trainer.online is None and _is_taught(trainer.phase)
    tables = (trainer.classes, trainer.targets if taught else None, trainer.scores)
    labels, teacher, scores = (None if t is None else to_device(t[batch.index], trainer.device) for t in tables)
    assert labels is not None
    return labels, teacher, scores


def _momentum(trainer: Trainer, clean: Tensor) -> Tensor | None:
    """(B, D) what a momentum encoder makes of the clean view, where a term has one."""
    term = dict(trainer.terms.items()).get("contrastive")
    if not isinstance(term, Contrastive) or term.encoder is None:
        return None
    with autocast(trainer.device, trainer.precision):
        embedded: Tensor = term.encoder(clean)
    return embedded.float()


def _is_taught(phase: Phase) -> bool:
    return any(isinstance(term, TAUGHT) for term in phase.terms)
