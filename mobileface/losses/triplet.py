"""Triplets mined inside the batch: an anchor, an image of the same identity, an image of another one."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobileface.distributed import gather, rank
from mobileface.errors import InputError, nearest
from mobileface.losses.forward import Forward

Margin = float | Tensor  # in the distance's units
BLOCK_BYTES = 64 * 2**20  # the most that the differences of one block of close pairs take
CANCELS = 0.01  # |a - b|^2 below this share of |a|^2 + |b|^2 is taken from the difference itself


def safe_root(squares: Tensor) -> Tensor:
    """The square root, elementwise, with the gradient 0 at 0 (it would be infinite, and NaN after the chain rule)."""
    zero = squares == 0
    return squares.masked_fill(zero, 1).sqrt().masked_fill(zero, 0)


# distance -> what it makes of |a - b|^2
DISTANCES: dict[str, Callable[[Tensor], Tensor]] = {
    "euclidean": safe_root,
    "squared": lambda squares: squares,
    "cosine": lambda squares: squares / 2,  # = 1 - cos between unit vectors, without its cancellation
}


class Triplet(nn.Module):
    """Term: max(0, d(anchor, positive) - d(anchor, negative) + margin), per triplet of the batch.

    mining: "batch_hard" (Hermans et al. 2017) or "semi_hard" (FaceNet, Schroff et al. 2015), see
    `triplet_values`. distance: "euclidean" |a - b|, "squared" |a - b|^2 or "cosine" 1 - cos; `margin` is in its
    units. The embeddings are scaled to length one unless `normalised` is False; the cosine always does so.
    The margin 0.3 is ours. Errors: InputError for another mining or distance, a margin not above 0 and finite.
    """

    def __init__(
        self,
        mining: str = "batch_hard",
        distance: str = "euclidean",
        margin: float = 0.3,
        normalised: bool = True,
        view: str = "clean",
    ) -> None:
        super().__init__()
        for what, name, known in (("mining", mining, MINING), ("distance", distance, DISTANCES)):
            if name not in known:
                raise InputError(f"triplet's {what} is {name!r}{nearest(name, known)}; wanted {' or '.join(known)}")
        if not 0 < margin < math.inf:
            raise InputError(f"triplet's margin is {margin:g}; wanted above 0 and finite")
        self.mining, self.distance, self.margin = mining, distance, margin
        self.normalised = normalised
        self.view = view

    def forward(self, forward: Forward) -> tuple[Tensor, Tensor]:
        """Values and weights of `triplet_values`, positives and negatives from the batches of all ranks (N images):
        (B,) batch-hard, (B * N,) semi-hard."""
        images = forward.unit(self.view) if self.normalised else forward.embeddings[self.view]
        labels, others, other_labels = forward.labels, gather(images), gather(forward.labels)
        own = rank() * len(images) + torch.arange(len(images), device=images.device)
        return triplet_values(images, labels, others, other_labels, own, self.mining, self.distance, self.margin)


def triplet_values(
    anchors: Tensor,
    anchor_labels: Tensor,
    others: Tensor,
    other_labels: Tensor,
    own: Tensor,
    mining: str,
    distance: str,
    margin: Margin,
) -> tuple[Tensor, Tensor]:
    """The hinge of each triplet and its weight: 1 where it counts, else 0 (and the value 0).

    anchors (B, D), anchor_labels (B,); others (N, D), other_labels (N,): positives and negatives are taken from
    these, so a caller may hand in the images of all ranks. own (B,): each anchor's place in `others`, -1 if it
    is not there. An image without a label (below 0) is no anchor, no positive and no negative.

    batch_hard: values (B,). The farthest positive and the nearest negative. Counts where there are both, a
    hinge of 0 too.
    semi_hard: values (B * N,), one per anchor and other image. For each positive the nearest negative that is
    farther than it, d_p < d_n < d_p + margin. Ours: a pair that has none counts nothing, and neither does what
    is no pair. (FaceNet's formula is the lower bound; "inside the margin" in its text is the upper one.)

    Gradients go to anchors and others, the choice is a constant. Distances are taken from differences, so they
    are good for close pairs as well; at |a - b| = 0 their gradient is 0. (A public octuplet loss copies its
    Euclidean distances off the graph and learns nothing from them.) In float32 at least, autocast or not.
    Memory: a few B x N, and the (triplets, D) differences of those that count.
    """
    dtype = torch.promote_types(anchors.dtype, torch.float32)
    with torch.autocast(anchors.device.type, enabled=False):
        anchors, others = anchors.to(dtype), others.to(dtype)
        if distance == "cosine":
            anchors, others = F.normalize(anchors), F.normalize(others)
        positive, negative = _masks(anchor_labels, other_labels, own)
        with torch.no_grad():
            mined = DISTANCES[distance](squared_distances(anchors, others))
            far, near, counted = MINING[mining](mined, positive, negative, margin)
        rows, columns = counted.nonzero().unbind(1)
        chosen = anchors.index_select(0, rows)
        to_positive, to_negative = (
            DISTANCES[distance]((chosen - others.index_select(0, index[rows, columns])).square().sum(1))
            for index in (far, near)
        )
        hinge = F.relu(to_positive - to_negative + margin)
        place = rows * counted.shape[1] + columns
        values = hinge.new_zeros(counted.numel()).index_add(0, place, hinge)  # keeps the graph where none counts
    return values, counted.flatten().to(dtype)


@torch.no_grad()
def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """(B, N) |a - b|^2 of a (B, D) and b (N, D), without gradient: what mining compares.

    |a|^2 + |b|^2 - 2ab, clamped at 0. Where that cancels, the difference itself is summed, in blocks of pairs.
    """
    total = a.square().sum(1)[:, None] + b.square().sum(1)
    squares = torch.addmm(total, a, b.T, alpha=-2).clamp_(min=0)
    close = (squares < CANCELS * total).nonzero()
    for pairs in close.split(max(1, BLOCK_BYTES // (a.shape[1] * a.element_size()))):
        rows, columns = pairs.unbind(1)
        squares[rows, columns] = (a[rows] - b[columns]).square().sum(1)
    return squares


def _masks(anchor_labels: Tensor, other_labels: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N) bool each: where the other image is a positive, where it is a negative."""
    same = anchor_labels[:, None] == other_labels
    labelled = (anchor_labels >= 0)[:, None] & (other_labels >= 0)
    itself = own[:, None] == torch.arange(len(other_labels), device=own.device)
    return same & labelled & ~itself, ~same & labelled


def _batch_hard(distances: Tensor, positive: Tensor, negative: Tensor, margin: Margin) -> tuple[Tensor, Tensor, Tensor]:
    far = distances.masked_fill(~positive, -torch.inf).argmax(1, keepdim=True)
    near = distances.masked_fill(~negative, torch.inf).argmin(1, keepdim=True)
    return far, near, (positive.any(1) & negative.any(1))[:, None]


def _semi_hard(distances: Tensor, positive: Tensor, negative: Tensor, margin: Margin) -> tuple[Tensor, Tensor, Tensor]:
    """Negatives of each anchor in order of distance, then for every other image the first that is farther."""
    count = distances.shape[1]
    ordered, order = distances.masked_fill(~negative, torch.inf).sort(1)
    first = torch.searchsorted(ordered, distances, right=True).clamp_(max=count - 1)
    found = ordered.gather(1, first)
    counted = positive & (found < distances + margin)  # of those that have none farther, `found` is infinite
    counted |= positive & distances.isnan()  # a NaN is not hidden
    far = torch.arange(count, device=distances.device).expand_as(order)
    return far, order.gather(1, first), counted


Mined = Callable[[Tensor, Tensor, Tensor, Margin], tuple[Tensor, Tensor, Tensor]]

# mining -> (positive's index, negative's index, whether the triplet counts): (B, 1) or (B, N) each
MINING: dict[str, Mined] = {"batch_hard": _batch_hard, "semi_hard": _semi_hard}
