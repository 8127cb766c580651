"""Partition and pair distances of runs that were trained with each queue, against slow loops over their files."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobileface.embedders.network import NetworkEmbedder
from mobileface.factory import find_plan_arch
from mobileface.models.build import network as network_of
from mobileface.training import checkpoint
from mobileface.training.plan import read_plan
from mobileface.understanding.distances import EDGES
from mobileface.understanding.partition import PLACES, SHOWN, picks
from tests.understanding.mixed_runs import QUEUES, Json, looked, opened, pairs


def length(vector: Any) -> float:
    return math.sqrt(sum(float(value) ** 2 for value in vector))


def cosine(one: Any, two: Any) -> float:
    return sum(float(a) * float(b) for a, b in zip(one, two, strict=True)) / (length(one) * length(two))


@pytest.mark.parametrize("name", ["proxy", "momentum", "batch", "partition"])
def test_the_partition_by_a_slow_loop(name: str, runs: Path) -> None:
    numbers, pictures = looked(runs, name)
    found, embedder = numbers["partition"], opened(runs / name)
    tensors, _ = checkpoint.load(runs / name / "checkpoints" / "best.safetensors")
    by = "classification" if name == "partition" else "contrastive"
    mean, std = (float(tensors[f"terms.{by}.gate.statistics.{part}"]) for part in ("mean", "std"))
    rows, norms, low_samples, low_pairs = [], [], {"clean": 0, "degraded": 0}, 0
    for clean, degraded, _ in pairs(runs, name):
        row = {}
        for view, image in (("clean", clean), ("degraded", degraded)):
            if image is not None:
                norms.append(length(embedder(image[None])[0]))
                z = max(-1.0, min(1.0, (norms[-1] - mean) / (std + 1e-3) / 3))
                row[view] = (z + 1) / 2
                low_samples[view] += row[view] <= 0.45
        low_pairs += min(row.values()) <= found["threshold"]
        rows.append((row, np.stack([image for image in (clean, degraded) if image is not None])))
    assert (found["by"], found["threshold"]) == (by, 0.45 if name == "partition" else 0.5)
    assert (found["mean"], found["std"]) == (mean, std)
    assert found["drawn_mean"] == pytest.approx(np.mean(norms))
    assert found["drawn_std"] == pytest.approx(np.std(norms), rel=1e-4)
    assert found["pairs_low"] == low_pairs / len(rows)
    assert 0 < low_pairs < len(rows)
    assert found["samples_low"] == {view: low_samples[view] / len(rows) for view in rows[0][0]}
    assert numbers["images"] == numbers["whole"] == len(rows)
    shown = [row for place in PLACES for row in found["shown"][place]]
    assert len(pictures) == len(shown) == 3 * min(SHOWN, len(rows) // 3)
    for row, picture in zip(shown, pictures, strict=True):
        values, images = rows[row["index"]]
        assert {view: row[view] for view in values} == pytest.approx(values, abs=1e-5)
        assert row["low"] == (min(values.values()) <= found["threshold"])
        np.testing.assert_array_equal(picture, images)
    lowest = sorted(min(row.values()) for row, _ in rows)
    found_lowest = [min(row[view] for view in rows[0][0]) for row in found["shown"]["lowest"]]
    assert found_lowest == pytest.approx(lowest[: len(found_lowest)], abs=1e-5)


@pytest.mark.parametrize("name", [*QUEUES, "everything"])
def test_distances_by_a_slow_loop(name: str, runs: Path) -> None:
    numbers, _ = looked(runs, name)
    found, embedder = numbers["distances"], opened(runs / name)
    tensors, _ = checkpoint.load(runs / name / "checkpoints" / "best.safetensors")
    keyed = embedder
    if name == "momentum":
        network = network_of(find_plan_arch(read_plan(runs / name / "plan.yaml")))
        network.load_state_dict(checkpoint.part(tensors, "terms.contrastive.encoder.copy."))
        keyed = NetworkEmbedder(network, runs, "")
    rows = [(embedder(d[None])[0], keyed(c[None])[0], label) for c, d, label in pairs(runs, name)]
    positive = [1 - cosine(query, key) for query, key, _ in rows]
    negative = []
    for i, (query, _, label) in enumerate(rows):
        if name == "batch":
            batch = rows[i - i % 8 : i - i % 8 + 8]
            others = [(f, their) for q, k, their in batch for f in (q, k)]
        else:
            others = list(queue(tensors, proxy=name != "momentum"))
        negative += [1 - cosine(query, feature) for feature, their in others if their != label]
    assert found["queue"] == ("proxy" if name == "everything" else name)
    for kind, wanted in (("positive", positive), ("negative", negative)):
        assert found[kind]["count"] == len(wanted) > 0
        assert found[kind]["mean"] == pytest.approx(np.mean(wanted), abs=1e-6)
        assert found[kind]["std"] == pytest.approx(np.std(wanted), abs=1e-5)
        assert sum(found[kind]["counts"]) == len(wanted)
        moved = np.abs(np.cumsum(found[kind]["counts"]) - np.cumsum(np.histogram(wanted, EDGES)[0]))
        assert moved.max() <= 0.02 * len(wanted) + 1  # but for those that rounding moves over an edge
    assert (numbers["partition"] is None) == (name == "everything")


def queue(tensors: Json, proxy: bool) -> Iterator[tuple[Any, int]]:
    """The features of a queue as they are now, and their labels."""
    parts = checkpoint.part(tensors, "terms.contrastive.queue.")
    for place, label in enumerate(parts["labels"].tolist()):
        feature = parts["features"][place].double()
        if proxy:
            now, then = tensors["terms.classification.centres"][label].double(), parts["proxies"][place].double()
            feature = feature + length(feature) / length(then) * (now - then)
        yield feature, label


@pytest.mark.parametrize("place", ["nothing", "labels"])
def test_an_empty_place_of_a_queue_is_nobody(place: str, runs: Path, tmp_path: Path) -> None:
    """Half a queue is empty: half as many negatives, those of the other places; an empty one has none."""
    shutil.copytree(runs / "proxy", tmp_path / "run")
    best = tmp_path / "run" / "checkpoints" / "best.safetensors"
    tensors, state = checkpoint.load(best)
    tensors["terms.contrastive.queue.labels"][: 6 if place == "labels" else 12] = -1
    checkpoint.save(best, tensors, state)
    found = looked(tmp_path, "run")[0]["distances"]["negative"]
    left = tensors["terms.contrastive.queue.labels"].tolist()
    wanted = sum(label not in (their, -1) for _, _, their in pairs(runs, "proxy") for label in left)
    assert found["count"] == wanted
    assert (found["mean"] is None) == (wanted == 0) == (place == "nothing")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60).map(np.array), st.floats(0, 1), st.integers(1, 10))
def test_who_is_shown(lower: Any, threshold: float, shown: int) -> None:
    found = picks(lower, threshold, shown)
    assert list(found) == list(PLACES)
    low, around, high = (lower[found[place]] for place in PLACES)
    count = max(1, min(shown, len(lower) // 3))
    ordered = np.sort(lower)
    assert low.tolist() == ordered[:count].tolist()
    assert high.tolist() == ordered[-count:].tolist()
    assert around.tolist() == sorted(around)
    assert len(around) == count
    if len(lower) >= 3:
        assert len({i for place in found.values() for i in place}) == 3 * count
    below, above = (ordered <= threshold).sum(), (ordered > threshold).sum()
    if min(below, above) >= 2 * count:
        assert (around <= threshold).sum() == (count + 1) // 2
        assert around.min() >= ordered[below - count]
        assert around.max() <= ordered[below + count - 1]
