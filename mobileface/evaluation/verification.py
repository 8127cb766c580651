"""Verification: are two images of one person? An embedder is judged on a set of pairs."""

from __future__ import annotations

import base64
import platform
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobileface.data.images import decode
from mobileface.data.pairs import PairSet
from mobileface.embedders.contract import CHOICES, Embedder, mirrored
from mobileface.errors import InputError
from mobileface.evaluation import scores as sc
from mobileface.files import write_json

BATCH = 64
FARS = {"1e-3": 1e-3, "1e-4": 1e-4}
WORST = 16  # pairs of each kind that are kept for the report

Progress = Callable[[int, int], None]  # images done, images in all


@dataclass(frozen=True, eq=False)
class Verification:
    """An embedder's scores on a pair set, and the result made of them (the object of `evaluate --json`)."""

    pair_set: PairSet
    scores: NDArray[np.float64]  # (P,), cosines
    thresholds: NDArray[np.float64]  # (P,), the threshold that judged the pair: that of its fold
    result: dict[str, Any]


def evaluate(
    embedder: Embedder, pair_set: PairSet, flip: str | None = None, progress: Progress | None = None
) -> Verification:
    """Judge `embedder` by K-fold verification; `flip` None means the one of its contract.

    Raises InputError for an image that does not decode: an evaluation set is whole or not used.
    """
    flip = embedder.contract.flip if flip is None else flip
    if flip not in CHOICES["flip"]:
        raise InputError(f"flip is {flip!r}, wanted one of {', '.join(CHOICES['flip'])}")
    begin = time.perf_counter()
    single, judged = embed(embedder, pair_set, flip, progress)
    units = sc.unit(judged)
    scores = sc.cosines(units, pair_set.first, pair_set.second)
    accuracies, thresholds = sc.k_fold(scores, pair_set.same, pair_set.fold)
    result = {
        **_describe(embedder, pair_set, flip, len(accuracies)),
        "accuracy": float(accuracies.mean()),
        "std": float(accuracies.std()),  # over the folds, ddof 0, as InsightFace prints it
        "threshold": float(thresholds.mean()),
        "folds": [
            {"accuracy": float(accuracy), "threshold": float(threshold)}
            for accuracy, threshold in zip(accuracies, thresholds, strict=True)
        ],
        **_curves(scores, pair_set.same),
        **_tar(units, scores, pair_set),
        "single_thresholds": _single_thresholds(single, pair_set),
        "seconds": round(time.perf_counter() - begin, 3),
    }
    judge = np.unique(pair_set.fold, return_inverse=True)[1]
    return Verification(pair_set, scores, thresholds[judge], result)


def embed(
    embedder: Embedder, pair_set: PairSet, flip: str, progress: Progress | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Raw embeddings (N, D) of the images, alone and as judged: with flip "sum", plus those of the mirror images."""
    total = len(pair_set.images)
    single = np.empty((total, embedder.dim), np.float32)
    judged = np.empty_like(single) if flip == "sum" else single
    for start in range(0, total, BATCH):
        indices = range(start, min(start + BATCH, total))
        images = np.stack([decode(pair_set.read(i), f"{pair_set.name}: {pair_set.key(i)}") for i in indices])
        place = slice(start, indices.stop)
        single[place] = embedder(images)
        if flip == "sum":
            judged[place] = single[place] + embedder(mirrored(images))
        if progress is not None:
            progress(indices.stop, total)
    return single, judged


def write_verification(verification: Verification, folder: Path, name: str | None = None) -> None:
    """Write NAME.json (the result) and NAME.worst.json (the worst errors, with their images in base64).

    `name` None means the set's name; what a file name cannot hold becomes `_`.
    """
    name = file_name(verification.pair_set.name if name is None else name)
    write_json(folder / f"{name}.json", verification.result)
    write_json(folder / f"{name}.worst.json", worst(verification))


def summary(result: dict[str, Any]) -> str:
    """A result in one line."""
    tar = [f"TAR {value:.4f} at FAR {far}" for far, value in result["tar"].items()]
    if few := [far for far in FARS if far not in result["tar"]]:
        tar.append(f"TAR at FAR {' and '.join(few)}: too few impostor pairs ({result['tar_impostors']['pairs']:,})")
    return (
        f"{result['set']}: accuracy {result['accuracy']:.4f} +- {result['std']:.4f} ({result['protocol']}, "
        f"{result['pairs']} pairs, flip {result['flip']}), {', '.join(tar)}, EER {result['eer']:.4f}, "
        f"AUC {result['auc']:.4f}"
    )


def check_names(pair_sets: Iterable[PairSet], where: str) -> None:
    """InputError for two sets whose results would be kept under one name."""
    names = [file_name(pair_set.name) for pair_set in pair_sets]
    if clash := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{where}: two sets are called {clash[0]!r}, and results are kept by name; rename one file")


def file_name(name: str) -> str:
    """`name` with letters, digits, `.`, `_` and `-` kept: "cfp-fp:9-10" -> "cfp-fp_9-10"."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".") or "set"


def worst(verification: Verification, count: int = WORST) -> dict[str, list[dict[str, Any]]]:
    """The pairs that were judged wrongly, the clearest errors first, at most `count` of each kind."""
    pair_set, scores = verification.pair_set, verification.scores
    accepted = scores >= verification.thresholds
    falsely_matched = np.flatnonzero(accepted & ~pair_set.same)
    falsely_rejected = np.flatnonzero(~accepted & pair_set.same)
    highest = falsely_matched[np.argsort(-scores[falsely_matched], kind="stable")][:count]
    lowest = falsely_rejected[np.argsort(scores[falsely_rejected], kind="stable")][:count]
    return {
        "false_matches": [_show(pair_set, scores, int(p)) for p in highest],
        "false_non_matches": [_show(pair_set, scores, int(p)) for p in lowest],
    }


def _show(pair_set: PairSet, scores: NDArray[np.float64], pair: int) -> dict[str, Any]:
    a, b = int(pair_set.first[pair]), int(pair_set.second[pair])
    return {
        "a": pair_set.key(a),
        "b": pair_set.key(b),
        "score": float(scores[pair]),
        "image_a": base64.b64encode(pair_set.read(a)).decode("ascii"),
        "image_b": base64.b64encode(pair_set.read(b)).decode("ascii"),
    }


def _describe(embedder: Embedder, pair_set: PairSet, flip: str, folds: int) -> dict[str, Any]:
    """Who was judged, on what, how and by which versions."""
    contract = {**embedder.contract.to_dict(), "flip": flip}
    libraries = {name: version(name) for name in embedder.libraries}
    return {
        "model": embedder.path.resolve().name,
        "model_sha256": embedder.sha256,
        "set": pair_set.name,
        "data_sha256": pair_set.sha256,
        "protocol": f"{folds}-fold verification by cosine, a fold's threshold from all other folds",
        "pairs": len(pair_set.same),
        "images": len(pair_set.images),
        "flip": flip,
        "contract": contract,
        "versions": {"python": platform.python_version(), **libraries},
    }


def _curves(scores: NDArray[np.float64], same: NDArray[np.bool_]) -> dict[str, Any]:
    fpr, tpr = sc.roc(scores, same)
    thin_fpr, thin_tpr = sc.thin_roc(fpr, tpr)
    return {
        "auc": sc.auc(fpr, tpr),
        "eer": sc.eer(fpr, tpr),
        "roc": {"fpr": thin_fpr.tolist(), "tpr": thin_tpr.tolist()},
        "histogram": sc.histogram(scores, same),
    }


def _tar(units: NDArray[np.float32], scores: NDArray[np.float64], pair_set: PairSet) -> dict[str, Any]:
    """TAR of the listed genuine pairs at each FAR that the number of impostors can resolve.

    The impostors are all pairs of different people among the set's images, where it is known who they are,
    else those of the list. A FAR below 1 / (number of impostors) is left out.
    """
    genuine = scores[pair_set.same]
    highest, impostors = _impostors(units, scores, pair_set)
    tar = {
        name: sc.tar_at_far(genuine, highest, impostors, far)
        for name, far in FARS.items()
        if sc.allowed(far, impostors) >= 1
    }
    source = "list" if pair_set.identity is None else "all pairs"
    return {"tar": tar, "tar_impostors": {"source": source, "pairs": impostors}}


def _single_thresholds(single: NDArray[np.float32], pair_set: PairSet) -> dict[str, float]:
    """By FAR, the lowest threshold that keeps it between single embeddings, as an application has them."""
    units = sc.unit(single)
    scores = sc.cosines(units, pair_set.first, pair_set.second)
    highest, impostors = _impostors(units, scores, pair_set)
    resolved = {name: sc.allowed(far, impostors) for name, far in FARS.items()}
    found = {name: float(np.nextafter(highest[k], 2)) for name, k in resolved.items() if 1 <= k < impostors}
    return {name: threshold for name, threshold in found.items() if threshold <= 1}  # else strangers are too equal


def _impostors(
    units: NDArray[np.float32], scores: NDArray[np.float64], pair_set: PairSet
) -> tuple[NDArray[np.float64], int]:
    """The highest impostor scores, highest first, as many as the highest FAR needs, and the number of all."""
    if pair_set.identity is None:
        highest = np.sort(scores[~pair_set.same])[::-1]
        return highest, len(highest)
    impostors = sc.count_impostors(pair_set.identity)
    return sc.top_impostors(units, pair_set.identity, sc.allowed(max(FARS.values()), impostors) + 1), impostors
