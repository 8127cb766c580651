"""The stream of samples: a function of (seed, position), whoever loads it and wherever it starts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mobileface.data.augment import apply, generator
from mobileface.data.faceset import FaceSet
from mobileface.data.folder import FolderFaces
from mobileface.data.images import decode
from mobileface.data.loading import (
    AUGMENT_STREAM,
    SAMPLER_STREAM,
    Batch,
    FaceStream,
    batches,
    default_workers,
    stream_seed,
)
from mobileface.data.samplers import ClassUniformSampler, PKSampler, PlainSampler
from mobileface.errors import InputError

MakeFolder = Callable[..., Path]
STEPS = [("flip", 0.5, {}), ("brightness", 0.5, {"strength": 0.3}), ("cutout", 0.5, {"most": 0.4})]
forks = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 warns where threads run


def stream(faces: FaceSet, seed: int = 1, phase: int = 0, train: list[int] | None = None) -> FaceStream:
    images = np.array(range(len(faces)) if train is None else train)
    sampler = PlainSampler(images, faces.labels, 4, stream_seed(seed, phase, SAMPLER_STREAM))
    return FaceStream(faces, sampler, STEPS, seed, phase)


def drawn(loaded: list[Batch]) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """All batches as one."""
    images = torch.cat([batch.images for batch in loaded])
    return images, torch.cat([batch.index for batch in loaded]), [t for b in loaded for t in b.skipped]


def same(one: list[Batch], two: list[Batch]) -> bool:
    (a, i, s), (b, j, t) = drawn(one), drawn(two)
    return torch.equal(a, b) and torch.equal(i, j) and s == t


@pytest.fixture
def faces(shared_faces: Path) -> FaceSet:
    return FaceSet([FolderFaces(shared_faces)])


@pytest.fixture
def damaged(tmp_path: Path, make_folder: MakeFolder) -> FaceSet:
    """Six images, of which the second and the last are bad."""
    folder = make_folder(tmp_path / "set", identities=2, images=3)
    (folder / "person-0" / "face-1.jpg").write_bytes(b"\xff\xd8\xff bad")
    (folder / "person-1" / "face-2.jpg").write_bytes(b"")
    return FaceSet([FolderFaces(folder)])


def test_a_batch_is_what_a_slow_loop_makes(faces: FaceSet) -> None:
    [batch] = batches(stream(faces, seed=11, phase=2), 32, 40, 8, 0)
    assert (batch.images.shape, batch.images.dtype) == ((8, 112, 112, 3), torch.uint8)
    assert batch.skipped == []
    for row, i in enumerate(batch.index.tolist()):
        image = decode(faces.read(i), faces.key(i))
        rng = generator(stream_seed(11, 2, AUGMENT_STREAM), 32 + row)
        np.testing.assert_array_equal(batch.images[row].numpy(), apply(image, STEPS, rng))


def test_every_image_once_an_epoch_in_an_order_of_its_own(faces: FaceSet) -> None:
    train = [2, 3, 5, 7, 11, 13, 17]
    order = drawn(list(batches(stream(faces, train=train), 0, 28, 4, 0)))[1].tolist()  # epochs end inside batches
    epochs = [order[start : start + 7] for start in range(0, 28, 7)]
    assert all(sorted(epoch) == train for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


@forks
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", [PKSampler, ClassUniformSampler])
def test_batches_hold_what_their_sampler_says(
    faces: FaceSet, kind: type[PKSampler | ClassUniformSampler], workers: int
) -> None:
    sampler = kind(np.arange(len(faces)), faces.labels, 8, 3)
    drawn_images = drawn(list(batches(FaceStream(faces, sampler, [], 1, 0), 0, 80, 8, workers)))[1]
    fresh = kind(np.arange(len(faces)), faces.labels, 8, 3)
    assert drawn_images.tolist() == [fresh(position) for position in range(80)]


def test_a_bad_image_never_gives_way_to_one_that_the_sampler_leaves_out(damaged: FaceSet) -> None:
    labels = damaged.labels.copy()
    labels[2] = -1  # behind the bad image 1
    sampler = PKSampler(np.arange(6), labels, 4, 1, images=2)
    index = drawn(list(batches(FaceStream(damaged, sampler, [], 1, 0), 0, 40, 4, 0)))[1]
    assert set(index.tolist()) == {0, 3, 4}


def test_the_middle_of_the_stream_is_its_tail(faces: FaceSet) -> None:
    whole = list(batches(stream(faces), 0, 64, 4, 0))
    assert len(whole) == 16
    assert same(whole[9:], list(batches(stream(faces), 36, 64, 4, 0)))
    assert list(batches(stream(faces), 64, 64, 4, 0)) == []


def test_seed_and_phase_change_the_stream(faces: FaceSet) -> None:
    streams = [stream(faces, seed, phase) for seed, phase in ((1, 0), (2, 0), (1, 1))]
    orders = {tuple(drawn(list(batches(s, 0, 32, 8, 0)))[1].tolist()) for s in streams}
    assert len(orders) == 3
    keys = {stream_seed(seed, phase, use) for seed in range(20) for phase in range(5) for use in (1, 2)}
    assert len(keys) == 200
    assert max(keys) < 2**64


@forks
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # where one core is all there is
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(damaged: FaceSet, workers: int) -> None:
    wanted = list(batches(stream(damaged), 4, 20, 4, 0))
    assert same(wanted, list(batches(stream(damaged), 4, 20, 4, workers)))


def test_a_bad_image_gives_way_to_the_next_good_one(damaged: FaceSet) -> None:
    _, index, skipped = drawn(list(batches(stream(damaged), 0, 12, 4, 0)))
    sampler = stream(damaged).sampler
    following = {0: 0, 1: 2, 2: 2, 3: 3, 4: 4, 5: 0}
    assert index.tolist() == [following[sampler(position)] for position in range(12)]
    assert Counter(text.split(":")[0] for text in skipped) == {
        "set/person-0/face-1.jpg": 2, "set/person-1/face-2.jpg": 2,  # once an epoch
    }  # fmt: skip
    assert any("holds 0 bytes" in text for text in skipped)


@forks
@pytest.mark.parametrize("workers", [0, 1])
def test_errors_are_the_same_wherever_they_arise(damaged: FaceSet, workers: int) -> None:
    """A worker's own traceback has no place in a message."""
    with pytest.raises(InputError, match=r"^none of the 1 training images can be used; the last: set/.*") as caught:
        list(batches(stream(damaged, train=[1]), 0, 4, 4, workers))
    assert "Traceback" not in str(caught.value)
    source = damaged.sources[0]
    assert isinstance(source, FolderFaces)
    gone = source.folder / source.paths[0]
    gone.unlink()
    with pytest.raises(FileNotFoundError) as missing:
        list(batches(stream(damaged, train=[0]), 0, 4, 4, workers))
    assert missing.value.filename == str(gone)


def test_a_core_is_left_for_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, wanted in ((None, 1), (1, 1), (2, 1), (6, 5), (64, 8)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert default_workers() == wanted
