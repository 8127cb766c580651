"""Every margin with every kind of negatives, weights and sampling, against a loss written out in float64."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call

from mobileface.errors import InputError
from mobileface.losses.balance import class_balanced
from mobileface.losses.classifier import Classifier, bytes_needed, start_centres
from mobileface.losses.forward import Forward
from mobileface.losses.margins import MARGINS, AdaFace, ArcFace, CosFace, Softmax
from mobileface.losses.negatives import NEGATIVES, Curricular, SupportVector
from mobileface.statistics import end_step

ANGLES = {"arcface": (1.0, 0.5), "sphereface": (1.35, 0.0), "combined": (1.0, 0.3)}
SCALE = 8.0


def problem(batch: int, classes: int, dim: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.nn.functional.normalize(torch.randn(batch, dim, generator=generator, dtype=torch.float64))
    embeddings *= torch.rand(batch, 1, generator=generator, dtype=torch.float64) * 40 + 12  # norms that MagFace keeps
    labels = torch.randint(0, classes, (batch,), generator=generator)
    return embeddings, torch.randn(classes, dim, generator=generator, dtype=torch.float64) * 3, labels


def own_logit(name: str, own: Tensor, norm: Tensor) -> Tensor:
    """The margin's logit of one sample, from the formula, for the defaults (AdaFace: mean 20, std 100)."""
    theta = torch.arccos(own)
    if name == "softmax":
        return own
    if name == "cosface":
        return own - 0.35
    if name == "adaface":
        z = max(-1.0, min(1.0, 0.333 * (float(norm.detach()) - 20) / (100 + 1e-3)))
        return torch.cos(theta - 0.4 * z) - (0.4 * z + 0.4)
    if name == "magface":
        factor, radians = 1.0, 0.45 + (0.8 - 0.45) * (norm - 10) / 100
    else:
        factor, radians = ANGLES[name]
    last = (math.pi - radians) / factor
    last = last if isinstance(last, Tensor) else torch.tensor(last, dtype=torch.float64)
    logit = torch.cos(factor * theta + radians) if theta <= last else own - torch.cos(last) - 1
    return logit - (0.2 if name == "combined" else 0)


def other_logit(name: str, cos: Tensor, target: float) -> Tensor:
    hard = float(cos.detach()) > target
    if name == "support_vector" and hard:
        return 1.2 * cos + 0.2
    if name == "curricular" and hard:
        return cos * (0.0 + cos)
    return cos


def oracle(margin: str, negatives: str, embeddings: Tensor, centres: Tensor, labels: Tensor) -> Tensor:
    values = []
    for x, y in zip(embeddings, labels.tolist(), strict=True):
        norm = x.norm()
        cosines = [(x / norm) @ (c / c.norm()) for c in centres]
        target = own_logit(margin, cosines[y], norm)
        others = [other_logit(negatives, c, float(target.detach())) for j, c in enumerate(cosines) if j != y]
        value = torch.logsumexp(SCALE * torch.stack([target, *others]), 0) - SCALE * target
        values.append(value + (35 * (norm / 110**2 + 1 / norm) if margin == "magface" else 0))
    return torch.stack(values)


def made(margin: Any, negatives: Any, centres: Tensor, **options: Any) -> Classifier:
    term = Classifier(*centres.shape, margin, SCALE, negatives, **options).to(centres.dtype)
    term.centres.data.copy_(centres)
    return term


def graded(values: Tensor, *inputs: Tensor) -> list[Tensor]:
    spread = torch.arange(1, len(values) + 1, dtype=values.dtype)  # no two samples weigh the same
    return [values.detach(), *torch.autograd.grad((values * spread).sum(), inputs)]


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


@settings(deadline=None, max_examples=25)
@given(share=st.floats(0.05, 0.95), classes=st.integers(4, 40), seed=st.integers(0, 999))
def test_a_sample_of_negatives_keeps_all_positives(share: float, classes: int, seed: int) -> None:
    embeddings, centres, labels = problem(5, classes, 4, seed)
    embeddings.requires_grad_()
    term = made(CosFace(), None, centres, sample=share, chunk=3, seed=seed)
    values = term(Forward({"clean": embeddings}, labels))[0]
    got = graded(values, embeddings, term.centres)
    seen = got[2].abs().sum(1) > 0
    assert seen[labels].all()
    assert int(seen.sum()) == max(round(share * classes), len(labels.unique())) or round(share * classes) >= classes
    rows = torch.nonzero(seen).flatten()
    smaller = made(CosFace(), None, centres[rows])
    place = torch.searchsorted(rows, labels)
    wanted = graded(smaller(Forward({"clean": embeddings}, place))[0], embeddings, smaller.centres)
    torch.testing.assert_close([got[0], got[1], got[2][rows]], wanted, atol=1e-9, rtol=1e-9)


def test_the_sample_changes_with_the_step_and_repeats_with_the_seed() -> None:
    embeddings, centres, labels = problem(3, 50, 4)

    def seen(term: Classifier) -> list[bool]:
        term.zero_grad()
        term(Forward({"clean": embeddings}, labels))[0].sum().backward()
        assert term.centres.grad is not None
        end_step(term)
        return (term.centres.grad.abs().sum(1) > 0).tolist()

    one, other = (made(CosFace(), None, centres, sample=0.2, seed=3) for _ in range(2))
    first, second = seen(one), seen(one)
    assert first != second
    assert [seen(other), seen(other)] == [first, second]
    resumed = made(CosFace(), None, centres, sample=0.2, seed=3)
    one.step.fill_(1)
    resumed.load_state_dict(one.state_dict())
    assert seen(resumed) == second
    one.eval()
    assert all(seen(one))


def test_a_sample_that_holds_only_the_own_class_is_defined_and_any_seed_will_do() -> None:
    embeddings, centres, _ = problem(4, 100, 5)
    embeddings.requires_grad_()
    term = made(ArcFace(), None, centres, sample=0.01, seed=2**32 - 1)
    values = term(Forward({"clean": embeddings}, torch.full((4,), 7)))[0]
    values.sum().backward()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()
    assert values.tolist() == [0, 0, 0, 0]


def test_centres_do_not_depend_on_how_they_are_cut() -> None:
    whole = start_centres(range(70_000), 3, seed=5)
    parts = [start_centres(r, 3, seed=5) for r in (range(0, 100), range(100, 65_600), range(65_600, 70_000))]
    assert torch.equal(torch.cat(parts), whole)
    assert start_centres(range(4, 4), 3, seed=5).shape == (0, 3)
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(70_000))


TAKEN = """
import re, torch
from mobileface.losses.classifier import Classifier
from mobileface.losses.forward import Forward
from mobileface.losses.margins import ArcFace

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

def steps(classes):
    embeddings = torch.randn(256, 282, requires_grad=True)
    term = Classifier(classes, 282, ArcFace())
    optimizer = torch.optim.AdamW(term.parameters(), fused=True)
    for _ in range(2):
        term(Forward({"clean": embeddings}, torch.arange(256)))[0].mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

steps(300)
before = peak()
steps(200_000)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_memory_is_known_before_it_is_taken() -> None:
    """Two steps of 200,000 classes in a process of their own take what was said, all but the working room used up."""
    needed = bytes_needed(200_000, 282, optimizer_copies=2, ranks=1)
    done = subprocess.run([sys.executable, "-c", TAKEN], capture_output=True, text=True, check=True)
    assert sum(needed.values()) - needed["working"] - 32 * 2**20 < int(done.stdout) < sum(needed.values())


def test_memory_is_shared_over_ranks() -> None:
    whole, shared = (bytes_needed(1_000_001, 282, 2, ranks) for ranks in (1, 4))
    assert shared["working"] == whole["working"]
    for name in ("centres", "gradient", "optimizer"):
        assert whole[name] / 4 <= shared[name] < whole[name] / 4 + 2 * 4 * 282


def test_bad_settings_are_named() -> None:
    with pytest.raises(InputError, match=r"classifier's sample is 0; wanted above 0 and at most 1"):
        Classifier(5, 4, Softmax(), sample=0)
    with pytest.raises(InputError, match=r"balance holds \(3,\) weights; wanted \(5,\)"):
        Classifier(5, 4, Softmax(), balance=torch.ones(3))


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
