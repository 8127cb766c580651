"""Losses over several processes are those of one: the classifier cut into shares, and distillation."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from tests.losses import distilled, poor
from tests.losses.rank import cases, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=[2, 3])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What each of 2 or 3 processes found."""
    world, folder = request.param, tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.losses.rank"]
    children = [
        subprocess.Popen([*command, str(r), str(world), str(folder / "store"), str(folder)]) for r in range(world)
    ]
    assert [child.wait() for child in children] == [0] * world
    return [torch.load(folder / f"{r}.pt", weights_only=True) for r in range(world)]


def test_values_gradients_and_state_are_those_of_one_process(ranks: list[Any]) -> None:
    empty = 0
    for number, case in enumerate(cases(len(ranks))):
        wanted = run(case, slice(None))
        found = [rank["cases"][number] for rank in ranks]
        empty += len(case.centres) < len(ranks)
        for key in ("values", "embeddings"):
            got = torch.cat([one[key] for one in found])
            torch.testing.assert_close(got, wanted[key], atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(found[0]["centres"], wanted["centres"], atol=1e-9, rtol=1e-9)
        assert [len(one["centres"]) for one in found[1:]] == [0] * (len(ranks) - 1)  # the first rank writes
        for one in found:
            for key in wanted.keys() - {"values", "embeddings", "centres"}:
                torch.testing.assert_close(one[key], wanted[key], atol=1e-9, rtol=1e-9)
    assert empty or len(ranks) == 2


def test_distillation_over_ranks_is_that_of_one_process(ranks: list[Any]) -> None:
    """Relations of the images of all ranks, the teacher's centres cut into shares, one projection."""
    projected = 0
    for number, case in enumerate(distilled.cases(len(ranks))):
        wanted = distilled.run(case, slice(None))
        found = [rank["taught"][number] for rank in ranks]
        for key in wanted.keys() - {"projection"}:
            got = torch.cat([one[key] for one in found])
            torch.testing.assert_close(got, wanted[key], atol=1e-9, rtol=1e-9)
        for one in found:
            assert one.keys() == wanted.keys()
        for one in found if "projection" in wanted else []:
            projected += 1
            torch.testing.assert_close(one["projection"], wanted["projection"], atol=1e-9, rtol=1e-9)
    assert projected


def test_terms_of_two_views_over_ranks_are_those_of_one_process(ranks: list[Any]) -> None:
    """Octuplets of all ranks' images; queues that all ranks fill alike, until they overflow, with centres that are cut
    into shares."""
    for number, case in enumerate(poor.cases(len(ranks))):
        wanted = poor.run(case, len(ranks), None)
        found = [rank["views"][number] for rank in ranks]
        if "queue" in wanted:
            came = case.labels.numel() * (2 if case.kind == "proxy" else 1)
            assert len(wanted["queue"]) < came - case.labels.shape[1]  # read after the overflow as well
        for key in wanted:
            alike = key == "queue" or "statistics" in key
            for got in [one[key] for one in found] if alike else [torch.cat([one[key] for one in found])]:
                torch.testing.assert_close(got, wanted[key], atol=1e-9, rtol=1e-9)


def test_unequal_batches_are_named_on_every_rank(ranks: list[Any]) -> None:
    numbers = [2 + r for r in range(len(ranks))]
    text = f"images in a rank's batch: {numbers} over the ranks; wanted the same on each"
    assert [rank["unequal"] for rank in ranks] == [text] * len(ranks)
