"""Phases with two views: the octuplet loss, and QGFace."""

from __future__ import annotations

from typing import Any

from mobileface.data.loading import Batch, batches
from mobileface.training.trainer import Trainer

OCTUPLET: dict[str, Any] = {
    "images": 48,
    "batch": 8,
    "sampler": {"kind": "pk", "images": 2},
    "views": {"clean": ["flip", "brightness"], "degraded": "octuplet"},
    "terms": [{"kind": "octuplet", "margin": 0.5, "relative": True}],
}
QGFACE: dict[str, Any] = {
    "images": 72,
    "batch": 8,
    "views": {"clean": ["flip"], "degraded": "qgface"},
    "terms": [
        {
            "kind": "classification",
            "margin": "adaface",
            "scale": 16,
            "views": ["clean", "degraded"],
            "threshold": 0.45,
        },
        {"kind": "contrastive", "threshold": 0.55, "scale": 16, "size": 12},
    ],
}


def loaded(trainer: Trainer, count: int = 16, micro: int | None = None) -> list[Batch]:
    return list(batches(trainer.stream, 0, count, trainer.phase.batch, 0, micro))
