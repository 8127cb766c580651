"""TAR at FARs as low as 1e-9 over all pairs of a probe and a gallery file, or of one file: counted, not estimated.

LFRC's trillion pairs (FAR 1e-8) and iQIYI-VID (all pairs of 203,848 videos at FAR 1e-4). The rule is that of
`scores.tar_at_far`: a FAR may accept k = floor(FAR x impostors) impostor pairs; accepted is what scores higher than
the (k+1)-th highest impostor pair. Where pairs tie with that one all of them are refused, so the FAR is kept. A pair
with an empty row (of zeros: nothing could be embedded) is never accepted, and stays in every denominator.
"""

from __future__ import annotations

import math
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mobileface.card import versions
from mobileface.distributed import barrier, first_then_others, rank, world_size
from mobileface.errors import InputError, visible
from mobileface.evaluation.at_scale_count import (
    PRECISIONS,
    TILE,
    Task,
    count_block,
    draw_sample,
    precisions_by_speed,
    screening_error,
    true_products,
)
from mobileface.evaluation.at_scale_folder import check_folder, check_new, read_counts, read_task, write_counts
from mobileface.evaluation.at_scale_pairs import Pairs, Side, open_pairs_at_scale
from mobileface.evaluation.at_scale_windows import Found, Sample, Tally, Window, choose, conclude, joined
from mobileface.evaluation.scores import allowed
from mobileface.files import locked, write_json
from mobileface.training.device import keep_freed_memory

MAX_BLOCK = 32768  # probe rows of a unit of resuming
PRODUCT = 2048  # probe rows of one product: with a tile of the gallery its scores stay in a core's cache
MIN_MEMORY_MIB = 64
PASSES = 24  # each makes a window thousands of times narrower: one to three are enough
AGAIN = 2000  # at most one of so many pairs is scored again: a tenth of the time
SHOWN = 20  # empty rows that are named
RULE = "accepted is what scores above the (floor(FAR x impostors) + 1)-th highest impostor pair"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """memory_mib: beside the features and the libraries. precision: of the product that screens, by speed and FAR
    unless told. The result depends on none of these."""

    memory_mib: int = 1024
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        if self.memory_mib < MIN_MEMORY_MIB:
            raise InputError(f"--memory is {self.memory_mib} MiB; wanted {MIN_MEMORY_MIB} or more")
        if self.precision not in ("auto", *PRECISIONS):
            raise InputError(f"--precision is {self.precision!r}; wanted auto, {', '.join(PRECISIONS)}")
        if self.device not in ("auto", "cpu", "cuda") or (self.device == "cuda" and not torch.cuda.is_available()):
            raise InputError(f"--device is {self.device!r}; wanted auto, cpu, or cuda where there is a GPU")

    @property
    def workers(self) -> int:
        """Threads that take a block each: one for each core, or one that feeds the GPU."""
        return torch.get_num_threads() if self.on.type == "cpu" else 1

    @property
    def on(self) -> torch.device:
        """The device that multiplies; of several GPUs this process's own, by its number: threads do not inherit it."""
        if self.device == "cpu" or not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", torch.cuda.current_device())


def score_at_scale(
    probe: Path,
    gallery: Path | None,
    labels: Sequence[Path],
    fars: str,
    settings: Settings | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """TAR at each of `fars` ("1e-8,1e-9") over all pairs of two feature files, or of one (`gallery` None).

    out: a folder for scores.json and the counts of each block of probes: the same call goes on from there. Under
    torchrun the ranks share the blocks and meet in that folder.
    Raises InputError for bad files (see `open_pairs_at_scale`), a FAR that is none, an `out` that holds other inputs'
    counts.
    """
    settings = settings or Settings()
    wanted = read_fars(fars)
    if out is None and world_size() > 1:
        raise InputError("--out is missing; wanted a folder where the ranks find each other's counts")
    with ExitStack() as stack:
        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if rank() == 0:
            check_new(folder)
            stack.enter_context(locked(folder))
        pairs = open_pairs_at_scale(probe, gallery, labels)
        highest = {far: allowed(value, pairs.impostors) for far, value in wanted.items()}
        if max(highest.values()) >= pairs.scored:
            raise InputError(f"{probe}: {pairs.scored:,} impostor pairs have no row of zeros; wanted more for this FAR")
        inputs = {"rule": RULE, **pairs.fingerprint, "fars": sorted(set(wanted.values()))}
        with first_then_others() as first:
            if first:
                check_folder(folder, inputs)
        stack.enter_context(true_products())
        if settings.on.type == "cpu":
            keep_freed_memory()
        began = time.perf_counter()
        found, tasks = _search(pairs, sorted(set(highest.values())), settings, folder, progress or (lambda text: None))
        result = {
            "protocol": "TAR at FAR over all pairs",
            **inputs,
            **_described(pairs),
            "rows": [_row(far, found[highest[far]], highest[far], pairs) for far in wanted],
            "tar": {far: found[highest[far]].accepted[1] / pairs.genuine for far in wanted},
            "screened_by": [task.precision for task in tasks],
            "seconds": round(time.perf_counter() - began, 3),
            "versions": versions(("mobileface", "torch", "numpy")),
        }
        if rank() == 0:
            write_json(folder / "scores.json", result)
        return result


def read_fars(text: str) -> dict[str, float]:
    """Each FAR of "1e-8,1e-9" by the name that it was given."""
    fars = {}
    for name in map(str.strip, text.split(",")):
        try:
            fars[name] = float(name)
        except ValueError:
            fars[name] = math.nan
        if not 0 < fars[name] <= 0.5:
            raise InputError(f"--far holds {name[:40]!r}; wanted numbers above 0, at most 0.5, such as 1e-8,1e-9")
    return fars


def summary(result: dict[str, Any]) -> list[str]:
    """A line about the pairs and one for each FAR."""
    lines = [
        f"{result['pairs']:,} pairs, {result['genuine']:,} genuine; {result['dim']}-d; screened in "
        f"{', '.join(result['screened_by'])}; {result['seconds']:.1f} s"
    ]
    for side in filter(None, (result["probe"], result["gallery"])):
        if empty := side["empty"]["count"]:
            rows = ", ".join(map(str, side["empty"]["rows"]))
            more = ", ..." if empty > len(side["empty"]["rows"]) else ""
            lines.append(f"{side['name']}: {empty:,} rows are all zero ({rows}{more}); no pair with them is accepted")
    for row in result["rows"]:
        few = "" if row["allowed"] else "; too few impostor pairs to measure this rate"
        lines.append(
            f"TAR {row['tar']:.6f} at FAR {row['far']}: {row['accepted_genuine']:,} genuine and "
            f"{row['accepted_impostors']:,} impostor pairs (allowed {row['allowed']:,}) above {row['refused']:.7f}{few}"
        )
    return [visible(line) for line in lines]


def _row(far: str, found: Found, most: int, pairs: Pairs) -> dict[str, Any]:
    impostors, genuine = found.accepted
    return {
        "far": far,
        "allowed": most,
        "accepted_impostors": impostors,
        "accepted_genuine": genuine,
        "tar": genuine / pairs.genuine,
        "refused": found.score,
        "threshold": math.nextafter(found.score, math.inf),  # accepted: at or above it
    }


def _described(pairs: Pairs) -> dict[str, Any]:
    def side(one: Side) -> dict[str, Any]:
        empty = {"count": len(one.empty()), "rows": one.empty()[:SHOWN].tolist()}
        return {
            "name": one.path.name,
            "rows": len(one.lengths),
            "strangers": int((one.person < 0).sum()),
            "empty": empty,
        }

    return {
        "probe": side(pairs.probe),
        "gallery": None if pairs.same else side(pairs.gallery),
        "dim": pairs.dim,
        "pairs": pairs.total,
        "genuine": pairs.genuine,
        "impostors": pairs.impostors,
    }


def _search(
    pairs: Pairs, ks: list[int], settings: Settings, folder: Path, progress: Progress
) -> tuple[dict[int, Found], list[Task]]:
    """The score that each k refuses, and the passes that it took."""
    memory = settings.memory_mib << 20
    sample = draw_sample(pairs, math.isqrt(memory // 64), settings.on)
    searched: dict[int, Found | Window] = {k: sample.window(k) for k in ks}
    tasks: list[Task] = []
    while windows := joined([state for state in searched.values() if isinstance(state, Window)]):
        if len(tasks) == PASSES:
            raise RuntimeError(f"{PASSES} passes did not find the threshold; the narrowest window is {windows[0]}")
        place = folder / f"pass-{len(tasks)}"
        with first_then_others() as first:
            if first and not (place / "task.json").is_file():
                write_json(place / "task.json", asdict(_next_task(pairs, windows, sample, settings)))
        tasks.append(read_task(place / "task.json"))
        for tally in _counted(pairs, tasks[-1], settings, place, progress):
            searched |= conclude(tally)
    return {k: state for k, state in searched.items() if isinstance(state, Found)}, tasks


def _next_task(pairs: Pairs, windows: list[Window], sample: Sample, settings: Settings) -> Task:
    workers, count = settings.workers, len(pairs.probe.lengths)
    memory = (settings.memory_mib << 20) // workers
    most = memory // 256 // len(windows)  # a key, two counts, and room to sort them
    block = max(1, min(MAX_BLOCK, memory // 8 // (12 * pairs.dim)))
    share = world_size() * workers
    parts = share * math.ceil(count / (block * share))  # as many for each
    names = [settings.precision]
    if settings.precision == "auto":
        names = precisions_by_speed(settings.on, pairs.dim)
    errors = {name: screening_error(name, pairs.dim) for name in names}
    limit = max(pairs.total / AGAIN / len(windows), 1 << 16)
    precision, chosen = choose(windows, errors, sample, limit, most)
    product = max(1, min(PRODUCT if settings.on.type == "cpu" else MAX_BLOCK, memory // 4 // (64 * TILE)))
    return Task(precision, tuple(chosen), math.ceil(count / parts), product, most)


def _counted(pairs: Pairs, task: Task, settings: Settings, place: Path, progress: Progress) -> list[Tally]:
    """The tallies of one pass over all pairs; ranks and workers share the blocks. What is there is not counted anew."""
    count = len(pairs.probe.lengths)
    blocks = [range(start, min(start + task.block, count)) for start in range(0, count, task.block)]
    device = settings.on  # asked here: a worker's own current GPU is the first one
    stopped = threading.Event()
    key = (place / "task.json").read_bytes() + (place.parent / "inputs.json").read_bytes()

    def work(number: int) -> None:
        path = place / f"block-{number}.counts"
        if read_counts(path, key, task) is None:
            write_counts(path, key, count_block(pairs, blocks[number], task, device, stopped.is_set))

    own = range(rank(), len(blocks), world_size())
    pool = ThreadPoolExecutor(settings.workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for done, _ in enumerate(pool.map(work, own)):
            progress(f"{place.name} ({task.precision}): {done + 1} of {len(own)} blocks")
    finally:
        stopped.set()  # a block may take minutes
        pool.shutdown(cancel_futures=True)
    barrier()
    whole = [Tally(window, task.most) for window in task.windows]
    for number in range(len(blocks)):
        path = place / f"block-{number}.counts"
        if (part := read_counts(path, key, task)) is None:
            raise InputError(f"{path}: another process took it away or damaged it; wanted the folder left alone")
        for tally, more in zip(whole, part, strict=True):
            tally.add(more)
    return whole
