"""Intra, inter and centre loss against slow float64 loops, closed forms and finite differences; their memory."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mobileface.errors import InputError
from mobileface.losses.centres import BLOCK_BYTES, Centres
from mobileface.losses.centres import nearest_centres as find_nearest
from mobileface.losses.forward import Forward
from mobileface.losses.margins import EPS
from mobileface.losses.regularizers import CentreLoss, Inter, Intra
from tests.losses.recorder import Recorder


def problem(batch: int, classes: int, dim: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings and centres in float64, of many lengths, and labels."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = 3 * torch.randn(batch, dim, generator=generator, dtype=torch.float64)
    centres = torch.randn(classes, dim, generator=generator, dtype=torch.float64)
    centres *= 0.1 + torch.rand(classes, 1, generator=generator, dtype=torch.float64)
    return embeddings, centres, torch.randint(0, classes, (batch,), generator=generator)


def nearest_centres(centres: Tensor, classes: Tensor, block_bytes: int = BLOCK_BYTES) -> Tensor:
    units = torch.nn.functional.normalize(centres[classes])
    return find_nearest(units, centres, classes, block_bytes)[1]


def cosine(a: list[float], b: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def angles(embeddings: Tensor, own: Tensor) -> Tensor:
    """(B,) radians by atan2: no arccos, no clamp (Kahan)."""
    x = embeddings / embeddings.norm(dim=1, keepdim=True)
    w = own / own.norm(dim=1, keepdim=True)
    return 2 * torch.atan2((x - w).norm(dim=1), (x + w).norm(dim=1))


# intra


@given(batch=st.integers(0, 6), classes=st.integers(1, 8), dim=st.integers(2, 9), seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=40)
def test_intra_is_the_angle_over_pi(batch: int, classes: int, dim: int, seed: int) -> None:
    embeddings, centres, labels = problem(batch, classes, dim, seed)
    values, weights = Intra(Centres(lambda: centres))(Forward({"clean": embeddings}, labels))
    rows = zip(embeddings.tolist(), labels.tolist(), strict=True)
    wanted = [math.acos(max(-1.0, min(1.0, cosine(x, centres[y].tolist())))) / math.pi for x, y in rows]
    assert values.tolist() == pytest.approx(wanted, abs=math.sqrt(2 * EPS) / math.pi)
    exact = [w for w in wanted if 0.001 < w < 0.999]
    assert [v for v, w in zip(values.tolist(), wanted, strict=True) if w in exact] == pytest.approx(exact, abs=1e-9)
    assert weights.tolist() == [1.0] * batch


def test_intra_gradients_go_to_embeddings_and_centres() -> None:
    embeddings, centres, labels = problem(7, 4, 5)
    inputs = (embeddings.requires_grad_(), centres.requires_grad_())

    def term(e: Tensor, c: Tensor) -> Tensor:
        result: Tensor = Intra(Centres(lambda: c))(Forward({"clean": e}, labels))[0]
        return result

    got = torch.autograd.grad(term(*inputs).square().sum(), inputs)
    wanted = torch.autograd.grad((angles(embeddings, centres[labels]) / math.pi).square().sum(), inputs)
    torch.testing.assert_close(got, wanted, atol=1e-10, rtol=1e-10)
    assert torch.autograd.gradcheck(term, inputs)
    single = [i.detach().float().requires_grad_() for i in inputs]
    got = torch.autograd.grad(term(*single).square().sum(), single)
    torch.testing.assert_close([g.double() for g in got], list(wanted), atol=1e-5, rtol=1e-4)


def test_intra_at_the_ends_is_finite() -> None:
    axis = torch.eye(3)
    embeddings = torch.stack([5 * axis[0], -2 * axis[0], axis[1]]).requires_grad_()
    centres = (0.3 * axis).requires_grad_()
    values, _ = Intra(Centres(lambda: centres))(Forward({"clean": embeddings}, torch.tensor([0, 0, 0])))
    assert values.tolist() == pytest.approx([0, 1, 0.5], abs=5e-4)
    for gradient in torch.autograd.grad(values.sum(), (embeddings, centres)):
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


def test_intra_reads_its_view_and_the_centres_of_this_step() -> None:
    embeddings, centres, labels = problem(4, 3, 5)
    now = [centres]
    term = Intra(Centres(lambda: now[0]), view="degraded")
    forward = Forward({"clean": -embeddings, "degraded": embeddings}, labels)
    torch.testing.assert_close(term(forward)[0], angles(embeddings, centres[labels]) / math.pi)
    now[0] = -centres
    torch.testing.assert_close(term(forward)[0], 1 - angles(embeddings, centres[labels]) / math.pi)
    assert list(term.state_dict()) == []


# inter


def slow_inter(centres: Tensor, classes: list[int]) -> tuple[list[float], list[int]]:
    """The definition: every pair, in plain Python."""
    rows = centres.tolist()
    best, index = [], []
    for i in classes:
        cosines = [(cosine(rows[i], rows[j]), j) for j in range(len(rows)) if j != i]
        best.append(max(cosines)[0])
        index.append(max(cosines)[1])
    return best, index


@given(
    batch=st.integers(0, 9),
    classes=st.integers(2, 12),
    dim=st.integers(1, 6),
    block=st.integers(1, 1200),
    seed=st.integers(0, 10_000),
)
@settings(deadline=None, max_examples=60)
def test_inter_in_any_blocks(batch: int, classes: int, dim: int, block: int, seed: int) -> None:
    embeddings, centres, labels = problem(batch, classes, dim, seed)
    distinct = sorted(set(labels.tolist()))
    forward = Forward({"clean": embeddings}, labels)
    for over, considered in (("batch", distinct), ("all", list(range(classes)))):
        values, weights = Inter(Centres(lambda: centres), over)(forward)
        wanted, index = slow_inter(centres, considered)
        assert values.tolist() == pytest.approx(wanted, abs=1e-12)
        assert weights.tolist() == [1.0] * len(considered)
        found = nearest_centres(centres, torch.tensor(considered, dtype=torch.int64), block_bytes=block)
        if dim > 1:  # on a line all cosines are 1 or -1
            assert found.tolist() == index
        for i, j in zip(considered, found.tolist(), strict=True):
            assert i != j
            assert cosine(centres[i].tolist(), centres[j].tolist()) == pytest.approx(max(slow_inter(centres, [i])[0]))


@pytest.mark.parametrize("over", ["batch", "all"])
def test_inter_gradients_go_to_both_centres_of_a_pair(over: str) -> None:
    embeddings, centres, labels = problem(3, 7, 4, seed=2)
    considered = sorted(set(labels.tolist())) if over == "batch" else list(range(7))
    centres.requires_grad_()

    def term(c: Tensor) -> Tensor:
        result: Tensor = Inter(Centres(lambda: c), over)(Forward({"clean": embeddings}, labels))[0]
        return result

    spread = torch.arange(1, len(considered) + 1, dtype=torch.float64)
    (got,) = torch.autograd.grad((term(centres) * spread).sum(), centres)
    wanted = torch.zeros_like(got)
    for weight, i, j in zip(spread, considered, slow_inter(centres, considered)[1], strict=True):
        a, b = centres[i].detach(), centres[j].detach()
        cos = a @ b / a.norm() / b.norm()
        wanted[i] += weight * (b / b.norm() - cos * a / a.norm()) / a.norm()
        wanted[j] += weight * (a / a.norm() - cos * b / b.norm()) / b.norm()
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=1e-12)
    assert torch.autograd.gradcheck(term, (centres,))


def test_inter_takes_any_one_of_equal_centres() -> None:
    centres = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 2.0], [0.0, 2.0]], requires_grad=True)
    values, _ = Inter(Centres(lambda: centres))(Forward({"clean": torch.ones(3, 2)}, torch.tensor([0, 0, 2])))
    assert values.tolist() == [0.0, 1.0]
    (gradient,) = torch.autograd.grad(values[0], centres)
    assert gradient[0].tolist() == [0.0, 1.0]
    assert sorted(gradient[1:].tolist()) == [[0.0, 0.0], [0.0, 0.0], [0.5, 0.0]]


def test_inter_keeps_to_its_blocks() -> None:
    batch, classes, dim = 560, 30_000, 4
    assert batch * classes * 4 > BLOCK_BYTES
    centres = torch.randn(classes, dim, requires_grad=True)
    labels = torch.arange(batch)
    with Recorder() as recorder:
        values, _ = Inter(Centres(lambda: centres))(Forward({"clean": torch.ones(batch, dim)}, labels))
        values.sum().backward()
    assert centres.grad is not None
    assert BLOCK_BYTES / 2 < recorder.largest * 4 <= BLOCK_BYTES
    with Recorder() as recorder:
        nearest_centres(centres, torch.arange(500), block_bytes=4 * 2500)
    assert recorder.largest == 2500


def test_inter_does_not_hide_a_nan() -> None:
    centres = torch.randn(6, 3)
    centres[1] = math.nan
    values, _ = Inter(Centres(lambda: centres))(Forward({"clean": torch.ones(1, 3)}, torch.tensor([4])))
    assert values.isnan().all()
    assert nearest_centres(centres, torch.tensor([4, 0]), block_bytes=4).tolist() == [1, 1]


# centre loss


def test_centre_loss_is_half_the_squared_distance() -> None:
    embeddings, centres, labels = problem(6, 4, 5)
    term = CentreLoss(4, 5).double()
    assert term.centres.tolist() == [[0.0] * 5] * 4
    values, weights = term(Forward({"clean": embeddings}, labels))
    assert values.tolist() == pytest.approx([math.hypot(*x) ** 2 / 2 for x in embeddings.tolist()])
    term.centres.data.copy_(centres)
    embeddings.requires_grad_()
    values, weights = term(Forward({"degraded": -embeddings, "clean": embeddings}, labels))
    pairs = zip(embeddings.tolist(), labels.tolist(), strict=True)
    wanted = [sum((x - c) ** 2 for x, c in zip(e, centres[y].tolist(), strict=True)) / 2 for e, y in pairs]
    assert values.tolist() == pytest.approx(wanted, rel=1e-12)
    assert weights.tolist() == [1.0] * 6
    values.sum().backward()
    difference = (embeddings - centres[labels]).detach()
    torch.testing.assert_close(embeddings.grad, difference)
    pull = torch.stack([-difference[labels == c].sum(0) for c in range(4)])
    torch.testing.assert_close(term.centres.grad, pull)
    assert list(term.state_dict()) == ["centres"]


def test_the_optimizer_moves_the_centres() -> None:
    """Plain steps on the mean loss: a centre goes to the mean of its images, one without images stays."""
    embeddings, _, _ = problem(6, 1, 3)
    labels = torch.tensor([0, 0, 0, 0, 2, 2])
    term = CentreLoss(3, 3, view="degraded").double()
    optimizer = torch.optim.SGD(term.parameters(), lr=1.0)
    for _ in range(200):
        optimizer.zero_grad()
        term(Forward({"degraded": embeddings}, labels))[0].mean().backward()
        optimizer.step()
    means = torch.stack([embeddings[:4].mean(0), torch.zeros(3), embeddings[4:].mean(0)])
    torch.testing.assert_close(term.centres.data, means.double())


# all of them

TERMS: dict[str, Any] = {
    "intra": lambda centres: Intra(Centres(lambda: centres)),
    "inter": lambda centres: Inter(Centres(lambda: centres)),
    "centre": lambda centres: copied(CentreLoss(*centres.shape), centres),
}


def copied(term: CentreLoss, centres: Tensor) -> CentreLoss:
    term = term.to(centres.dtype)
    term.centres = nn.Parameter(centres.detach().clone())
    return term


@pytest.mark.parametrize("name", TERMS)
def test_autocast_and_half_embeddings(name: str) -> None:
    embeddings, centres, labels = problem(8, 30, 16)
    term = TERMS[name](centres.float())
    plain, _ = term(Forward({"clean": embeddings.float()}, labels))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under, _ = term(Forward({"clean": embeddings.float()}, labels))
    assert under.dtype == torch.float32
    assert torch.equal(plain, under)
    half, _ = term(Forward({"clean": embeddings.bfloat16()}, labels))
    assert torch.equal(half, term(Forward({"clean": embeddings.bfloat16().float()}, labels))[0])


@pytest.mark.parametrize("name", TERMS)
def test_two_runs_are_the_same_bits(name: str) -> None:
    embeddings, centres, labels = problem(64, 5, 32)
    runs = []
    for _ in range(3):
        leaf = centres.float().requires_grad_()
        term = TERMS[name](leaf)
        term(Forward({"clean": embeddings.float()}, labels))[0].sum().backward()
        gradient = leaf.grad if leaf.grad is not None else term.centres.grad
        assert gradient is not None
        runs.append(copy.deepcopy(gradient))
    assert torch.equal(runs[0], runs[1])
    assert torch.equal(runs[0], runs[2])
    assert runs[0].abs().sum() > 0


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ([0, -1], "sample 1 of the batch has label -1 (-1 = unlabelled); wanted 0..4"),
        ([5, 0], "sample 0 of the batch has label 5; wanted 0..4"),
        ([0, -7], "sample 1 of the batch has label -7; wanted 0..4"),
    ],
)
def test_labels_out_of_range_are_named(name: str, labels: list[int], text: str) -> None:
    with pytest.raises(InputError) as caught:
        TERMS[name](torch.randn(5, 2))(Forward({"clean": torch.ones(2, 2)}, torch.tensor(labels)))
    assert str(caught.value) == text


def test_all_classes_ask_for_no_label() -> None:
    centres = torch.randn(5, 2)
    values, _ = Inter(Centres(lambda: centres), "all")(Forward({"clean": torch.ones(2, 2)}, torch.tensor([-1, -1])))
    assert values.shape == (5,)


def test_bad_shapes_and_names_are_named() -> None:
    two = Forward({"clean": torch.ones(1, 3)}, torch.tensor([0]))
    with pytest.raises(InputError, match=r"^inter has 1 classes; wanted at least 2$"):
        Inter(Centres(lambda: torch.ones(1, 3)))(two)
    with pytest.raises(InputError, match=r"^inter is over 'bach' \(did you mean 'batch'\?\); wanted batch or all$"):
        Inter(Centres(lambda: torch.ones(2, 3)), "bach")
    with pytest.raises(InputError, match=r"^centre loss has 0 classes; wanted at least 1$"):
        CentreLoss(0, 3)
    for name in ("intra", "centre"):
        with pytest.raises(InputError, match=r"^embeddings are 3 wide; the class centres are 4$"):
            TERMS[name](torch.ones(2, 4))(two)
