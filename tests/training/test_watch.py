"""Watching norm and probability: the numbers against slow ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mobileface.data.synthetic import sample
from mobileface.losses.classifier import Classifier
from mobileface.losses.margins import ArcFace
from mobileface.training import watch as watching
from mobileface.training.watch import LADDERS, LEVELS, Watched, probability, watch


class Corners(nn.Module):
    """(B, 3, 112, 112) -> (B, 12): the means of four corners; longer in training mode."""

    def forward(self, pixels: Tensor) -> Tensor:
        features = nn.functional.adaptive_avg_pool2d(pixels - 128, 2).flatten(1)
        return features * 2 if self.training else features


class Sharpness(nn.Module):
    """(B, 3, 112, 112) -> (B, 2), as long as neighbouring columns differ on the average."""

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels[..., 1:] - pixels[..., :-1]).abs().mean((1, 2, 3))[:, None] * torch.tensor([0.6, 0.8])


def watched(people: int, each: int, classes: list[int] | None = None) -> Watched:
    """Sharp procedural faces; their own classes unless others are given."""
    images = np.stack([sample(7, person, index)[0] for person in range(people) for index in range(each)])
    own = [person for person in range(people) for _ in range(each)]
    return Watched(images, torch.tensor(own if classes is None else classes))


def terms(classes: int, dim: int) -> nn.ModuleDict:
    return nn.ModuleDict({"classification": Classifier(classes, dim, ArcFace(), scale=16.0)})


def plain_chance(classifier: Classifier, embeddings: Tensor, labels: Tensor) -> Tensor:
    """A softmax over all classes in float64."""
    unit = [nn.functional.normalize(rows.double()) for rows in (embeddings, classifier.centres)]
    return torch.softmax(classifier.scale * unit[0] @ unit[1].T, 1)[torch.arange(len(labels)), labels]


@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(1, 6), st.sampled_from([1.0, 16.0, 64.0, 1000.0]))
@settings(max_examples=20)  # centres are drawn 65,536 at a time
def test_probability_is_a_plain_softmax(seed: int, classes: int, count: int, scale: float) -> None:
    """Whatever the margin, the sampling and the chunk are."""
    generator = torch.Generator().manual_seed(seed)
    classifier = Classifier(classes, 4, ArcFace(), scale=scale, sample=0.5, chunk=2)
    embeddings = torch.randn(count, 4, generator=generator) * 20
    labels = torch.randint(0, classes, (count,), generator=generator)
    with torch.no_grad():
        found = probability(classifier, embeddings, labels)
        torch.testing.assert_close(found, plain_chance(classifier, embeddings, labels), rtol=1e-3, atol=1e-6)


def test_the_row_against_slow_numbers() -> None:
    """Norms, probabilities, means and correlations, level by level, with images that are degraded here."""
    sharp, network = watched(3, 2), Corners().train()
    losses = terms(3, 12)
    row = watch(network, losses, sharp, torch.device("cpu"))
    assert network.training  # as it was
    norms, chances = [], []
    for kind, step in LEVELS:
        images = [LADDERS[kind].degrade(i, step) if kind in LADDERS else i for i in sharp.images]
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
        features = nn.functional.adaptive_avg_pool2d(pixels - 128, 2).flatten(1)
        norms.append(features.double().norm(dim=1).tolist())
        chances.append(plain_chance(losses["classification"], features, sharp.classes).tolist())
    assert [(level["kind"], level["px"]) for level in row["levels"]] == LEVELS
    for name, wanted in (("norm", norms), ("probability", chances)):
        np.testing.assert_allclose([level[name] for level in row["levels"]], np.mean(wanted, 1), rtol=1e-4)
        np.testing.assert_allclose([level[f"{name}_std"] for level in row["levels"]], np.std(wanted, 1), rtol=1e-3)
        np.testing.assert_allclose(row["tracked"][name], np.transpose(wanted), atol=1e-3)
        for kind, qualities in (("resolution", [0, -1, -2, -3]), ("blur", [0, -6, -12, -18])):
            at = [i for i, (own, _) in enumerate(LEVELS) if own in ("clean", kind)]
            x = [q for q in qualities for _ in range(6)]
            y = [value for i in at for value in wanted[i]]
            assert row[f"{kind}_{name}"] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-4)


def test_all_levels_meet_the_centres_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass over the centres, not one for each level; in more passes the numbers stay."""
    sharp, losses, passes = watched(3, 2), terms(3, 12), []
    original = watching.probability

    def counted(classifier: Classifier, embeddings: Tensor, labels: Tensor) -> Tensor:
        passes.append(len(embeddings))
        return original(classifier, embeddings, labels)

    monkeypatch.setattr(watching, "probability", counted)
    whole = watch(Corners(), losses, sharp, torch.device("cpu"))
    assert passes == [6 * len(LEVELS)]
    monkeypatch.setattr(watching, "ROWS", 4)
    monkeypatch.setattr(watching, "BATCH", 5)
    parts = watch(Corners(), losses, sharp, torch.device("cpu"))
    assert passes[1:] == [4] * 10 + [2]
    for name in ("norm", "probability"):
        np.testing.assert_allclose(parts["tracked"][name], whole["tracked"][name], atol=2e-4)


def test_a_norm_that_is_the_sharpness_is_found_out() -> None:
    row = watch(Sharpness(), nn.ModuleDict(), watched(6, 1), torch.device("cpu"))
    assert row["resolution_norm"] > 0.7
    assert row["blur_norm"] > 0.7
    assert not [key for key in row if "probability" in key]
    assert [sorted(level) for level in row["levels"]] == [["kind", "norm", "norm_std", "px"]] * len(LEVELS)


def test_without_labels_there_is_no_probability() -> None:
    row = watch(Corners(), terms(3, 12), watched(2, 1, classes=[-1, -1]), torch.device("cpu"))
    assert "blur_norm" in row
    assert "blur_probability" not in row


def test_a_norm_that_never_changes_has_no_correlation() -> None:
    class Ones(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return torch.ones(len(pixels), 4)

    row = watch(Ones(), nn.ModuleDict(), watched(2, 1), torch.device("cpu"))
    assert row["blur_norm"] is None
    assert json.loads(json.dumps(row)) == row


def test_degrading_loses_what_it_should() -> None:
    """A column of one px: spread over as many columns as the movement is long; a fine chessboard: gone when halved."""
    line = np.zeros((112, 112, 3), np.uint8)
    line[:, 56] = 252
    assert LADDERS["blur"].degrade(line, 6)[50, :, 0].tolist().count(42) == 6
    board = np.where(np.add.outer(np.arange(112), np.arange(112)) % 2, 255, 0).astype(np.uint8)
    grey = LADDERS["resolution"].degrade(np.repeat(board[..., None], 3, 2), 56)
    assert grey.shape == (112, 112, 3)
    assert np.ptp(grey) <= 2
    assert [ladder.quality(step) for ladder in LADDERS.values() for step in ladder.steps] == [-1, -2, -3, -6, -12, -18]
