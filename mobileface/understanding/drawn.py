"""Images as a run's last phase sees them: the clean view, and beside it a draw of the degraded one."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mobileface.data.faceset import FaceSet, split_identities
from mobileface.data.info import open_source
from mobileface.data.loading import SAMPLER_STREAM, FaceStream, batches, stream_seed
from mobileface.data.samplers import PlainSampler
from mobileface.errors import InputError, one_line
from mobileface.training.plan import Plan
from mobileface.training.plan_views import steps
from mobileface.training.sources import open_faces
from mobileface.understanding.inside import BATCH, Images

MOST = 512  # images that are drawn

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Drawn:
    """views: "clean" and, where the plan has it, "degraded" -> (N, 112, 112, 3), image by image. labels (N,) int64:
    the classes of the training where `own`, else the identities of the other set. whole: images drawn from."""

    views: dict[str, Images]
    labels: NDArray[np.int64]
    whole: int
    own: bool


def draw(plan: Plan, data: Path | None, run: str, most: int = MOST) -> Drawn | None:
    """At most `most` images: the plan's training faces, or those of `data` where these cannot be read; then a warning
    names the run and says why. None where neither is there. InputError where `data` cannot be used either."""
    try:
        faces = open_faces(plan)
        split = split_identities(faces, plan.data.validate_.identities, plan.seed, plan.data.min_images)
        return _draw(plan, faces, split.train, split.classes, True, most)
    except (InputError, OSError) as error:
        log.warning("%s: its training faces cannot be read (%s)", run, one_line(error))
    if data is None:
        return None
    faces = FaceSet([open_source(data)])
    return _draw(plan, faces, np.arange(len(faces)), faces.labels, False, most)


def _draw(
    plan: Plan, faces: FaceSet, chosen: NDArray[np.int64], labels: NDArray[np.int64], own: bool, most: int
) -> Drawn:
    """Of `chosen` (M,) images of a set; labels (len(faces),). Drawn as in training, but image by image, by the plain
    sampler: its first M positions are M different images."""
    number, phase = len(plan.phases) - 1, plan.phases[-1]
    sampler = PlainSampler(chosen, labels, phase.batch, stream_seed(plan.seed, number, SAMPLER_STREAM))
    degraded = None if phase.views.degraded is None else steps(phase.views.degraded)
    stream = FaceStream(faces, sampler, steps(phase.views.clean), plan.seed, number, degraded, phase.batch)
    count = min(most, len(chosen))
    found = list(batches(stream, 0, count, min(BATCH, count), workers=0))  # the last one goes on into the next epoch
    parts = {"clean": [batch.images for batch in found]}
    if degraded is not None:
        parts["degraded"] = [batch.degraded[0] for batch in found]
    views = {name: torch.cat(images)[:count].numpy() for name, images in parts.items()}
    index = torch.cat([batch.index for batch in found])[:count].numpy()
    return Drawn(views, labels[index], len(chosen), own)
