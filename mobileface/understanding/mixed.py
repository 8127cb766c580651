"""What a run keeps for images of mixed quality, QGFace's partition and queue, held against images drawn anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mobileface.arch import load_arch
from mobileface.embedders.contract import Embedder
from mobileface.embedders.network import NetworkEmbedder
from mobileface.errors import InputError, one_line
from mobileface.losses.centres import Centres
from mobileface.losses.forward import unit
from mobileface.losses.quality_gate import QualityGate
from mobileface.losses.queues import ProxyQueue, Queue
from mobileface.models.build import network as network_of
from mobileface.training import checkpoint
from mobileface.training.plan import Plan
from mobileface.training.plan_phases import Phase
from mobileface.training.plan_terms import Classification, Contrastive
from mobileface.understanding.distances import Block, Features, Labels, of_batches, of_queue, pair_distances
from mobileface.understanding.drawn import Drawn, draw
from mobileface.understanding.inside import BATCH, Images, lengths
from mobileface.understanding.partition import partition

NO_CHECKPOINT = "checkpoints/best.safetensors, which holds its statistics and its queue, is not there."
NO_FACES = "its training faces are not where its plan says, or cannot be read, and --data gives no others."
STRANGER = -2  # label of an image whose identity is none of the training's


@dataclass(frozen=True)
class Kept:
    """Of a checkpoint: the gates of the terms that have a threshold; the queue's features now, of length one, and
    their labels; the momentum encoder. The latter are None where there are none."""

    gates: dict[str, QualityGate]
    queue: tuple[Features, Labels] | None
    encoder: NetworkEmbedder | None


def mixed_terms(plan: Plan | None) -> dict[str, Classification | Contrastive]:
    """Terms of the last phase by kind, where one of them partitions by quality or learns by contrast; else empty."""
    terms = plan.phases[-1].terms if plan is not None else []
    found: dict[str, Classification | Contrastive] = {
        term.kind: term for term in terms if isinstance(term, Classification | Contrastive)
    }
    return found if "contrastive" in found or _thresholds(found) else {}


def _thresholds(terms: dict[str, Classification | Contrastive]) -> dict[str, float]:
    return {kind: term.threshold for kind, term in terms.items() if not isinstance(term.threshold, str)}


def look_mixed(
    name: str, folder: Path, embedder: NetworkEmbedder, plan: Plan | None, data: Path | None
) -> tuple[dict[str, Any] | None, Images | None]:
    """The numbers of a run, and the pictures of the pairs that they say are shown, (pairs, views, 112, 112, 3).

    None for a run whose last phase neither partitions nor learns by contrast. Where the checkpoint or all faces are
    missing, the numbers are only what is missing, in words. InputError for a checkpoint that is damaged or does not
    fit the plan. Networks are in eval mode: in training batch norms saw the batch instead.
    """
    if plan is None or not (terms := mixed_terms(plan)):
        return None, None
    file = folder / "checkpoints" / "best.safetensors"
    if not file.is_file():
        return {"missing": NO_CHECKPOINT}, None
    kept = open_kept(file, folder, terms, embedder)
    if (drawn := draw(plan, data, name)) is None:
        return {"missing": NO_FACES}, None
    embedded = {view: embed(embedder, images) for view, images in drawn.views.items()}
    numbers: dict[str, Any] = {"missing": None, "own": drawn.own, "images": len(drawn.labels), "whole": drawn.whole}
    numbers |= {"partition": None, "distances": None}
    pictures = None
    if kept.gates:
        read = getattr(terms.get("classification"), "views", list(embedded))
        views = list(embedded) if "contrastive" in kept.gates else [view for view in embedded if view in read]
        numbers["partition"] = partition(kept.gates, {view: lengths(embedded[view]) for view in views}, read)
        chosen = [row["index"] for rows in numbers["partition"]["shown"].values() for row in rows]
        pictures = np.stack([drawn.views[view][chosen] for view in views], axis=1)
    if isinstance(term := terms.get("contrastive"), Contrastive):
        queries = units(embedded["degraded"])
        keys = units(embedded["clean"] if kept.encoder is None else embed(kept.encoder, drawn.views["clean"]))
        labels, blocks = _negatives(kept, drawn, queries, keys, plan.phases[-1])
        numbers["distances"] = {"queue": term.queue, **pair_distances(queries, keys, labels, blocks)}
    return numbers, pictures


def _negatives(
    kept: Kept, drawn: Drawn, queries: Features, keys: Features, phase: Phase
) -> tuple[Labels, Iterator[Block]]:
    """The queries' labels, and what they are held against. A queue's labels are the training's: of another set's people
    none counts as one of them."""
    if kept.queue is None:
        return drawn.labels, of_batches(queries, keys, drawn.labels, phase.batch // phase.accumulate)
    return drawn.labels if drawn.own else np.full_like(drawn.labels, STRANGER), of_queue(*kept.queue)


def open_kept(
    file: Path, folder: Path, terms: dict[str, Classification | Contrastive], embedder: NetworkEmbedder
) -> Kept:
    """Read a checkpoint. InputError for one that is damaged or lacks what the plan's terms keep."""
    tensors, _ = checkpoint.load(file)
    parts = {kind: checkpoint.part(tensors, f"terms.{kind}.") for kind in terms}
    try:
        gates = {kind: _gate(b, parts[kind]) for kind, b in _thresholds(terms).items()}
        term = terms.get("contrastive")
        if not isinstance(term, Contrastive) or term.queue == "batch":
            return Kept(gates, None, None)
        centres = None if term.queue == "momentum" else parts["classification"]["centres"]
        queue = _queue(checkpoint.part(parts["contrastive"], "queue."), embedder.dim, centres)
        encoder = None if centres is not None else _encoder(folder, parts["contrastive"], embedder)
    except (KeyError, IndexError, RuntimeError) as error:
        raise InputError(f"{file}: belongs to another plan than {folder / 'plan.yaml'} ({one_line(error)})") from None
    return Kept(gates, queue, encoder)


def _gate(threshold: float, tensors: dict[str, Tensor]) -> QualityGate:
    gate = QualityGate(threshold).eval()
    gate.load_state_dict(checkpoint.part(tensors, "gate."))
    return gate


def _queue(tensors: dict[str, Tensor], dim: int, centres: Tensor | None) -> tuple[Features, Labels]:
    """centres: of a proxy queue, all of them."""
    size = len(tensors["labels"])
    queue = Queue(size, dim) if centres is None else ProxyQueue(size, dim, Centres(lambda: centres))
    queue.eval().load_state_dict(tensors)
    pieces = queue.negatives(torch.zeros(0, dim), torch.zeros(0, dtype=torch.int64))
    features, labels = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    filled = labels >= 0
    return features[filled].double().numpy(), labels[filled].numpy()


def _encoder(folder: Path, tensors: dict[str, Tensor], beside: NetworkEmbedder) -> NetworkEmbedder:
    """The momentum encoder, on the device of the network that it follows."""
    network = network_of(load_arch(folder / "arch.json"))
    network.load_state_dict(checkpoint.part(tensors, "encoder.copy."))
    device = next(beside.network.parameters()).device
    moved = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return NetworkEmbedder(moved, folder, beside.sha256)


def embed(embedder: Embedder, images: Images) -> NDArray[np.float32]:
    """(N, 112, 112, 3) -> (N, D) raw embeddings."""
    return np.concatenate([embedder(images[start : start + BATCH]) for start in range(0, len(images), BATCH)])


def units(embedded: NDArray[np.float32]) -> Features:
    """(N, D) of length one."""
    return unit(torch.from_numpy(embedded).double()).numpy()
