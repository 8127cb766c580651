"""torchrun: the weights of one process, stops, other numbers of ranks, a rank that dies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mobileface.arch import load_arch
from mobileface.models import build
from mobileface.models.build import network
from mobileface.training import checkpoint
from tests.training.runs import run_ranks

pytestmark = pytest.mark.slow
MakeData = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def plan(make_folder: Callable[..., Path], make_plan_data: MakeData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phases of 6 and 3 steps; batches of 8 in two parts; losses that are means over samples. Nobody is held out:
    running statistics differ a little with the ranks, and with them what would be the best checkpoint."""
    slow = {"kind": "sgd", "lr": 1e-4}  # batch norms over four images make rounding grow with every step
    phase = {"images": 48, "batch": 8, "accumulate": 2, "name": "one", "optimizer": slow}
    folder = make_folder(tmp_path_factory.mktemp("data") / "faces", identities=6)
    data = make_plan_data(folder, phase=phase, data={"validate": {"identities": 0}})
    second = {"name": "two", "images": 24, "optimizer": slow}
    second["add"] = [{"kind": "classification", "margin": "adaface", "negatives": "curricular"}, "intra", "centre"]
    data["phases"].append({**second, "sampler": {"kind": "pk", "images": 2}})
    data["export"] = {"formats": []}
    file = tmp_path_factory.mktemp("plan") / "plan.yaml"
    file.write_text(json.dumps(data))
    return file


@pytest.fixture(scope="module")
def whole(plan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process that accumulates the two parts."""
    run = tmp_path_factory.mktemp("whole") / "run"
    done = run_ranks(1, plan, run)
    assert done.returncode == 0, done.stderr
    return run


def assert_near(run: Path, reference: Path) -> None:
    """The same weights to rounding: the distance is a hundredth of the way that they moved, at the most.

    Running statistics are left out: they are means of other batches.
    """
    start = build(load_arch(reference / "phases/1-one"), 5).state_dict()
    for name in ("model", "phases/1-one/model"):
        one, two = (load_file(folder / f"{name}.safetensors") for folder in (run, reference))
        assert one.keys() == two.keys()
        names = [key for key, parameter in network(load_arch(reference)).named_parameters() if parameter.requires_grad]
        qualities = [key for key in one if key.startswith("lgf.")]
        torch.testing.assert_close([one[key] for key in qualities], [two[key] for key in qualities], rtol=1e-3, atol=0)
        distance, way = (
            float(torch.cat([(a[key] - b[key]).flatten() for key in names]).norm())
            for a, b in ((one, two), (start, two))
        )
        assert distance < way / 100
    centres = [load_file(f / "checkpoints/last.safetensors")["terms.classification.centres"] for f in (run, reference)]
    torch.testing.assert_close(centres[0], centres[1], atol=1e-4, rtol=1e-4)
    losses = []
    for folder in (run, reference):
        found = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        losses.append([row["loss"] for row in found if row["event"] == "step"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    states = [load_file(folder / "checkpoints/last.safetensors") for folder in (run, reference)]
    for name in ("margin.statistics.mean", "margin.statistics.std", "negatives.t", "step"):
        moved = [float(state[f"terms.classification.{name}"]) for state in states]
        assert moved[0] == pytest.approx(moved[1], rel=1e-5, abs=1e-6)
    assert len(losses[0]) == 9


def test_two_ranks_train_the_weights_of_one_process(plan: Path, whole: Path, tmp_path: Path) -> None:
    done = run_ranks(2, plan, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert_near(tmp_path / "run", whole)
    facts = checkpoint.load(tmp_path / "run" / "model.safetensors")[1]
    assert facts["ranks"] == 2
    assert done.stdout.count("run: ") == 1  # one rank speaks for all


DROPPED = {"family": "iresnet", "depths": [1] * 4, "widths": [8, 12, 16, 32], "embedding_dim": 32, "dropout": 0.4}


@pytest.mark.parametrize("arch", ["lgaf-micro", DROPPED], ids=["lgaf", "dropout"])
def test_two_ranks_train_residual_networks_as_one_process(arch: Any, plan: Path, tmp_path: Path) -> None:
    """LGAF's qualities see both ranks' images; what is dropped depends on the part of the batch, not on the rank."""
    (tmp_path / "plan.yaml").write_text(json.dumps({**json.loads(plan.read_text()), "arch": arch}))
    runs = [tmp_path / "one", tmp_path / "two"]
    for ranks, run in enumerate(runs, 1):
        done = run_ranks(ranks, tmp_path / "plan.yaml", run)
        assert done.returncode == 0, done.stderr
    assert_near(runs[1], runs[0])
    for run in runs:  # the batch norm's weight that stays 1
        assert torch.equal(load_file(run / "model.safetensors")["head.bn.weight"], torch.ones(32))


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_a_stopped_run_goes_on_with_another_number_of_ranks(
    first: int, then: int, plan: Path, whole: Path, tmp_path: Path
) -> None:
    stopped = run_ranks(first, plan, tmp_path / "run", stop=7)
    assert stopped.returncode != 0
    assert checkpoint.load(tmp_path / "run" / "checkpoints" / "last.safetensors")[1]["seen"] == 8  # of phase two
    done = run_ranks(then, plan, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert_near(tmp_path / "run", whole)


def test_a_rank_that_dies_ends_the_run_and_loses_nothing(plan: Path, whole: Path, tmp_path: Path) -> None:
    died = run_ranks(2, plan, tmp_path / "run", die=5)
    assert died.returncode != 0
    last = checkpoint.load(tmp_path / "run" / "checkpoints" / "last.safetensors")[1]
    assert last["seen"] == 24
    done = run_ranks(2, plan, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert_near(tmp_path / "run", whole)


@pytest.mark.parametrize("ranks", [1, 2])
def test_sigterm_to_the_whole_group_stops_all_and_loses_nothing(
    ranks: int, plan: Path, whole: Path, tmp_path: Path
) -> None:
    """The loading processes die of it in the middle of a batch of two parts: half a batch is never trained on."""
    stopped = run_ranks(ranks, plan, tmp_path / "run", stop=-3, workers=1)
    assert stopped.returncode != 0
    last = checkpoint.load(tmp_path / "run" / "checkpoints" / "last.safetensors")[1]
    assert last["seen"] >= 24
    done = run_ranks(ranks, plan, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert_near(tmp_path / "run", whole)


def test_bad_images_of_every_rank_are_named(plan: Path, tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    data = json.loads(plan.read_text())
    folder = make_folder(tmp_path / "data" / "faces", identities=6)
    bad = [folder / f"person-{i}" / "face-2.jpg" for i in range(5)]
    for path in bad:
        path.write_bytes(b"bad")
    data["data"]["root"] = str(folder.parent)
    data["phases"] = data["phases"][:1]
    (tmp_path / "plan.yaml").write_text(json.dumps(data))
    done = run_ranks(2, tmp_path / "plan.yaml", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    found = checkpoint.load(tmp_path / "run" / "model.safetensors")[1]["skipped"]
    assert sorted(text.split(":")[0] for text in found) == [f"faces/person-{i}/face-2.jpg" for i in range(5)]
    data["data"]["max_corrupt"] = 2
    (tmp_path / "strict.yaml").write_text(json.dumps(data))
    refused = run_ranks(2, tmp_path / "strict.yaml", tmp_path / "strict")
    assert refused.returncode != 0
    assert "bad images are more than data.max_corrupt 2" in refused.stderr


def test_a_batch_that_cannot_be_split_is_refused(plan: Path, tmp_path: Path) -> None:
    data = json.loads(plan.read_text())
    data["phases"][0] |= {"batch": 9, "accumulate": 3}
    (tmp_path / "odd.yaml").write_text(json.dumps(data))
    done = run_ranks(2, tmp_path / "odd.yaml", tmp_path / "run")
    assert done.returncode != 0
    assert "phase one: batch 9 in 3 parts (accumulate) over 2 ranks; wanted equal parts" in done.stderr + done.stdout
