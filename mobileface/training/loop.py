"""The training loop: the only file that steps an optimizer."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from mobileface.arch import Arch
from mobileface.data.faceset import FaceSet, Split, split_identities
from mobileface.data.loading import Batch, FaceStream, batches, default_workers
from mobileface.errors import InputError, NonFiniteError
from mobileface.losses.forward import Forward
from mobileface.models import build
from mobileface.training import checkpoint
from mobileface.training.device import Network, autocast, compiled, pick_device, pick_precision
from mobileface.training.interrupt import Interrupt
from mobileface.training.plan import Optimizer, Phase, Plan
from mobileface.training.progress import Progress
from mobileface.training.runlog import RunLog
from mobileface.training.schedule import learning_rate
from mobileface.training.terms import build_terms, weigh
from mobileface.training.validation import HeldOut, held_out, validate

RESULT = "model.safetensors"


@dataclass
class State:
    """What changes from step to step beside the tensors; saved as plain data."""

    seen: int = 0  # images
    seconds: float = 0.0  # spent training, over all starts
    log_bytes: int = 0
    best: float | None = None  # validation AUC of checkpoints/best
    skipped: list[str] = field(default_factory=list)  # bad images, by name
    inputs: str = ""  # hash of the data and the teacher's targets, which a resumed run must find again


@dataclass
class Trainer:
    """One phase's training: made by `prepare`, run by `train`."""

    phase: Phase
    run: Path
    network: nn.Module
    forward: Network  # the network, compiled where that works
    terms: nn.ModuleDict
    optimizer: torch.optim.Optimizer
    device: torch.device
    precision: str
    faces: FaceSet
    stream: FaceStream
    classes: Tensor  # (N,) class of each image of the face set
    targets: Tensor | None  # (N, D) teacher's unit embeddings
    held: HeldOut | None
    every: int  # images between checkpoints
    max_corrupt: int
    state: State

    @property
    def last(self) -> Path:
        """The checkpoint to go on from."""
        return self.run / "checkpoints" / "last.safetensors"

    @property
    def best(self) -> Path:
        """The checkpoint with the highest validation score; the last one where nothing is held out."""
        return self.run / "checkpoints" / "best.safetensors"


def train(
    plan: Plan,
    arch: Arch,
    run: Path,
    faces: FaceSet,
    targets: NDArray[np.float32] | None,
    console: Console,
    workers: int | None = None,
) -> dict[str, Any]:
    """Train the plan's phase, going on from a checkpoint if there is one; writes run/model.safetensors.

    Returns facts for the model card. Raises NonFiniteError, InputError, KeyboardInterrupt (after saving).
    """
    if (finished := finished_facts(run)) is not None:
        return finished
    trainer, facts = prepare(plan, arch, run, faces, targets, console.print)
    phase, state = trainer.phase, trainer.state
    total = -(-phase.images // phase.batch) * phase.batch  # whole batches
    log = RunLog(run, state.log_bytes, state.seen)
    started = time.monotonic() - state.seconds
    loader = batches(trainer.stream, state.seen, total, phase.batch, default_workers() if workers is None else workers)
    log.write({"event": "resume" if state.seen else "start", "images": state.seen, **facts})
    try:
        with Progress(console, total, state.seen) as progress, Interrupt() as interrupt:
            for batch in _until_stopped(loader, interrupt):
                row = step(trainer, batch, learning_rate(phase.schedule, phase.optimizer.lr, state.seen, total))
                state.seen += phase.batch
                state.seconds = time.monotonic() - started
                log.write({**row, "images": state.seen, "images_per_s": progress.step(state.seen, row["terms"])})
                due = state.seen // trainer.every > (state.seen - phase.batch) // trainer.every
                if due or state.seen >= total or interrupt.asked:
                    judged = due or state.seen >= total
                    save(trainer, log, progress.say if judged else None)
                if interrupt.asked and state.seen < total:
                    raise KeyboardInterrupt
            if state.seen < total:
                save(trainer, log, None)
                raise KeyboardInterrupt
    finally:
        log.close()
    tensors, saved = checkpoint.load(trainer.best)
    facts |= {"images_seen": state.seen, "best_at": saved["seen"], "seconds": round(state.seconds, 1)}
    facts |= {"held_out_auc": state.best, "skipped": state.skipped}
    checkpoint.save(run / RESULT, checkpoint.part(tensors, "network."), facts)
    return facts


def _until_stopped(loader: Iterator[Batch], interrupt: Interrupt) -> Iterator[Batch]:
    """The batches; none any more when a signal that asked us to stop has ended the loading processes as well."""
    try:
        yield from loader
    except (RuntimeError, OSError, EOFError):
        if not interrupt.asked:
            raise


def finished_facts(run: Path) -> dict[str, Any] | None:
    """What `train` returned when it finished in this run folder; None if it has not."""
    return checkpoint.load(run / RESULT)[1] if (run / RESULT).exists() else None


def prepare(
    plan: Plan,
    arch: Arch,
    run: Path,
    faces: FaceSet,
    targets: NDArray[np.float32] | None,
    say: Callable[[str], None],
) -> tuple[Trainer, dict[str, Any]]:
    """Build everything a phase needs and restore the last checkpoint."""
    phase = plan.phases[0]
    split = split_identities(faces, plan.data.validate_.identities, plan.seed)
    _check_classes(phase, faces, split)
    device = pick_device()
    precision = pick_precision(plan.precision, device)
    network = build(arch, plan.seed).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train()
    width = None if targets is None else targets.shape[1]
    terms = build_terms(phase, split.num_classes, arch.embedding_dim, width, plan.seed).to(device)
    steps = [(a.kind, a.p, a.model_dump(exclude={"kind", "p"})) for a in phase.views.clean]
    held, skipped = held_out(faces, split.held_out, plan.seed)
    if held is None:
        say("no held-out identities to compare: the last checkpoint counts as the best")
    trainer = Trainer(
        phase=phase,
        run=run,
        network=network,
        forward=network,
        terms=terms,
        optimizer=make_optimizer(phase.optimizer, network, terms),
        device=device,
        precision=precision,
        faces=faces,
        stream=FaceStream(faces, split.train, steps, plan.seed, 0),
        classes=torch.from_numpy(split.classes),
        targets=None if targets is None else torch.from_numpy(targets),
        held=held,
        every=plan.checkpoint.every_images,
        max_corrupt=plan.data.max_corrupt,
        state=State(inputs=_inputs(faces, targets)),
    )
    if trainer.last.exists():
        tensors, saved = checkpoint.load(trainer.last)
        if saved["inputs"] != trainer.state.inputs:
            raise InputError(f"{run}: was begun with other training images or another teacher; give another --out")
        checkpoint.restore(tensors, network, terms, trainer.optimizer, trainer.last)
        trainer.state = State(**saved)
        say(f"going on from {trainer.state.seen:,} images of {trainer.last}")
    _note_skipped(trainer, skipped)
    trainer.forward, is_compiled = compiled(network, plan.compile, phase.batch, device, precision, say)
    facts = {
        "device": device.type,
        "precision": precision,
        "compile": is_compiled,
        "torch_threads": torch.get_num_threads(),
        "identities": split.num_classes,
        "train_images": len(split.train),
        "held_out_images": len(split.held_out),
    }
    return trainer, facts


def step(trainer: Trainer, batch: Batch, rate: float) -> dict[str, Any]:
    """One forward, backward and update; returns the log's row. Raises NonFiniteError before any update."""
    _note_skipped(trainer, batch.skipped)
    pixels = batch.images.to(trainer.device, non_blocking=True).permute(0, 3, 1, 2).float()
    with autocast(trainer.device, trainer.precision):
        embeddings = trainer.forward(pixels)
    teacher = None if trainer.targets is None else trainer.targets[batch.index].to(trainer.device)
    labels = trainer.classes[batch.index].to(trainer.device)
    loss, values = weigh(trainer.terms, trainer.phase, Forward({"clean": embeddings.float()}, labels, teacher))
    loss.backward()
    parameters = [p for group in trainer.optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
    numbers = torch.stack([loss.detach().double(), norm.double(), *[v.detach().double() for v in values.values()]])
    total, length, *parts = numbers.tolist()  # the only wait for a GPU in a step
    if not np.isfinite([total, length]).all():
        raise NonFiniteError(_blame(trainer, batch, embeddings, values))
    for group in trainer.optimizer.param_groups:
        group["lr"] = rate
    trainer.optimizer.step()
    trainer.optimizer.zero_grad(set_to_none=True)
    terms = dict(zip(values, parts, strict=True))
    epoch = (trainer.state.seen + len(batch.index)) / len(trainer.stream.train)
    seconds = round(trainer.state.seconds, 3)
    return {"event": "step", "epoch": epoch, "lr": rate, "loss": total, "terms": terms, "seconds": seconds}


def save(trainer: Trainer, log: RunLog, say: Callable[[str], None] | None) -> None:
    """Write the last checkpoint; with `say`, judge first and keep the best one as well."""
    state = trainer.state
    better = False
    if say is not None:
        score = {} if trainer.held is None else validate(trainer.network, trainer.held, trainer.device)
        if score:
            log.write({"event": "validation", "images": state.seen, **score})
            say(f"{state.seen:,} images: held-out AUC {score['auc']:.4f}, EER {score['eer']:.4f}")
        better = state.best is None or not score or score["auc"] >= state.best
        state.best = score["auc"] if score and better else state.best
    state.log_bytes = log.sync()
    tensors = checkpoint.gather(trainer.network, trainer.terms, trainer.optimizer)
    if better:  # before `last`: a kill between the two judges this checkpoint again
        weights = {name: t for name, t in tensors.items() if name.startswith("network.")}
        checkpoint.save(trainer.best, weights, vars(state))
    checkpoint.save(trainer.last, tensors, vars(state))


def make_optimizer(settings: Optimizer, network: nn.Module, terms: nn.Module) -> torch.optim.Optimizer:
    """Weight decay on tensors of two dimensions or more: not on batch norms, biases and slopes of PReLU."""
    parameters = [*network.parameters(), *terms.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.kind == "sgd":
        return torch.optim.SGD(groups, settings.lr, settings.momentum, fused=True)
    return torch.optim.AdamW(groups, settings.lr, fused=True)


def _check_classes(phase: Phase, faces: FaceSet, split: Split) -> None:
    if len(split.train) < phase.batch:
        raise InputError(f"{len(split.train)} training images are fewer than one batch of {phase.batch}")
    if any(term.kind == "classification" for term in phase.terms):
        if split.num_classes < 2:
            raise InputError(f"classification needs two identities or more to train on, found {split.num_classes}")
        unlabelled = int((split.classes[split.train] < 0).sum())
        if unlabelled:
            raise InputError(
                f"{unlabelled} training images have no label (labelled: false); classification needs one for each"
            )


def _inputs(faces: FaceSet, targets: NDArray[np.float32] | None) -> str:
    """Hash of the images' names and sizes, their labels, and what the teacher said of them."""
    digest = hashlib.sha256(faces.fingerprint().encode() + faces.labels.tobytes())
    if targets is not None:
        digest.update(np.ascontiguousarray(targets).data)
    return digest.hexdigest()


def _note_skipped(trainer: Trainer, texts: list[str]) -> None:
    """Count bad images once each; more than the plan allows stop the training."""
    for text in texts:
        if text not in trainer.state.skipped:
            trainer.state.skipped.append(text)
    found = len(trainer.state.skipped)
    if found > trainer.max_corrupt:
        raise InputError(
            f"{found} bad images are more than data.max_corrupt {trainer.max_corrupt}; the last: "
            f"{trainer.state.skipped[-1]}"
        )


def _blame(trainer: Trainer, batch: Batch, embeddings: Tensor, values: dict[str, Tensor]) -> str:
    """Which term or tensor is not finite, at which step, on which images."""
    where = [f"term {name}" for name, value in values.items() if not torch.isfinite(value)]
    if not torch.isfinite(embeddings).all():
        where.insert(0, "embeddings")
    for owner, module in (("network", trainer.network), ("terms", trainer.terms)):
        bad = [n for n, p in module.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()]
        where += [f"gradient of {owner}.{name}" for name in bad[:1]]
    keys = ", ".join(trainer.faces.key(int(i)) for i in batch.index[:4])
    kept = trainer.last if trainer.last.exists() else "none yet"
    return (
        f"not finite: {', '.join(where) or 'the sum of the terms'}, at {trainer.state.seen:,} images, in the batch "
        f"of {keys}, …; stopped before the update, last good checkpoint: {kept}"
    )
