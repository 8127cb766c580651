"""Norm and probability of the own class against the quality of images, while a network trains (AdaFace, Figs. 4 and 6).

A fixed sample of training images is embedded at every validation, each as it is and degraded by known amounts, so that
the quality of what is embedded is known. The cost: one forward of the network for each image and level, about what a
validation costs where both embed as many images, and with a classifier a cosine to every centre for each of them.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mobileface.correlation import pearson
from mobileface.data.faces import FaceSource
from mobileface.data.faceset import FaceSet, Split
from mobileface.data.images import SIZE, BadImage, Image, decode
from mobileface.data.recordio import RecordFaces
from mobileface.distributed import sum_over_ranks
from mobileface.errors import InputError, one_line
from mobileface.losses.classifier import Classifier
from mobileface.losses.forward import unit
from mobileface.losses.streamed import Classes, others_and_own

TRACKED = 16  # images of which the log keeps every norm and probability
BATCH = 100  # images that are embedded at once
ROWS = 2048  # embeddings that are held against all centres at once: 256 images at every level
MAX_FACTORS_BYTES = 1 << 28  # of a factors.csv: that of two million pictures


log = logging.getLogger(__name__)


def _coarse(image: Image, side: int) -> Image:
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC), np.uint8)


def _moved(image: Image, length: int) -> Image:
    return np.asarray(cv2.blur(image, (length, 1)), np.uint8)


@dataclass(frozen=True)
class Ladder:
    """One way to degrade an image: from the clean one downwards, in px."""

    steps: tuple[int, ...]
    degrade: Callable[[Image, int], Image]
    quality: Callable[[int], float]  # of a step; the clean image has 0


LADDERS = {
    # side of the picture before it was enlarged to 112; quality in octaves
    "resolution": Ladder((56, 28, 14), _coarse, lambda side: float(np.log2(side / SIZE))),
    # length of a sideways movement, LGAF's levels; quality in px
    "blur": Ladder((6, 12, 18), _moved, lambda length: -float(length)),
}
LEVELS = [("clean", 0), *((kind, step) for kind, ladder in LADDERS.items() for step in ladder.steps)]


@dataclass(frozen=True)
class Watched:
    """images (N, 112, 112, 3) uint8, clean; classes (N,) int64 of them in training, all UNLABELLED or none."""

    images: NDArray[np.uint8]
    classes: Tensor


def watch_sample(faces: FaceSet, split: Split, count: int, seed: int) -> tuple[Watched | None, list[str]]:
    """`count` training images, drawn by `seed`: with a label if there are such; of procedural faces clean ones.

    None for a count of 0. Second: what is wrong with each bad image on the way. InputError where none can be used; a
    warning where there are fewer.
    """
    if not count:
        return None, []
    labelled = split.train[split.classes[split.train] >= 0]
    rng = np.random.Generator(np.random.Philox(key=[seed, 3]))
    poor = {source: poor_pictures(source) for source in faces.sources}
    images: list[Image] = []
    chosen: list[int] = []
    skipped: list[str] = []
    for i in rng.permutation(labelled if len(labelled) else split.train):
        if len(images) == count:
            break
        source, place = faces.locate(i)
        key = source.key(place)
        if key in poor[source]:
            continue
        try:
            images.append(decode(source.read(place), key))
            chosen.append(i)
        except BadImage as error:
            skipped.append(str(error))
    if not images:
        wanted = f"wanted clean ones to watch; the last: {skipped[-1]}" if skipped else "wanted clean ones to watch"
        raise InputError(f"none of the {len(split.train)} training images can be used; {wanted}")
    if len(images) < count:
        log.warning("watch: %d images, not %d: the training set holds no more clean ones", len(images), count)
    return Watched(np.stack(images), torch.from_numpy(split.classes[chosen])), skipped


def poor_pictures(source: FaceSource) -> set[str]:
    """Keys of the procedural pictures that are blurred, coarse or covered, by the factors.csv beside their .rec.

    Empty where there is none. InputError for one that cannot be read.
    """
    if not isinstance(source, RecordFaces) or not (path := source.rec.with_name("factors.csv")).is_file():
        return set()
    if path.stat().st_size > MAX_FACTORS_BYTES:
        raise InputError(f"{path}: is larger than {MAX_FACTORS_BYTES} bytes; not a table of factors")
    poor = set()
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                whole = float(row["resolution_px"]) >= SIZE and float(row["occlusion"]) <= 0
                if row["file"] == source.rec.name and not (whole and float(row["blur_px"]) <= 0):
                    poor.add(f"{row['file']}:{row['key']}")
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"{path}: is no table of factors ({reason}); wanted the one of `data synth`") from None
    return poor


def watch(network: nn.Module, terms: nn.ModuleDict, watched: Watched, device: torch.device) -> dict[str, Any]:
    """The log's row: for each ladder the correlation of norm and probability with the quality, over all its levels.

    resolution_norm, resolution_probability, blur_norm, blur_probability: Pearson, None where nothing varies. levels:
    mean and deviation at each. tracked: norm and probability of the first images, one list over the levels for each.
    Probability is that of the own class under plain softmax; without a classifier or labels it is left out. Every rank
    must call it, with the same sample.
    """
    training = network.training
    network.eval()
    columns = _measure(network, terms, watched, device)
    network.train(training)
    row: dict[str, Any] = {}
    for kind, ladder in LADDERS.items():
        places = [at for at, (name, _) in enumerate(LEVELS) if name in ("clean", kind)]
        quality = np.tile([0.0, *map(ladder.quality, ladder.steps)], len(watched.images))
        row |= {f"{kind}_{name}": pearson(quality, values[:, places].ravel()) for name, values in columns.items()}
    row["levels"] = [
        {"kind": kind, "px": step}
        | {name: float(values[:, at].mean()) for name, values in columns.items()}
        | {f"{name}_std": float(values[:, at].std()) for name, values in columns.items()}
        for at, (kind, step) in enumerate(LEVELS)
    ]
    return row | {"tracked": {name: values[:TRACKED].round(4).tolist() for name, values in columns.items()}}


@torch.inference_mode()
def _measure(
    network: nn.Module, terms: nn.ModuleDict, watched: Watched, device: torch.device
) -> dict[str, NDArray[np.float64]]:
    """(N, levels) norms and, where there are a classifier and labels, (N, levels) probabilities."""
    embeddings = torch.cat([_embed(network, watched.images, *level, device) for level in LEVELS])
    found = {"norm": torch.linalg.vector_norm(embeddings, dim=1)}
    classifier = dict(terms.named_children()).get("classification")
    if isinstance(classifier, Classifier) and bool((watched.classes >= 0).all()):
        labels = watched.classes.to(device).repeat(len(LEVELS))
        parts = zip(embeddings.split(ROWS), labels.split(ROWS), strict=True)
        found["probability"] = torch.cat([probability(classifier, *part) for part in parts])
    return {name: values.double().reshape(len(LEVELS), -1).T.cpu().numpy() for name, values in found.items()}


def _embed(network: nn.Module, images: NDArray[np.uint8], kind: str, step: int, device: torch.device) -> Tensor:
    """(N, D) float32 of all images at one level."""
    found = []
    for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH]
        if kind in LADDERS:
            part = np.stack([LADDERS[kind].degrade(image, step) for image in part])
        found.append(network(torch.from_numpy(part).to(device).permute(0, 3, 1, 2).float()).float())
    return torch.cat(found)


def probability(classifier: Classifier, embeddings: Tensor, labels: Tensor) -> Tensor:
    """(N,) float64: P_y under plain softmax over the centres of all ranks, without margin or sampling.

    Every rank must call it with the same embeddings (N, D) and labels (N,).
    """
    rows = labels - classifier.shard.start  # of this rank's share; other labels lie outside
    units, target = unit(embeddings.to(classifier.centres.dtype)), torch.zeros_like(embeddings[:, 0])
    every = Classes(None, classifier.chunk)
    own, others = others_and_own(units, classifier.centres, rows, target, scale=classifier.scale, classes=every)
    odds = torch.exp((others - classifier.scale * sum_over_ranks(own)).double())  # of this rank's classes against y
    return 1 / (1 + sum_over_ranks(odds))
