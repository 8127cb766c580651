"""Resume is exact, whatever stopped the training: signals, kills, loading processes that end."""

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
from safetensors.torch import load_file

from mobileface.errors import InputError
from mobileface.training import checkpoint, loop
from mobileface.training.plan import parse_plan
from tests.training.runs import Targets, assert_same_tensors, rows, stop_at, train

MakeData = Callable[..., dict[str, Any]]
TERMS: dict[str, list[Any]] = {
    "classification": [{"kind": "classification", "scale": 16}],
    "distillation": ["distillation"],
    "both": [{"kind": "classification", "scale": 16, "weight": 0.1}, "distillation"],
}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"kind": "sgd", "lr": 0.05},
    "adamw": {"kind": "adamw", "lr": 2e-3, "weight_decay": 0.02},
}


def assert_same(run: Path, reference: Path, steps: range = range(4, 73, 4)) -> None:
    """Bit-identical weights, optimizer, best and last; each step and each validation once."""
    assert_same_tensors(run, reference, "model", "checkpoints/best", "checkpoints/last")
    assert [row["images"] for row in rows(run, "step")] == list(steps)
    assert rows(run, "step") == rows(reference, "step")
    assert rows(run, "validation") == rows(reference, "validation")
    facts = [checkpoint.load(folder / "model.safetensors")[1] for folder in (run, reference)]
    assert facts[0] | {"seconds": 0} == facts[1] | {"seconds": 0}


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


def test_a_repeated_training_is_the_same(case: Callable[..., Any], whole: Any, tmp_path: Path) -> None:
    data, targets = case("both", "sgd")
    train(parse_plan(data, "x"), tmp_path / "run", targets)
    assert_same(tmp_path / "run", whole("both", "sgd"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
@pytest.mark.parametrize(
    ("terms", "optimizer"),
    [
        ("classification", "sgd"),
        pytest.param("classification", "adamw", marks=pytest.mark.slow),
        pytest.param("distillation", "sgd", marks=pytest.mark.slow),
        ("distillation", "adamw"),
    ],
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


def test_ctrl_c_in_the_last_step_is_heard_and_costs_nothing(
    case: Callable[..., Any], whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever trains next would go on with an export, or a search with its next network."""
    data, targets = case("classification", "sgd")
    with monkeypatch.context() as patch:
        stop_at(18, signal.SIGINT, patch)
        with pytest.raises(KeyboardInterrupt):
            train(parse_plan(data, "x"), tmp_path / "run", targets)
    monkeypatch.setattr(loop, "step", lambda *_: pytest.fail("trained again"))
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
