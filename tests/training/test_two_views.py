"""Clean and degraded views: how the loader makes them, and how they go through the network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from mobileface.data.augment import apply, generator
from mobileface.data.degrade import at_side
from mobileface.data.loading import AUGMENT_STREAM, DEGRADE_STREAM, stream_seed
from mobileface.losses.momentum import MomentumEncoder
from mobileface.statistics import end_step
from mobileface.training.plan_views import steps
from mobileface.training.trainer import Trainer
from mobileface.training.views import embed
from tests.training.mixed import OCTUPLET, QGFACE, loaded

# -- the loader


def test_the_degraded_view_is_made_of_the_clean_one(make_trainer: Callable[..., Trainer]) -> None:
    phase = {**QGFACE, "views": {"clean": ["flip", {"kind": "brightness", "p": 1}], "degraded": "qgface"}}
    trainer = make_trainer(phase)
    position = 0
    for batch in loaded(trainer):
        (degraded,) = batch.degraded
        assert degraded.shape == batch.images.shape
        for row, clean in enumerate(batch.images.numpy()):
            rng = generator(stream_seed(5, 0, DEGRADE_STREAM), position)
            wanted = apply(clean, steps(trainer.phase.views.degraded or ()), rng)
            np.testing.assert_array_equal(degraded[row].numpy(), wanted)
            position += 1


def test_the_clean_view_is_the_same_with_a_degraded_one_beside_it(make_trainer: Callable[..., Trainer]) -> None:
    alone = make_trainer({**QGFACE, "views": {"clean": ["flip", "cutout"]}, "terms": ["classification"]})
    both = make_trainer({**QGFACE, "views": {"clean": ["flip", "cutout"], "degraded": "qgface"}})
    for one, two in zip(loaded(alone), loaded(both), strict=True):
        assert torch.equal(one.images, two.images)
        assert one.degraded == ()
    assert stream_seed(5, 0, AUGMENT_STREAM) == both.stream.augment_seed


@pytest.mark.parametrize("micro", [8, 2])
def test_one_resolution_for_each_batch(make_trainer: Callable[..., Trainer], micro: int) -> None:
    """However a batch is cut, all its images have one side; batches differ."""
    trainer = make_trainer(OCTUPLET)
    drawn: dict[int, set[int]] = {}
    for number, batch in enumerate(loaded(trainer, 160, micro)):
        for clean, poor in zip(batch.images.numpy(), batch.degraded[0].numpy(), strict=True):
            (side,) = [s for s in (7, 14, 28) if np.array_equal(at_side(clean, s), poor)]
            drawn.setdefault(number * micro // 8, set()).add(side)
    assert all(len(sides) == 1 for sides in drawn.values())
    assert set.union(*drawn.values()) == {7, 14, 28}


def test_a_side_for_each_image(make_trainer: Callable[..., Trainer]) -> None:
    views = {"clean": [], "degraded": [{"kind": "resolution", "sides": [7, 56], "per": "image"}]}
    batch = loaded(make_trainer({**OCTUPLET, "views": views}), 8)[0]
    found = {
        np.array_equal(at_side(c, 7), d) for c, d in zip(batch.images.numpy(), batch.degraded[0].numpy(), strict=True)
    }
    assert found == {True, False}


def test_pairs_stand_side_by_side(make_trainer: Callable[..., Trainer]) -> None:
    """Every batch holds each of its identities exactly twice, in two different images."""
    trainer = make_trainer(OCTUPLET)
    for batch in loaded(trainer, 48):
        labels = trainer.classes[batch.index].tolist()
        assert all(labels.count(label) == 2 for label in labels)
        assert len(set(batch.index.tolist())) == len(labels)


# -- what is embedded


def test_views_go_through_the_network_in_one_pass(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(OCTUPLET)
    seen: list[tuple[int, ...]] = []
    network = trainer.network
    trainer.forward = lambda pixels: (seen.append(tuple(pixels.shape)), network(pixels))[1]
    batch = loaded(trainer)[0]
    network.eval()
    forward, raw = embed(trainer, batch, 0)
    assert seen == [(16, 3, 112, 112)]
    for view, images in (("clean", batch.images), ("degraded", batch.degraded[0])):
        wanted = network(images.permute(0, 3, 1, 2).float())
        torch.testing.assert_close(forward.embeddings[view], wanted, atol=1e-5, rtol=1e-5)
    assert torch.equal(torch.cat(list(forward.embeddings.values())), raw)


def test_a_momentum_encoder_follows_the_network() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    encoder = MomentumEncoder(network, 0.9)
    assert all(not p.requires_grad for p in encoder.parameters())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        for p in network.parameters():
            p += 1
    network(torch.randn(4, 2))
    end_step(encoder)
    after = network.state_dict()
    for name, tensor in encoder.copy.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, 0.9 * before[name] + 0.1 * after[name])
        else:
            assert tensor.item() == after[name].item() == 1
