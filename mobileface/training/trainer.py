"""What a training consists of: built once, its phase exchanged, its state saved and restored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mobileface.arch import Arch
from mobileface.data.faceset import FaceSet, Split, split_identities
from mobileface.data.loading import SAMPLER_STREAM, FaceStream, batches, stream_seed
from mobileface.data.samplers import SAMPLERS, Sampler
from mobileface.distributed import shard, world_size
from mobileface.embedders.contract import Embedder
from mobileface.embedders.network import load_network
from mobileface.errors import InputError
from mobileface.losses.distill_logits import class_centres
from mobileface.models import build
from mobileface.models.equalise import equalise
from mobileface.models.quantised import Int8Network
from mobileface.training import checkpoint
from mobileface.training.checks import check_classes, embedded_at_once, micro_batch
from mobileface.training.device import Network, compiled, over_ranks, pick_device, pick_precision
from mobileface.training.optimizer import make_optimizer
from mobileface.training.plan import Plan
from mobileface.training.plan_phases import Phase
from mobileface.training.plan_terms import LogitDistillation
from mobileface.training.plan_views import steps as plan_steps
from mobileface.training.recompute import recompute_blocks
from mobileface.training.sources import start_folder, start_weights
from mobileface.training.terms import build_terms, check_terms, memory_line
from mobileface.training.validation import HeldOut, held_out
from mobileface.training.watch import Watched, watch_sample


@dataclass
class State:
    """What changes from step to step beside the tensors; saved as plain data."""

    phase: int = 0  # its number, from 0
    seen: int = 0  # images, in this phase
    before: int = 0  # images of the phases before it
    seconds: float = 0.0  # spent training, over all starts
    log_bytes: int = 0
    best: float | None = None  # validation AUC of checkpoints/best
    stale: int = 0  # validations since then
    done: list[dict[str, Any]] = field(default_factory=list)  # facts of the phases that are over
    skipped: list[str] = field(default_factory=list)  # bad images, by name
    inputs: str = ""  # hash of data, teacher and start, which a resumed run must find again


@dataclass
class Trainer:
    """A training and its phase at hand: made by `prepare`, run by `loop.train`."""

    plan: Plan
    arch: Arch
    run: Path
    network: nn.Module
    forward: Network  # the network, compiled where that works, its gradients summed over ranks
    device: torch.device
    precision: str
    faces: FaceSet
    split: Split
    classes: Tensor  # (N,) class of each image of the face set
    targets: Tensor | None  # (N, D) teacher's unit embeddings
    online: Embedder | None  # the teacher, where it embeds in each step what the student sees
    scores: Tensor | None  # (N,) quality of each image, where the data set has one
    held: HeldOut | None
    watched: Watched | None  # what the plan watches
    say: Callable[[str], None]
    state: State
    terms: nn.ModuleDict = field(init=False)  # of the phase, as are the next three
    optimizer: torch.optim.Optimizer = field(init=False)
    stream: FaceStream = field(init=False)
    phase: Phase = field(init=False)
    int8: Int8Network | None = field(init=False)  # the network as int8 would have it, where the phase trains that

    @property
    def judged(self) -> nn.Module:
        """What the phase trains, to be validated: the network, or what int8 makes of it."""
        return self.network if self.int8 is None else self.int8

    @property
    def last(self) -> Path:
        """The checkpoint to go on from."""
        return self.run / "checkpoints" / "last.safetensors"

    @property
    def best(self) -> Path:
        """The phase's checkpoint with the highest validation score; the last one where nothing is held out."""
        return self.run / "checkpoints" / "best.safetensors"

    @property
    def total(self) -> int:
        """Images of the phase: whole batches."""
        return -(-self.phase.images // self.phase.batch) * self.phase.batch

    @property
    def teacher_dim(self) -> int | None:
        """Width of the teacher's embeddings; None without a teacher."""
        if self.online is not None:
            return self.online.dim
        return None if self.targets is None else self.targets.shape[1]

    def check_phase(self, number: int) -> Sampler:
        """The sampler of phase `number`. InputError for what that phase could not train with: found before the first
        one begins, not when it is over."""
        phase = self.plan.phases[number]
        check_classes(phase, self.split)
        reads_scores = any(getattr(getattr(t, "margin", None), "quality", None) == "score" for t in phase.terms)
        if reads_scores and self.scores is None:
            raise InputError(f"phase {phase.name}: a margin reads scores; wanted data.train.N.scores of each source")
        check_terms(phase, self.teacher_dim)
        _, rounds = micro_batch(phase)
        key, settings = stream_seed(self.plan.seed, number, SAMPLER_STREAM), phase.sampler.model_dump(exclude={"kind"})
        try:
            sampler = SAMPLERS[phase.sampler.kind](self.split.train, self.split.classes, phase.batch, key, **settings)
            sampler.check_parts(rounds * world_size())
            lonely = getattr(sampler, "short", 0) if any(term.kind == "octuplet" for term in phase.terms) else 0
            if lonely:
                raise InputError(
                    f"octuplet: {lonely} identities have fewer images than a batch takes of each; wanted "
                    "data.min_images: 2, or more"
                )
        except InputError as error:
            raise InputError(f"phase {phase.name}: {error}") from None
        return sampler

    def begin_phase(self, number: int, restored: bool = False) -> None:
        """New terms, optimizer and stream of samples for phase `number`; the state stays as it is, and so does the
        network's function. restored: a checkpoint's network and ranges take the place of these at once.
        """
        sampler, self.phase = self.check_phase(number), self.plan.phases[number]
        phase, dim = self.phase, self.arch.embedding_dim
        self.terms, self.optimizer = nn.ModuleDict(), None  # type: ignore[assignment]  # room for the new ones
        degraded = None if phase.views.degraded is None else plan_steps(phase.views.degraded)
        steps = plan_steps(phase.views.clean)
        self.stream = FaceStream(self.faces, sampler, steps, self.plan.seed, number, degraded, phase.batch)
        ranged = self._first_images() if phase.in_int8 and not restored else None
        if ranged is not None:  # before a momentum encoder begins as the network's copy
            equalise(self.network, ranged.numpy())
        if line := memory_line(phase, self.split.num_classes, dim, self.teacher_dim):
            self.say(line)
        counts = torch.bincount(self.classes[self.classes >= 0], minlength=self.split.num_classes)
        centres = None
        if any(isinstance(term, LogitDistillation) for term in phase.terms):
            assert self.targets is not None  # Plan.wants_targets
            centres = class_centres(self.targets, self.classes, shard(self.split.num_classes))
        terms = build_terms(phase, counts, dim, self.plan.seed, self.teacher_dim, centres, self.network)
        self.terms = terms.to(self.device)
        self.optimizer = make_optimizer(phase.optimizer, self.network, self.terms)
        for what in ("left_out", "short", "repeats"):
            if count := getattr(sampler, what, 0):
                self.say(f"sampler {phase.sampler.kind}: {SAID[what].format(count)}")
        self.int8 = Int8Network(self.network).to(self.device) if phase.in_int8 else None
        if self.int8 is not None:
            assert RANGES not in self.terms
            self.terms[RANGES] = self.int8.ranges
        if self.int8 is not None and ranged is not None:
            for part in ranged.split(32):
                self.int8.observe(part.to(self.device).permute(0, 3, 1, 2).float())

    def _first_images(self) -> Tensor:
        """The phase's first images in all their views, (N, 112, 112, 3) uint8; the same on every rank."""
        first = next(batches(self.stream, 0, RANGED, RANGED, workers=0))
        note_skipped(self, first.skipped)
        return torch.cat([first.images, *first.degraded])


RANGED = 64  # of its first images: what an int8 phase takes ranges from, before its first step
RANGES = "ranges"  # their place among the terms, with which they are saved; no kind of term has this name
SAID = {
    "left_out": "{} images without a label are left out",
    "short": "{} identities have fewer images than a batch takes of each; theirs repeat",
    "repeats": "{} repeated images in an epoch",
}


def prepare(
    plan: Plan,
    arch: Arch,
    run: Path,
    faces: FaceSet,
    targets: NDArray[np.float32] | None,
    say: Callable[[str], None],
    online: Embedder | None = None,
) -> tuple[Trainer, dict[str, Any]]:
    """Build everything that training needs and restore the last checkpoint; second: facts for the model card."""
    split = split_identities(faces, plan.data.validate_.identities, plan.seed, plan.data.min_images)
    if split.long_tail:
        say(f"{split.long_tail:,} images of identities with fewer than {plan.data.min_images} are left out")
    device = pick_device()
    precision = pick_precision(plan.precision, device)
    network = _network(plan, arch, run).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    held, skipped = held_out(faces, split.held_out, plan.seed, plan.data.validate_.sides)
    _say_how_judged(plan, held, say)
    watched, unwatched = watch_sample(faces, split, plan.watch, plan.seed)
    trainer = Trainer(
        plan=plan,
        arch=arch,
        run=run,
        network=network,
        forward=network,
        device=device,
        precision=precision,
        faces=faces,
        split=split,
        classes=torch.from_numpy(split.classes),
        targets=None if targets is None else torch.from_numpy(targets),
        online=online,
        scores=None if faces.scores is None else torch.from_numpy(faces.scores),
        held=held,
        watched=watched,
        say=say,
        state=State(inputs=_inputs(faces, targets, online, start_weights(plan))),
    )
    for number in range(len(plan.phases)):
        trainer.check_phase(number)
    if trainer.last.exists():
        _restore(trainer)
    else:
        trainer.begin_phase(0)
    note_skipped(trainer, [*skipped, *unwatched])
    is_compiled = _compile(trainer)
    return trainer, _facts(trainer, is_compiled)


def _network(plan: Plan, arch: Arch, run: Path) -> nn.Module:
    """In training mode: with the plan's start weights, or fresh; a checkpoint that is there brings its own."""
    begun = (run / "checkpoints" / "last.safetensors").exists()
    network = build(arch, plan.seed) if plan.start is None or begun else load_network(start_folder(plan))
    network.train()
    if plan.activation_checkpointing:
        recompute_blocks(network)
    return network


def _say_how_judged(plan: Plan, held: HeldOut | None, say: Callable[[str], None]) -> None:
    """InputError for patience where nobody is held out."""
    say(held.described() if held else "no held-out identities to compare: the last checkpoint counts as the best")
    if held is None and (tired := [phase.name for phase in plan.phases if phase.patience]):
        raise InputError(
            f"phase {tired[0]}: patience needs a score, and nobody is held out; wanted patience: 0, or "
            "data.validate.identities above 0"
        )


def _facts(trainer: Trainer, is_compiled: bool) -> dict[str, Any]:
    """What the model card says of the training."""
    facts = {
        "device": trainer.device.type,
        "ranks": world_size(),
        "precision": trainer.precision,
        "compile": is_compiled,
        "torch_threads": torch.get_num_threads(),
        "identities": trainer.split.num_classes,
        "train_images": len(trainer.split.train),
        "held_out_images": len(trainer.split.held_out),
    }
    if rounded := [phase.name for phase in trainer.plan.phases if phase.in_int8]:
        facts["int8_phases"] = rounded
    return facts


def _compile(trainer: Trainer) -> bool:
    """Make the forward that the steps call, compiled where the plan and what is left of it allow; whether it is."""
    plan, say = trainer.plan, trainer.say
    if plan.activation_checkpointing and plan.compile == "auto":
        say("activation_checkpointing: trained without torch.compile")
    left = plan.phases[trainer.state.phase :]
    if plan.compile != "off" and (rounded := [phase.name for phase in left if phase.in_int8]):
        say(f"quantise: phase {', '.join(rounded)} is trained without torch.compile")
    sizes = sorted({embedded_at_once(phase) for phase in left if not phase.in_int8})
    wanted = "off" if plan.activation_checkpointing or not sizes else plan.compile
    forward, is_compiled = compiled(trainer.network, wanted, sizes, trainer.device, trainer.precision, say)
    trainer.forward = over_ranks(forward)
    return is_compiled


def _restore(trainer: Trainer) -> None:
    tensors, saved = checkpoint.load(trainer.last)
    if saved["inputs"] != trainer.state.inputs:
        raise InputError(
            f"{trainer.run}: was begun with other training images, another teacher or another start; give another --out"
        )
    known = {f.name for f in fields(State)}
    state = State(**{key: value for key, value in saved.items() if key in known})
    trainer.begin_phase(state.phase, restored=True)
    checkpoint.restore(tensors, trainer.network, trainer.terms, trainer.optimizer, trainer.last)
    trainer.state = state
    name = f", phase {trainer.phase.name}" if len(trainer.plan.phases) > 1 else ""
    trainer.say(f"going on from {state.seen:,} images{name} of {trainer.last}")


def _inputs(faces: FaceSet, targets: NDArray[np.float32] | None, online: Embedder | None, start: str | None) -> str:
    """Hash of the images' names and sizes, their labels, what the teacher said of them, or who it is, and the weights
    begun with, of which `start` is a hash."""
    digest = hashlib.sha256(faces.fingerprint().encode() + faces.labels.tobytes())
    if online is not None:
        digest.update(json.dumps([online.sha256, online.contract.to_dict()], sort_keys=True).encode())
    for more in (targets, faces.scores):
        if more is not None:
            digest.update(np.ascontiguousarray(more).data)
    if start is not None:
        digest.update(start.encode())
    return digest.hexdigest()


def note_skipped(trainer: Trainer, texts: list[str]) -> None:
    """Count bad images once each; more than the plan allows stop the training."""
    for text in texts:
        if text not in trainer.state.skipped:
            trainer.state.skipped.append(text)
            trainer.say(f"left out, a bad image: {text}")
    found, most = len(trainer.state.skipped), trainer.plan.data.max_corrupt
    if found > most:
        raise InputError(
            f"{found} bad images are more than data.max_corrupt {most}; the last: {trainer.state.skipped[-1]}"
        )
