"""Octuplet loss (Knoche et al. 2023): four triplets between clean images and their degraded copies."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mobileface.distributed import gather, rank, sum_over_ranks
from mobileface.errors import InputError, nearest
from mobileface.losses.forward import Forward
from mobileface.losses.triplet import DISTANCES, Margin, triplet_values

# equations 7-10: view of the anchor, view of its positive and its negative; h is clean, l is degraded
TERMS = {"hhh": ("h", "h"), "hll": ("h", "l"), "lhh": ("l", "h"), "lll": ("l", "l")}


class Octuplet(nn.Module):
    """Term: the sum over `terms` of max(0, d(anchor, positive) - d(anchor, nearest negative) + margin), equation 11.

    Positive and negative are taken from the images of all ranks, in one view; of its own identity an anchor sees the
    other image, never its own copy in the other view (ours: the paper's A != P). Batches hold two or more images of
    each identity (sampler pk; the paper has two); of more positives the farthest counts.

    distance: "euclidean" (the paper's best for low resolutions), "squared" or "cosine"; normalised: scale embeddings
    to length one before (the cosine always does). margin: in units of the distance; the paper's 25 belongs to its
    models' norms, so `relative` makes it a multiple of the batch's mean norm over both views, a constant.
    Errors: InputError for another term or distance, and for a margin not above 0 and finite.
    """

    def __init__(
        self,
        distance: str = "euclidean",
        margin: float = 25.0,
        relative: bool = False,
        normalised: bool = False,
        terms: Sequence[str] = tuple(TERMS),
        views: tuple[str, str] = ("clean", "degraded"),
    ) -> None:
        super().__init__()
        if distance not in DISTANCES:
            known = " or ".join(DISTANCES)
            raise InputError(f"octuplet's distance is {distance!r}{nearest(distance, DISTANCES)}; wanted {known}")
        if wrong := [term for term in terms if term not in TERMS] or ([] if terms else ["none"]):
            raise InputError(f"octuplet's terms hold {wrong[0]!r}; wanted some of {', '.join(TERMS)}")
        if not 0 < margin < math.inf:
            raise InputError(f"octuplet's margin is {margin:g}; wanted above 0 and finite")
        self.distance, self.margin, self.relative, self.normalised = distance, margin, relative, normalised
        self.terms, self.views = tuple(terms), dict(zip("hl", views, strict=True))

    def forward(self, forward: Forward) -> tuple[Tensor, Tensor]:
        """Values (B,), the sum of the terms, and weights (B,): 1 where an anchor has a positive and a negative."""
        views = {
            name: forward.unit(view) if self.normalised else forward.embeddings[view]
            for name, view in self.views.items()
        }
        images = len(forward.labels)
        own = rank() * images + torch.arange(images, device=forward.labels.device)
        labels, whole = gather(forward.labels), {name: gather(view) for name, view in views.items()}
        margin = self._margin(forward)
        values: list[Tensor] = []
        for anchor, other in (TERMS[term] for term in self.terms):
            found, weights = triplet_values(
                views[anchor], forward.labels, whole[other], labels, own, "batch_hard", self.distance, margin
            )
            values.append(found)
        return torch.stack(values).sum(0), weights

    @torch.no_grad()
    def _margin(self, forward: Forward) -> Margin:
        """The margin of this batch."""
        if not self.relative:
            return self.margin
        norms = torch.cat([forward.norms(view) for view in self.views.values()])
        count = sum_over_ranks(norms.new_tensor(float(len(norms))))
        return self.margin * sum_over_ranks(norms.sum()) / count
