"""The training loop: what must stop it does, and what it is trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mobileface.data.faceset import FaceSet
from mobileface.errors import InputError, NonFiniteError
from mobileface.factory import find_plan_arch
from mobileface.training import checkpoint, loop
from mobileface.training.plan import Plan
from mobileface.training.sources import open_faces
from tests.training.runs import rows, train

MakeFolder = Callable[..., Path]
MakePlan = Callable[..., Plan]


def test_a_target_of_nan_names_term_and_images(
    folder: Path, make_plan: MakePlan, targets: NDArray[np.float32], tmp_path: Path
) -> None:
    plan = make_plan(folder, phase={"terms": ["distillation"]}, teacher={"model": "x"}, checkpoint={"every_images": 4})
    arch, faces = find_plan_arch(plan), open_faces(plan)
    (tmp_path / "run").mkdir()
    trainer, _ = loop.prepare(plan, arch, tmp_path / "run", faces, targets, print)
    order = [trainer.stream.sampler(position) for position in range(18)]
    spoilt = targets.copy()
    spoilt[order[13]] = np.nan  # in the fourth batch
    with pytest.raises(NonFiniteError) as caught:
        train(plan, tmp_path / "run", spoilt)
    text = str(caught.value)
    assert caught.value.exit_code == 3
    assert text.startswith("not finite: term distillation, gradient of network.")
    assert "at 12 images" in text
    assert "\n" not in text
    named = text.split("batch of ")[1].split(", …")[0].split(", ")
    assert set(named) <= {faces.key(i) for i in range(30)}
    assert faces.key(order[13]) in named
    last = tmp_path / "run" / "checkpoints" / "last.safetensors"
    assert str(last) in text
    assert checkpoint.load(last)[1]["seen"] == 12
    assert [row["images"] for row in rows(tmp_path / "run", "step")] == [4, 8, 12]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("rate", [1e18, 1e30, 1e38])
@pytest.mark.parametrize("every", [4, 1000])
def test_a_rate_beyond_all_measure_never_spoils_a_checkpoint(
    folder: Path, make_plan: MakePlan, tmp_path: Path, optimizer: str, rate: float, every: int
) -> None:
    phase = {"optimizer": {"kind": optimizer, "lr": rate}, "schedule": {"kind": "constant"}}
    plan = make_plan(folder, phase=phase, checkpoint={"every_images": every})
    with pytest.raises(NonFiniteError, match=r"not finite") as caught:
        train(plan, tmp_path / "run")
    assert "\n" not in str(caught.value)
    for kept in (tmp_path / "run").glob("checkpoints/*"):
        checkpoint.load(kept)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_the_loss_of_a_task_that_can_be_learnt_goes_down(
    tmp_path: Path, make_folder: MakeFolder, make_plan: MakePlan
) -> None:
    folder = make_folder(tmp_path / "six", identities=6, images=8)
    phase = {"images": 640, "batch": 16, "optimizer": {"kind": "adamw", "lr": 0.01}, "views": {"clean": ["flip"]}}
    facts = train(make_plan(folder, phase=phase, checkpoint={"every_images": 320}), tmp_path / "run")
    losses = [row["loss"] for row in rows(tmp_path / "run", "step")]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert facts["held_out_auc"] > 0.9


def test_more_bad_images_than_the_plan_allows(tmp_path: Path, make_folder: MakeFolder, make_plan: MakePlan) -> None:
    folder = make_folder(tmp_path / "set")
    bad = [folder / f"person-{i}" / "face-2.jpg" for i in range(5)]
    for path in bad[:3]:
        path.write_bytes(b"bad")
    plan = make_plan(folder, data={"validate": {"identities": 0}, "max_corrupt": 3})
    facts = train(plan, tmp_path / "three")
    assert sorted(text.split(":")[0] for text in facts["skipped"]) == [f"set/person-{i}/face-2.jpg" for i in range(3)]
    bad[3].write_bytes(b"bad")
    with pytest.raises(InputError, match=r"^4 bad images are more than data\.max_corrupt 3; the last: set/person-"):
        train(plan, tmp_path / "four")


def test_bad_images_of_held_out_people_are_named_too(
    tmp_path: Path, make_folder: MakeFolder, make_plan: MakePlan
) -> None:
    folder = make_folder(tmp_path / "set")
    for i in range(5):
        (folder / f"person-{i}" / "face-1.jpg").write_bytes(b"bad")
    facts = train(make_plan(folder), tmp_path / "run")
    assert sorted(text.split(":")[0] for text in facts["skipped"]) == [f"set/person-{i}/face-1.jpg" for i in range(5)]
    with pytest.raises(InputError, match=r"bad images are more than data\.max_corrupt 1"):
        train(make_plan(folder, data={"max_corrupt": 1}), tmp_path / "other")


def test_too_few_images(folder: Path, make_plan: MakePlan, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="18 training images are fewer than one batch of 64"):
        train(make_plan(folder, phase={"batch": 64}), tmp_path / "run")


def test_classification_wants_labels(folder: Path, make_plan: MakePlan, tmp_path: Path) -> None:
    sources = [{"folder": "faces"}, {"folder": "faces", "labelled": False}]
    plan = make_plan(folder, data={"train": sources})
    with pytest.raises(InputError, match=r"30 training images have no label .*classification needs one"):
        train(plan, tmp_path / "run")


def test_classification_wants_two_people(tmp_path: Path, make_folder: MakeFolder, make_plan: MakePlan) -> None:
    folder = make_folder(tmp_path / "one", identities=1)
    with pytest.raises(InputError, match=r"classification needs two identities or more to train on, found 1; wanted"):
        train(make_plan(folder, data={"validate": {"identities": 0}}), tmp_path / "run")


def test_unlabelled_images_can_be_distilled(
    folder: Path, make_plan: MakePlan, targets: NDArray[np.float32], tmp_path: Path
) -> None:
    plan = make_plan(
        folder,
        data={"train": [{"folder": "faces", "labelled": False}], "validate": {"identities": 0}},
        phase={"terms": ["distillation"], "images": 8},
        teacher={"model": "x"},
    )
    facts = train(plan, tmp_path / "run", targets)
    assert (facts["images_seen"], facts["best_at"], facts["held_out_auc"]) == (8, 8, None)


def test_whole_batches_are_seen(folder: Path, make_plan: MakePlan, tmp_path: Path) -> None:
    """13 images in batches of four are 16; the schedule is that of 16 as well."""
    phase = {"images": 13, "schedule": {"kind": "polynomial"}, "optimizer": {"lr": 0.16}}
    facts = train(make_plan(folder, phase=phase), tmp_path / "run")
    assert facts["images_seen"] == 16
    found = [(row["images"], row["lr"]) for row in rows(tmp_path / "run", "step")]
    assert found == [(4, 0.16), (8, pytest.approx(0.12)), (12, pytest.approx(0.08)), (16, pytest.approx(0.04))]


def test_faces_of_every_source_are_trained_on(folder: Path, make_plan: MakePlan) -> None:
    faces = open_faces(make_plan(folder, data={"train": [{"folder": "faces"}, {"folder": "faces"}]}))
    assert isinstance(faces, FaceSet)
    assert (len(faces), faces.num_identities) == (60, 10)
