"""torchrun with two views: octuplets and queues over all ranks, and another number of ranks on resume.

Batch norms stand still here, so that a batch is a batch, whole or cut: two ranks see what one process sees.
"""

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
from mobileface.training import checkpoint
from tests.training.mixed import OCTUPLET, QGFACE
from tests.training.runs import rows, run_ranks

pytestmark = pytest.mark.slow
SIZE = 20  # of the queue: two steps and a half of the momentum encoder's features, one and a quarter of both views'


def phase_of(kind: str) -> dict[str, Any]:
    """Six steps of a batch of 8."""
    phase = OCTUPLET
    if kind != "octuplet":
        classification, contrastive = QGFACE["terms"]
        phase = {**QGFACE, "terms": [classification, {**contrastive, "queue": kind, "size": SIZE, "momentum": 0.9}]}
    return {**phase, "images": 48, "optimizer": {"kind": "sgd", "lr": 1e-3}}


def assert_near(run: Path, reference: Path) -> None:
    """The same losses, weights, queue and statistics, to rounding."""
    start = build(load_arch(reference), 5).state_dict()
    one, two = (load_file(folder / "checkpoints/last.safetensors") for folder in (run, reference))
    assert one.keys() == two.keys()
    names = [name for name in start if start[name].is_floating_point()]
    distance, way = (
        float(torch.cat([(a[f"network.{name}"] - b).flatten() for name, b in others.items()]).norm())
        for a, others in ((one, {n: two[f"network.{n}"] for n in names}), (two, {n: start[n] for n in names}))
    )
    assert way > 0
    assert distance < way / 100
    for name in (name for name in one if name.startswith("terms.")):
        torch.testing.assert_close(one[name], two[name], atol=1e-3, rtol=1e-3, msg=lambda text, n=name: f"{n}: {text}")
    losses = [[row["loss"] for row in rows(folder, "step")] for folder in (run, reference)]
    assert len(losses[0]) == 6
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("kind", ["proxy", "momentum", "octuplet"])
def test_two_ranks_train_two_views_as_one_process_and_one_goes_on_for_them(
    kind: str, make_folder: Callable[..., Path], make_plan_data: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "data" / "faces", identities=6)
    data = make_plan_data(folder, phase=phase_of(kind), data={"validate": {"identities": 0}})
    plan = tmp_path / "plan.yaml"
    plan.write_text(json.dumps(data))
    one, two, both = (tmp_path / name for name in ("one", "two", "both"))
    for ranks, run in ((1, one), (2, two)):
        done = run_ranks(ranks, plan, run, frozen=True)
        assert done.returncode == 0, done.stderr
    assert_near(two, one)
    held = load_file(one / "checkpoints/last.safetensors").get("terms.contrastive.queue.labels")
    assert (held is None) == (kind == "octuplet")
    assert held is None or (held >= 0).all()  # it has overflowed
    stopped = run_ranks(2, plan, both, stop=4, frozen=True)
    assert stopped.returncode != 0
    assert checkpoint.load(both / "checkpoints" / "last.safetensors")[1]["seen"] == 32
    done = run_ranks(1, plan, both, frozen=True)
    assert done.returncode == 0, done.stderr
    assert_near(both, one)
