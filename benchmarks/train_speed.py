"""Training speed by network and number of classes: `python -m benchmarks.train_speed [ARCH ...]`.

Images a second, peak memory, and the share of the device's measured matrix peak, on the GPU if there is one, else on
the CPU, of whole training steps on images in memory: ArcFace over 93,431 and 1,000,000 classes, SGD.

* plain: the same network in eager float32, contiguous layout, torch's own layers and allocator; a bare loop (93,431
  classes only)
* eager: `mobileface.training.loop.step`, precision auto, compile off
* compiled: the same with compile on

Each measurement is a process of its own: the median step of half a minute, behind two steps that are not counted. The
networks for phones are measured twice, the modes in turns. What results/train_speed_DEVICE.json holds of this device
and these versions is not run again, unless it failed; it is written behind each row, so the script may be stopped and
started anew. On two CPU cores compiling takes minutes a row; all in all 40 minutes.
"""

from __future__ import annotations

import datetime
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from torch import nn

from benchmarks.environment import RESULTS, describe, write_result
from benchmarks.memory import peak_mib
from mobileface.data.faceset import FaceSet
from mobileface.data.images import encode
from mobileface.data.loading import Batch, batches
from mobileface.data.synthetic import sample
from mobileface.errors import MobileFaceError
from mobileface.losses.forward import Forward
from mobileface.training import device as training_device
from mobileface.training.loop import step
from mobileface.training.plan import parse_plan
from mobileface.training.terms import weigh
from mobileface.training.trainer import Trainer, prepare
from mobileface.zoo import find_arch
from search.cost import cost

ARCHS = ("mobilefacenet", "lfrc-step5", "iresnet100")
CLASSES = (93_431, 1_000_000)
MODES = ("plain", "eager", "compiled")
BATCH = {"cpu": {"iresnet100": 16}, "cuda": {"iresnet100": 256}}
OTHERS = {"cpu": 64, "cuda": 512}
ROUNDS = {"iresnet100": 1}  # else two
WARM_UP, IN_MEMORY, SECONDS = 2, 2, 30
MATRIX = {"cpu": 2048, "cuda": 8192}  # side of the matrices that measure the peak
SAME = ("cpu", "cores", "python", "torch")  # of the environment, for rows to stand in one table
Row = dict[str, Any]


class SameFaces:
    """A source of `classes` identities with one image each, which are a few synthetic ones again and again."""

    name = "same"

    def __init__(self, classes: int) -> None:
        self.labels = np.arange(classes)
        self.images = [encode(sample(0, person, 0)[0]) for person in range(64)]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, i: int) -> bytes:
        return self.images[i % len(self.images)]

    def key(self, i: int) -> str:
        return str(i)

    def fingerprint(self) -> str:
        return f"same-{len(self.labels)}"


def trainer_of(arch: str, classes: int, batch: int, precision: str, compile_: str, run: Path) -> Trainer:
    """A training as `mobileface train` prepares it."""
    phase = {"images": 100 * batch, "batch": batch, "terms": ["classification"], "views": {"clean": ["flip"]}}
    plan = parse_plan(
        {
            "name": "speed", "arch": arch, "precision": precision, "compile": compile_, "phases": [phase],
            "data": {"train": [{"folder": "same"}], "validate": {"identities": 0}},
        },
        "benchmark",
    )  # fmt: skip
    run.mkdir(parents=True, exist_ok=True)
    return prepare(plan, find_arch(arch), run, FaceSet([SameFaces(classes)]), None, lambda text: None)[0]


def plain_step(trainer: Trainer) -> Callable[[Batch], None]:
    """The step that anybody would write first."""
    for part in trainer.network.modules():
        for kind in (nn.PReLU, nn.Conv2d):
            if isinstance(part, kind):
                part.__class__ = kind
    network = trainer.network.to(memory_format=torch.contiguous_format)

    def run(batch: Batch) -> None:
        pixels = batch.images.to(trainer.device).permute(0, 3, 1, 2).float().contiguous()
        labels = trainer.classes[batch.index].to(trainer.device)
        loss, _ = weigh(trainer.terms, trainer.phase, Forward({"clean": network(pixels)}, labels))
        loss.backward()
        trainer.optimizer.step()
        trainer.optimizer.zero_grad(set_to_none=True)

    return run


def measure(arch: str, classes: int, mode: str) -> Row:
    """One row, in this process."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch = BATCH[device].get(arch, OTHERS[device])
    began = time.perf_counter()
    if mode == "plain":
        training_device.keep_freed_memory = lambda: None  # torch's own allocation
    with tempfile.TemporaryDirectory() as folder:
        precision, compile_ = ("fp32", "off") if mode == "plain" else ("auto", "on" if mode == "compiled" else "off")
        trainer = trainer_of(arch, classes, batch, precision, compile_, Path(folder) / "run")
        run = plain_step(trainer) if mode == "plain" else lambda part: step(trainer, [part], 0.01) and None
        loaded = cycle(list(batches(trainer.stream, 0, IN_MEMORY * batch, batch, workers=0)))
        for _ in range(WARM_UP):
            run(next(loaded))
        wait(device)
        ready = time.perf_counter()
        times: list[float] = []
        while sum(times) < SECONDS:
            start = time.perf_counter()
            run(next(loaded))
            wait(device)
            times.append(time.perf_counter() - start)
    rate = batch / statistics.median(times)
    flops = 6 * (cost(find_arch(arch)).macs + find_arch(arch).embedding_dim * classes)  # forward and backward
    return {
        "arch": arch, "classes": classes, "mode": mode, "batch": batch, "precision": trainer.precision,
        "images_per_s": round(rate, 1), "fastest_images_per_s": round(batch / min(times), 1), "steps": len(times),
        "peak_memory_mib": round(peak_mib() if device == "cpu" else torch.cuda.max_memory_allocated() / 2**20),
        "tflops": round(rate * flops / 1e12, 4), "seconds_before": round(ready - began, 1),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }  # fmt: skip


def wait(device: str) -> None:
    """Until the GPU has done what it was told."""
    if device == "cuda":
        torch.cuda.synchronize()


def matrix_peak() -> Row:
    """TFLOP/s of one large matrix product, the best of five, by precision."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    side, found = MATRIX[device], {}
    for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
        times = []
        for _ in range(6):
            start = time.perf_counter()
            a @ b
            wait(device)
            times.append(time.perf_counter() - start)
        found[name] = round(2 * side**3 / min(times[1:]) / 1e12, 3)
    return {"side": side, "tflops": found}


def known(name: str, device: str) -> list[Row]:
    """The rows of the result file, if it is of this device and these versions; failed ones are left out."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return []
    found, here = json.loads(path.read_text(encoding="utf-8")), describe()
    same = all(found["environment"][key] == here[key] for key in SAME) and found["device"] == device
    same = same and found["torch_threads"] == torch.get_num_threads()
    return [row for row in found["rows"] if "failed" not in row] if same else []


def main(archs: list[str] = typer.Argument(None), row: str = typer.Option("", hidden=True)) -> None:  # noqa: B008
    """All measurements that are not there yet."""
    if row:
        arch, classes, mode = row.split(":")
        print(json.dumps(measure(arch, int(classes), mode)))
        return
    chosen = [find_arch(name).name for name in archs or ARCHS]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    name = "train_speed_" + ("gpu" if torch.cuda.is_available() else "cpu")
    rows = {key_of(found): found for found in known(name, device)}
    facts = {"device": device, "torch_threads": torch.get_num_threads(), "matrix_peak": matrix_peak()}
    for number, arch, classes, mode in product(range(2), chosen, CLASSES, MODES):
        key = (arch, classes, mode)
        if (
            number >= ROUNDS.get(arch, 2)
            or len(rows.get(key, {}).get("rounds", [])) > number
            or not wanted(*key, number)
        ):
            continue
        found = run_row(*key)
        rounds = [*rows.get(key, {}).get("rounds", []), found.get("images_per_s")]
        rows[key] = {**found, "rounds": rounds} if "failed" not in found else found
        print(json.dumps(rows[key]), flush=True)
        write_result(name, {**facts, **shares(list(rows.values()), facts["matrix_peak"])})


def key_of(row: Row) -> tuple[str, int, str]:
    """What a row is of."""
    return row["arch"], row["classes"], row["mode"]


def wanted(arch: str, classes: int, mode: str, number: int) -> bool:
    """Whether there is such a row in that round: a million classes once, and never plain."""
    return classes == CLASSES[0] or (mode != "plain" and number == 0)


def run_row(arch: str, classes: int, mode: str) -> Row:
    """One measurement in a process of its own; why it failed, where it did."""
    command = [sys.executable, "-m", "benchmarks.train_speed", "--row", f"{arch}:{classes}:{mode}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        return {"arch": arch, "classes": classes, "mode": mode, "failed": reason[0][:300]}
    found: Row = json.loads(done.stdout.splitlines()[-1])
    return found


def shares(rows: list[Row], peak: Row) -> Row:
    """The rows with the rate of all their rounds and their share of the matrix peak; how much faster than plain."""
    for row in rows:
        if "failed" not in row:
            rate = statistics.median(row["rounds"])
            tflops = row["tflops"] * rate / row["images_per_s"]
            row |= {"images_per_s": round(rate, 1), "tflops": round(tflops, 4)}
            row["share_of_matrix_peak"] = round(tflops / peak["tflops"][row["precision"]], 3)
    return {"rows": rows, "against_plain": against_plain(rows)}


def against_plain(rows: list[Row]) -> dict[str, dict[str, float]]:
    """How many times the images of `plain`, by network and mode, with as many classes."""
    rates = {key_of(row): row["images_per_s"] for row in rows if "failed" not in row}
    found: dict[str, dict[str, float]] = {}
    for arch, classes, mode in rates:
        plain = rates.get((arch, classes, "plain"))
        if plain and mode != "plain":
            found.setdefault(arch, {})[mode] = round(rates[arch, classes, mode] / plain, 2)
    return found


if __name__ == "__main__":
    try:
        typer.run(main)
    except MobileFaceError as error:
        sys.exit(str(error))
