"""The octuplet loss against loops over images in float64."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mobileface.errors import InputError
from mobileface.losses.forward import Forward
from mobileface.losses.octuplet import TERMS, Octuplet
from tests.strategies import examples


def step(seed: int, identities: int, dim: int = 6) -> Forward:
    """Two images of each identity in a random order, in two views; norms differ much."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(identities).repeat(2)[torch.randperm(2 * identities, generator=generator)]
    views = {
        name: (3 * torch.randn(2 * identities, dim, generator=generator, dtype=torch.float64)).requires_grad_()
        for name in ("clean", "degraded")
    }
    return Forward(views, labels)


def distance(a: Tensor, b: Tensor, kind: str) -> Tensor:
    """Equations 2-4."""
    if kind == "cosine":
        return 1 - (a * b).sum() / (a.norm() * b.norm())
    squared = (a - b).square().sum()
    return squared if kind == "squared" else squared.sqrt()


def slowly(forward: Forward, kind: str, margin: float, normalised: bool, terms: list[str]) -> Tensor:
    """(B,): each anchor's four hinges by looking at every image."""
    views = dict(zip("hl", (forward.embeddings["clean"], forward.embeddings["degraded"]), strict=True))
    if normalised:
        views = {name: torch.stack([row / row.norm() for row in view]) for name, view in views.items()}
    labels, values = forward.labels.tolist(), []
    for i, label in enumerate(labels):
        whole = torch.zeros((), dtype=torch.float64)
        for term in terms:
            anchor, others = views[term[0]][i], views[term[1]]
            assert term[1] == term[2]
            (positive,) = [j for j, other in enumerate(labels) if other == label and j != i]
            far = distance(anchor, others[positive], kind)
            near = min(distance(anchor, others[j], kind) for j, other in enumerate(labels) if other != label)
            whole = whole + torch.clamp(far - near + margin, min=0)
        values.append(whole)
    return torch.stack(values)


KINDS = [("euclidean", False), ("euclidean", True), ("squared", False), ("cosine", False), ("cosine", True)]


@pytest.mark.parametrize(("kind", "normalised"), KINDS)
@pytest.mark.parametrize("terms", [list(TERMS), ["hhh"], ["hll", "lll"], ["lhh"]])
def test_values_and_gradients_are_those_of_a_loop(kind: str, normalised: bool, terms: list[str]) -> None:
    for seed, margin in product(range(4), (0.1, 2.0)):
        forward, again = step(seed, 4), step(seed, 4)
        found, weights = Octuplet(kind, margin, normalised=normalised, terms=terms)(forward)
        wanted = slowly(again, kind, margin, normalised, terms)
        torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-12)
        assert weights.tolist() == [1.0] * 8
        mix = torch.randn(8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        (found * mix).sum().backward()
        (wanted * mix).sum().backward()
        for view in ("clean", "degraded"):
            got, right = forward.embeddings[view].grad, again.embeddings[view].grad
            zero = torch.zeros_like(forward.embeddings[view])
            torch.testing.assert_close(got if got is not None else zero, right if right is not None else zero)


def test_gradients_are_those_of_finite_differences() -> None:
    """A public code takes its Euclidean distances off the graph, and learns nothing from them."""
    forward = step(1, 3)
    term = Octuplet("euclidean", 20.0)

    def values(clean: Tensor, degraded: Tensor) -> Tensor:
        return term(Forward({"clean": clean, "degraded": degraded}, forward.labels))[0]

    assert torch.autograd.gradcheck(values, (forward.embeddings["clean"], forward.embeddings["degraded"]))


@examples(60)
@given(seed=st.integers(0, 2**16), identities=st.integers(2, 6), term=st.sampled_from(list(TERMS)))
def test_only_the_other_image_pulls_and_only_others_push(seed: int, identities: int, term: str) -> None:
    """Of the images in the others' view, gradients reach the one positive and one negative of each anchor."""
    forward = step(seed, identities)
    values, _ = Octuplet("squared", 1000.0, terms=[term])(forward)
    anchor, other = (dict(zip("hl", ("clean", "degraded"), strict=True))[view] for view in TERMS[term])
    for i, label in enumerate(forward.labels.tolist()):
        (grad,) = torch.autograd.grad(values[i], forward.embeddings[other], retain_graph=True)
        reached = set(grad.any(1).nonzero().flatten().tolist()) - ({i} if anchor == other else set())
        labels = [forward.labels[j].item() for j in reached]
        assert i not in reached  # nor its own copy in the other view
        assert len(reached) == 2
        assert labels.count(label) == 1


def test_a_relative_margin_is_a_multiple_of_the_mean_norm() -> None:
    forward = step(3, 4)
    norms = [row.norm().item() for view in forward.embeddings.values() for row in view]
    wanted = slowly(forward, "euclidean", 0.7 * sum(norms) / len(norms), False, list(TERMS))
    torch.testing.assert_close(Octuplet("euclidean", 0.7, relative=True)(forward)[0], wanted)


def test_an_identity_without_a_second_image_counts_nothing() -> None:
    forward = step(0, 3)
    lonely = Forward(forward.embeddings, torch.tensor([0, 0, 1, 1, 2, 3]))
    values, weights = Octuplet(margin=1.0)(lonely)
    assert weights.tolist() == [1, 1, 1, 1, 0, 0]
    assert values[4:].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"distance": "euclid"}, r"octuplet's distance is 'euclid' .did you mean 'euclidean'\?.; wanted"),
        ({"margin": 0.0}, "octuplet's margin is 0; wanted above 0"),
        ({"margin": math.nan}, "octuplet's margin is nan; wanted above 0"),
        ({"terms": ["hhl"]}, "octuplet's terms hold 'hhl'; wanted some of hhh, hll, lhh, lll"),
        ({"terms": []}, "octuplet's terms hold 'none'"),
    ],
)
def test_what_it_does_not_take(changes: dict[str, object], wanted: str) -> None:
    with pytest.raises(InputError, match=wanted):
        Octuplet(**changes)  # type: ignore[arg-type]
