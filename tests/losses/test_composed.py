"""Every margin with every kind of negatives, weights and quality, against a loss written out in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call

from mobileface.errors import InputError
from mobileface.losses.balance import class_balanced
from mobileface.losses.forward import Forward
from mobileface.losses.margins import MARGINS, AdaFace, ArcFace, Softmax
from mobileface.losses.negatives import NEGATIVES, Curricular, SupportVector
from mobileface.statistics import end_step
from tests.losses.composed import SCALE, graded, made, oracle, problem


@pytest.mark.parametrize("chunk", [1, 4, None])
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("margin", MARGINS)
def test_values_and_gradients(margin: str, negatives: str, chunk: int | None) -> None:
    embeddings, centres, labels = problem(9, 11, 5)
    embeddings.requires_grad_()
    leaf = centres.clone().requires_grad_()
    wanted = graded(oracle(margin, negatives, embeddings, leaf, labels), embeddings, leaf)
    term = made(MARGINS[margin](), NEGATIVES[negatives](), centres, chunk=chunk).eval()
    got = graded(term(Forward({"clean": embeddings}, labels))[0], embeddings, term.centres)
    torch.testing.assert_close(got, wanted, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("margin", MARGINS)
def test_finite_differences(margin: str, negatives: str) -> None:
    embeddings, centres, labels = problem(4, 6, 4, seed=2)
    term = made(MARGINS[margin](), NEGATIVES[negatives](), centres, chunk=4).eval()

    def loss(e: Tensor, c: Tensor) -> Tensor:
        result: Tensor = functional_call(term, {"centres": c}, (Forward({"clean": e}, labels),))[0]
        return result

    embeddings.requires_grad_(margin != "adaface")  # whose quality is a constant for autograd only
    assert torch.autograd.gradcheck(loss, (embeddings, centres.requires_grad_()), eps=1e-7, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(
    batch=st.integers(1, 6),
    classes=st.integers(2, 12),
    dim=st.integers(2, 5),
    chunk=st.integers(1, 14),
    seed=st.integers(0, 9999),
    margin=st.sampled_from(sorted(MARGINS)),
    negatives=st.sampled_from(sorted(NEGATIVES)),
)
def test_any_shape_and_chunk(
    batch: int, classes: int, dim: int, chunk: int, seed: int, margin: str, negatives: str
) -> None:
    embeddings, centres, labels = problem(batch, classes, dim, seed)
    embeddings.requires_grad_()
    results = []
    for size in (chunk, None):
        term = made(MARGINS[margin](), NEGATIVES[negatives](), centres, chunk=size).eval()
        results.append(graded(term(Forward({"clean": embeddings}, labels))[0], embeddings, term.centres))
    torch.testing.assert_close(results[0], results[1], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("margin", ["softmax", "arcface", "combined"])
def test_the_scale_of_embeddings_and_centres_and_the_order_of_classes_do_not_matter(margin: str) -> None:
    embeddings, centres, labels = problem(6, 9, 4)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    place = torch.argsort(order)
    first = made(MARGINS[margin](), SupportVector(), centres)(Forward({"clean": embeddings}, labels))[0]
    longer = made(MARGINS[margin](), SupportVector(), centres * 7)(Forward({"clean": embeddings * 0.01}, labels))[0]
    mixed = made(MARGINS[margin](), SupportVector(), centres[order])(Forward({"clean": embeddings}, place[labels]))[0]
    torch.testing.assert_close(longer, first)
    torch.testing.assert_close(mixed, first)


def test_straight_through_has_the_value_of_the_margin_and_the_slope_of_the_cosine() -> None:
    embeddings, centres, labels = problem(6, 9, 4)
    embeddings.requires_grad_()
    exact = made(ArcFace(), None, centres)(Forward({"clean": embeddings}, labels))[0]
    through = made(ArcFace(gradient="straight_through"), None, centres)(Forward({"clean": embeddings}, labels))[0]
    torch.testing.assert_close(through, exact)
    units = torch.nn.functional.normalize(embeddings.detach()).requires_grad_()
    cosines = units @ torch.nn.functional.normalize(centres).T
    shifted = cosines.clone()
    rows = torch.arange(6)
    logits = torch.cos(torch.arccos(cosines[rows, labels].detach()) + 0.5)
    beyond = cosines[rows, labels].detach() < math.cos(math.pi - 0.5)
    logits = torch.where(beyond, cosines[rows, labels].detach() - math.cos(math.pi - 0.5) - 1, logits)
    shifted[rows, labels] = cosines[rows, labels] + (logits - cosines[rows, labels]).detach()
    by_hand = torch.nn.functional.cross_entropy(SCALE * shifted, labels, reduction="sum")
    (wanted,) = torch.autograd.grad(by_hand, units)
    again = made(ArcFace(gradient="straight_through"), None, centres)(Forward({"clean": units}, labels))[0]
    (got,) = torch.autograd.grad(again.sum(), units)
    tangent = wanted - (wanted * units).sum(1, keepdim=True) * units  # the classifier normalises once more
    torch.testing.assert_close(got, tangent.detach())


def test_adaface_by_probability_is_the_probability_of_plain_softmax() -> None:
    embeddings, centres, labels = problem(8, 10, 4)
    cosines = torch.nn.functional.normalize(embeddings) @ torch.nn.functional.normalize(centres).T
    probability = torch.softmax(SCALE * cosines, 1)[torch.arange(8), labels]
    margin = AdaFace(quality="probability").double().eval()
    target = margin(cosines[torch.arange(8), labels], probability)
    logits = SCALE * cosines
    logits[torch.arange(8), labels] = SCALE * target
    wanted = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    for chunk in (3, None):
        term = made(AdaFace(quality="probability"), None, centres, chunk=chunk).eval()
        torch.testing.assert_close(term(Forward({"clean": embeddings}, labels))[0], wanted)


def test_adaface_by_score_reads_the_scores_and_says_when_there_are_none() -> None:
    embeddings, centres, labels = problem(3, 5, 4)
    term = made(AdaFace(quality="score"), None, centres).eval()
    low = term(Forward({"clean": embeddings}, labels, scores=torch.zeros(3)))[0]
    high = term(Forward({"clean": embeddings}, labels, scores=torch.ones(3)))[0]
    assert (low != high).all()
    with pytest.raises(InputError, match="quality is a score of each image; the data set names none"):
        term(Forward({"clean": embeddings}, labels))


def test_state_is_fed_once_a_training_step_and_never_in_eval() -> None:
    embeddings, centres, labels = problem(6, 9, 4)
    margin, negatives = AdaFace(), Curricular()
    term = made(margin, negatives, centres)
    for turn in (slice(0, 2), slice(2, 6)):
        term(Forward({"clean": embeddings[turn]}, labels[turn]))
    end_step(term)
    norms = embeddings.norm(dim=1)
    cosines = torch.cosine_similarity(embeddings, centres[labels])
    torch.testing.assert_close(margin.statistics.mean, 0.99 * 20 + 0.01 * norms.mean())
    torch.testing.assert_close(margin.statistics.std, 0.99 * 100 + 0.01 * norms.std())
    torch.testing.assert_close(negatives.t, 0.01 * cosines.mean())
    assert term.step == 1
    term.eval()
    before = {name: tensor.clone() for name, tensor in term.state_dict().items()}
    term(Forward({"clean": embeddings}, labels))
    assert all(torch.equal(before[name], tensor) for name, tensor in term.state_dict().items())
    assert {"margin.statistics.mean", "negatives.t", "step"} <= set(before)


def test_class_weights_come_back_as_weights() -> None:
    embeddings, centres, labels = problem(6, 4, 3)
    counts = torch.tensor([1, 10, 100, 1000])
    term = made(Softmax(), None, centres, balance=class_balanced(counts))
    plain = made(Softmax(), None, centres)
    (values, weights), (wanted, _) = (t(Forward({"clean": embeddings}, labels)) for t in (term, plain))
    torch.testing.assert_close(values, wanted)
    torch.testing.assert_close(weights, class_balanced(counts)[labels].double())
    assert "balance" not in term.state_dict()


@pytest.mark.parametrize("margin", MARGINS)
def test_an_embedding_of_length_zero_has_a_loss_and_no_gradient(margin: str) -> None:
    embeddings, centres, labels = problem(4, 6, 5)
    embeddings[1] = 0
    embeddings.requires_grad_()
    term = made(MARGINS[margin](), None, centres).eval()
    values = term(Forward({"clean": embeddings}, labels))[0]
    assert values.isfinite().all()
    values.sum().backward()
    assert embeddings.grad is not None
    assert embeddings.grad[1].abs().max() == 0
    others = embeddings.detach()[[0, 2, 3]].requires_grad_()
    term(Forward({"clean": others}, labels[[0, 2, 3]]))[0].sum().backward()
    torch.testing.assert_close(embeddings.grad[[0, 2, 3]], others.grad)


def test_identical_embeddings_of_two_people_are_a_defined_loss() -> None:
    embeddings, centres, _ = problem(1, 6, 5)
    both = embeddings.repeat(2, 1).requires_grad_()
    values = made(ArcFace(), SupportVector(), centres)(Forward({"clean": both}, torch.tensor([2, 3])))[0]
    values.sum().backward()
    assert values.isfinite().all()
    assert both.grad is not None
    assert both.grad.isfinite().all()
