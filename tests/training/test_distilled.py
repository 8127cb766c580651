"""Training with a teacher of another width: by embeddings, relations and logits; its targets cached, or online."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import nn

from mobileface.embedders.contract import Embedder, InputContract
from mobileface.embedders.network import NetworkEmbedder
from mobileface.errors import InputError, NonFiniteError
from mobileface.factory import find_plan_arch
from mobileface.losses.distill import CosineDistillation, projection
from mobileface.losses.distill_logits import LogitDistillation
from mobileface.models import build
from mobileface.training import checkpoint, loop
from mobileface.training.plan import parse_plan
from mobileface.training.sources import open_faces
from mobileface.training.teaching import embed_view
from mobileface.training.trainer import Trainer
from mobileface.zoo import find_arch
from tests.training.runs import assert_same_tensors, stop_at
from tests.training.test_ranks import run_ranks

MakeData = Callable[..., dict[str, Any]]
Targets = NDArray[np.float32]

WIDTH = 48  # of the teacher; the student, micro, is 32 wide
TAUGHT = ["distillation", {"kind": "relational_distillation", "weight": 5}, {"kind": "logit_distillation", "scale": 16}]
LINKS = ("distillation", "logit_distillation")  # the terms with a projection


class Means:
    """An embedder that is no network of ours: the means of 4x4 cells. Keeps the images that it has seen."""

    path, dim, contract, libraries = Path("means.onnx"), WIDTH, InputContract(), ()

    def __init__(self, sha256: str = "0" * 64) -> None:
        self.sha256 = sha256
        self.seen: list[NDArray[np.uint8]] = []

    def __call__(self, images: NDArray[np.uint8]) -> Targets:
        self.seen.append(images.copy())
        cells = images.reshape(-1, 4, 28, 4, 28, 3).mean(axis=(2, 4), dtype=np.float64)
        return cells.reshape(len(images), WIDTH).astype(np.float32) - 128


def network_teacher() -> NetworkEmbedder:
    """An untrained network, 64 wide."""
    return NetworkEmbedder(build(find_arch("tiny"), 3), Path("teacher"), "1" * 64)


@pytest.fixture(scope="module")
def targets() -> Targets:
    drawn = np.random.default_rng(0).normal(size=(30, WIDTH)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def data(shared_faces: Path, make_plan_data: MakeData) -> dict[str, Any]:
    """Two phases of 12 and 6 steps: all terms, then those of the teacher alone."""
    terms = [{"kind": "classification", "scale": 16, "weight": 0.1}, *TAUGHT]
    phase = {"name": "both", "images": 48, "terms": terms, "optimizer": {"kind": "adamw", "lr": 2e-3}}
    made = make_plan_data(shared_faces, phase=phase, teacher={"model": "not-opened.onnx"})
    made["phases"].append({"name": "alone", "images": 24, "drop": ["classification"]})
    return made


def train(
    data: dict[str, Any], run: Path, targets: Targets | None = None, online: Embedder | None = None
) -> dict[str, Any]:
    plan = parse_plan(data, "x")
    run.mkdir(exist_ok=True)
    quiet = Console(quiet=True)
    return loop.train(plan, find_plan_arch(plan), run, open_faces(plan), targets, quiet, workers=0, online=online)


def prepared(
    data: dict[str, Any], run: Path, targets: Targets | None = None, online: Embedder | None = None
) -> Trainer:
    plan = parse_plan(data, "x")
    return loop.prepare(plan, find_plan_arch(plan), run, open_faces(plan), targets, print, online)[0]


def terms_of_steps(run: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [row["terms"] for row in rows if row["event"] == "step"]


def assert_same(run: Path, reference: Path) -> None:
    assert_same_tensors(run, reference, "model", "checkpoints/best", "checkpoints/last", "phases/1-both/model")
    assert terms_of_steps(run) == terms_of_steps(reference)


Way = Callable[[], dict[str, Any]]


@pytest.fixture(scope="module")
def ways(targets: Targets) -> dict[str, Way]:
    """Arguments of `train`: the teacher's targets, or the teacher itself (with targets for its class centres)."""
    wide = np.concatenate([targets, targets[:, :16]], 1)
    return {
        "cached": lambda: {"targets": targets},
        "network": lambda: {"targets": wide, "online": network_teacher()},
        "onnx": lambda: {"targets": targets, "online": Means()},
    }


@pytest.fixture(scope="module")
def whole(data: dict[str, Any], ways: dict[str, Way], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Trainings that nothing stopped."""
    runs = {way: tmp_path_factory.mktemp("whole") / way for way in ways}
    for way, run in runs.items():
        train(data, run, **ways[way]())
    return runs


# ---- exact resume


@pytest.mark.parametrize(
    ("way", "step"),
    [
        ("cached", 12),
        ("onnx", 5),
        *(pytest.param(*rest, marks=pytest.mark.slow) for rest in (("cached", 3), ("cached", 15), ("network", 14))),
    ],
)
def test_a_stopped_training_ends_in_the_same_weights(
    way: str,
    step: int,
    data: dict[str, Any],
    ways: dict[str, Way],
    whole: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        stop_at(step, signal.SIGINT, patch)
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "run", **ways[way]())
    train(data, tmp_path / "run", **ways[way]())
    assert_same(tmp_path / "run", whole[way])


def test_another_teacher_does_not_go_on_with_the_run(
    data: dict[str, Any], targets: Targets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(2, signal.SIGINT, patch)
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "run", targets, Means())
    flipped = Means()
    flipped.contract = InputContract(color="bgr")
    for other in (Means("2" * 64), flipped, None):
        with pytest.raises(InputError, match="was begun with other training images, another teacher"):
            train(data, tmp_path / "run", targets, other)
    train(data, tmp_path / "run", targets, Means())


def test_what_a_run_with_cached_targets_is_tied_to_has_not_changed(
    data: dict[str, Any], targets: Targets, tmp_path: Path
) -> None:
    """Checkpoints of the time before a teacher could be online go on."""
    trainer = prepared(data, tmp_path, targets)
    faces = trainer.faces
    tied = hashlib.sha256(faces.fingerprint().encode() + faces.labels.tobytes() + targets.tobytes())
    assert trainer.state.inputs == tied.hexdigest()


# ---- the projection


def test_the_projections_are_learned_saved_carried_on_and_dropped(
    data: dict[str, Any], targets: Targets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried: list[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]] = []
    start_from = checkpoint.start_from

    def started(best: dict[str, torch.Tensor], network: nn.Module, terms: nn.Module, *rest: Any) -> None:
        start_from(best, network, terms, *rest)
        carried.append((best, {name: tensor.clone() for name, tensor in terms.state_dict().items()}))

    monkeypatch.setattr(checkpoint, "start_from", started)
    train(data, tmp_path / "run", targets)
    first = prepared(data, tmp_path / "start", targets).terms
    last = checkpoint.load(tmp_path / "run" / "checkpoints" / "last.safetensors")[0]
    ((best, begun),) = carried
    for kind in LINKS:
        name = f"{kind}.projection.weight"
        assert not torch.equal(best[f"terms.{name}"], first[kind].projection.weight)  # learned
        assert torch.equal(begun[name], best[f"terms.{name}"])  # carried from phase to phase
        assert not torch.equal(last[f"terms.{name}"], begun[name])
    moments = [t for name, t in last.items() if name.startswith("optimizer.") and t.shape == (WIDTH, 32)]
    assert len(moments) == 4  # AdamW keeps two for each
    assert [name for name in last if name.endswith("centres")] == []  # the teacher's are made again
    exported = load_file(tmp_path / "run" / "model.safetensors")
    assert exported.keys() == build(find_arch("micro")).state_dict().keys()


def test_equal_widths_train_without_a_projection(data: dict[str, Any], targets: Targets, tmp_path: Path) -> None:
    trainer = prepared(data, tmp_path, np.ascontiguousarray(targets[:, :32]))
    assert [name for name, _ in trainer.terms.named_parameters()] == ["classification.centres"]
    assert prepared(data, tmp_path, targets).terms["distillation"].projection.weight.shape == (WIDTH, 32)


# ---- what the terms are given


def test_the_class_centres_are_of_the_images_that_are_trained_on(
    data: dict[str, Any], targets: Targets, tmp_path: Path
) -> None:
    trainer = prepared(data, tmp_path, targets)
    term = trainer.terms["logit_distillation"]
    assert isinstance(term, LogitDistillation)
    assert (term.scale, term.temperature) == (16, 4)
    found = trainer.split.classes
    assert (found < 0).sum() == 12  # two people of five are held out
    for number, centre in enumerate(term.centres.numpy()):
        total = targets[found == number].astype(np.float64).sum(0)
        np.testing.assert_allclose(centre, total / np.sqrt((total**2).sum()), atol=1e-6)


def test_the_teacher_online_sees_what_the_student_sees(data: dict[str, Any], targets: Targets, tmp_path: Path) -> None:
    """Augmented, in each step once, and the term is 1 - cosine to its embedding of just that."""
    teacher = Means()
    trainer = prepared(data, tmp_path, targets, teacher)
    (batch,) = list(loop.batches(trainer.stream, 0, 4, 4, 0))
    term = trainer.terms["distillation"]
    assert isinstance(term, CosineDistillation)
    assert term.projection is not None
    with torch.no_grad():
        student = term.projection(trainer.network(batch.images.permute(0, 3, 1, 2).float())).double()
    wanted = 1 - torch.cosine_similarity(student, torch.from_numpy(Means()(batch.images.numpy())).double())
    row = loop.step(trainer, [batch], 0.0)
    assert row["terms"]["distillation"] == pytest.approx(float(wanted.mean()), abs=1e-5)
    assert len(teacher.seen) == 1
    np.testing.assert_array_equal(teacher.seen[0], batch.images.numpy())


def test_a_network_of_ours_teaches_in_eval_mode_and_is_not_trained(data: dict[str, Any], tmp_path: Path) -> None:
    teacher = network_teacher()
    data = {**data, "phases": [{**data["phases"][0], "terms": ["distillation", "relational_distillation"]}]}
    before = {name: tensor.clone() for name, tensor in teacher.network.state_dict().items()}
    train(data, tmp_path / "run", online=teacher)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.network.state_dict().items())
    assert [p for p in teacher.network.parameters() if p.grad is not None] == []
    assert not teacher.network.training


def test_a_phase_without_distillation_does_not_ask_the_teacher(
    data: dict[str, Any], targets: Targets, tmp_path: Path
) -> None:
    phases = [{**data["phases"][0], "images": 8}, {"name": "labels", "images": 40, "terms": ["classification"]}]
    teacher = Means()
    train({**data, "phases": phases}, tmp_path / "run", targets, teacher)
    assert len(teacher.seen) == 2


def test_a_view_is_embedded_by_any_teacher() -> None:
    """By a network of ours and by a file alike: what its call gives, of length one."""
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8))
    pixels = images.permute(0, 3, 1, 2).float()
    for teacher in (network_teacher(), Means()):
        found = embed_view(teacher, images, pixels)
        raw = teacher(images.numpy()).astype(np.float64)
        np.testing.assert_allclose(found.numpy(), raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-6)
        assert not found.requires_grad


# ---- what stops it


def test_a_teacher_without_a_length_stops_the_training(data: dict[str, Any], targets: Targets, tmp_path: Path) -> None:
    class Zeros(Means):
        def __call__(self, images: NDArray[np.uint8]) -> Targets:
            return np.zeros((len(images), WIDTH), np.float32)

    with pytest.raises(NonFiniteError, match="not finite: term distillation"):
        train(data, tmp_path / "run", targets, Zeros())


@pytest.mark.parametrize("term", TAUGHT)
def test_distillation_without_a_teacher_is_refused(term: Any, data: dict[str, Any], tmp_path: Path) -> None:
    kind = term if isinstance(term, str) else term["kind"]
    lonely = {**data, "phases": [{**data["phases"][0], "terms": [term]}]}
    with pytest.raises(InputError, match=f"^phase both: {kind} needs a teacher's embeddings, found none$"):
        train(lonely, tmp_path / "run")


def test_logits_want_two_people_and_no_label_of_every_image(
    shared_faces: Path, make_plan_data: MakeData, targets: Targets, tmp_path: Path
) -> None:
    phase = {"images": 8, "terms": ["logit_distillation"]}
    nobody = {"train": [{"folder": shared_faces.name, "labelled": False}], "validate": {"identities": 0}}
    plan = make_plan_data(shared_faces, phase=phase, data=nobody, teacher={"model": "x"})
    with pytest.raises(InputError, match=r"logit_distillation needs two identities or more to train on, found 0; "):
        train(plan, tmp_path / "none", targets)
    both = {**nobody, "train": [*nobody["train"], {"folder": shared_faces.name}]}
    plan = make_plan_data(shared_faces, phase=phase, data=both, teacher={"model": "x"})
    assert train(plan, tmp_path / "both", np.concatenate([targets, targets]))["images_seen"] == 8


# ---- several processes


@pytest.mark.slow
@pytest.mark.parametrize("online", [False, True])
def test_two_ranks_distil_as_one_process(
    online: bool, tmp_path: Path, make_folder: Callable[..., Path], make_plan_data: MakeData
) -> None:
    """The projections' gradients are summed, the teacher's centres cut; by losses that are means over samples."""
    folder = make_folder(tmp_path / "data" / "faces", identities=6)
    (tmp_path / "data" / "teacher").mkdir()
    save_file(build(find_arch("tiny"), 3).state_dict(), tmp_path / "data" / "teacher" / "model.safetensors")
    (tmp_path / "data" / "teacher" / "arch.json").write_text(json.dumps(find_arch("tiny").to_dict()))
    slow = {"kind": "sgd", "lr": 1e-6}  # batch norms over four images make rounding grow with every step
    phase = {"images": 32, "batch": 8, "accumulate": 2, "optimizer": slow, "terms": LINKS}
    data = make_plan_data(folder, phase=phase, data={"validate": {"identities": 0}})
    data["teacher"] = {"model": "teacher", "online": online}
    (tmp_path / "plan.yaml").write_text(json.dumps(data))
    tensors, losses = [], []
    for ranks in (1, 2):
        done = run_ranks(ranks, tmp_path / "plan.yaml", tmp_path / f"run-{ranks}")
        assert done.returncode == 0, done.stderr
        tensors.append(load_file(tmp_path / f"run-{ranks}" / "checkpoints" / "last.safetensors"))
        losses.append([row for terms in terms_of_steps(tmp_path / f"run-{ranks}") for row in terms.values()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for kind in LINKS:
        name = f"terms.{kind}.projection.weight"
        start = projection(32, 64, data["seed"])
        assert start is not None
        way = float((tensors[0][name] - start.weight.detach()).norm())
        assert float((tensors[0][name] - tensors[1][name]).norm()) < way / 100
