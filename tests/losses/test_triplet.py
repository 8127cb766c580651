"""Triplets against a slow search in plain Python, finite differences, and the batches that hold none."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mobileface.errors import InputError
from mobileface.losses.forward import Forward
from mobileface.losses.triplet import DISTANCES, MINING, Triplet, squared_distances, triplet_values

KINDS = [(mining, distance) for mining in MINING for distance in DISTANCES]


def distance_of(a: list[float], b: list[float], distance: str) -> float:
    squared = math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    if distance == "cosine":
        return 1 - math.fsum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)
    return squared if distance == "squared" else math.sqrt(squared)


def slow(
    embeddings: Tensor, labels: list[int], mining: str, distance: str, margin: float
) -> tuple[list[float], list[float]]:
    """The definitions, one triplet after the other; for semi-hard one entry per anchor and other image."""
    x = embeddings.tolist()
    n = len(labels)
    d = [[distance_of(a, b, distance) for b in x] for a in x]
    values, weights = [], []
    for a in range(n):
        known = [i for i in range(n) if labels[i] != -1 and labels[a] != -1 and i != a]
        positives = [i for i in known if labels[i] == labels[a]]
        negatives = [i for i in known if labels[i] != labels[a]]
        if mining == "batch_hard":
            both = bool(positives and negatives)
            hinge = max(d[a][p] for p in positives) - min(d[a][i] for i in negatives) + margin if both else 0.0
            values.append(max(0.0, hinge))
            weights.append(float(both))
            continue
        for p in range(n):
            farther = [d[a][i] for i in negatives if d[a][p] < d[a][i] < d[a][p] + margin] if p in positives else []
            values.append(d[a][p] - min(farther) + margin if farther else 0.0)
            weights.append(float(bool(farther)))
    return values, weights


def problem(labels: list[int], dim: int, seed: int = 0, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = spread * torch.randn(len(labels), dim, generator=generator, dtype=torch.float64)
    return drawn + torch.ones(dim, dtype=torch.float64), torch.tensor(labels)


def both(term: Triplet, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    result: tuple[Tensor, Tensor] = term(Forward({term.view: embeddings}, labels))
    return result


labels_of_any_kind = st.lists(st.integers(-1, 3), min_size=1, max_size=9)


@given(
    kind=st.sampled_from(KINDS),
    labels=labels_of_any_kind,
    dim=st.integers(1, 5),
    margin=st.floats(0.01, 3),
    normalised=st.booleans(),
    seed=st.integers(0, 10_000),
)
@settings(deadline=None, max_examples=150)
def test_any_batch_is_the_slow_search(
    kind: tuple[str, str], labels: list[int], dim: int, margin: float, normalised: bool, seed: int
) -> None:
    embeddings, targets = problem(labels, dim + 1, seed)
    values, weights = both(Triplet(*kind, margin, normalised), embeddings, targets)
    read = torch.nn.functional.normalize(embeddings) if normalised else embeddings
    wanted = slow(read, labels, *kind, margin)
    assert weights.tolist() == wanted[1]
    assert values.tolist() == pytest.approx(wanted[0], abs=1e-9)


@given(
    mining=st.sampled_from(list(MINING)),
    labels=labels_of_any_kind,
    margin=st.sampled_from([1.0, 2.0]),
    points=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=9, max_size=9),
)
@settings(deadline=None, max_examples=150)
def test_ties_and_limits_are_exact(
    mining: str, labels: list[int], margin: float, points: list[tuple[int, int]]
) -> None:
    """On a grid squared distances are whole: equal embeddings, equal distances, and d_n = d_p + margin are common."""
    embeddings = torch.tensor(points[: len(labels)], dtype=torch.float32)
    term = Triplet(mining, "squared", margin, normalised=False)
    values, weights = both(term, embeddings, torch.tensor(labels))
    assert (values.tolist(), weights.tolist()) == slow(embeddings, labels, mining, "squared", margin)


def test_by_hand() -> None:
    """On a line: anchor 0 has positives at 1 and 3, negatives at 2, 3.5 and 9."""
    points = torch.tensor([[0.0], [1.0], [3.0], [2.0], [3.5], [9.0]])
    labels = torch.tensor([0, 0, 0, 1, 2, 3])
    hard, weights = both(Triplet("batch_hard", margin=0.75, normalised=False), points, labels)
    assert hard.tolist() == [1.75, 1.75, 3.25, 0, 0, 0]
    assert weights.tolist() == [1, 1, 1, 0, 0, 0]
    semi, weights = both(Triplet("semi_hard", margin=1.5, normalised=False), points, labels)
    assert semi.reshape(6, 6)[0].tolist() == [0, 0.5, 1.0, 0, 0, 0]  # 1 - 2 + 1.5; 3 - 3.5 + 1.5
    assert weights.reshape(6, 6)[0].tolist() == [0, 1, 1, 0, 0, 0]
    assert weights.reshape(6, 6)[2].tolist() == [0, 0, 0, 0, 0, 0]  # d_p = 3, 2; d_n = 1, 0.5, 6: none within


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind: tuple[str, str], normalised: bool) -> None:
    """Errata 22: a distance that left the graph would fail here."""
    embeddings, labels = problem([0, 0, 0, 1, 1, 2, -1], 3, seed=4)
    term = Triplet(*kind, 3.0, normalised)
    values, weights = both(term, embeddings, labels)
    assert (values > 0).sum() >= 2
    assert weights.sum() >= 2
    assert torch.autograd.gradcheck(lambda e: both(term, e, labels)[0], (embeddings.requires_grad_(),))


@pytest.mark.parametrize("kind", KINDS)
def test_close_pairs_in_float32(kind: tuple[str, str]) -> None:
    """Two crowds, each narrower than float32's a^2 + b^2 - 2ab can see, against the same numbers in float64."""
    generator = torch.Generator().manual_seed(0)
    crowd = torch.randn(2, 1, 8, generator=generator) + 1e-4 * torch.randn(2, 8, 8, generator=generator)
    embeddings = torch.nn.functional.normalize(crowd.reshape(16, 8), dim=1)
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 1, -1, 2, 2, 2, 3, 3, 3, 3, 4])
    results = []
    for dtype in (torch.float32, torch.float64):
        margin = {"euclidean": 1e-3, "squared": 1e-6, "cosine": 1e-6}[kind[1]]
        leaf = embeddings.to(dtype).requires_grad_()
        values, weights = both(Triplet(*kind, margin, normalised=False), leaf, labels)
        (gradient,) = torch.autograd.grad(values.sum(), leaf)
        results.append((values.detach().double(), weights.double(), gradient.double()))
    single, double = results
    assert double[1].sum() >= 12
    assert torch.equal(single[1], double[1])
    # the cosine scales to length one in float32: its vectors, 1e-4 apart, are good to 6e-8
    exact = 2e-3 if kind[1] == "cosine" else 1e-5
    torch.testing.assert_close(single[0], double[0], rtol=0, atol=exact * float(double[0].max()))
    torch.testing.assert_close(single[2], double[2], rtol=0, atol=exact * float(double[2].abs().max()))


@given(dim=st.integers(1, 40), scale=st.floats(0.01, 100), apart=st.floats(-8, 1), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_distances_against_float64(dim: int, scale: float, apart: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a = scale * torch.randn(6, dim, generator=generator)
    b = torch.cat([a + 10**apart * scale * torch.randn(6, dim, generator=generator), a])
    wanted = (a.double()[:, None] - b.double()).square().sum(2)
    torch.testing.assert_close(squared_distances(a, b).double(), wanted, rtol=1e-4, atol=0)
    assert squared_distances(a, a).diagonal().tolist() == [0.0] * 6


def test_distances_of_many_close_pairs_go_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    a = 1 + 1e-5 * torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
    whole = squared_distances(a, a)
    monkeypatch.setattr("mobileface.losses.triplet.BLOCK_BYTES", 7 * 4 * 4)
    assert torch.equal(squared_distances(a, a), whole)
    assert (whole > 0).sum() > 800


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_identical_embeddings_have_a_gradient(kind: tuple[str, str], normalised: bool) -> None:
    """At |a - b| = 0 the slope is 0: no NaN from the root."""
    embeddings = torch.tensor([[1.0, 2.0]] * 4, requires_grad=True)
    values, weights = both(Triplet(*kind, 0.5, normalised), embeddings, torch.tensor([0, 0, 1, 1]))
    if kind[0] == "batch_hard":
        assert values.tolist() == [0.5] * 4
        assert weights.tolist() == [1.0] * 4
    else:  # no negative is farther than the positive
        assert values.tolist() == weights.tolist() == [0.0] * 16
    values.sum().backward()
    assert embeddings.grad is not None
    assert embeddings.grad.tolist() == [[0.0, 0.0]] * 4


def test_an_identical_positive_pulls_nothing_and_the_negative_still_pushes() -> None:
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.2]], requires_grad=True)
    for mining in MINING:
        values, weights = both(Triplet(mining, margin=0.5, normalised=False), embeddings, torch.tensor([0, 0, 1]))
        assert weights.sum() == 2
        assert float(values.sum().detach()) == pytest.approx(2 * 0.3)
        (gradient,) = torch.autograd.grad(values.sum(), embeddings)
        torch.testing.assert_close(gradient, torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, -2.0]]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "labels", [[3], [-1], [5, 5, 5], [0, 1, 2, 3], [-1, -1, -1], [-1, 0, -1, 1], [0, 0, -1, -1], [4, -1, -1]]
)
def test_nothing_to_compare(kind: tuple[str, str], labels: list[int]) -> None:
    embeddings, targets = problem(labels, 4)
    embeddings.requires_grad_()
    values, weights = both(Triplet(*kind, 5.0), embeddings, targets)
    assert values.shape == weights.shape == (len(labels) ** (2 if kind[0] == "semi_hard" else 1),)
    assert not values.any()
    assert not weights.any()
    values.sum().backward()
    assert embeddings.grad is not None
    assert not embeddings.grad.any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_unlabelled_change_nothing(kind: tuple[str, str]) -> None:
    embeddings, labels = problem([0, -1, 0, 1, -1, 1], 4, seed=3)
    embeddings[1] = embeddings[0]  # the nearest to it, if it were a negative
    embeddings[4] = math.nan if kind[1] != "cosine" else 9.0
    known = labels >= 0
    term = Triplet(*kind, 2.0, normalised=False)
    values, weights = both(term, embeddings, labels)
    few, few_weights = both(term, embeddings[known], labels[known])
    assert weights.sum() == few_weights.sum() > 0
    torch.testing.assert_close(values[weights > 0], few[few_weights > 0])
    leaf = embeddings.clone().requires_grad_()
    both(term, leaf, labels)[0].sum().backward()
    assert leaf.grad is not None
    assert not leaf.grad[~known].any()
    assert leaf.grad[known].any()


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_that_see_each_others_images_do_what_one_does(kind: tuple[str, str]) -> None:
    """Two ranks' anchors against everyone's images: the same triplets, the same gradient, as one whole batch."""
    embeddings, labels = problem([0, 0, 1, 1, 2, 0, 3, -1, 1, 2], 4, seed=6)
    results = []
    for cuts in ([10], [5, 5], [1, 7, 2]):
        leaf = embeddings.clone().requires_grad_()
        parts = [
            triplet_values(leaf[own], labels[own], leaf, labels, own, *kind, 3.0)
            for own in torch.arange(10).split(cuts)
        ]
        values, weights = (torch.cat(part) for part in zip(*parts, strict=True))
        (gradient,) = torch.autograd.grad((values * weights).sum() / weights.sum(), leaf)
        results.append((values.detach(), weights, gradient))
    assert results[0][1].sum() > 3
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], atol=1e-12, rtol=1e-12)


def test_an_anchor_that_is_not_among_the_others() -> None:
    """own = -1: an image equal to the anchor is then a positive like any other. own = its place: it is none."""
    anchor, others = torch.zeros(1, 2), torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    label, labels = torch.tensor([0]), torch.tensor([0, 1])
    for own, wanted in ((-1, [1.0]), (0, [0.0])):
        values, weights = triplet_values(
            anchor, label, others, labels, torch.tensor([own]), "batch_hard", "euclidean", 6.0
        )
        assert (values.tolist(), weights.tolist()) == (wanted, wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_and_half_embeddings(kind: tuple[str, str]) -> None:
    embeddings, labels = problem([0, 0, 1, 1, 2, 2], 16)
    embeddings = embeddings.bfloat16()
    term = Triplet(*kind, 20.0, normalised=False)
    wanted = both(term, embeddings.float(), labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = both(term, embeddings.float(), labels)
    half = both(term, embeddings, labels)
    for got in (under, half):
        assert all(torch.equal(a, b) and a.dtype == torch.float32 for a, b in zip(got, wanted, strict=True))
    assert wanted[1].sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_nan_is_not_hidden(kind: tuple[str, str]) -> None:
    embeddings, labels = problem([0, 0, 1, 1], 3)
    embeddings[2, 1] = math.nan
    values, weights = both(Triplet(*kind), embeddings, labels)
    assert (values * weights).sum().isnan()
    assert weights[values.isnan()].all()


def test_it_reads_the_view_that_it_names_at_length_one() -> None:
    embeddings, labels = problem([0, 0, 1, 1], 4)
    term = Triplet(view="degraded")
    values, _ = term(Forward({"clean": torch.zeros(4, 4), "degraded": embeddings}, labels))
    longer, _ = term(Forward({"degraded": embeddings * torch.tensor([[1.0], [2.0], [3.0], [4.0]])}, labels))
    torch.testing.assert_close(values, longer)
    assert values.any()
    assert list(term.state_dict()) == []


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (
            {"mining": "semihard"},
            "triplet's mining is 'semihard' (did you mean 'semi_hard'?); wanted batch_hard or semi_hard",
        ),
        ({"distance": "x"}, "triplet's distance is 'x'; wanted euclidean or squared or cosine"),
        ({"margin": 0.0}, "triplet's margin is 0; wanted above 0 and finite"),
        ({"margin": math.nan}, "triplet's margin is nan; wanted above 0 and finite"),
        ({"margin": math.inf}, "triplet's margin is inf; wanted above 0 and finite"),
    ],
)
def test_bad_settings_are_named(wrong: dict[str, float], text: str) -> None:
    with pytest.raises(InputError) as caught:
        Triplet(**wrong)  # type: ignore[arg-type]
    assert str(caught.value) == text
