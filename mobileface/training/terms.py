"""A phase's terms, built from the plan."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mobileface.errors import InputError
from mobileface.losses.classifier import Classifier
from mobileface.losses.distill import CosineDistillation
from mobileface.losses.forward import Forward
from mobileface.losses.margins import MARGINS
from mobileface.training.plan import Classification, Distillation, Phase


def build_terms(phase: Phase, num_classes: int, dim: int, teacher_dim: int | None, seed: int) -> nn.ModuleDict:
    """The term of each kind, as one module: in the optimizer and in the checkpoint."""
    built: dict[str, nn.Module] = {}
    for term in phase.terms:
        if isinstance(term, Classification):
            numbers = term.margin.model_dump(exclude={"kind"})
            margin = MARGINS[term.margin.kind](**numbers)
            generator = torch.Generator().manual_seed(seed)
            built[term.kind] = Classifier(num_classes, dim, margin, term.scale, generator=generator)
        elif isinstance(term, Distillation):
            if teacher_dim != dim:
                raise InputError(
                    f"distillation: the student's embedding is {dim}-d, the teacher's {teacher_dim}-d; wanted the "
                    "same width (set embedding_dim of the architecture)"
                )
            built[term.kind] = CosineDistillation()
    return nn.ModuleDict(built)


def weigh(terms: nn.ModuleDict, phase: Phase, forward: Forward) -> tuple[Tensor, dict[str, Tensor]]:
    """(total loss, value by term): each term is sum(w v) / sum(w), then times the plan's weight."""
    values: dict[str, Tensor] = {}
    for term in phase.terms:
        value, weight = terms[term.kind](forward)
        values[term.kind] = (value * weight).sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)
    parts = [term.weight * values[term.kind] for term in phase.terms]
    return torch.stack(parts).sum(), values
