"""Terms from the plan, and how they are added up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mobileface.errors import InputError
from mobileface.losses.forward import Forward
from mobileface.training.plan_phases import Phase
from mobileface.training.terms import build_terms, check_terms, memory_line, weigh

COUNTS = torch.tensor([4, 4, 4, 4, 4])


def phase(*terms: dict[str, Any]) -> Phase:
    return Phase.model_validate({"terms": list(terms)})


class Fixed(nn.Module):
    """A term with given values and weights."""

    def __init__(self, values: list[float], weights: list[float]) -> None:
        super().__init__()
        self.pair = (torch.tensor(values, dtype=torch.float32), torch.tensor(weights, dtype=torch.float32))

    def forward(self, forward: Forward) -> tuple[Tensor, Tensor]:
        return self.pair


def anything() -> Forward:
    return Forward({"clean": torch.zeros(2, 4)}, torch.zeros(2, dtype=torch.int64))


def test_a_term_is_its_weighted_mean_and_the_loss_their_weighted_sum() -> None:
    chosen = phase({"kind": "classification", "weight": 2.0}, {"kind": "distillation", "weight": 0.5})
    terms = nn.ModuleDict({"classification": Fixed([1, 3], [1, 3]), "distillation": Fixed([4, 8], [1, 1])})
    loss, values = weigh(terms, chosen, anything())
    assert {name: float(value) for name, value in values.items()} == {"classification": 2.5, "distillation": 6.0}
    assert float(loss) == 2 * 2.5 + 0.5 * 6


def test_a_term_that_weighs_nothing_is_zero_and_not_nan() -> None:
    loss, _ = weigh(nn.ModuleDict({"distillation": Fixed([4, 8], [0, 0])}), phase({"kind": "distillation"}), anything())
    assert float(loss) == 0.0


@pytest.mark.parametrize(
    ("margin", "of_half"),
    [
        ("softmax", 0.5),
        ({"kind": "cosface", "cosine": 0.2}, 0.3),
        ({"kind": "arcface", "radians": 0.5}, 0.02360),  # cos(pi/3 + 0.5)
        ({"kind": "combined", "factor": 1.0, "radians": 0.3, "cosine": 0.2}, 0.02174),  # cos(pi/3 + 0.3) - 0.2
    ],
)
def test_the_plans_margin_reaches_the_classifier(margin: Any, of_half: float) -> None:
    terms = build_terms(phase({"kind": "classification", "margin": margin, "scale": 8}), COUNTS, 4, 0)
    classifier = terms["classification"]
    assert classifier.scale == 8
    assert classifier.centres.shape == (5, 4)
    torch.testing.assert_close(classifier.margin(torch.tensor([0.5])), torch.tensor([of_half]), atol=1e-4, rtol=0)


def test_centres_follow_the_seed() -> None:
    chosen = phase({"kind": "classification"})
    first, again, other = (build_terms(chosen, COUNTS, 4, seed)["classification"].centres for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


TAUGHT = ("distillation", "relational_distillation", "logit_distillation")


@pytest.mark.parametrize("kind", TAUGHT)
def test_distillation_wants_a_teacher(kind: str) -> None:
    with pytest.raises(InputError, match=f"^phase phase-1: {kind} needs a teacher's embeddings, found none$"):
        check_terms(phase({"kind": kind}), None)
    check_terms(phase({"kind": kind}), 8)


@pytest.mark.parametrize(("teacher_dim", "linked"), [(4, []), (8, ["distillation", "logit_distillation"])])
def test_only_another_width_of_the_teacher_makes_a_projection(teacher_dim: int, linked: list[str]) -> None:
    kinds = [{"kind": kind} for kind in TAUGHT]
    terms = build_terms(phase(*kinds), COUNTS, 4, 0, teacher_dim, torch.eye(5, teacher_dim))
    shapes = {name: tuple(parameter.shape) for name, parameter in terms.named_parameters()}
    assert shapes == {f"{kind}.projection.weight": (teacher_dim, 4) for kind in linked}
    known = Forward({"clean": torch.randn(6, 4)}, torch.zeros(6, dtype=torch.int64), torch.randn(6, teacher_dim))
    for term in terms.values():
        values, weights = term(known)
        assert (values.shape, weights.tolist()) == ((6,), [1.0] * 6)


def test_the_teachers_centres_are_told_with_the_memory() -> None:
    """A million classes: what they take beside the classifier's own centres."""
    kinds = [{"kind": "classification"}, {"kind": "logit_distillation"}]
    line = memory_line(phase(*kinds), 1_000_000, 64, 512)
    assert line is not None
    assert "teacher's centres 1,953" in line  # 4 bytes x 512 x 1,000,000
    assert "teacher" not in str(memory_line(phase(*kinds[:1]), 1_000_000, 64, 512))
    alone = memory_line(phase(kinds[1]), 1_000_000, 64, 512)
    assert alone == "1,000,000 classes of 64: 1,953 MiB (teacher's centres 1,953)"
