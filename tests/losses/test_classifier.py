"""The streaming classifier against a dense float64 loss written from the formulas, and its memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call

from mobileface.errors import InputError
from mobileface.losses.classifier import Classifier
from mobileface.losses.forward import Forward
from mobileface.losses.margins import ArcFace, Combined, CosFace, Margin, Softmax, SphereFace
from mobileface.losses.streamed import CHUNK_BYTES, Classes, others_and_own
from tests.losses.recorder import Recorder, recorded

# margin -> its (m1, m2, m3) in cos(m1 theta + m2) - m3
CASES: dict[str, tuple[Margin, tuple[float, float, float]]] = {
    "softmax": (Softmax(), (1, 0, 0)),
    "cosface": (CosFace(cosine=0.35), (1, 0, 0.35)),
    "arcface": (ArcFace(radians=0.5), (1, 0.5, 0)),
    "sphereface": (SphereFace(), (1.35, 0, 0)),
    "combined": (Combined(factor=1.2, radians=0.3, cosine=0.2), (1.2, 0.3, 0.2)),
}


def dense(
    embeddings: Tensor, centres: Tensor, labels: Tensor, scale: float, numbers: tuple[float, float, float]
) -> Tensor:
    """(B,) -log softmax, the obvious way: every logit of every sample, in float64."""
    m1, m2, m3 = numbers
    cosines = (embeddings / embeddings.norm(dim=1, keepdim=True)) @ (centres / centres.norm(dim=1, keepdim=True)).T
    rows = []
    for cos, label in zip(cosines, labels.tolist(), strict=True):
        own = cos[label]
        theta = torch.arccos(own)
        if m1 * theta + m2 <= math.pi:
            target = torch.cos(m1 * theta + m2) - m3
        else:
            target = own - math.cos((math.pi - m2) / m1) - 1 - m3
        logits = torch.cat([scale * target[None], scale * cos[:label], scale * cos[label + 1 :]])
        rows.append(-torch.log_softmax(logits, 0)[0])
    return torch.stack(rows)


def problem(batch: int, classes: int, dim: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(batch, dim, generator=generator, dtype=torch.float64) * 3
    labels = torch.randint(0, classes, (batch,), generator=generator)
    centres = torch.randn(classes, dim, generator=generator, dtype=torch.float64)
    return embeddings, centres, labels


def classifier(centres: Tensor, margin: Margin, **options: Any) -> Classifier:
    made = Classifier(*centres.shape, margin, **options).to(centres.dtype)
    made.centres.data.copy_(centres)
    return made


def values_and_gradients(term: Classifier, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    embeddings = embeddings.detach().clone().requires_grad_()
    term.zero_grad()
    values, weights = term(Forward({"clean": embeddings}, labels))
    assert weights.tolist() == [1.0] * len(labels)
    spread = torch.arange(1, len(labels) + 1, dtype=values.dtype)  # so that no two samples weigh the same
    (values * spread).sum().backward()
    assert embeddings.grad is not None
    assert term.centres.grad is not None
    return values.detach(), embeddings.grad, term.centres.grad


def expected(
    embeddings: Tensor, centres: Tensor, labels: Tensor, scale: float, numbers: tuple[float, float, float]
) -> tuple[Tensor, Tensor, Tensor]:
    e = embeddings.double().detach().clone().requires_grad_()
    c = centres.double().detach().clone().requires_grad_()
    values = dense(e, c, labels, scale, numbers)
    (values * torch.arange(1, len(labels) + 1)).sum().backward()
    assert e.grad is not None
    assert c.grad is not None
    return values.detach(), e.grad, c.grad


@pytest.mark.parametrize("dim", [2, 16])  # in the plane, angles beyond the turn of ArcFace are common
@pytest.mark.parametrize("chunk", [1, 3, 11, 50, None])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_the_dense_ones(name: str, chunk: int | None, dim: int) -> None:
    margin, numbers = CASES[name]
    embeddings, centres, labels = problem(9, 11, dim)
    wanted = expected(embeddings, centres, labels, 64.0, numbers)
    got = values_and_gradients(classifier(centres, margin, chunk=chunk), embeddings, labels)
    torch.testing.assert_close(got, wanted, atol=1e-9, rtol=1e-9)
    single = values_and_gradients(classifier(centres.float(), margin, chunk=chunk), embeddings.float(), labels)
    wanted = expected(embeddings.float(), centres.float(), labels, 64.0, numbers)
    torch.testing.assert_close([g.double() for g in single], list(wanted), atol=2e-3, rtol=2e-4)


@given(
    batch=st.integers(1, 6),
    classes=st.integers(2, 12),
    dim=st.integers(2, 6),
    chunk=st.integers(1, 14),
    scale=st.floats(1, 100),
    numbers=st.tuples(st.floats(1, 2), st.floats(0, 1), st.floats(0, 1)),
    seed=st.integers(0, 10_000),
)
@settings(deadline=None, max_examples=60)
def test_any_shape_and_margin(
    batch: int,
    classes: int,
    dim: int,
    chunk: int,
    scale: float,
    numbers: tuple[float, float, float],
    seed: int,
) -> None:
    embeddings, centres, labels = problem(batch, classes, dim, seed)
    margin = Combined(factor=numbers[0], radians=numbers[1], cosine=numbers[2])
    term = classifier(centres, margin, scale=scale, chunk=chunk)
    got, wanted = (
        values_and_gradients(term, embeddings, labels),
        expected(embeddings, centres, labels, scale, numbers),
    )
    torch.testing.assert_close(got[0], wanted[0], atol=5e-2, rtol=1e-9)  # EPS, where a cosine comes near 1
    cosines = torch.cosine_similarity(embeddings, centres[labels])
    if cosines.abs().max() < 1 - 1e-5:
        torch.testing.assert_close(got, wanted, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("chunk", [1, 2, 5, 9])
def test_gradcheck(chunk: int) -> None:
    embeddings, centres, labels = problem(4, 5, 3, seed=3)
    units = torch.nn.functional.normalize(embeddings).requires_grad_()
    inputs = (units, centres.clone().requires_grad_())
    target = torch.zeros(4, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda u, c: others_and_own(u, c, labels, target, None, 7.0, Classes(None, chunk)), inputs
    )
    for margin, _ in CASES.values():
        term = classifier(centres, margin, scale=5.0, chunk=chunk)

        def loss(e: Tensor, c: Tensor, term: Classifier = term) -> Tensor:
            result: Tensor = functional_call(term, {"centres": c}, (Forward({"clean": e}, labels),))[0]
            return result

        inputs = (embeddings.clone().requires_grad_(), centres.clone().requires_grad_())
        assert torch.autograd.gradcheck(loss, inputs)


def test_arcface_without_a_margin_is_Softmax() -> None:
    embeddings, centres, labels = problem(7, 20, 8)
    plain = values_and_gradients(classifier(centres, Softmax()), embeddings, labels)
    torch.testing.assert_close(
        values_and_gradients(classifier(centres, ArcFace(radians=0.0)), embeddings, labels), plain
    )


def test_combined_is_not_CosFace() -> None:
    """Errata 5: the public code applies only m3 of (1, 0.3, 0.2); 6: m3 stands inside the scale."""
    embeddings, centres, labels = problem(7, 20, 8)
    together, _, _ = values_and_gradients(classifier(centres, Combined()), embeddings, labels)
    alone, _, _ = values_and_gradients(classifier(centres, CosFace(cosine=0.2)), embeddings, labels)
    assert (together - alone > 1).all()
    assert (alone - values_and_gradients(classifier(centres, Softmax()), embeddings, labels)[0] > 1).any()


def step(loss: Callable[[Tensor, Tensor], Tensor], term: Classifier, batch: int) -> Recorder:
    embeddings = torch.randn(batch, term.centres.shape[1], requires_grad=True)
    labels = torch.randint(0, len(term.centres), (batch,))
    with recorded() as recorder:
        loss(embeddings, labels).mean().backward()
    assert term.centres.grad is not None
    return recorder


def test_no_tensor_of_batch_times_classes() -> None:
    batch, classes, dim, chunk = 64, 200_000, 16, 8192
    term = Classifier(classes, dim, ArcFace(), chunk=chunk)
    recorder = step(lambda e, y: term(Forward({"clean": e}, y))[0], term, batch)
    assert recorder.largest == classes * dim < batch * classes / 3
    chunks = math.ceil(classes / chunk)
    assert recorder.products == 4 * chunks  # one forward, three backward: the recorder saw both


def test_the_recorder_would_catch_a_dense_loss() -> None:
    term = Classifier(300, 4, Softmax())
    recorder = step(lambda e, y: torch.nn.functional.cross_entropy(e @ term.centres.T, y), term, 8)
    assert recorder.largest == 8 * 300


def test_the_default_chunk_holds_to_its_bytes() -> None:
    batch, classes = 2048, 9000
    assert batch * classes * 4 > CHUNK_BYTES
    term = Classifier(classes, 4, ArcFace())
    recorder = step(lambda e, y: term(Forward({"clean": e}, y))[0], term, batch)
    assert CHUNK_BYTES / 2 < recorder.largest * 4 <= CHUNK_BYTES


@pytest.mark.parametrize("chunk", [2, None])
@pytest.mark.parametrize("name", CASES)
def test_extremes_are_finite(name: str, chunk: int | None) -> None:
    """Own cosine 1 and -1, every centre the same, centres opposite, embeddings tiny and huge; scale 64."""
    axis = torch.eye(4)
    same = torch.ones(5, 4)
    opposite = torch.cat([axis[:1], -axis[:1].repeat(4, 1)])
    for centres in (same, opposite, -opposite):
        for embeddings in (
            centres[:1].repeat(3, 1),
            -centres[:1].repeat(3, 1),
            1e-6 * axis[:3],
            1e6 * axis[:3],
        ):
            term = classifier(centres, CASES[name][0], chunk=chunk)
            for result in values_and_gradients(term, embeddings, torch.tensor([0, 1, 4])):
                assert result.isfinite().all()


def test_equal_centres_give_log_of_the_classes() -> None:
    values, _, _ = values_and_gradients(
        classifier(torch.ones(1000, 4), Softmax(), chunk=7), torch.randn(3, 4), torch.tensor([0, 1, 999])
    )
    torch.testing.assert_close(values, torch.full((3,), math.log(1000)), atol=1e-4, rtol=0)


def test_a_certain_sample_keeps_its_small_loss() -> None:
    """Loss e^-64 for two classes at a right angle, which log(sum) - target in float32 would round to 0."""
    values, _, _ = values_and_gradients(
        classifier(torch.eye(2), Softmax()), torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    )
    torch.testing.assert_close(values, torch.tensor([math.exp(-64)]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("chunk", [5, None])
def test_autocast_changes_nothing(chunk: int | None) -> None:
    embeddings, centres, labels = problem(8, 30, 16)
    term = classifier(centres.float(), ArcFace(), chunk=chunk)
    plain = values_and_gradients(term, embeddings.float(), labels)
    plain = (plain[0], plain[1].clone(), plain[2].clone())
    with torch.autocast("cpu", dtype=torch.bfloat16):  # the backward pass runs under it as well
        under = values_and_gradients(term, embeddings.float(), labels)
    assert all(torch.equal(a, b) and a.dtype == torch.float32 for a, b in zip(under, plain, strict=True))
    half = embeddings.bfloat16()
    values, _ = term(Forward({"clean": half}, labels))
    assert torch.equal(values, term(Forward({"clean": half.float()}, labels))[0])


def test_two_runs_are_the_same_bits() -> None:
    embeddings, centres, labels = problem(64, 300, 32)
    labels = labels % 3  # many samples of one class: their gradients meet in one row
    term = classifier(centres.float(), ArcFace(), chunk=64)
    first = [r.clone() for r in values_and_gradients(term, embeddings.float(), labels)]
    for _ in range(5):
        again = values_and_gradients(term, embeddings.float(), labels)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_centres_start_on_the_sphere_and_from_the_generator() -> None:
    made = [Classifier(50, 8, Softmax(), seed=s) for s in (1, 1, 2)]
    assert torch.equal(made[0].centres, made[1].centres)
    assert not torch.equal(made[0].centres, made[2].centres)
    torch.testing.assert_close(made[0].centres.norm(dim=1), torch.ones(50))
    assert made[0].centres.dtype == torch.float32
    assert list(made[0].state_dict()) == ["centres", "step"]


def test_it_reads_the_view_that_it_names() -> None:
    embeddings, centres, labels = problem(4, 6, 3)
    term = classifier(centres, Softmax(), views=["degraded"])
    step = Forward({"clean": -embeddings, "degraded": embeddings}, labels)
    values, _ = term(step)
    poor, good = (dense(x, centres, labels, 64.0, (1, 0, 0)) for x in (embeddings, -embeddings))
    torch.testing.assert_close(values, poor, atol=1e-9, rtol=1e-9)
    both, weights = classifier(centres, Softmax(), views=["clean", "degraded"])(step)
    torch.testing.assert_close(both, torch.cat([good, poor]), atol=1e-9, rtol=1e-9)
    assert weights.tolist() == [1.0] * 8


def test_nan_is_not_hidden() -> None:
    term = Classifier(5, 2, ArcFace())
    values, _ = term(Forward({"clean": torch.tensor([[math.nan, 0.0], [1.0, 0.0]])}, torch.tensor([0, 1])))
    assert values.isnan().tolist() == [True, False]


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ([0, -1], "sample 1 of the batch has label -1 (-1 = unlabelled); wanted 0..4"),
        ([5, 0], "sample 0 of the batch has label 5; wanted 0..4"),
        ([0, -7], "sample 1 of the batch has label -7; wanted 0..4"),
    ],
)
def test_labels_out_of_range_are_named(labels: list[int], text: str) -> None:
    with pytest.raises(InputError) as caught:
        Classifier(5, 2, Softmax())(Forward({"clean": torch.ones(2, 2)}, torch.tensor(labels)))
    assert str(caught.value) == text


def test_bad_numbers_are_named() -> None:
    with pytest.raises(InputError, match="classifier has 1 classes; wanted at least 2"):
        Classifier(1, 4, Softmax())
    with pytest.raises(InputError, match="classifier's chunk is 0; wanted at least 1"):
        Classifier(5, 4, Softmax(), chunk=0)
    with pytest.raises(InputError, match="classifier's scale is 0; wanted above 0"):
        Classifier(5, 4, Softmax(), scale=0)
    with pytest.raises(InputError, match="embeddings are 3 wide; the classifier's centres are 4"):
        Classifier(5, 4, Softmax())(Forward({"clean": torch.ones(1, 3)}, torch.tensor([0])))
