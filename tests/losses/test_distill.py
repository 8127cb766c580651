"""Cosine distillation against torch's own cosine in float64, and its refusals."""

from __future__ import annotations

import pytest
import torch

from mobileface.errors import InputError
from mobileface.losses.distill import CosineDistillation
from mobileface.losses.forward import Forward

LABELS = torch.full((6,), -1)  # distillation asks for no label


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn)


def test_values_and_gradient_against_float64() -> None:
    student = (5 * unit(6, 16, seed=1)).requires_grad_()
    teacher = unit(6, 16, seed=2)
    values, weights = CosineDistillation()(Forward({"clean": student}, LABELS, teacher))
    (gradient,) = torch.autograd.grad(values.sum(), student)
    exact = student.detach().double().requires_grad_()
    wanted = 1 - torch.cosine_similarity(exact, teacher.double())
    (wanted_gradient,) = torch.autograd.grad(wanted.sum(), exact)
    torch.testing.assert_close(values.double(), wanted, atol=1e-6, rtol=0)
    torch.testing.assert_close(gradient.double(), wanted_gradient, atol=1e-6, rtol=0)
    assert weights.tolist() == [1.0] * 6


def test_equal_is_zero_and_opposite_is_two() -> None:
    teacher = unit(6, 8)
    student = torch.cat([7 * teacher[:3], -7 * teacher[3:]])
    values, _ = CosineDistillation()(Forward({"clean": student}, LABELS, teacher))
    torch.testing.assert_close(values, torch.tensor([0.0] * 3 + [2.0] * 3), atol=1e-6, rtol=0)


def test_the_teacher_is_a_constant_and_its_length_does_not_matter() -> None:
    teacher = unit(6, 8).requires_grad_()
    student = unit(6, 8, seed=3).requires_grad_()
    values, _ = CosineDistillation()(Forward({"clean": student}, LABELS, 0.5 * teacher))
    values.sum().backward()
    assert teacher.grad is None
    assert student.grad is not None
    torch.testing.assert_close(values, CosineDistillation()(Forward({"clean": student}, LABELS, teacher))[0])


def test_it_reads_the_view_that_it_names() -> None:
    teacher = unit(6, 8)
    values, _ = CosineDistillation(view="degraded")(Forward({"clean": -teacher, "degraded": teacher}, LABELS, teacher))
    assert values.abs().max() < 1e-6


def test_a_missing_teacher_is_refused() -> None:
    with pytest.raises(InputError, match="distillation needs the teacher's embeddings; the plan names no teacher"):
        CosineDistillation()(Forward({"clean": unit(6, 8)}, LABELS))


def test_another_width_is_refused() -> None:
    with pytest.raises(InputError, match=r"^student 512, teacher 128: another width needs a projection$"):
        CosineDistillation()(Forward({"clean": unit(6, 512)}, LABELS, unit(6, 128)))
