"""The training loop: resume is exact whatever stopped it, and what must stop it does."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console
from safetensors.torch import load_file

from mobileface.data.faceset import FaceSet
from mobileface.errors import InputError, NonFiniteError
from mobileface.factory import find_plan_arch, open_faces
from mobileface.training import checkpoint, loop
from mobileface.training.plan import Plan, parse_plan

MakeFolder = Callable[..., Path]
MakeData = Callable[..., dict[str, Any]]
MakePlan = Callable[..., Plan]
Targets = NDArray[np.float32] | None
TIMES = ("seconds", "images_per_s")
QUIET = Console(quiet=True)

TERMS: dict[str, list[Any]] = {
    "classification": [{"kind": "classification", "scale": 16}],
    "distillation": ["distillation"],
    "both": [{"kind": "classification", "scale": 16, "weight": 0.1}, "distillation"],
}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"kind": "sgd", "lr": 0.05},
    "adamw": {"kind": "adamw", "lr": 2e-3, "weight_decay": 0.02},
}


def train(plan: Plan, run: Path, targets: Targets = None) -> dict[str, Any]:
    run.mkdir(exist_ok=True)
    return loop.train(plan, find_plan_arch(plan), run, open_faces(plan), targets, QUIET, workers=0)


def rows(run: Path, event: str) -> list[dict[str, Any]]:
    """Rows of the log without what depends on the clock."""
    found = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in TIMES} for row in found if row["event"] == event]


def assert_same(run: Path, reference: Path, steps: range = range(4, 73, 4)) -> None:
    """Bit-identical weights, optimizer, best and last; each step and each validation once."""
    for name in ("model", "checkpoints/best", "checkpoints/last"):
        one, two = (load_file(folder / f"{name}.safetensors") for folder in (run, reference))
        assert one.keys() == two.keys()
        assert [key for key in one if not torch.equal(one[key], two[key])] == []
    assert [row["images"] for row in rows(run, "step")] == list(steps)
    assert rows(run, "step") == rows(reference, "step")
    assert rows(run, "validation") == rows(reference, "validation")
    facts = [checkpoint.load(folder / "model.safetensors")[1] for folder in (run, reference)]
    assert facts[0] | {"seconds": 0} == facts[1] | {"seconds": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_folder: MakeFolder) -> Path:
    """Thirty images, one of them bad: skipping must not depend on where a training was stopped either."""
    top = make_folder(tmp_path_factory.mktemp("loop") / "faces")
    (top / "person-3" / "face-4.jpg").write_bytes(b"\xff\xd8 bad")
    return top


@pytest.fixture(scope="module")
def targets() -> NDArray[np.float32]:
    drawn = np.random.default_rng(0).normal(size=(30, 32)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def case(folder: Path, targets: NDArray[np.float32], make_plan_data: MakeData) -> Callable[..., Any]:
    """`case(terms, optimizer)` -> (plan as plain data, targets)."""

    def made(terms: str, optimizer: str) -> tuple[dict[str, Any], Targets]:
        phase = {"terms": TERMS[terms], "optimizer": OPTIMIZERS[optimizer]}
        if terms == "classification":
            return make_plan_data(folder, phase=phase), None
        return make_plan_data(folder, phase=phase, teacher={"model": "not-opened.onnx"}), targets

    return made


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, case: Callable[..., Any]) -> Callable[[str, str], Path]:
    """`whole(terms, optimizer)`: the run folder of a training that nothing stopped."""
    done: dict[tuple[str, str], Path] = {}

    def trained(terms: str, optimizer: str) -> Path:
        if (terms, optimizer) not in done:
            run = tmp_path_factory.mktemp(f"{terms}-{optimizer}")
            data, targets = case(terms, optimizer)
            train(parse_plan(data, "x"), run, targets)
            done[terms, optimizer] = run
        return done[terms, optimizer]

    return trained


def stop_at(step: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send this process a signal in the middle of step `step` (from 1) of the next training."""
    original, calls = loop.step, 0

    def stopped(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == step:
            os.kill(os.getpid(), number)
        return original(*args)

    monkeypatch.setattr(loop, "step", stopped)


def test_a_repeated_training_is_the_same(case: Callable[..., Any], whole: Any, tmp_path: Path) -> None:
    data, targets = case("both", "sgd")
    train(parse_plan(data, "x"), tmp_path / "run", targets)
    assert_same(tmp_path / "run", whole("both", "sgd"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
@pytest.mark.parametrize(
    ("terms", "optimizer"),
    [("classification", "sgd"), ("classification", "adamw"), ("distillation", "sgd"), ("distillation", "adamw")],
)
def test_stopped_and_taken_up_again(
    terms: str,
    optimizer: str,
    number: int,
    case: Callable[..., Any],
    whole: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped in the first step, in that of a checkpoint, in the one behind it and in the middle of an epoch."""
    data, targets = case(terms, optimizer)
    plan, run, handler = parse_plan(data, "x"), tmp_path / "run", signal.getsignal(number)
    for step, seen in ((1, 4), (5, 24), (1, 28), (6, 52)):
        with monkeypatch.context() as patch:
            stop_at(step, number, patch)
            with pytest.raises(KeyboardInterrupt):
                train(plan, run, targets)
        assert signal.getsignal(number) == handler
        assert checkpoint.load(run / "checkpoints" / "last.safetensors")[1]["seen"] == seen
        assert not (run / "model.safetensors").exists()
    train(plan, run, targets)
    assert_same(run, whole(terms, optimizer))
    assert [row["images"] for row in rows(run, "resume")] == [4, 24, 28, 52]
    assert not list(run.rglob("*.tmp")) + list(run.rglob(".*.tmp"))


def test_a_second_ctrl_c_stops_at_once_and_the_checkpoint_before_stays(
    case: Callable[..., Any], whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, targets = case("classification", "sgd")
    plan, run, save_file = parse_plan(data, "x"), tmp_path / "run", checkpoint.save_file

    def impatient(*args: Any) -> None:
        save_file(*args)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        stop_at(9, signal.SIGINT, patch)
        with pytest.raises(KeyboardInterrupt):
            train(plan, run, targets)
    before = (run / "checkpoints" / "last.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        stop_at(2, signal.SIGINT, patch)
        patch.setattr(checkpoint, "save_file", impatient)
        with pytest.raises(KeyboardInterrupt):
            train(plan, run, targets)
    assert (run / "checkpoints" / "last.safetensors").read_bytes() == before
    train(plan, run, targets)
    assert_same(run, whole("classification", "sgd"))


def test_ctrl_c_in_the_last_step_is_too_late(
    case: Callable[..., Any], whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, targets = case("classification", "sgd")
    stop_at(18, signal.SIGINT, monkeypatch)
    train(parse_plan(data, "x"), tmp_path / "run", targets)
    assert_same(tmp_path / "run", whole("classification", "sgd"))


@pytest.mark.parametrize("signalled", [True, False])
def test_loading_processes_that_end_with_the_signal(
    signalled: bool, case: Callable[..., Any], whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal to the whole group ends the workers, and the loader fails: with a signal that is a stop like any."""
    data, targets = case("classification", "sgd")
    plan, run, batches = parse_plan(data, "x"), tmp_path / "run", loop.batches

    def dying(*args: Any) -> Any:
        loaded = batches(*args)
        yield from (next(loaded) for _ in range(8))
        if signalled:
            os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("DataLoader worker (pid 7) exited unexpectedly")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "batches", dying)
        with pytest.raises(KeyboardInterrupt if signalled else RuntimeError):
            train(plan, run, targets)
    seen = checkpoint.load(run / "checkpoints" / "last.safetensors")[1]["seen"]
    assert seen == (32 if signalled else 24)
    train(plan, run, targets)
    assert_same(run, whole("classification", "sgd"))


def random_shares(count: int) -> list[str]:
    """Moments that differ in every run of the tests; the seed is none of the point."""
    return [f"cpu:{random.uniform(0.02, 0.98):.3f}" for _ in range(count)]


# 18 steps; a checkpoint after 6, 12 and 18 of them is: log fsync, best if better (fsync, replace, fsync), then last
MOMENTS = [
    "step:1", "step:9", "log:1", "log:5", "log:8", "save_file:1", "save_file:2", "save_file:3", "fsync:1", "fsync:3",
    "fsync:6", "fsync:8", "replace:1", "replaced:1", "replace:2", "replaced:2", "replace:4",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("terms", "optimizer", "moments"),
    [
        ("classification", "sgd", [*MOMENTS, *random_shares(4)]),
        ("distillation", "adamw", ["save_file:2", "replaced:1", *random_shares(3)]),
    ],
    ids=["classification-sgd", "distillation-adamw"],
)
def test_killed_and_taken_up_again(
    terms: str, optimizer: str, moments: list[str], case: Callable[..., Any], whole: Any, tmp_path: Path
) -> None:
    data, targets = case(terms, optimizer)
    (tmp_path / "plan.json").write_text(json.dumps(data))
    np.save(tmp_path / "targets.npy", np.zeros(0) if targets is None else targets)
    moments = ["never:0", *moments]
    runs = [tmp_path / f"{i}-{moment.replace(':', '-')}" for i, moment in enumerate(moments)]
    for run in runs:
        run.mkdir()
    command = [str(tmp_path / "plan.json"), "-" if targets is None else str(tmp_path / "targets.npy")]
    command += [text for run, moment in zip(runs, moments, strict=True) for text in (str(run), moment)]
    script = Path(__file__).with_name("killed_run.py")
    done = subprocess.run([sys.executable, str(script), *command], capture_output=True, text=True, check=True)
    statuses = [int(line.split()[0]) for line in done.stdout.splitlines()]
    for moment, status in zip(moments, statuses, strict=True):
        kind = moment.split(":")[0]
        wanted = {"never": (0,), "cpu": (0, signal.SIGPROF)}.get(kind, (signal.SIGKILL,))
        assert status in wanted, f"{moment}: {status} {done.stderr}"
    assert_same(runs[0], whole(terms, optimizer))
    for run in runs[1:]:
        train(parse_plan(data, "x"), run, targets)
        assert_same(run, whole(terms, optimizer))


def test_a_finished_training_is_left_alone(case: Callable[..., Any], whole: Any) -> None:
    run = whole("classification", "sgd")
    files = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    data, _ = case("classification", "sgd")
    facts = train(parse_plan(data, "x"), run)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == files
    assert facts["images_seen"] == 72
    assert facts["skipped"] == ["faces/person-3/face-4.jpg: does not decode as an image"]


def test_what_a_run_leaves(whole: Any) -> None:
    run = whole("both", "sgd")
    assert rows(run, "start")[0]["images"] == 0
    steps = rows(run, "step")
    assert [row["epoch"] for row in steps] == pytest.approx([row["images"] / 18 for row in steps])
    for row in steps:
        terms = row["terms"]
        assert row["loss"] == pytest.approx(0.1 * terms["classification"] + terms["distillation"], rel=1e-5)
    validations = rows(run, "validation")
    assert [row["images"] for row in validations] == [24, 48, 72]
    facts = checkpoint.load(run / "model.safetensors")[1]
    best = max(validations, key=lambda row: (row["auc"], row["images"]))
    assert (facts["held_out_auc"], facts["best_at"]) == (best["auc"], best["images"])
    network = load_file(run / "model.safetensors")
    kept = checkpoint.part(load_file(run / "checkpoints" / "best.safetensors"), "network.")
    assert all(torch.equal(network[name], kept[name]) for name in network)


def test_a_damaged_checkpoint_is_named_and_not_passed_over(
    case: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, _ = case("classification", "sgd")
    plan, run = parse_plan(data, "x"), tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(2, signal.SIGINT, patch)
        with pytest.raises(KeyboardInterrupt):
            train(plan, run)
    last = run / "checkpoints" / "last.safetensors"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 4
    last.write_bytes(content)
    with pytest.raises(InputError, match=rf"^{last}: is damaged"):
        train(plan, run)
    assert last.read_bytes() == content


# ---- what stops a training


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
    with pytest.raises(InputError, match=r"^30 training images have no label .*classification needs one"):
        train(plan, tmp_path / "run")


def test_classification_wants_two_people(tmp_path: Path, make_folder: MakeFolder, make_plan: MakePlan) -> None:
    folder = make_folder(tmp_path / "one", identities=1)
    with pytest.raises(InputError, match=r"^classification needs two identities or more to train on, found 1$"):
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
