"""Class-balanced weights against exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mobileface.errors import InputError
from mobileface.losses.balance import class_balanced


def exact(counts: list[int], beta: float) -> list[float]:
    """Equation 9's factor over its mean, in fractions: no rounding but the last."""
    b = Fraction(beta)
    raw = [(1 - b) / (1 - b**n) if n else Fraction(0) for n in counts]
    mean = sum(raw) / sum(1 for n in counts if n)
    return [float(weight / mean) for weight in raw]


counted = st.lists(st.integers(0, 60), min_size=1, max_size=4).filter(any)  # fractions grow fast
betas = st.one_of(st.floats(0, 0.999), st.sampled_from([0.9, 0.99, 0.999, 0.9999, 1 - 1e-9, 1 - 2**-53]))


@given(counts=counted, beta=betas)
@settings(deadline=None, max_examples=30)
def test_weights_are_the_exact_ones(counts: list[int], beta: float) -> None:
    found = class_balanced(torch.tensor(counts), beta)
    assert found.dtype == torch.float32
    assert found.shape == (len(counts),)
    assert found.tolist() == pytest.approx(exact(counts, beta), rel=2e-7)
    assert found[found > 0].double().mean().item() == pytest.approx(1, rel=1e-6)


def test_the_default_by_hand() -> None:
    raw = [(1 - 0.9999) / (1 - 0.9999**n) for n in (50, 500, 5000)]
    wanted = [3 * weight / sum(raw) for weight in raw]
    assert class_balanced(torch.tensor([50, 500, 5000])).tolist() == pytest.approx(wanted, rel=1e-6)
    assert wanted[0] > 1 > wanted[1] > wanted[2]


def test_beta_nought_is_no_balance() -> None:
    assert class_balanced(torch.tensor([1, 5, 100000, 3]), 0.0).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("beta", [1 - 1e-12, 1 - 2**-53])
def test_beta_next_to_one_is_one_over_n(beta: float) -> None:
    """Here 1 - beta^n, computed as printed, has lost most or all of its digits."""
    counts = [1, 3, 7, 1000]
    mean = sum(1 / n for n in counts) / 4
    found = class_balanced(torch.tensor(counts), beta)
    assert found.tolist() == pytest.approx([1 / n / mean for n in counts], rel=1e-6)


def test_large_counts_are_finite() -> None:
    found = class_balanced(torch.tensor([1, 2**40, 2**62]))
    assert found.isfinite().all()
    assert found[1] == found[2] > 0


def test_classes_without_images_do_not_count() -> None:
    found = class_balanced(torch.tensor([0, 10, 0, 400, 0]), 0.99)
    assert found[[0, 2, 4]].tolist() == [0, 0, 0]
    assert torch.equal(found[[1, 3]], class_balanced(torch.tensor([10, 400]), 0.99))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_a_million_classes(dtype: torch.dtype) -> None:
    counts = torch.randint(0, 500, (1_000_000,), generator=torch.Generator().manual_seed(0)).to(dtype)
    found = class_balanced(counts)
    assert found.sum(dtype=torch.float64).item() == pytest.approx(int((counts > 0).sum()), rel=1e-6)
    order = counts[counts > 0].sort()[1]
    assert (found[counts > 0][order].diff() <= 0).all()  # more images, never more weight


@pytest.mark.parametrize("beta", [1.0, -0.1, 1.5, math.nan, math.inf])
def test_beta_outside_its_range_is_named(beta: float) -> None:
    with pytest.raises(InputError) as caught:
        class_balanced(torch.tensor([1, 2]), beta)
    assert str(caught.value) == f"class balance's beta is {beta:.17g}; wanted at least 0 and below 1"


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ([3, 0, -2], "class balance: class 2 has -2 images; wanted at least 0"),
        ([0, 0], "class balance: all 2 classes have 0 images; wanted at least one image"),
        ([], "class balance: all 0 classes have 0 images; wanted at least one image"),
    ],
)
def test_bad_counts_are_named(counts: list[int], text: str) -> None:
    with pytest.raises(InputError) as caught:
        class_balanced(torch.tensor(counts, dtype=torch.int64))
    assert str(caught.value) == text
