"""Negatives against their printed formulas, one entry at a time, and against finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mobileface.errors import InputError
from mobileface.losses.negatives import NEGATIVES, Curricular, Negatives, Plain, SupportVector
from mobileface.statistics import end_step


def curricular(t: float) -> Curricular:
    made = Curricular().double()
    made.t.fill_(t)
    return made


def printed_support_vector(cos: float, target: float, t: float) -> float:
    """Equation 6: the logarithm of e^((t - 1)(cos + 1) I) e^cos, I = 0 where target - cos >= 0."""
    hard = 0 if target - cos >= 0 else 1
    return (t - 1) * (cos + 1) * hard + cos


def printed_curricular(cos: float, target: float, t: float) -> float:
    """AdaFace equations 5 and 6 with the other class's cosine (errata 32)."""
    return cos if target >= cos else cos * (t + cos)


CASES: list[tuple[Callable[[], Negatives], Callable[[float, float], float]]] = [
    (Plain, lambda cos, target: cos),
    (SupportVector, lambda cos, target: printed_support_vector(cos, target, 1.2)),
    (lambda: SupportVector(t=1.12), lambda cos, target: printed_support_vector(cos, target, 1.12)),
    (lambda: SupportVector(t=3), lambda cos, target: printed_support_vector(cos, target, 3.0)),
    (lambda: curricular(0.0), lambda cos, target: printed_curricular(cos, target, 0.0)),
    (lambda: curricular(0.37), lambda cos, target: printed_curricular(cos, target, 0.37)),
]


def problem(batch: int = 7, classes: int = 30) -> tuple[Tensor, Tensor]:
    """Cosines and targets, some of either side hard."""
    generator = torch.Generator().manual_seed(0)
    cos = torch.rand(batch, classes, generator=generator, dtype=torch.float64) * 2 - 1
    return cos, torch.rand(batch, 1, generator=generator, dtype=torch.float64) * 2 - 1.3


def test_the_table_of_negatives() -> None:
    assert {"plain": Plain, "support_vector": SupportVector, "curricular": Curricular} == NEGATIVES


@pytest.mark.parametrize(("make", "printed"), CASES)
def test_values_are_the_printed_ones(make: Callable[[], Negatives], printed: Callable[[float, float], float]) -> None:
    cos, target = problem()
    wanted = [[printed(float(c), float(t)) for c in row] for row, t in zip(cos, target, strict=True)]
    found = make()(cos, target)
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), atol=1e-14, rtol=0)


@given(cos=st.floats(-1, 1), target=st.floats(-2, 1), t=st.floats(1, 4))
@settings(deadline=None)
def test_support_vector_anywhere(cos: float, target: float, t: float) -> None:
    made = SupportVector(t=t)
    found = made(torch.tensor([[cos]], dtype=torch.float64), torch.tensor([[target]], dtype=torch.float64)).item()
    assert found == pytest.approx(printed_support_vector(cos, target, t), abs=1e-14)
    assert found >= cos - 1e-14  # a hard class never counts less than as it is


@pytest.mark.parametrize(("make", "printed"), CASES)
def test_slopes_are_those_of_finite_differences(
    make: Callable[[], Negatives], printed: Callable[[float, float], float]
) -> None:
    made, (cos, target) = make(), problem()
    h = 1e-6
    assert ((cos - target).abs() > 2 * h).all()  # no mask changes within the step
    expected = (made(cos + h, target) - made(cos - h, target)) / (2 * h)
    torch.testing.assert_close(made.slope(cos, target), expected, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize(("make", "printed"), CASES)
def test_slopes_are_those_of_autograd(make: Callable[[], Negatives], printed: Callable[[float, float], float]) -> None:
    made, (cos, target) = make(), problem()
    cos.requires_grad_()
    (wanted,) = torch.autograd.grad(made(cos, target).sum(), cos)
    torch.testing.assert_close(made.slope(cos.detach(), target), wanted)
    assert torch.autograd.gradcheck(lambda c: made(c, target), (cos,))


@pytest.mark.parametrize(("make", "printed"), CASES)
def test_equal_is_not_hard(make: Callable[[], Negatives], printed: Callable[[float, float], float]) -> None:
    cos = torch.tensor([[0.3, 0.3]], dtype=torch.float64)
    assert torch.equal(make()(cos, cos[:, :1]), cos)
    assert torch.equal(make().slope(cos, cos[:, :1]), torch.ones_like(cos))


@pytest.mark.parametrize(("make", "printed"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_own_class_stays_out_and_nothing_is_changed(
    make: Callable[[], Negatives], printed: Callable[[float, float], float], dtype: torch.dtype
) -> None:
    cos, target = (value.to(dtype) for value in problem())
    cos[2, 3] = -torch.inf
    before = cos.clone()
    with torch.no_grad():
        values, slopes = make()(cos, target), make().slope(cos, target)
    assert values[2, 3] == -torch.inf
    assert slopes[2, 3] == 1
    assert values.dtype == slopes.dtype == dtype
    assert torch.equal(cos, before)
    assert int(values.isfinite().sum()) == cos.numel() - 1
    assert slopes.isfinite().all()


@pytest.mark.parametrize(("make", "printed"), CASES)
def test_nan_is_not_hidden(make: Callable[[], Negatives], printed: Callable[[float, float], float]) -> None:
    values = make()(torch.tensor([[math.nan, 0.5]]), torch.tensor([[0.1]]))
    assert values.isnan().tolist() == [[True, False]]


def test_support_vector_of_one_is_plain() -> None:
    cos, target = problem()
    torch.testing.assert_close(SupportVector(t=1)(cos, target), cos, atol=0, rtol=0)


@pytest.mark.parametrize("t", [0.99, 0.2, -1.0, math.nan, math.inf])
def test_a_bad_t_is_named(t: float) -> None:
    with pytest.raises(InputError) as caught:
        SupportVector(t=t)
    assert str(caught.value) == f"SupportVector's t is {t:g}; wanted at least 1 and finite"


def test_curricular_follows_the_mean_target() -> None:
    """From 0 towards 0.5 with 0.01: 0.5 (1 - 0.99^n) after n steps."""
    made = Curricular()
    assert made.t.item() == 0
    for n in range(1, 201):
        made.observe(torch.tensor([0.2, 0.8], requires_grad=True))
        end_step(made)
        assert made.t.item() == pytest.approx(0.5 * (1 - 0.99**n), rel=1e-5)
    assert not made.t.requires_grad


def test_curriculars_t_stands_still_in_eval_mode_and_without_samples() -> None:
    made = Curricular()
    made.observe(torch.tensor([]))
    made.eval().observe(torch.tensor([1.0]))
    end_step(made)
    assert made.t.item() == 0
    made.train().observe(torch.tensor([1.0]))
    assert made.t.item() == 0
    end_step(made)
    assert made.t.item() == pytest.approx(0.01)


def test_hard_classes_count_less_early_and_more_late() -> None:
    cos, target = torch.tensor([[0.5]]), torch.tensor([[0.1]])
    assert curricular(0.0).float()(cos, target) < cos < curricular(0.8).float()(cos, target)


def test_only_curricular_has_a_state() -> None:
    for name, make in NEGATIVES.items():
        made = make()
        assert list(made.state_dict()) == (["t"] if name == "curricular" else [])
        assert list(made.parameters()) == []
    first, second = Curricular(), Curricular()
    first.observe(torch.tensor([0.3]))
    end_step(first)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.t, second.t)
    assert second.t.item() == pytest.approx(0.003)


@pytest.mark.parametrize("name", ["plain", "support_vector"])
def test_the_others_ignore_what_they_observe(name: str) -> None:
    cos, target = problem()
    made = NEGATIVES[name]()
    before = made(cos, target)
    made.observe(torch.tensor([math.nan]))
    assert torch.equal(made(cos, target), before)
