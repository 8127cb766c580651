"""Watching norm and probability: the numbers against slow ones, the sample, and rows that resume exactly."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from mobileface.data.faceset import FaceSet, Split, split_identities
from mobileface.data.folder import FolderFaces
from mobileface.data.images import encode
from mobileface.data.recordio import RecordFaces
from mobileface.data.synthetic import sample, write_synthetic
from mobileface.errors import InputError
from mobileface.losses.classifier import Classifier
from mobileface.losses.margins import ArcFace
from mobileface.training import checkpoint
from mobileface.training import watch as watching
from mobileface.training.plan import Plan
from mobileface.training.watch import LADDERS, LEVELS, TRACKED, Watched, poor_pictures, probability, watch, watch_sample
from tests.training.runs import train

MakeFolder = Callable[..., Path]
MakePlan = Callable[..., Plan]


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


# ---- the sample


def test_the_sample_is_drawn_once_and_has_labels(
    tmp_path: Path, make_folder: MakeFolder, caplog: pytest.LogCaptureFixture
) -> None:
    top = make_folder(tmp_path / "faces")
    (make_folder(tmp_path / "others", 2, 2) / "person-0" / "face-0.jpg").write_bytes(b"bad")
    faces = FaceSet([FolderFaces(top), FolderFaces(tmp_path / "others", labelled=False)])
    split = split_identities(faces, 0.4, 0)
    found, skipped = watch_sample(faces, split, 8, 3)
    again, _ = watch_sample(faces, split, 8, 3)
    other, _ = watch_sample(faces, split, 8, 4)
    assert found is not None
    assert again is not None
    assert other is not None
    assert found.images.shape == (8, 112, 112, 3)
    assert (found.classes >= 0).all()
    assert np.array_equal(found.images, again.images)
    assert not np.array_equal(found.images, other.images)
    assert skipped == []
    assert caplog.messages == []
    everything, _ = watch_sample(faces, split, 1000, 3)
    assert everything is not None
    assert len(everything.images) == 18  # of the three people who train
    assert caplog.messages == ["watch: 18 images, not 1000: the training set holds no more clean ones"]
    assert watch_sample(faces, split, 0, 3) == (None, [])


def test_without_any_label_bad_images_are_named(tmp_path: Path, make_folder: MakeFolder) -> None:
    top = make_folder(tmp_path / "faces", 2, 2)
    (top / "person-1" / "face-0.jpg").write_bytes(b"bad")
    faces = FaceSet([FolderFaces(top, labelled=False)])
    found, skipped = watch_sample(faces, split_identities(faces, 0, 0), 10, 0)
    assert found is not None
    assert found.classes.tolist() == [-1] * 3
    assert skipped == ["faces/person-1/face-0.jpg: does not decode as an image"]
    for path in top.glob("*/*.jpg"):
        path.write_bytes(b"bad")
    with pytest.raises(InputError, match="none of the 4 training images can be used; wanted clean ones to watch"):
        watch_sample(faces, split_identities(faces, 0, 0), 10, 0)


@pytest.fixture(scope="module")
def procedural(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("procedural")
    write_synthetic(folder, identities=4, images=10, held_out=2, pairs=20, seed=1)
    return folder


def test_of_procedural_faces_clean_ones_are_watched(procedural: Path) -> None:
    faces = FaceSet([RecordFaces(procedural / "train.rec")])
    poor = set()
    for identity in range(4):
        for index in range(10):
            _, factors = sample(1, identity, index)
            if factors.blur_px or factors.occlusion or factors.resolution_px < 112:
                poor.add(f"train.rec:{identity * 10 + index + 1}")
    assert 5 < len(poor) < 35
    assert poor_pictures(faces.sources[0]) == poor
    found, _ = watch_sample(faces, split_identities(faces, 0, 0), 40, 0)
    assert found is not None
    assert len(found.images) == 40 - len(poor)


def test_a_poor_picture_is_one_of_its_own_source(procedural: Path, tmp_path: Path) -> None:
    """Another folder's train.rec has the same keys; without a table its pictures all count as clean."""
    for name in ("train.rec", "train.idx"):
        shutil.copy(procedural / name, tmp_path / name)
    one, other = RecordFaces(procedural / "train.rec"), RecordFaces(tmp_path / "train.rec")
    poor = len(poor_pictures(one))
    for sources in ([one, other], [other, one]):
        faces = FaceSet(sources)
        found, _ = watch_sample(faces, split_identities(faces, 0, 0), 80, 0)
        assert found is not None
        assert len(found.images) == 80 - poor


class Endless:
    """A million labelled images, all the same."""

    name, labels = "endless", np.zeros(1_000_000, np.int64)
    image = encode(np.full((112, 112, 3), 90, np.uint8))

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, i: int) -> bytes:
        return self.image

    def key(self, i: int) -> str:
        return str(i)

    def fingerprint(self) -> str:
        return ""


def test_a_few_of_a_million_images_take_no_list_of_all() -> None:
    """A permutation has 8 MB; as a list of numbers 40."""
    faces = FaceSet([Endless()])
    split = Split(np.arange(len(faces)), np.arange(0), faces.labels, 1)
    tracemalloc.start()
    found, _ = watch_sample(faces, split, 3, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found is not None
    assert peak < 30e6


HEAD = b"file,key,blur_px,resolution_px,occlusion\n"


@pytest.mark.parametrize(
    "content",
    [
        b"file,key\na,1\n",
        HEAD + b"a,1\n",
        HEAD + b"train.rec,1,x,112,0\n",
        HEAD + b"a" * 200_000 + b"\n",
        HEAD + b"\xff,1,0,112,0\n",
    ],
    ids=["columns", "short", "word", "long", "bytes"],
)
def test_a_factors_table_that_is_none(content: bytes, procedural: Path, tmp_path: Path) -> None:
    for file in procedural.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "factors.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"factors\.csv: is no table of factors \(.*\); wanted the one of") as error:
        poor_pictures(RecordFaces(tmp_path / "train.rec"))
    assert "\n" not in str(error.value)


def test_a_factors_table_that_is_too_large(procedural: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mobileface.training.watch.MAX_FACTORS_BYTES", 100)
    with pytest.raises(InputError, match="larger than 100 bytes"):
        poor_pictures(RecordFaces(procedural / "train.rec"))


# ---- in a training


def quality(run: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [row for row in found if row["event"] == "quality"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, shared_faces: Path, make_plan: MakePlan) -> Path:
    """A training of 18 steps, judged after each six, that nothing stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train(make_plan(shared_faces, watch=6), run)
    return run


def test_each_validation_has_its_row(whole: Path) -> None:
    rows = quality(whole)
    assert [row["images"] for row in rows] == [24, 48, 72]
    for row in rows:
        assert all(-1 <= row[f"{kind}_{name}"] <= 1 for kind in LADDERS for name in ("norm", "probability"))
        assert np.shape(row["tracked"]["norm"]) == (min(6, TRACKED), len(LEVELS))
    assert rows[0]["levels"] != rows[2]["levels"]


def test_watching_changes_no_weight(whole: Path, shared_faces: Path, make_plan: MakePlan, tmp_path: Path) -> None:
    train(make_plan(shared_faces), tmp_path / "run")
    assert quality(tmp_path / "run") == []
    for name in ("model", "checkpoints/last", "checkpoints/best"):
        one, two = (load_file(folder / f"{name}.safetensors") for folder in (whole, tmp_path / "run"))
        assert one.keys() == two.keys()
        assert [key for key in one if not torch.equal(one[key], two[key])] == []


@pytest.mark.parametrize("written", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 4))])
def test_rows_come_once_when_a_training_goes_on(
    written: int, whole: Path, shared_faces: Path, make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped when a checkpoint cannot be written: its row is in the log by then, and must not stay there twice."""
    plan, calls, original = make_plan(shared_faces, watch=6), 0, checkpoint.save_file

    def full_disk(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == written:
            raise OSError("no space left")
        original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full_disk)
        with pytest.raises(OSError, match="no space left"):
            train(plan, tmp_path / "run")
    stopped = [row["images"] for row in quality(tmp_path / "run")]
    last = tmp_path / "run" / "checkpoints" / "last.safetensors"
    assert stopped[-1] > (checkpoint.load(last)[1]["seen"] if last.exists() else 0)
    train(plan, tmp_path / "run")
    assert quality(tmp_path / "run") == quality(whole)
    for name in ("model", "checkpoints/last"):
        one, two = (load_file(folder / f"{name}.safetensors") for folder in (whole, tmp_path / "run"))
        assert [key for key in one if not torch.equal(one[key], two[key])] == []


def test_a_phase_without_a_classifier_has_norms_only(shared_faces: Path, make_plan: MakePlan, tmp_path: Path) -> None:
    terms = [{"kind": "triplet"}]
    phase = {"terms": terms, "images": 24, "batch": 8, "sampler": {"kind": "pk", "images": 4}}
    train(make_plan(shared_faces, watch=3, phase=phase), tmp_path / "run")
    (row,) = quality(tmp_path / "run")
    assert "resolution_norm" in row
    assert "resolution_probability" not in row


@pytest.mark.parametrize("value", [-1, 10_001, "many"])
def test_a_plan_takes_a_number_of_images(value: Any, shared_faces: Path, make_plan: MakePlan) -> None:
    with pytest.raises(InputError, match="watch"):
        make_plan(shared_faces, watch=value)
