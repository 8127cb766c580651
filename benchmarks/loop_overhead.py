"""What the training loop adds to forward, backward and optimizer step: `python -m benchmarks.loop_overhead`.

Four ways to train `student-real`, batch 64, by distillation on synthetic faces take turns, a few steps each:

* bare: forward, loss, backward, optimizer step, on batches in memory;
* step: `mobileface.training.loop.step` on the same batches (checks for non-finite values, terms, rates);
* loop: what `mobileface make` runs for each batch, on the same batches: `step`, log.jsonl, TensorBoard, progress;
* loaded: the same, the batches from a loading process that reads, decodes and augments while the step runs (and
  takes its share of the cores).

Each turn's mean time of a step is divided by that of the bare turn of its round; the result is the median over the
rounds. After a turn of `loaded` the loading process has time to fill its queue again, so it never works during the
others' turns. All threads; about five minutes on two cores, stated at the start.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.nn.functional import cosine_similarity

from benchmarks.environment import write_result
from benchmarks.training_setup import distilling, in_memory, synthetic_faces
from mobileface.data.loading import Batch, batches, default_workers
from mobileface.training.device import autocast
from mobileface.training.loop import Trainer, step
from mobileface.training.progress import Progress
from mobileface.training.runlog import RunLog
from mobileface.training.schedule import learning_rate

ARCH = "student-real"
STEPS, ROUNDS, IN_MEMORY = 8, 15, 8
REFILL_S = 0.5  # longer than loading a batch takes
LIMIT = 5.0  # percent


def bare_step(trainer: Trainer, batch: Batch) -> None:
    """What no training can do without."""
    assert trainer.targets is not None
    pixels = batch.images.to(trainer.device).permute(0, 3, 1, 2).float()
    with autocast(trainer.device, trainer.precision):
        embeddings = trainer.forward(pixels)
    loss = (1 - cosine_similarity(embeddings.float(), trainer.targets[batch.index].to(trainer.device))).mean()
    loss.backward()
    trainer.optimizer.step()
    trainer.optimizer.zero_grad(set_to_none=True)


def whole_steps(trainer: Trainer, total: int, loader: Iterator[Batch]) -> Generator[None]:
    """The body of `mobileface.training.loop.train`, one step for each `next`."""
    log, size, state = RunLog(trainer.run, 0, 0), trainer.phase.batch, trainer.state
    began = time.monotonic()
    with closing(log), Progress(Console(quiet=True), total, 0) as progress:
        for batch in loader:
            rate = learning_rate(trainer.phase.schedule, trainer.phase.optimizer.lr, state.seen, total)
            row = step(trainer, [batch], rate)
            state.seen += size
            state.seconds = time.monotonic() - began
            log.write({**row, "images": state.seen, "images_per_s": progress.step(state.seen, row["terms"])})
            yield


def take_turns(ways: dict[str, Callable[[], object]], steps: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of a step, mean of each turn, by way; the first round warms up and is not kept."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name in list(ways) if turn % 2 else list(ways)[::-1]:
            began = time.perf_counter()
            for _ in range(steps):
                ways[name]()
            seconds[name].append((time.perf_counter() - began) / steps)
            time.sleep(REFILL_S if name == "loaded" else 0)
    return {name: times[1:] for name, times in seconds.items()}


def measure(steps: int = STEPS, rounds: int = ROUNDS, arch: str = ARCH) -> dict[str, Any]:
    """All four ways on networks with equal weights."""
    with tempfile.TemporaryDirectory() as folder:
        faces = synthetic_faces(Path(folder))
        trainers = {
            name: distilling(arch, faces, Path(folder) / name, "auto", "off")[0]
            for name in ("bare", "step", "loop", "loaded")
        }
        kept = in_memory(trainers["bare"], IN_MEMORY)
        first, second, third = cycle(kept), cycle(kept), cycle(kept)
        total = steps * (rounds + 1) * trainers["loop"].phase.batch
        loop = whole_steps(trainers["loop"], total, third)
        stream, size = trainers["loaded"].stream, trainers["loaded"].phase.batch
        loaded = whole_steps(trainers["loaded"], total, batches(stream, 0, total, size, default_workers()))
        ways: dict[str, Callable[[], object]] = {
            "bare": lambda: bare_step(trainers["bare"], next(first)),
            "step": lambda: step(trainers["step"], [next(second)], 1e-3),
            "loop": lambda: next(loop),
            "loaded": lambda: next(loaded),
        }
        seconds = take_turns(ways, steps, rounds)
        loop.close()
        next(loaded, None)  # it ends, and closes what it opened
    return {
        "arch": arch,
        "batch": trainers["bare"].phase.batch,
        "precision": trainers["bare"].precision,
        "device": trainers["bare"].device.type,
        "torch_threads": torch.get_num_threads(),
        "loading_processes": default_workers(),
        "steps_a_turn": steps,
        "rounds": rounds,
        **summary(seconds),
    }


def summary(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Medians in ms, and percent over bare by rounds: median and quartiles."""
    over = {
        name: [100 * (ours / bare - 1) for ours, bare in zip(seconds[name], seconds["bare"], strict=True)]
        for name in ("step", "loop", "loaded")
    }
    medians = {name: statistics.median(values) for name, values in over.items()}
    return {
        "ms_a_step": {name: round(1e3 * statistics.median(times), 2) for name, times in seconds.items()},
        "overhead_percent": round(medians["loop"], 2),
        "overhead_percent_with_loading": round(medians["loaded"], 2),
        "overhead_percent_of_step_alone": round(medians["step"], 2),
        "overhead_percent_by_round": {name: [round(v, 2) for v in values] for name, values in over.items()},
        "limit_percent": LIMIT,
        "within_limit": medians["loop"] <= LIMIT,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    print(f"{3 * STEPS * (rounds + 1)} steps, about half a second each on two cores", flush=True)
    result = measure(rounds=rounds)
    print(json.dumps(result, indent=2))
    print(write_result("loop_overhead", result))
    return 0 if result["within_limit"] else 1


if __name__ == "__main__":
    sys.exit(main())
