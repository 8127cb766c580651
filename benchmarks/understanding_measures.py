"""What `python -m benchmarks.understanding` measures beside `mobileface understand`."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

Json = dict[str, Any]
QUALITIES = ("lgf.local_quality", "lgf.global_quality")  # modules of an LGAF
MANY_CLASSES, WIDE = 93_431, 512  # people of MS1M-RetinaFace, and the usual width of an embedding


def watched(plan: Json, folder: Path) -> Json:
    """What the log of a run says of `watch`, behind a row of the network before its first step; the ways of single
    images without that row."""
    from mobileface.understanding.watched import read_watched

    with tempfile.TemporaryDirectory() as temporary:
        log = Path(temporary) / "log.jsonl"
        first = json.dumps({"event": "quality", "images": 0, **untrained(plan, Path(temporary) / "run")})
        log.write_text(f"{first}\n{(folder / 'log.jsonl').read_text()}")
        found = read_watched(log)
    assert found is not None
    found["tracked"] = {name: rows[1:] for name, rows in found["tracked"].items()}  # its norms are of another size
    return found


def untrained(plan: Json, folder: Path) -> Json:
    """The log's row of a training that has not begun: the same network, classifier and images."""
    from mobileface.factory import find_plan_arch, open_faces
    from mobileface.training.plan import parse_plan
    from mobileface.training.trainer import prepare
    from mobileface.training.watch import watch

    parsed = parse_plan(plan, plan["name"])
    trainer, _ = prepare(parsed, find_plan_arch(parsed), folder, open_faces(parsed), None, print)
    assert trainer.watched is not None
    return watch(trainer.network, trainer.terms, trainer.watched, trainer.device)


def margin_statistics(folder: Path) -> Json | None:
    """Where AdaFace's running mean and deviation of the norm stood behind the last step; None for another margin."""
    saved = load_file(folder / "checkpoints" / "last.safetensors")
    key = "terms.classification.margin.statistics."
    return {name: float(saved[key + name]) for name in ("mean", "std")} if f"{key}mean" in saved else None


def local_share(embedder: Any) -> Any:
    """Images (B, 112, 112, 3) -> the attention weight (B,) that an LGAF gives to its local feature."""
    from mobileface.models.lgaf import shares
    from mobileface.understanding.inside import outputs

    def measure(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
        with outputs(embedder.network, QUALITIES) as found:
            embedder(images)
        local, _ = shares(*(found[name] for name in QUALITIES))
        return {"share of local": local[:, 0].double().cpu().numpy()}

    return measure


def gates(embedder: Any) -> Any:
    """Images (B, 112, 112, 3) -> all LANet gates of an LGAF, (B, heads x scales x places)."""
    from mobileface.understanding.maps import maps_of

    def measure(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
        found = [m.values.reshape(len(images), -1) for m in maps_of(embedder, images) if m.label.startswith("gate")]
        return {"gates": np.concatenate(found, 1)}

    return measure


def spread(values: NDArray[np.float64]) -> Json:
    """Of numbers of any shape."""
    low, high = np.quantile(values, (0.05, 0.95))
    facts = {"mean": values.mean(), "std": values.std(), "0.05": low, "0.95": high}
    return {name: float(value) for name, value in (facts | {"least": values.min(), "most": values.max()}).items()}


class Pixels(torch.nn.Module):
    """(B, 3, 112, 112) -> (B, WIDE): the first pixels, an embedding that costs nothing."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.flatten(1)[:, :WIDE]


def watching_cost(images: int = 256) -> Json:
    """Processor seconds of one row of the log: by the network `tiny` alone, and by a large classifier alone."""
    from mobileface.losses.classifier import Classifier
    from mobileface.losses.margins import ArcFace
    from mobileface.models import build
    from mobileface.training.watch import LEVELS, Watched, watch
    from mobileface.zoo import find_arch

    torch.set_num_threads(1)
    crops = np.random.default_rng(0).integers(0, 256, (images, 112, 112, 3), np.uint8)
    watched = Watched(crops, torch.arange(images))

    def seconds(network: torch.nn.Module, **terms: torch.nn.Module) -> float:
        began = time.process_time()
        watch(network, torch.nn.ModuleDict(terms), watched, torch.device("cpu"))
        return round(time.process_time() - began, 2)

    return {
        "images": images,
        "embedded": images * len(LEVELS),
        "cpu_seconds": seconds(build(find_arch("tiny"))),
        "classes": MANY_CLASSES,
        "embedding_dim": WIDE,
        "classifier_cpu_seconds": seconds(Pixels(), classification=Classifier(MANY_CLASSES, WIDE, ArcFace())),
    }
