"""Distillation by embeddings and by their relations: against float64, slow loops, finite differences; refusals."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mobileface.errors import InputError
from mobileface.losses.distill import CosineDistillation, RelationalDistillation, projection
from mobileface.losses.forward import Forward
from tests.strategies import examples

LABELS = torch.full((6,), -1)  # distillation asks for no label


def unit(*shape: int, seed: int = 0) -> Tensor:
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


def test_the_squared_distance_of_unit_vectors_is_twice_the_cosine_term() -> None:
    """So "normalised MSE" is no kind of its own."""
    student, teacher = 3 * unit(6, 16, seed=1), unit(6, 16, seed=2)
    values, _ = CosineDistillation()(Forward({"clean": student}, LABELS, teacher))
    squared = torch.tensor([math.dist(a, b) ** 2 for a, b in zip(unit(6, 16, seed=1), teacher, strict=True)])
    torch.testing.assert_close(2 * values, squared, atol=1e-5, rtol=0)


@pytest.mark.parametrize("term", [CosineDistillation(), RelationalDistillation()])
def test_the_teacher_is_a_constant_and_its_length_does_not_matter(term: torch.nn.Module) -> None:
    teacher = unit(6, 8).requires_grad_()
    student = unit(6, 8, seed=3).requires_grad_()
    values, _ = term(Forward({"clean": student}, LABELS, 0.5 * teacher))
    values.sum().backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.abs().max() > 0
    torch.testing.assert_close(values, term(Forward({"clean": student}, LABELS, teacher))[0])


@pytest.mark.parametrize("kind", [CosineDistillation, RelationalDistillation])
def test_it_reads_the_view_that_it_names(kind: type[CosineDistillation | RelationalDistillation]) -> None:
    teacher = unit(6, 8)
    values, _ = kind(view="degraded")(Forward({"clean": unit(6, 8, seed=1), "degraded": teacher}, LABELS, teacher))
    assert values.abs().max() < 1e-6


@pytest.mark.parametrize("term", [CosineDistillation(), RelationalDistillation()])
def test_a_missing_teacher_is_refused(term: torch.nn.Module) -> None:
    with pytest.raises(InputError, match="distillation needs the teacher's embeddings; the plan names no teacher"):
        term(Forward({"clean": unit(6, 8)}, LABELS))


def test_another_width_is_refused() -> None:
    with pytest.raises(InputError, match=r"^student 512, teacher 128: another width needs a projection$"):
        CosineDistillation()(Forward({"clean": unit(6, 512)}, LABELS, unit(6, 128)))
    with pytest.raises(InputError, match=r"^student 12, teacher 128: another width needs another projection$"):
        CosineDistillation(projection(12, 64, 0))(Forward({"clean": unit(6, 12)}, LABELS, unit(6, 128)))


# ---- the projection


@pytest.mark.parametrize(("dim", "teacher_dim"), [(4, 16), (16, 4)])
def test_the_projection_starts_with_orthonormal_columns_or_rows(dim: int, teacher_dim: int) -> None:
    link = projection(dim, teacher_dim, 3)
    assert link is not None
    weight = link.weight.detach()
    square = weight.T @ weight if dim < teacher_dim else weight @ weight.T
    torch.testing.assert_close(square, torch.eye(4), atol=1e-6, rtol=0)
    other = projection(dim, teacher_dim, 4)
    assert other is not None
    assert not torch.equal(weight, other.weight)


def test_drawing_it_leaves_the_common_stream_of_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    projection(4, 16, 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_equal_widths_have_none_and_nothing_to_save() -> None:
    """Checkpoints of the time before there was a projection go on."""
    assert projection(8, 8, 0) is None
    assert CosineDistillation(projection(8, 8, 0)).state_dict() == {}


def test_values_and_gradients_through_the_projection_against_float64() -> None:
    link = projection(5, 9, 1)
    assert link is not None
    student, teacher = (4 * unit(6, 5, seed=1)).requires_grad_(), unit(6, 9, seed=2)
    values, _ = CosineDistillation(link)(Forward({"clean": student}, LABELS, teacher))
    found = torch.autograd.grad(values.sum(), (student, link.weight))
    exact, weight = (t.detach().double().requires_grad_() for t in (student, link.weight))
    mapped = torch.stack([torch.stack([(row * x).sum() for row in weight]) for x in exact])
    wanted = 1 - torch.cosine_similarity(mapped, teacher.double())
    wanted_gradients = torch.autograd.grad(wanted.sum(), (exact, weight))
    torch.testing.assert_close(values.double(), wanted, atol=1e-6, rtol=0)
    for one, two in zip(found, wanted_gradients, strict=True):
        torch.testing.assert_close(one.double(), two, atol=1e-6, rtol=0)


# ---- relations


def slow(student: list[list[float]], teacher: list[list[float]]) -> list[float]:
    """The definition, one pair after the other."""

    def cosine(a: list[float], b: list[float]) -> float:
        lengths = math.hypot(*a) * math.hypot(*b)
        return math.fsum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0

    count = range(len(student))
    each = [
        [(cosine(student[i], student[j]) - cosine(teacher[i], teacher[j])) ** 2 for j in count if j != i] for i in count
    ]
    return [sum(squares) / len(squares) if squares else 0.0 for squares in each]


@given(
    count=st.integers(1, 7), dim=st.integers(1, 6), teacher_dim=st.integers(1, 6), seed=st.integers(0, 999),
    dead=st.booleans(),
)  # fmt: skip
@examples(100)
def test_relations_are_the_slow_loop(count: int, dim: int, teacher_dim: int, seed: int, dead: bool) -> None:
    """Of any two widths; an embedding without a length has the cosine 0 to all."""
    generator = torch.Generator().manual_seed(seed)
    student = 9 * torch.randn(count, dim, generator=generator, dtype=torch.float64)
    teacher = torch.randn(count, teacher_dim, generator=generator, dtype=torch.float64)
    if dead:
        student[0] = 0
    labels = torch.full((count,), -1)
    values, weights = RelationalDistillation()(Forward({"clean": student}, labels, teacher))
    assert values.tolist() == pytest.approx(slow(student.tolist(), teacher.tolist()), abs=1e-12)
    assert weights.tolist() == [float(count > 1)] * count


def test_gradcheck_of_relations() -> None:
    teacher = unit(5, 3, seed=1).double()
    student = unit(5, 4, seed=2).double().requires_grad_()

    def loss(student: Tensor) -> Tensor:
        values: Tensor = RelationalDistillation()(Forward({"clean": student}, LABELS[:5], teacher))[0]
        return values

    assert torch.autograd.gradcheck(loss, (student,))


def test_relations_in_float32_and_under_autocast() -> None:
    teacher, student = unit(6, 16, seed=1), 5 * unit(6, 8, seed=2)
    wanted = torch.tensor(slow(student.tolist(), teacher.tolist()))
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            values, _ = RelationalDistillation()(Forward({"clean": student}, LABELS, teacher))
        torch.testing.assert_close(values, wanted, atol=1e-6, rtol=1e-5)


def test_a_turned_student_has_the_teachers_relations() -> None:
    turn, _ = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(5)))
    teacher = unit(6, 8)
    values, _ = RelationalDistillation()(Forward({"clean": 3 * teacher @ turn}, LABELS, teacher))
    assert values.max() < 1e-12


def test_a_batch_of_one_has_no_relation() -> None:
    student = unit(1, 4).requires_grad_()
    values, weights = RelationalDistillation()(Forward({"clean": student}, LABELS[:1], unit(1, 4, seed=1)))
    assert (values.tolist(), weights.tolist()) == ([0.0], [0.0])
    values.sum().backward()
    assert student.grad is not None
    assert student.grad.abs().max() == 0
