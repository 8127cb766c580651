"""A phase's terms: built from the plan, weighed into one loss."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from mobileface.distributed import shard, sum_over_ranks, world_size
from mobileface.errors import InputError
from mobileface.losses.balance import class_balanced
from mobileface.losses.centres import Centres
from mobileface.losses.classifier import Classifier, bytes_needed
from mobileface.losses.distill import CosineDistillation, RelationalDistillation, projection
from mobileface.losses.distill_logits import LogitDistillation
from mobileface.losses.forward import Forward
from mobileface.losses.margins import MARGINS, Margin
from mobileface.losses.negatives import NEGATIVES
from mobileface.losses.regularizers import CentreLoss, Inter, Intra
from mobileface.losses.triplet import Triplet
from mobileface.training.plan_phases import Phase
from mobileface.training.plan_terms import TAUGHT, Centre, Classification
from mobileface.training.plan_terms import Inter as InterPlan
from mobileface.training.plan_terms import Intra as IntraPlan
from mobileface.training.plan_terms import LogitDistillation as LogitPlan
from mobileface.training.plan_terms import RelationalDistillation as RelationalPlan
from mobileface.training.plan_terms import Triplet as TripletPlan

SAY_MEMORY_FROM = 256 * 2**20  # bytes of class centres and what belongs to them; below, nobody needs to know


def check_terms(phase: Phase, teacher_dim: int | None) -> None:
    """InputError for settings that contradict each other, and for distillation without a teacher."""
    for term in phase.terms:
        if isinstance(term, Classification):
            _margin(term)
        elif isinstance(term, TAUGHT) and teacher_dim is None:
            raise InputError(f"phase {phase.name}: {term.kind} needs a teacher's embeddings, found none")


def build_terms(
    phase: Phase,
    counts: Tensor,
    dim: int,
    seed: int,
    teacher_dim: int | None = None,
    teachers_centres: Tensor | None = None,
) -> nn.ModuleDict:
    """The term of each kind, as one module: in the optimizer and in the checkpoint.

    counts: (C,) training images of each class. teachers_centres: (this rank's share of C, teacher_dim), for the
    distillation by logits.
    """
    built = nn.ModuleDict()
    for term in phase.terms:  # those that read the class centres come behind the classifier that has them
        if isinstance(term, Classification):
            built[term.kind] = _classifier(term, counts, dim, seed)
    for term in phase.terms:
        if isinstance(term, IntraPlan | InterPlan):
            classifier = built["classification"]
            assert isinstance(classifier, Classifier)
            centres = Centres(partial(getattr, classifier, "centres"), classifier.num_classes)
            built[term.kind] = Intra(centres) if isinstance(term, IntraPlan) else Inter(centres, term.over)
        elif isinstance(term, Centre):
            built[term.kind] = CentreLoss(len(counts), dim)
        elif isinstance(term, TripletPlan):
            built[term.kind] = Triplet(term.mining, term.distance, term.margin, term.normalised)
        elif isinstance(term, RelationalPlan):
            built[term.kind] = RelationalDistillation()
        elif isinstance(term, TAUGHT):
            assert teacher_dim is not None
            link = projection(dim, teacher_dim, seed)
            if isinstance(term, LogitPlan):
                assert teachers_centres is not None
                built[term.kind] = LogitDistillation(teachers_centres, link, term.scale, term.temperature)
            else:
                built[term.kind] = CosineDistillation(link)
    return built


def _margin(term: Classification) -> Margin:
    return MARGINS[term.margin.kind](**term.margin.model_dump(exclude={"kind"}))


def _classifier(term: Classification, counts: Tensor, dim: int, seed: int) -> Classifier:
    margin = _margin(term)
    negatives = NEGATIVES[term.negatives.kind](**term.negatives.model_dump(exclude={"kind"}))
    balance = class_balanced(counts, term.balance.beta) if term.balance.beta else None
    return Classifier(len(counts), dim, margin, term.scale, negatives, balance, term.sample, seed=seed)


def memory_line(phase: Phase, num_classes: int, dim: int, teacher_dim: int | None = None) -> str | None:
    """What the class centres will take on this rank, in words; None where it is little."""
    if not any(term.kind == "classification" for term in phase.terms):
        return None
    needed = bytes_needed(num_classes, dim, {"sgd": 1, "adamw": 2}[phase.optimizer.kind], world_size())
    if teacher_dim is not None and any(isinstance(term, LogitPlan) for term in phase.terms):
        needed["teacher's centres"] = 4 * teacher_dim * len(shard(num_classes))
    if phase.accumulate > 1 or any(term.kind in ("intra", "inter") for term in phase.terms):
        needed["second gradient"] = needed["gradient"]  # until it is added to the first
    if any(term.kind == "centre" for term in phase.terms):
        needed["centre loss"] = 4 * 4 * dim * num_classes  # on every rank; gradient and optimizer as well
    if sum(needed.values()) < SAY_MEMORY_FROM:
        return None
    parts = ", ".join(f"{name} {count / 2**20:,.0f}" for name, count in needed.items())
    where = f" on each of {world_size()} ranks" if world_size() > 1 else ""
    return f"{num_classes:,} classes of {dim}: {sum(needed.values()) / 2**20:,.0f} MiB{where} ({parts})"


def weigh(terms: nn.ModuleDict, phase: Phase, forward: Forward) -> tuple[Tensor, dict[str, Tensor]]:
    """(this rank's share of the loss, value by term).

    A term is sum(w v) / sum(w) over the batches of all ranks; the loss is the sum of the terms, each times the
    plan's weight. The shares of the ranks add up to the loss, and so do their gradients. The values are whole.
    """
    found = [terms[term.kind](forward) for term in phase.terms]
    shares = torch.stack([(value * weight).sum() for value, weight in found])
    sums = sum_over_ranks(torch.stack([weight.detach().sum().to(shares.dtype) for _, weight in found]))
    shares = shares / sums.clamp(min=torch.finfo(sums.dtype).tiny)
    wholes = sum_over_ranks(shares.detach())
    weights = shares.new_tensor([term.weight for term in phase.terms])
    return (shares * weights).sum(), {term.kind: whole for term, whole in zip(phase.terms, wholes, strict=True)}
