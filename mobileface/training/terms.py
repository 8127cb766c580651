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
from mobileface.losses.contrastive import Contrastive
from mobileface.losses.distill import CosineDistillation, RelationalDistillation, projection
from mobileface.losses.distill_logits import LogitDistillation
from mobileface.losses.forward import Forward
from mobileface.losses.margins import MARGINS, Margin
from mobileface.losses.momentum import MomentumEncoder
from mobileface.losses.negatives import NEGATIVES
from mobileface.losses.octuplet import Octuplet
from mobileface.losses.quality_gate import QualityGate
from mobileface.losses.queues import Batch, ProxyQueue, Queue
from mobileface.losses.regularizers import CentreLoss, Inter, Intra
from mobileface.losses.triplet import Triplet
from mobileface.training.plan_phases import Phase
from mobileface.training.plan_terms import TAUGHT, Centre, Classification
from mobileface.training.plan_terms import Contrastive as ContrastivePlan
from mobileface.training.plan_terms import Inter as InterPlan
from mobileface.training.plan_terms import Intra as IntraPlan
from mobileface.training.plan_terms import LogitDistillation as LogitPlan
from mobileface.training.plan_terms import Octuplet as OctupletPlan
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
    network: nn.Module | None = None,
) -> nn.ModuleDict:
    """The term of each kind, as one module: in the optimizer and in the checkpoint.

    counts: (C,) training images of each class. teachers_centres: (this rank's share of C, teacher_dim), for the
    distillation by logits. network: what a momentum encoder begins as.
    """
    built = nn.ModuleDict()
    for term in phase.terms:  # those that read the class centres come behind the classifier that has them
        if isinstance(term, Classification):
            built[term.kind] = _classifier(term, counts, dim, seed)
    for term in phase.terms:
        if isinstance(term, IntraPlan | InterPlan):
            centres = _centres(built)
            built[term.kind] = Intra(centres, term.view) if isinstance(term, IntraPlan) else Inter(centres, term.over)
        elif isinstance(term, Centre):
            built[term.kind] = CentreLoss(len(counts), dim, term.view)
        elif isinstance(term, TripletPlan):
            built[term.kind] = Triplet(term.mining, term.distance, term.margin, term.normalised, term.view)
        elif isinstance(term, OctupletPlan):
            built[term.kind] = Octuplet(**term.model_dump(exclude={"kind", "weight"}))
        elif isinstance(term, ContrastivePlan):
            built[term.kind] = _contrastive(term, built, len(counts), dim, network)
        elif isinstance(term, RelationalPlan):
            built[term.kind] = RelationalDistillation(term.view)
        elif isinstance(term, TAUGHT):
            assert teacher_dim is not None
            link = projection(dim, teacher_dim, seed)
            if isinstance(term, LogitPlan):
                assert teachers_centres is not None
                built[term.kind] = LogitDistillation(teachers_centres, link, term.scale, term.temperature, term.view)
            else:
                built[term.kind] = CosineDistillation(link, term.view)
    return built


def _centres(built: nn.ModuleDict) -> Centres:
    """The class centres of the classification term."""
    classifier = built["classification"]
    assert isinstance(classifier, Classifier)
    return Centres(partial(getattr, classifier, "centres"), classifier.num_classes)


def _contrastive(
    term: ContrastivePlan, built: nn.ModuleDict, num_classes: int, dim: int, network: nn.Module | None
) -> Contrastive:
    size, gate, encoder = term.size or num_classes, _gate(term.threshold), None
    if term.queue == "batch":
        queue = Batch()
    elif term.queue == "proxy":
        queue = ProxyQueue(size, dim, _centres(built))
    else:
        assert network is not None
        queue, encoder = Queue(size, dim), MomentumEncoder(network, term.momentum)
    return Contrastive(queue, gate, term.scale, encoder)


def _gate(threshold: float | str) -> QualityGate:
    return QualityGate(None if isinstance(threshold, str) else threshold)


def _margin(term: Classification) -> Margin:
    return MARGINS[term.margin.kind](**term.margin.model_dump(exclude={"kind"}))


def _classifier(term: Classification, counts: Tensor, dim: int, seed: int) -> Classifier:
    margin = _margin(term)
    negatives = NEGATIVES[term.negatives.kind](**term.negatives.model_dump(exclude={"kind"}))
    balance = class_balanced(counts, term.balance.beta) if term.balance.beta else None
    gate = None if term.threshold == "none" else _gate(term.threshold)
    return Classifier(
        len(counts), dim, margin, term.scale, negatives, balance, term.sample, term.views, gate, seed=seed
    )


def memory_line(phase: Phase, num_classes: int, dim: int, teacher_dim: int | None = None) -> str | None:
    """What the class centres will take on this rank, in words; None where it is little."""
    kinds = {term.kind for term in phase.terms}
    needed: dict[str, int] = {}
    if "classification" in kinds:
        needed = bytes_needed(
            num_classes, dim, {"sgd": 1, "adagrad": 1, "adamw": 2}[phase.optimizer.kind], world_size()
        )
    if teacher_dim is not None and "logit_distillation" in kinds:
        needed["teacher's centres"] = 4 * teacher_dim * len(shard(num_classes))
    if "classification" in kinds and (phase.accumulate > 1 or kinds & {"intra", "inter"}):
        needed["second gradient"] = needed["gradient"]  # until it is added to the first
    for term in phase.terms:
        if isinstance(term, ContrastivePlan) and term.queue != "batch":
            copies = 2 if term.queue == "proxy" else 1
            needed["queue"] = 4 * dim * (term.size or num_classes) * copies
    if "centre" in kinds:
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
    loss = torch.stack([share * term.weight for share, term in zip(shares, phase.terms, strict=True)]).sum()
    return loss, {term.kind: whole for term, whole in zip(phase.terms, wholes, strict=True)}
