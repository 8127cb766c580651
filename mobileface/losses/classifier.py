"""The margin classifier: normalised embeddings against normalised class centres, without a B x C tensor.

    cos   = unit embeddings x unit centres
    logit = margin(cosine to the own centre, quality)             losses/margins.py
    neg   = negatives(cosines to the other centres, logit)        losses/negatives.py
    loss  = weight[label] * -log softmax(scale * [logit, neg])    losses/balance.py

Under `torchrun` each rank holds a contiguous share of the centres and sees the embeddings of all ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobileface.distributed import check_equal, gather, max_over_ranks, rank, shard, sum_over_ranks, world_size
from mobileface.errors import InputError
from mobileface.losses.forward import Forward, check_labels, unit
from mobileface.losses.margins import Margin
from mobileface.losses.negatives import Negatives, Plain
from mobileface.losses.quality_gate import QualityGate
from mobileface.losses.streamed import CHUNK_BYTES, GPU_CHUNK_BYTES, LIVE_CHUNKS, Classes, others_and_own, own_cosines
from mobileface.statistics import Stepped

BLOCK = 1 << 16  # classes whose centres start from one generator, whatever the number of ranks


class Classifier(Stepped):
    """Term: margin softmax over all classes, per sample.

    centres: parameter (this rank's share of C, D) float32; rows drawn from a normal distribution by `seed` and
    scaled to length one (uniform on the sphere). Both sides are normalised in every forward, gradients go
    through both. Everything is computed in the centres' type, autocast or not.

    balance: (C,) weight of each class, None for none (losses.balance makes class-balanced ones).
    sample: share of a rank's classes that a training step sees, the batch's own always among them (partial FC,
    An et al. 2022; the sampled softmax is not corrected for it, as there); 1 = all. In eval mode all count.
    views: of each image, all of them samples. gate: which of these count (QGFace), None for all.
    chunk: classes handled at once (None: as many as a fixed number of bytes allows).

    Errors: InputError for a label that is not in 0..C-1, for a wrong width, for ranks with unequal batches.
    """

    step: Tensor
    balance: Tensor | None

    def __init__(
        self,
        num_classes: int,
        dim: int,
        margin: Margin,
        scale: float = 64.0,
        negatives: Negatives | None = None,
        balance: Tensor | None = None,
        sample: float = 1.0,
        views: Sequence[str] = ("clean",),
        gate: QualityGate | None = None,
        chunk: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise InputError(f"classifier has {num_classes} classes; wanted at least 2")
        if chunk is not None and chunk < 1:
            raise InputError(f"classifier's chunk is {chunk}; wanted at least 1")
        if not 0 < scale < float("inf"):
            raise InputError(f"classifier's scale is {scale:g}; wanted above 0 and finite")
        if not 0 < sample <= 1:
            raise InputError(f"classifier's sample is {sample:g}; wanted above 0 and at most 1")
        if balance is not None and balance.shape != (num_classes,):
            raise InputError(f"classifier's balance holds {tuple(balance.shape)} weights; wanted ({num_classes},)")
        self.num_classes, self.shard = num_classes, shard(num_classes)
        self.centres = nn.Parameter(start_centres(self.shard, dim, seed))
        self.margin, self.negatives = margin, negatives or Plain()
        self.scale, self.sample, self.chunk, self.seed = scale, sample, chunk, seed
        self.views, self.gate = tuple(views), gate
        self.register_buffer("balance", balance, persistent=False)  # made again from the data at every start
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, forward: Forward) -> tuple[Tensor, Tensor]:
        """Values (V B,) and weights (V B,) of the samples of all V views, one view after another: the classes' weights,
        or ones; 0 where the gate calls a sample poor."""
        embeddings = torch.cat([forward.embeddings[view] for view in self.views])
        labels = forward.labels.repeat(len(self.views))
        scores = None if forward.scores is None else forward.scores.repeat(len(self.views))
        self._check(embeddings, labels)
        if world_size() > 1:
            check_equal(len(labels), "images in a rank's batch")
        with torch.autocast(embeddings.device.type, enabled=False):
            raw = embeddings.to(self.centres.dtype)
            norms = torch.linalg.vector_norm(raw, dim=1)
            values = self._values(unit(raw), labels, norms, scores)
            penalty = self.margin.penalty(norms)
        values = values if penalty is None else values + penalty
        weights = torch.ones_like(values) if self.balance is None else self.balance[labels].to(values.dtype)
        if self.gate is not None:
            weights = weights * self.gate.high(self.gate.indicators(norms.detach()))
        return values, weights

    def end_step(self) -> None:
        """The next step sees another sample of the classes."""
        self.step += 1

    def _values(self, units: Tensor, labels: Tensor, norms: Tensor, scores: Tensor | None) -> Tensor:
        """(B,) of this rank: -log softmax of its samples over the classes of all ranks."""
        own = slice(rank() * len(units), (rank() + 1) * len(units))
        units, labels = gather(units), gather(labels)
        rows = labels - self.shard.start  # of this rank's share; other labels lie outside
        classes = self._classes(rows)
        with torch.no_grad():
            cosines = sum_over_ranks(own_cosines(units, self.centres, rows))
            seen = self._quality(units, rows, cosines, gather(norms), None if scores is None else gather(scores))
            if self.training:
                self.margin.observe(seen[own])
                self.negatives.observe(cosines[own])
            target = self.margin(cosines, seen)
        cosines, others = others_and_own(units, self.centres, rows, target, self.negatives, self.scale, classes)
        cosines = sum_over_ranks(cosines)[own]
        quality = norms if self.margin.quality == "norm" else seen[own]  # MagFace: through the norm goes a gradient
        return -F.logsigmoid(self.scale * self.margin(cosines, quality) - _log_sum_over_ranks(others)[own])

    def _quality(self, units: Tensor, rows: Tensor, cosines: Tensor, norms: Tensor, scores: Tensor | None) -> Tensor:
        """(N,) what the margin asks for, of all ranks' samples; a constant."""
        if self.margin.quality == "norm":
            return norms.detach()
        if self.margin.quality == "score":
            if scores is None:
                raise InputError("the margin's quality is a score of each image; the data set names none")
            return scores.to(units.dtype)
        if self.margin.quality == "probability":  # of the own class under plain softmax (AdaFace, Table 1: P_y)
            everything = Classes(None, self.chunk)
            others = others_and_own(units, self.centres, rows, cosines, Plain(), self.scale, everything)[1]
            return torch.sigmoid(self.scale * cosines - _log_sum_over_ranks(others))
        return torch.zeros_like(cosines)

    def _classes(self, rows: Tensor) -> Classes:
        """Which of this rank's classes the step sees: the batch's own, and others drawn by (seed, step, rank)."""
        count = len(self.shard)
        wanted = round(self.sample * count)
        if not self.training or wanted >= count:
            return Classes(None, self.chunk)
        generator = torch.Generator().manual_seed(((self.seed * 1_000_003 + int(self.step)) * 65_537 + rank()) % 2**63)
        draw = torch.rand(count, generator=generator).to(rows.device)
        positive = rows[(rows >= 0) & (rows < count)].unique()
        draw[positive] = 2.0
        chosen = draw.topk(max(wanted, len(positive))).indices.sort().values
        return Classes(chosen, self.chunk)

    def _check(self, embeddings: Tensor, labels: Tensor) -> None:
        dim = self.centres.shape[1]
        if embeddings.shape[1] != dim:
            raise InputError(f"embeddings are {embeddings.shape[1]} wide; the classifier's centres are {dim}")
        check_labels(labels, self.num_classes)


def _log_sum_over_ranks(others: Tensor) -> Tensor:
    """(N,) log-sum-exp over the ranks of what each has over its classes; -inf where a rank has none."""
    peak = max_over_ranks(others).clamp(min=torch.finfo(others.dtype).min)
    total = sum_over_ranks(torch.exp(others - peak))
    return peak + total.clamp(min=torch.finfo(total.dtype).tiny).log()  # a sample may hold no other class


def start_centres(classes: range, dim: int, seed: int) -> Tensor:
    """(len(classes), dim) unit rows, the same for a class however the classes are cut into shares."""
    centres = torch.empty(len(classes), dim)
    for block in range(classes.start // BLOCK, -(-classes.stop // BLOCK) if len(classes) else 0):
        generator = torch.Generator().manual_seed(seed + block)
        rows = F.normalize(torch.randn(BLOCK, dim, generator=generator))
        part = rows[max(0, classes.start - block * BLOCK) : classes.stop - block * BLOCK]
        start = max(block * BLOCK, classes.start) - classes.start
        centres[start : start + len(part)] = part
    return centres


def bytes_needed(num_classes: int, dim: int, optimizer_copies: int, ranks: int) -> dict[str, int]:
    """Bytes on one rank, before anything is allocated: centres, gradient, the optimizer's copies, working room."""
    each = 4 * dim * len(shard(num_classes, ranks, 0))
    chunk = GPU_CHUNK_BYTES if torch.cuda.is_available() else CHUNK_BYTES
    return {
        "centres": each,
        "gradient": each,
        "optimizer": optimizer_copies * each,
        "working": LIVE_CHUNKS * chunk,
    }
