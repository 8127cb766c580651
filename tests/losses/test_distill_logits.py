"""Distillation by logits against the full matrix in float64: values, gradients, chunks, memory; the class centres."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mobileface.errors import InputError
from mobileface.losses.distill import projection
from mobileface.losses.distill_logits import BLOCK, LogitDistillation, class_centres, soft_means
from mobileface.losses.forward import Forward
from mobileface.losses.streamed import CHUNK_BYTES
from tests.losses.recorder import recorded
from tests.strategies import examples


def drawn(*shape: int, seed: int) -> Tensor:
    """Unit rows in float64."""
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(rows)


def full_matrix(student: Tensor, teacher: Tensor, centres: Tensor, scale: float, temperature: float) -> Tensor:
    """As Hinton et al. write it: T^2 sum_c q_c log(q_c / p_c), from all logits; `student` in the centres' width."""
    units = (x / x.norm(dim=1, keepdim=True) for x in (student, teacher))
    p, q = (torch.softmax(scale * x @ centres.T / temperature, dim=1) for x in units)
    return temperature**2 * (q * (q / p).log()).sum(1)


def gradients(term: LogitDistillation, student: Tensor, teacher: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Values, and gradients of the student and, where there is one, of the projection; no two samples weigh alike."""
    leaf = student.clone().requires_grad_()
    values, weights = term(Forward({term.view: leaf}, torch.full((len(leaf),), -1), teacher))
    assert weights.tolist() == [1.0] * len(leaf)
    spread = torch.arange(1, len(leaf) + 1, dtype=values.dtype)
    return values.detach(), list(torch.autograd.grad((values * spread).sum(), [leaf, *term.parameters()]))


@given(
    count=st.integers(1, 6), classes=st.integers(1, 30), dim=st.integers(1, 5), teacher_dim=st.integers(2, 6),
    chunk=st.integers(1, 31), scale=st.floats(0.5, 64), temperature=st.floats(0.5, 20), seed=st.integers(0, 999),
)  # fmt: skip
@examples(100)
def test_values_and_gradients_are_those_of_the_full_matrix(
    count: int, classes: int, dim: int, teacher_dim: int, chunk: int, scale: float, temperature: float, seed: int
) -> None:
    student, teacher = 7 * drawn(count, dim, seed=seed), drawn(count, teacher_dim, seed=seed + 1)
    centres, link = drawn(classes, teacher_dim, seed=seed + 2), projection(dim, teacher_dim, seed)
    term = LogitDistillation(centres, link, scale, temperature, chunk=chunk).double()
    values, found = gradients(term, student, teacher)

    leaf = student.clone().requires_grad_()
    weight = None if link is None else link.weight.detach().clone().requires_grad_()
    mapped = leaf if weight is None else leaf @ weight.T
    wanted = full_matrix(mapped, teacher, centres, scale, temperature)
    leaves = [leaf] if weight is None else [leaf, weight]
    wanted_gradients = torch.autograd.grad((wanted * torch.arange(1, count + 1)).sum(), leaves)
    torch.testing.assert_close(values, wanted.detach(), atol=1e-9, rtol=1e-9)
    for one, two in zip(found, wanted_gradients, strict=True):
        torch.testing.assert_close(one, two, atol=1e-9, rtol=1e-9)


def test_gradcheck() -> None:
    term = LogitDistillation(drawn(9, 4, seed=0), None, 8.0, 2.0, chunk=4)
    teacher = drawn(3, 4, seed=1)

    def loss(student: Tensor) -> Tensor:
        values: Tensor = term(Forward({"clean": student}, torch.zeros(3, dtype=torch.int64), teacher))[0]
        return values

    assert torch.autograd.gradcheck(loss, (drawn(3, 4, seed=2).requires_grad_(),))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(("scale", "temperature"), [(64.0, 1.0), (64.0, 4.0), (64.0, 64.0)])
def test_float32_is_near_float64(scale: float, temperature: float, autocast: bool) -> None:
    """Autocast or not: the matrix products stay in the centres' type."""
    exact = [7 * drawn(16, 32, seed=0), drawn(16, 32, seed=1), drawn(5000, 32, seed=2)]
    student, teacher, centres = (t.float() for t in exact)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        values, (gradient,) = gradients(LogitDistillation(centres, None, scale, temperature), student, teacher)
    wanted, (wanted_gradient,) = gradients(LogitDistillation(exact[2], None, scale, temperature), *exact[:2])
    size = temperature**2 * scale / temperature  # what the logits, rounded in float32, make of the values
    torch.testing.assert_close(values.double(), wanted, atol=2e-6 * size, rtol=1e-5)
    torch.testing.assert_close(
        gradient.double(), wanted_gradient, atol=1e-5 * float(wanted_gradient.abs().max()), rtol=0
    )


def test_a_student_like_its_teacher_has_no_divergence_and_no_gradient() -> None:
    teacher = drawn(5, 6, seed=1)
    values, (gradient,) = gradients(LogitDistillation(drawn(40, 6, seed=2)), 3 * teacher, teacher)
    assert values.abs().max() < 1e-12
    assert gradient.abs().max() < 1e-12


def test_the_temperature_leaves_the_gradients_size() -> None:
    """Hinton et al.: at high temperatures the gradient tends to scale^2 / C times the difference of the logits."""
    student, teacher, centres = drawn(4, 6, seed=1), drawn(4, 6, seed=2), drawn(50, 6, seed=3)
    lengths = [
        float(gradients(LogitDistillation(centres, None, 64.0, t), student, teacher)[1][0].norm()) for t in (1e3, 1e5)
    ]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.05)


def test_the_teacher_is_a_constant() -> None:
    teacher, student = drawn(4, 6, seed=1).requires_grad_(), drawn(4, 6, seed=2).requires_grad_()
    term = LogitDistillation(drawn(9, 6, seed=3))
    term(Forward({"clean": student}, torch.zeros(4, dtype=torch.int64), teacher))[0].sum().backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert [name for name, _ in term.named_parameters()] == []
    assert term.state_dict() == {}  # the centres are made again from the data


@pytest.mark.parametrize("chunk", [7, None])
def test_soft_means_against_a_loop(chunk: int | None) -> None:
    units, centres = drawn(3, 4, seed=0), drawn(20, 4, seed=1)
    log_sums, means = soft_means(units, centres, 5.0, chunk)
    for unit, log_sum, mean in zip(units.tolist(), log_sums.tolist(), means.tolist(), strict=True):
        weights = [math.exp(5 * math.fsum(a * b for a, b in zip(unit, c, strict=True))) for c in centres.tolist()]
        assert log_sum == pytest.approx(math.log(math.fsum(weights)), abs=1e-12)
        whole = [math.fsum(w * c[d] for w, c in zip(weights, centres.tolist(), strict=True)) for d in range(4)]
        assert mean == pytest.approx([x / math.fsum(weights) for x in whole], abs=1e-12)


def test_no_tensor_of_batch_times_classes() -> None:
    batch, classes, chunk = 64, 100_000, 4096
    term = LogitDistillation(drawn(classes, 16, seed=0).float(), chunk=chunk)
    student = torch.randn(batch, 16, requires_grad=True)
    with recorded() as recorder:
        term(Forward({"clean": student}, torch.zeros(batch), torch.randn(batch, 16)))[0].sum().backward()
    assert recorder.largest == 2 * batch * chunk
    assert recorder.products == 2 * math.ceil(classes / chunk)  # logits and means, of student and teacher at once


def test_the_default_chunk_holds_to_its_bytes() -> None:
    batch, classes = 512, 9000
    term = LogitDistillation(drawn(classes, 4, seed=0).float())
    with recorded() as recorder:
        term(Forward({"clean": torch.randn(batch, 4)}, torch.zeros(batch), torch.randn(batch, 4)))
    assert CHUNK_BYTES / 2 < recorder.largest * 4 <= CHUNK_BYTES < 2 * batch * classes * 4


# ---- class centres


@given(labels=st.lists(st.integers(-1, 7), min_size=1, max_size=30), ranks=st.integers(1, 4), seed=st.integers(0, 999))
@examples(60)
def test_class_centres_are_mean_directions(labels: list[int], ranks: int, seed: int) -> None:
    """Cut into shares or not; zeros for a class without an image, and images that were bad (zeros) do not count."""
    from mobileface.distributed import shard

    targets = drawn(len(labels), 5, seed=seed)
    targets[0] = 0
    wanted = np.zeros((8, 5))
    for row, label in zip(targets.numpy(), labels, strict=True):
        if label >= 0:
            wanted[label] += row
    for row in wanted:
        row /= max(float(np.sqrt((row**2).sum())), 1e-12)
    found = [class_centres(targets, torch.tensor(labels), shard(8, ranks, r)) for r in range(ranks)]
    np.testing.assert_allclose(torch.cat(found).numpy(), wanted, atol=1e-9)


def test_many_images_are_added_up_block_by_block() -> None:
    count = BLOCK + 10
    labels = torch.arange(count) % 2
    targets = torch.zeros(count, 2).scatter_(1, labels[:, None], 1.0)
    assert torch.equal(class_centres(targets, labels, range(2)), torch.eye(2))


# ---- refusals


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"scale": 0.0}, r"^logit distillation's scale is 0; wanted above 0 and finite$"),
        ({"scale": math.inf}, "scale is inf"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"temperature": math.nan}, "temperature is nan"),
    ],
)
def test_settings_that_are_no_measure(settings: dict[str, float], wanted: str) -> None:
    with pytest.raises(InputError, match=wanted):
        LogitDistillation(torch.zeros(4, 2), **settings)  # type: ignore[arg-type]


def test_other_widths() -> None:
    term: nn.Module = LogitDistillation(drawn(4, 6, seed=0))
    labels = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(InputError, match=r"^student 5, teacher 6: another width needs a projection$"):
        term(Forward({"clean": drawn(2, 5, seed=1)}, labels, drawn(2, 6, seed=2)))
    with pytest.raises(InputError, match=r"^teacher's embeddings are 5 wide; its centres 6$"):
        term(Forward({"clean": drawn(2, 5, seed=1)}, labels, drawn(2, 5, seed=2)))
    with pytest.raises(InputError, match="the plan names no teacher"):
        term(Forward({"clean": drawn(2, 6, seed=1)}, labels))
