"""QGFace's contrastive term, its partition and its queues against loops over samples in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mobileface.errors import InputError
from mobileface.losses import contrastive, queues
from mobileface.losses.centres import Centres
from mobileface.losses.contrastive import Contrastive
from mobileface.losses.forward import Forward
from mobileface.losses.quality_gate import QualityGate
from mobileface.losses.queues import EMPTY, Batch, ProxyQueue, Queue
from mobileface.statistics import end_step
from tests.strategies import examples

DIM, CLASSES, SCALE = 5, 4, 3.0


def step(seed: int, images: int = 6, momentum: bool = False) -> Forward:
    generator = torch.Generator().manual_seed(seed)

    def drawn() -> Tensor:
        return 20 * torch.randn(images, DIM, generator=generator, dtype=torch.float64)

    views = {name: drawn().requires_grad_() for name in ("clean", "degraded")}
    labels = torch.randint(0, CLASSES, (images,), generator=generator)
    return Forward(views, labels, momentum=drawn() if momentum else None)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / (a.norm() * b.norm())


def info_nce(query: Tensor, key: Tensor, label: int, others: list[tuple[Tensor, int]]) -> Tensor:
    """Equation 14 with the positive in the sum, and without what has the query's label."""
    positive = torch.exp(SCALE * cosine(query, key))
    negative = [torch.exp(SCALE * cosine(query, other)) for other, its in others if its not in (label, EMPTY)]
    return -torch.log(positive / (positive + sum(negative)))  # type: ignore[no-any-return]


class Moving(nn.Module):
    """Class centres that a test can move."""

    def __init__(self) -> None:
        super().__init__()
        start = torch.randn(CLASSES, DIM, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
        self.centres = nn.Parameter(3 * start)


def term_of(kind: str, threshold: float | None = None, size: int = 9) -> tuple[Contrastive, Moving]:
    moving = Moving()
    queue = {
        "batch": Batch,
        "momentum": lambda: Queue(size, DIM),
        "proxy": lambda: ProxyQueue(size, DIM, Centres(lambda: moving.centres)),
    }[kind]()
    encoder = nn.Identity() if kind == "momentum" else None
    return Contrastive(queue, QualityGate(threshold), SCALE, encoder).double(), moving


def slow_queue(kind: str, size: int, steps: list[tuple[Forward, Tensor, Tensor]]) -> list[tuple[Tensor, int]]:
    """What is in the queue of a kind after steps of (batch, centres then, centres now), the oldest first."""
    held: list[tuple[Tensor, int]] = []
    for forward, then, now in steps:
        clean, degraded = (forward.embeddings[view].detach() for view in ("clean", "degraded"))
        pairs = [feature for pair in zip(degraded, clean, strict=True) for feature in pair]
        fresh = forward.momentum if kind == "momentum" else torch.stack(pairs)
        assert fresh is not None
        labels = forward.labels if kind == "momentum" else torch.tensor([x for x in forward.labels for _ in range(2)])
        for feature, label in zip(fresh, labels.tolist(), strict=True):
            unit = feature / feature.norm()
            if kind == "proxy":  # f + |f| / |w_then| (w_now - w_then)
                unit = unit + unit.norm() / then[label].norm() * (now[label] - then[label])
            held.append((unit, label))
    return held[-size:]


@pytest.mark.parametrize("kind", ["batch", "momentum", "proxy"])
@pytest.mark.parametrize("threshold", [None, 0.5])
def test_values_and_gradients_are_those_of_a_loop(kind: str, threshold: float | None) -> None:
    """Four steps, so that the queue is empty, half full, and overfull; the centres move in between."""
    momentum, before, place = kind == "momentum", [], []
    size = 15 if momentum else 30  # two steps and a half
    term, moving = term_of(kind, threshold, size)
    generator = torch.Generator().manual_seed(5)
    for number in range(4):
        forward, again = step(number, 6, momentum), step(number, 6, momentum)
        values, weights = term(forward)
        now = moving.centres.detach().clone()
        history = [(batch, then, now) for batch, then in zip(before, place, strict=True)]
        others = [] if kind == "batch" else slow_queue(kind, size, [*history, (again, now, now)])
        if kind == "batch":
            others = slow_queue(kind, 99, [(again, now, now)])
        wanted = []
        for i, label in enumerate(again.labels.tolist()):
            key = again.momentum[i] if again.momentum is not None else again.embeddings["clean"][i].detach()
            wanted.append(info_nce(again.embeddings["degraded"][i], key, label, others))
        torch.testing.assert_close(values, torch.stack(wanted), atol=1e-10, rtol=1e-10)
        (values * weights).sum().backward()
        (torch.stack(wanted) * weights).sum().backward()
        got, right = forward.embeddings["degraded"].grad, again.embeddings["degraded"].grad
        torch.testing.assert_close(got, right, atol=1e-10, rtol=1e-10)
        assert forward.embeddings["clean"].grad is None  # exactly: the good image is a constant
        assert moving.centres.grad is None
        before.append(again)
        place.append(now)
        end_step(term)
        with torch.no_grad():
            moving.centres += 0.3 * torch.randn(moving.centres.shape, generator=generator, dtype=torch.float64)


def test_entries_of_the_own_identity_have_no_gradient_and_no_part() -> None:
    """Nor have empty places: whatever stands there, values and gradients are the same bits."""
    queries = torch.randn(3, DIM, dtype=torch.float64, requires_grad=True)
    others = torch.randn(7, DIM, dtype=torch.float64)
    labels, theirs = torch.tensor([0, 1, 2]), torch.tensor([0, 0, 1, 1, 2, 2, EMPTY])

    def both(i: int) -> list[Tensor]:
        values = contrastive.log_sum(queries, labels, iter([(others, theirs)]), SCALE)
        return [values[i].detach(), *torch.autograd.grad(values[i], queries)]

    for i in range(3):
        before = both(i)
        for place, label in enumerate(theirs.tolist()):
            kept = others[place].clone()
            others[place] = 100.0
            assert all(map(torch.equal, both(i), before)) == (label in (i, EMPTY))
            others[place] = kept


@pytest.mark.parametrize("scale", [SCALE, 64.0])
def test_without_any_negative_the_loss_is_zero_and_finite(scale: float) -> None:
    term, _ = term_of("batch")
    term.scale = scale
    forward = step(0)
    alone = Forward(forward.embeddings, torch.zeros_like(forward.labels))
    values, _ = term(alone)
    values.sum().backward()
    assert values.tolist() == [0.0] * 6
    grad = forward.embeddings["degraded"].grad
    assert grad is not None
    assert not grad.any()


def test_pieces_change_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(4, DIM, generator=generator, dtype=torch.float64).requires_grad_()
    others = torch.randn(50, DIM, generator=generator, dtype=torch.float64)
    labels, theirs = torch.arange(4), torch.randint(0, 6, (50,), generator=generator)

    def both(size: int) -> tuple[Tensor, Tensor]:
        pieces = zip(others.split(size), theirs.split(size), strict=True)
        values = contrastive.log_sum(queries, labels, pieces, SCALE)
        return values.detach(), torch.autograd.grad(values.sum(), queries)[0]

    out = labels[:, None] == theirs
    values = torch.logsumexp((SCALE * queries @ others.T).masked_fill(out, -torch.inf), 1)
    whole = values.detach(), torch.autograd.grad(values.sum(), queries)[0]
    for size in (1, 7, 50):
        for got, wanted in zip(both(size), whole, strict=True):
            torch.testing.assert_close(got, wanted, atol=1e-12, rtol=1e-12)


def test_far_logits_are_summed_without_overflow() -> None:
    """One piece far below the next, and one far above: 1,000 and more in the exponent."""
    queries = torch.tensor([[1.0, 0.0]], requires_grad=True)
    pieces = [(torch.tensor([[x, 1.0]]), torch.tensor([1])) for x in (-1.0, 1.0, 0.0)]
    values = contrastive.log_sum(queries, torch.tensor([0]), iter(pieces), 1000.0)
    values.backward()
    assert values.item() == 1000.0
    assert queries.grad is not None
    assert queries.grad.tolist() == [[1000.0, 1000.0]]


# -- the partition


def test_the_partition_is_that_of_the_paper() -> None:
    """Mean 20, deviation 10: norms and what AdaFace's indicator, scaled to 0..1, makes of them."""
    gate = QualityGate(0.2).eval()
    gate.statistics.mean.fill_(20.0)
    gate.statistics.std.fill_(10.0 - 1e-3)
    norms = torch.tensor([-20.0, -10.0, 0.0, 2.0, 3.0, 20.0, 50.0, 99.0])
    z = [max(-1.0, min(1.0, (norm - 20) / 10 / 3)) for norm in norms.tolist()]
    indicators = gate.indicators(norms)
    torch.testing.assert_close(indicators, torch.tensor([(value + 1) / 2 for value in z]))
    assert gate.high(indicators).tolist() == [(value + 1) / 2 > 0.2 for value in z]
    good = torch.ones_like(indicators)
    assert gate.low(indicators, good).tolist() == [(value + 1) / 2 <= 0.2 for value in z]
    assert gate.low(good, indicators).tolist() == gate.low(indicators, good).tolist()
    no = QualityGate(None)
    assert no.high(indicators).all()
    assert no.low(indicators, good).all()


def test_the_gate_sees_the_norms_of_both_views() -> None:
    term, _ = term_of("batch", 0.2)
    forward = step(4)
    term(forward)
    end_step(term)
    norms = torch.cat([view.detach().norm(dim=1) for view in forward.embeddings.values()])
    assert term.gate.statistics.mean.item() == pytest.approx(norms.mean().item())  # the first step counts whole
    assert term.gate.statistics.std.item() == pytest.approx(norms.std().item())
    before, again = term.gate.statistics.mean.item(), step(5)
    term(again)
    end_step(term)
    more = torch.cat([view.detach().norm(dim=1) for view in again.embeddings.values()])
    assert term.gate.statistics.mean.item() == pytest.approx((0.99 * before + more.mean().item()) / 1.99)


# -- the queue


@examples(60)
@given(
    size=st.integers(1, 9),
    counts=st.lists(st.integers(1, 7), max_size=6),
    kind=st.sampled_from(["momentum", "proxy"]),
)
@pytest.mark.parametrize("piece", [2, 100])
def test_a_queue_holds_the_newest(piece: int, size: int, counts: list[int], kind: str) -> None:
    """Whatever comes at a time, what is asked for is the newest `size` of all, and of the step all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queues, "PIECE", piece)
        newest_is_held(size, counts, kind)


def newest_is_held(size: int, counts: list[int], kind: str) -> None:
    term, _ = term_of(kind, None, size)
    queue = term.queue
    assert isinstance(queue, Queue)
    came: list[tuple[list[float], int]] = []
    number = 0
    for count in counts:
        features = nn.functional.normalize(
            torch.arange(1.0, 1 + count * DIM, dtype=torch.float64).view(count, DIM) + number
        )
        labels = torch.arange(number, number + count) % CLASSES
        number += count
        found, theirs = map(torch.cat, zip(*queue.negatives(features, labels), strict=True))
        came += list(zip(features.tolist(), labels.tolist(), strict=True))
        held = [pair for pair in zip(found.tolist(), theirs.tolist(), strict=True) if pair[1] != EMPTY]
        wanted = came[-max(size, count) :]
        assert [label for _, label in held] == [label for _, label in wanted]
        torch.testing.assert_close(torch.tensor([f for f, _ in held]), torch.tensor([f for f, _ in wanted]))
        queue.end_step()


def test_in_eval_mode_the_queue_stays() -> None:
    term, _ = term_of("proxy")
    before = {name: tensor.clone() for name, tensor in term.queue.state_dict().items()}
    term.eval()
    term(step(0))
    end_step(term)
    assert all(torch.equal(tensor, before[name]) for name, tensor in term.queue.state_dict().items())


def test_the_queue_is_in_the_state_and_goes_on_exactly() -> None:
    term, moving = term_of("proxy")
    for number in range(2):
        term(step(number))
        end_step(term)
    again, other = term_of("proxy")
    again.load_state_dict(term.state_dict())
    other.load_state_dict(moving.state_dict())
    for got, wanted in zip(again(step(7)), term(step(7)), strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [(0.0, "contrastive's scale is 0; wanted above 0"), (math.inf, "contrastive's scale is inf; wanted")],
)
def test_what_it_does_not_take(change: float, wanted: str) -> None:
    with pytest.raises(InputError, match=wanted):
        Contrastive(Batch(), QualityGate(0.2), change)


def test_a_momentum_queue_without_a_momentum_encoder() -> None:
    term, _ = term_of("momentum")
    with pytest.raises(InputError, match="needs a momentum encoder's embeddings"):
        term(step(0))


def test_empty_pieces_count_nothing() -> None:
    queries = step(0).unit("clean").detach().requires_grad_()
    labels, none = step(0).labels, (torch.zeros(0, DIM, dtype=torch.float64), torch.zeros(0, dtype=torch.int64))
    rows, theirs = step(1).unit("clean").detach(), step(1).labels
    wanted = contrastive.log_sum(queries, labels, iter([(rows, theirs)]), SCALE)
    assert torch.equal(contrastive.log_sum(queries, labels, iter([none, (rows, theirs), none]), SCALE), wanted)
    alone = contrastive.log_sum(queries, labels, iter([none]), SCALE)
    alone.sum().backward()
    assert (alone < -1e300).all()
    assert queries.grad is not None
    assert not queries.grad.any()
