"""An embedder judged on pairs whose scores are known by construction."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mobileface.data.images import decode
from mobileface.data.pairs import PairSet, contiguous_folds
from mobileface.embedders.contract import InputContract
from mobileface.errors import InputError
from mobileface.evaluation import scores as sc
from mobileface.evaluation.verification import (
    check_names,
    embed,
    evaluate,
    file_name,
    summary,
    worst,
    write_verification,
)  # fmt: skip

PEOPLE, EACH = 40, 4


def png(pixels: np.ndarray) -> bytes:
    """Without loss, so that scores are known exactly."""
    import cv2

    return bytes(cv2.imencode(".png", pixels[..., ::-1])[1])


class Corners:
    """The left and right halves' mean colours, minus grey: six numbers, and the flip swaps them."""

    libraries = ("numpy",)

    def __init__(self, contract: InputContract | None = None) -> None:
        self.path, self.dim, self.sha256 = Path("/somewhere/corners.onnx"), 6, "ab" * 32
        self.contract = contract or InputContract(flip="none")
        self.batches: list[int] = []

    def __call__(self, images: np.ndarray) -> np.ndarray:
        assert images.dtype == np.uint8
        assert images.flags.c_contiguous
        self.batches.append(len(images))
        halves = images.reshape(len(images), 112, 2, 56, 3).astype(np.float64).mean(axis=(1, 3))
        return (halves.reshape(len(images), 6) - 127.5).astype(np.float32)


def make_set(noise: float = 40.0, with_identity: bool = True, seed: int = 0) -> PairSet:
    """160 images of 40 people, 200 pairs in ten folds."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 256, (PEOPLE, 2, 3))
    identity = np.repeat(np.arange(PEOPLE), EACH)
    images = []
    for person in identity:
        halves = np.clip(centres[person] + rng.normal(0, noise, (2, 3)), 0, 255).astype(np.uint8)
        images.append(png(np.repeat(halves, 56, axis=0)[None].repeat(112, axis=0)))
    first = rng.integers(0, len(images), 200)
    same = np.arange(200) % 2 == 0
    shift = np.where(same, 1, EACH * rng.integers(1, PEOPLE, 200))
    second = np.where(same, first // EACH * EACH + (first + 1) % EACH, (first + shift) % len(images))
    return PairSet(
        name="toy:1-10",
        images=tuple(images),
        keys=tuple(f"image <{i}>" for i in range(len(images))),
        first=first,
        second=second,
        same=same,
        fold=contiguous_folds(200),
        identity=identity if with_identity else None,
    )


def slow_unit(pairs: PairSet, i: int, flip: bool) -> np.ndarray:
    pixels = decode(pairs.read(i), "x").astype(np.float64)
    halves = [pixels[:, :56].mean(axis=(0, 1)), pixels[:, 56:].mean(axis=(0, 1))]
    raw = np.concatenate(halves) - 127.5
    if flip:
        raw = raw + np.concatenate(halves[::-1]) - 127.5
    return raw / np.linalg.norm(raw)


@pytest.mark.parametrize("flip", ["sum", "none"])
def test_scores_are_cosines_of_what_was_embedded(flip: str) -> None:
    pairs = make_set()
    found = evaluate(Corners(), pairs, flip)
    units = [slow_unit(pairs, i, flip == "sum") for i in range(len(pairs.images))]
    wanted = [float(units[a] @ units[b]) for a, b in zip(pairs.first, pairs.second, strict=True)]
    np.testing.assert_allclose(found.scores, wanted, atol=1e-6)
    assert found.result["flip"] == found.result["contract"]["flip"] == flip


def test_flip_comes_from_the_contract_unless_given() -> None:
    pairs = make_set()
    assert evaluate(Corners(InputContract(flip="sum")), pairs).result["flip"] == "sum"
    assert evaluate(Corners(InputContract(flip="sum")), pairs, "none").result["flip"] == "none"
    with pytest.raises(InputError, match="flip is 'both', wanted one of sum, none"):
        evaluate(Corners(), pairs, "both")


def test_images_go_in_batches_of_64_and_are_counted() -> None:
    embedder, seen = Corners(), []
    evaluate(embedder, make_set(), "sum", lambda done, total: seen.append((done, total)))
    assert embedder.batches == [64, 64, 64, 64, 32, 32]
    assert seen == [(64, 160), (128, 160), (160, 160)]


def test_result_holds_what_design_12_fixes() -> None:
    pairs = make_set()
    found = evaluate(Corners(), pairs)
    result = json.loads(json.dumps(found.result, allow_nan=False))
    accuracies, thresholds = sc.k_fold(found.scores, pairs.same, pairs.fold)
    assert result["model"] == "corners.onnx"
    assert result["model_sha256"] == "ab" * 32
    assert (result["set"], result["pairs"], result["data_sha256"]) == ("toy:1-10", 200, pairs.sha256)
    assert result["protocol"].startswith("10-fold verification")
    assert result["accuracy"] == np.mean(accuracies)
    assert result["std"] == np.std(accuracies)
    assert result["threshold"] == np.mean(thresholds)
    assert [fold["accuracy"] for fold in result["folds"]] == accuracies.tolist()
    fpr, tpr = sc.roc(found.scores, pairs.same)
    assert (result["auc"], result["eer"]) == (sc.auc(fpr, tpr), sc.eer(fpr, tpr))
    assert 2 <= len(result["roc"]["fpr"]) == len(result["roc"]["tpr"]) <= 200
    assert sum(result["histogram"]["same"]) == sum(result["histogram"]["different"]) == 100
    assert set(result["versions"]) == {"python", "numpy"}
    assert result["seconds"] >= 0


def test_tar_thresholds_come_from_all_impostor_pairs() -> None:
    pairs = make_set()
    found = evaluate(Corners(), pairs)
    units = np.array([slow_unit(pairs, i, False) for i in range(160)])
    scores = units @ units.T
    impostors = [scores[i, j] for i in range(160) for j in range(i) if i // EACH != j // EACH]
    assert found.result["tar_impostors"] == {"source": "all pairs", "pairs": len(impostors)}
    assert set(found.result["tar"]) == {"1e-3", "1e-4"}
    for name, far in (("1e-3", 1e-3), ("1e-4", 1e-4)):
        limit = sorted(impostors, reverse=True)[int(far * len(impostors))]
        assert found.result["tar"][name] == np.mean(found.scores[pairs.same] > limit)


def test_without_identities_the_lists_impostors_must_do_and_small_fars_are_left_out() -> None:
    found = evaluate(Corners(), make_set(with_identity=False))
    assert found.result["tar_impostors"] == {"source": "list", "pairs": 100}
    assert found.result["tar"] == {}  # 100 impostors say nothing about one in a thousand


def test_embedder_that_tells_all_apart() -> None:
    found = evaluate(Corners(), make_set(noise=0.0))
    assert (found.result["auc"], found.result["eer"]) == (1.0, 0.0)
    assert found.result["accuracy"] >= 0.99  # the hardest pair lies between the others' scores, in one fold
    assert worst(found)["false_non_matches"] == []


def test_worst_pairs_are_the_clearest_errors() -> None:
    pairs = make_set(noise=70.0)
    found = evaluate(Corners(), pairs)
    shown = worst(found, count=3)
    limits = [found.result["folds"][fold]["threshold"] for fold in pairs.fold]
    rows = list(zip(found.scores, pairs.same, limits, strict=True))
    matches = sorted((s for s, same, limit in rows if not same and s >= limit), reverse=True)
    misses = sorted(s for s, same, limit in rows if same and s < limit)
    assert len(matches) >= 3 <= len(misses)
    assert [entry["score"] for entry in shown["false_matches"]] == matches[:3]
    assert [entry["score"] for entry in shown["false_non_matches"]] == misses[:3]
    entry = shown["false_matches"][0]
    index = pairs.keys.index(entry["a"])
    assert base64.b64decode(entry["image_a"]) == pairs.read(index)


def test_files_of_a_run_folder(tmp_path: Path) -> None:
    found = evaluate(Corners(), make_set(noise=70.0))
    write_verification(found, tmp_path / "evaluation")
    write_verification(found, tmp_path / "evaluation", "toy.onnx")
    names = sorted(path.name for path in (tmp_path / "evaluation").iterdir())
    assert names == ["toy.onnx.json", "toy.onnx.worst.json", "toy_1-10.json", "toy_1-10.worst.json"]
    assert json.loads((tmp_path / "evaluation" / "toy_1-10.json").read_text()) == found.result
    kept = json.loads((tmp_path / "evaluation" / "toy_1-10.worst.json").read_text())
    assert kept == worst(found)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("cfp-fp:9-10", "cfp-fp_9-10"),
        ("../../etc", "_.._etc"),
        (".hidden", "hidden"),
        ("…", "_"),
        ("", "set"),
    ],
)
def test_file_names_are_safe(name: str, wanted: str) -> None:
    found = file_name(name)
    assert "/" not in found
    assert not found.startswith(".")
    assert found == wanted


def test_two_sets_of_one_name_are_refused() -> None:
    one, other = make_set(), make_set(seed=1)
    check_names([one, replace(other, name="b")], "--on")
    for name in (one.name, one.name.replace(":", "/")):  # both become the same file name
        with pytest.raises(InputError, match=r"^--on: two sets are called 'toy_1-10', and results are kept by name"):
            check_names([one, replace(other, name=name)], "--on")


def test_the_summary_says_why_a_tar_is_not_there() -> None:
    result = evaluate(Corners(), make_set()).result
    assert result["tar_impostors"] == {"source": "all pairs", "pairs": 12480}  # 160 * 156 / 2
    assert (
        f", TAR {result['tar']['1e-3']:.4f} at FAR 1e-3, TAR {result['tar']['1e-4']:.4f} at FAR 1e-4, EER"
        in summary(result)
    )
    few = evaluate(Corners(), make_set(with_identity=False)).result
    assert few["tar"] == {}
    assert "), TAR at FAR 1e-3 and 1e-4: too few impostor pairs (100), EER 0." in summary(few)
    one = {**result, "tar": {"1e-3": 0.5}, "tar_impostors": {"source": "list", "pairs": 3000}}
    assert ", TAR 0.5000 at FAR 1e-3, TAR at FAR 1e-4: too few impostor pairs (3,000), EER" in summary(one)


@pytest.mark.parametrize("damage", [lambda data: data[:60], lambda data: b"", lambda data: b"<html>"])
def test_a_corrupt_image_is_named_never_skipped(damage: Callable[[bytes], bytes]) -> None:
    pairs = make_set()
    images = list(pairs.images)
    assert isinstance(images[70], bytes)
    images[70] = damage(images[70])
    with pytest.raises(InputError, match=r"toy:1-10: image <70>: "):
        evaluate(Corners(), replace(pairs, images=tuple(images)))


def test_embeddings_of_zeros_are_refused() -> None:
    class Zeros(Corners):
        def __call__(self, images: np.ndarray) -> np.ndarray:
            return super().__call__(images) * 0

    with pytest.raises(InputError, match="160 of 160 embeddings are all zero"):
        evaluate(Zeros(), make_set())


def test_embeddings_keep_the_order_of_the_images() -> None:
    pairs = make_set()
    raw = np.stack([Corners()(decode(pairs.read(i), "x")[None])[0] for i in range(160)])
    flipped = np.stack([Corners()(decode(pairs.read(i), "x")[None, :, ::-1].copy())[0] for i in range(160)])
    single, judged = embed(Corners(), pairs, "none")
    np.testing.assert_array_equal(single, raw)
    np.testing.assert_array_equal(judged, raw)
    single, judged = embed(Corners(), pairs, "sum")
    np.testing.assert_array_equal(single, raw)
    np.testing.assert_array_equal(judged, raw + flipped)


@pytest.mark.parametrize("with_identity", [True, False])
def test_thresholds_of_single_embeddings(with_identity: bool) -> None:
    """The lowest that keeps the FAR among all impostor pairs, by a slow loop, whatever the flip."""
    pairs = make_set(with_identity=with_identity)
    units = np.stack([Corners()(decode(pairs.read(i), "x")[None])[0] for i in range(160)]).astype(np.float64)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    if pairs.identity is None:
        impostors = [
            units[a] @ units[b] for a, b, s in zip(pairs.first, pairs.second, pairs.same, strict=True) if not s
        ]
    else:
        who = pairs.identity
        impostors = [units[i] @ units[j] for i in range(160) for j in range(i) if who[i] != who[j]]
    for flip in ("none", "sum"):
        found = evaluate(Corners(), pairs, flip).result["single_thresholds"]
        assert found.keys() == ({"1e-3", "1e-4"} if with_identity else set())  # 100 listed impostors resolve neither
        for far, threshold in found.items():
            most = int(float(far) * len(impostors) + 1e-9)
            assert sum(score >= threshold + 1e-6 for score in impostors) <= most
            assert sum(score >= threshold - 1e-6 for score in impostors) >= most + 1
