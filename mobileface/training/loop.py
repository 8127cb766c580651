"""The training loop: the only file that steps an optimizer."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from mobileface.arch import Arch
from mobileface.data.faceset import FaceSet
from mobileface.data.loading import Batch, batches, default_workers
from mobileface.distributed import (
    any_rank,
    barrier,
    rank,
    sum_gradients,
    sum_over_ranks,
    texts_of_all_ranks,
    world_size,
)
from mobileface.embedders.contract import Embedder
from mobileface.errors import NonFiniteError
from mobileface.files import write_json
from mobileface.statistics import end_step
from mobileface.training import checkpoint
from mobileface.training.checks import micro_batch
from mobileface.training.device import enough_memory, mean_buffers
from mobileface.training.interrupt import Interrupt
from mobileface.training.plan import Plan
from mobileface.training.plan_phases import Phase, losses
from mobileface.training.plan_terms import Classification, Contrastive
from mobileface.training.progress import Progress
from mobileface.training.runlog import RunLog
from mobileface.training.schedule import learning_rate
from mobileface.training.terms import weigh
from mobileface.training.trainer import RANGES, Trainer, note_skipped, prepare
from mobileface.training.validation import in_words, validate
from mobileface.training.views import embed
from mobileface.training.watch import watch

RESULT = "model.safetensors"
Judged = Callable[[int, float], object]  # (images seen, held-out AUC)


def train(
    plan: Plan,
    arch: Arch,
    run: Path,
    faces: FaceSet,
    targets: NDArray[np.float32] | None,
    console: Console,
    workers: int | None = None,
    online: Embedder | None = None,
    judged: Judged | None = None,
) -> dict[str, Any]:
    """Train the plan's phases, going on from a checkpoint if there is one; writes run/model.safetensors.

    targets: (N, D) the teacher's unit embeddings of the images; online: the teacher itself, where it embeds what the
    student sees (then the targets only give its class centres, for distillation by logits). judged: hears of each
    validation once its checkpoint is saved, and may raise to end the training there, in order, as Ctrl-C does; for a
    training in one process, since only the first rank calls it.
    Returns facts for the model card. Raises NonFiniteError, InputError, KeyboardInterrupt (after saving).
    """
    if (finished := finished_facts(run)) is not None:
        return finished
    with enough_memory():
        return _train(*prepare(plan, arch, run, faces, targets, console.print, online), console, workers, judged)


def _train(
    trainer: Trainer, facts: dict[str, Any], console: Console, workers: int | None, judged: Judged | None
) -> dict[str, Any]:
    """Run the phases that are left; returns `facts` with what came of them."""
    plan, run, state = trainer.plan, trainer.run, trainer.state
    log = RunLog(run, state.log_bytes, state.before + state.seen) if rank() == 0 else None
    seen = state.before + state.seen
    workers = default_workers() if workers is None else workers
    _write(log, {"event": "resume" if seen else "start", "images": seen, **facts})
    try:
        with Interrupt() as interrupt:
            if plan.start is not None and trainer.held is not None and state.best is None and seen == 0:
                save(trainer, log, trainer.say, judged)  # what was there is judged as well, and stays the best if it is
            while True:
                _run_phase(trainer, log, console, interrupt, workers, judged)
                tensors, saved = _end_phase(trainer)
                if state.phase + 1 == len(plan.phases):
                    break
                _next_phase(trainer, log, tensors)
                del tensors  # whole class centres
    finally:
        if log is not None:
            log.close()
    facts |= {"images_seen": state.before + state.seen, "best_at": saved["before"] + saved["seen"]}
    facts |= {"seconds": round(state.seconds, 1), "held_out_auc": state.best, "skipped": state.skipped}
    facts |= {"phases": state.done} if len(plan.phases) > 1 else {}
    if rank() == 0:
        checkpoint.save(run / RESULT, checkpoint.part(tensors, "network."), facts)
    barrier()
    return facts


def finished_facts(run: Path) -> dict[str, Any] | None:
    """What `train` returned when it finished in this run folder; None if it has not."""
    return checkpoint.load(run / RESULT)[1] if (run / RESULT).exists() else None


def _run_phase(
    trainer: Trainer,
    log: RunLog | None,
    console: Console,
    interrupt: Interrupt,
    workers: int,
    judged: Judged | None,
) -> None:
    """Train until the phase is over: after its images, or when its score has not risen for `patience` validations."""
    phase, state, total = trainer.phase, trainer.state, trainer.total
    micro, pieces = micro_batch(phase)
    share = (micro, world_size(), rank())
    started = time.monotonic() - state.seconds
    with (
        Progress(console, total, state.seen) as progress,
        closing(
            _until_stopped(batches(trainer.stream, state.seen, total, phase.batch, workers, *share), interrupt)
        ) as loaded,
    ):
        while not _over(trainer):
            parts = list(islice(loaded, pieces))
            if any_rank(len(parts) < pieces, trainer.device):  # a signal has ended a rank's loading processes
                save(trainer, log, None)
                raise KeyboardInterrupt
            row = step(trainer, parts, learning_rate(phase.schedule, phase.optimizer.lr, state.seen, total))
            state.seen += phase.batch
            state.seconds = time.monotonic() - started
            speed = progress.step(state.seen, row["terms"])
            _write(log, {**row, "images": state.before + state.seen, "images_per_s": speed})
            due = state.seen // (every := trainer.plan.checkpoint.every_images) > (state.seen - phase.batch) // every
            asked = any_rank(interrupt.asked, trainer.device)
            if due or state.seen >= total or asked:
                validates = due or state.seen >= total
                save(trainer, log, progress.say if validates else None, judged)
            if asked:
                raise KeyboardInterrupt


def _over(trainer: Trainer) -> bool:
    tired = 0 < trainer.phase.patience <= trainer.state.stale
    return trainer.state.seen >= trainer.total or tired


def _end_phase(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The phase's best checkpoint; with several phases its weights are kept in a folder of their own."""
    state, plan = trainer.state, trainer.plan
    barrier()
    tensors, saved = checkpoint.load(trainer.best)
    facts = {
        "name": trainer.phase.name,
        "images": state.seen,
        "best_at": saved["before"] + saved["seen"],
        "held_out_auc": state.best,
        "losses": losses(trainer.phase),
    }
    state.done = [*state.done[: state.phase], facts]
    if len(plan.phases) > 1 and rank() == 0:
        folder = phase_folder(trainer.run, state.phase, trainer.phase.name)
        write_json(folder / "arch.json", trainer.arch.to_dict())
        checkpoint.save(folder / RESULT, checkpoint.part(tensors, "network."), facts)
    return tensors, saved


def phase_folder(run: Path, number: int, name: str) -> Path:
    """Where the best weights of phase `number` (from 0) are kept: a folder that opens as an embedder."""
    return run / "phases" / f"{number + 1}-{name}"


def _next_phase(trainer: Trainer, log: RunLog | None, tensors: dict[str, Tensor]) -> None:
    """Go over to the next phase: network and terms start from the best weights of the one before."""
    state = trainer.state
    trainer.network.load_state_dict(checkpoint.part(tensors, "network."))  # a momentum encoder begins as its copy
    trainer.begin_phase(state.phase + 1)
    margins = [_margin(trainer.plan.phases[number]) for number in (state.phase, state.phase + 1)]
    other: tuple[str, ...] = (f"{RANGES}.",)  # what begin_phase has observed holds
    other += ("contrastive.encoder.",) if trainer.phase.in_int8 else ()  # its channels have other scales
    other += () if margins[0] == margins[1] else ("classification.margin.",)  # statistics of another quality
    queues = [_queue(trainer.plan.phases[number]) for number in (state.phase, state.phase + 1)]
    other += () if queues[0] == queues[1] else ("contrastive.queue.",)  # features of another encoder
    begun = {f"network.{name}": tensor for name, tensor in trainer.network.state_dict().items()}  # by begin_phase
    checkpoint.start_from({**tensors, **begun}, trainer.network, trainer.terms, other)
    state.phase, state.before, state.seen = state.phase + 1, state.before + state.seen, 0
    state.best, state.stale = None, 0
    trainer.say(f"phase {trainer.phase.name}: {trainer.total:,} images")
    _write(log, {"event": "phase", "images": state.before, "name": trainer.phase.name})
    save(trainer, log, None)


def _margin(phase: Phase) -> tuple[str, str]:
    """The kind of the phase's margin and what it reads as quality."""
    margin = next((term.margin for term in phase.terms if isinstance(term, Classification)), None)
    return getattr(margin, "kind", ""), getattr(margin, "quality", "")


def _queue(phase: Phase) -> str:
    """The kind of the phase's queue."""
    return next((term.queue for term in phase.terms if isinstance(term, Contrastive)), "")


def _until_stopped(loader: Iterator[Batch], interrupt: Interrupt) -> Generator[Batch, None, None]:
    """The batches; none any more when a signal that asked us to stop has ended the loading processes as well."""
    try:
        yield from loader
    except (RuntimeError, OSError, EOFError):
        if not interrupt.asked:
            raise


def step(trainer: Trainer, parts: Sequence[Batch], rate: float) -> dict[str, Any]:
    """Forward and backward over a batch's parts on this rank, one update; returns the log's row.

    Raises NonFiniteError before any update.
    """
    shares, values, embeddings = [], [], []
    note_skipped(trainer, texts_of_all_ranks([text for batch in parts for text in batch.skipped], trainer.device))
    for number, batch in enumerate(parts):
        last = number + 1 == len(parts)
        with _gradients_meet(trainer, last):
            forward, embedded = embed(trainer, batch, _draw_seed(trainer, number))
            loss, found = weigh(trainer.terms, trainer.phase, forward)
            (loss / len(parts)).backward()
        shares.append(loss.detach())
        values.append(torch.stack([value.detach() for value in found.values()]))
        embeddings.append(embedded)
    norm = _sum_and_measure_gradients(trainer)
    mean = torch.stack(values).mean(0).double()
    total = sum_over_ranks(torch.stack(shares).mean().double())
    numbers = torch.stack([total, norm.double(), *mean])
    whole, length, *each = numbers.tolist()  # but for triplets, the only wait for a GPU in a step of one process
    terms = dict(zip(found, each, strict=True))
    if not np.isfinite([whole, length]).all():
        raise NonFiniteError(_blame(trainer, parts, embeddings, terms))
    for group in trainer.optimizer.param_groups:
        group["lr"] = rate
    trainer.optimizer.step()
    trainer.optimizer.zero_grad(set_to_none=True)
    end_step(trainer.network, trainer.terms)
    epoch = (trainer.state.seen + trainer.phase.batch) / trainer.stream.sampler.epoch_length
    seconds = round(trainer.state.seconds, 3)
    return {"event": "step", "epoch": epoch, "lr": rate, "loss": whole, "terms": terms, "seconds": seconds}


def _draw_seed(trainer: Trainer, number: int) -> int:
    """What this micro-batch draws from: a function of where the training stands and of its place in the batch, so that
    resuming is exact, on any number of ranks."""
    parts = [trainer.plan.seed, trainer.state.phase, trainer.state.seen, number * world_size() + rank()]
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _gradients_meet(trainer: Trainer, last: bool) -> Any:
    """The network's gradients are summed over ranks in the last part's backward pass only."""
    network = trainer.forward
    if isinstance(network, DistributedDataParallel) and trainer.int8 is None and not last:
        return network.no_sync()
    return nullcontext()


def _sum_and_measure_gradients(trainer: Trainer) -> Tensor:
    """Sum the terms' gradients over ranks (the centres' are whole already); the norm of all of them.

    The network's have met in the backward pass, but for a phase in int8, which does not run its wrapper.
    """
    cut = checkpoint.cut_over_ranks(trainer.terms)
    common = [p for p in trainer.terms.parameters() if p.requires_grad and p not in cut]
    own = [] if trainer.int8 is None else [p for p in trainer.network.parameters() if p.requires_grad]
    sum_gradients([*own, *common])
    whole = [p.grad for p in [*trainer.network.parameters(), *common] if p.grad is not None]
    parts = [p.grad for p in cut if p.grad is not None]
    length = torch.nn.utils.get_total_norm(whole)
    return length if not parts else (length**2 + sum_over_ranks(torch.nn.utils.get_total_norm(parts) ** 2)).sqrt()


def save(trainer: Trainer, log: RunLog | None, say: Any | None, judged: Judged | None = None) -> None:
    """Write the last checkpoint; with `say`, judge first and keep the best one as well, and tell `judged` last."""
    state = trainer.state
    better, score = False, {}
    mean_buffers(trainer.network)
    if say is not None:
        score = {} if trainer.held is None else _score(trainer)
        if score:
            _write(log, {"event": "validation", "images": state.before + state.seen, **score})
            say(f"{state.before + state.seen:,} images: {in_words(score)}")
        if trainer.watched is not None:
            row = watch(trainer.judged, trainer.terms, trainer.watched, trainer.device)
            _write(log, {"event": "quality", "images": state.before + state.seen, **row})
        better = state.best is None or not score or score["auc"] >= state.best
        state.stale = 0 if state.best is None or not score or score["auc"] > state.best else state.stale + 1
        state.best = score["auc"] if score and better else state.best
    tensors = checkpoint.gather(trainer.network, trainer.terms, trainer.optimizer)
    if log is None:  # another rank than the first
        return
    state.log_bytes = log.sync()
    if better:  # before `last`: a kill between the two judges this checkpoint again
        weights = {name: t for name, t in tensors.items() if not name.startswith("optimizer.")}
        checkpoint.save(trainer.best, weights, vars(state))
    checkpoint.save(trainer.last, tensors, vars(state))
    if judged is not None and score:
        judged(state.before + state.seen, score["auc"])


def _score(trainer: Trainer) -> dict[str, float]:
    """The validation's numbers: the first rank's, since all must decide alike whether a phase is over."""
    assert trainer.held is not None
    names = trainer.held.numbers
    found = validate(trainer.judged, trainer.held, trainer.device) if rank() == 0 else dict.fromkeys(names, 0.0)
    own = torch.tensor([found[name] for name in names], dtype=torch.float64, device=trainer.device)
    return dict(zip(names, sum_over_ranks(own).tolist(), strict=True))


def _write(log: RunLog | None, row: dict[str, Any]) -> None:
    if log is not None:
        log.write(row)


def _blame(trainer: Trainer, parts: Sequence[Batch], embeddings: Sequence[Tensor], values: dict[str, float]) -> str:
    """Which term or tensor is not finite, at which step, on which images."""
    where = [f"term {name}" for name, value in values.items() if not np.isfinite(value)]
    if not all(torch.isfinite(part).all() for part in embeddings):
        where.insert(0, "embeddings")
    for owner, module in (("network", trainer.network), ("terms", trainer.terms)):
        bad = [n for n, p in module.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()]
        where += [f"gradient of {owner}.{name}" for name in bad[:1]]
    keys = ", ".join(trainer.faces.key(int(i)) for i in parts[0].index[:4])
    kept = trainer.last if trainer.last.exists() else "none yet"
    images = trainer.state.before + trainer.state.seen
    return (
        f"not finite: {', '.join(where) or 'the sum of the terms'}, at {images:,} images, in the batch "
        f"of {keys}, …; stopped before the update, last good checkpoint: {kept}"
    )
