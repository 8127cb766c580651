"""The classes of a classification loss: a sample of them, their centres, and the memory that they take."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mobileface.errors import InputError
from mobileface.losses.classifier import Classifier, bytes_needed, start_centres
from mobileface.losses.forward import Forward
from mobileface.losses.margins import ArcFace, CosFace, Softmax
from mobileface.statistics import end_step
from tests.losses.composed import graded, made, problem


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
