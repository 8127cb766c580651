"""How fast a budget is checked: `python -m benchmarks.budget_speed`. About half a minute.

Two figures: the wall time of `python -m search.budget lfrc-step5`, each run a process of its own; and how many
architectures are costed a second by one process, all different, drawn from a space around Table 1 of the paper.
They are drawn beforehand, and the cost's caches are emptied before each pass. Seeds: 0, 1, ... by pass.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks.environment import write_result
from mobileface.arch import ACTIVATIONS, Arch, SEMobileFaceNet, Stage, layers, mobilefacenet
from search import cost as costs
from search.budget import main as budget

COMMAND = ["-m", "search.budget", "lfrc-step5"]
RUNS, PASSES, CANDIDATES = 21, 5, 20_000
LIMITS = {"wall_s": 0.4, "candidates_per_s": 10_000}
CACHES = (layers.conv_unit, mobilefacenet.bottleneck, layers.squeeze_excitation, costs.layer_cost, costs.block_cost)


def wall_times(runs: int) -> list[float]:
    """Seconds of fresh processes; one before them, not counted, brings the files into memory."""
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, *COMMAND], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return times[1:]


def draw(rng: random.Random, name: str) -> Arch:
    """A row at 56x56, then three times a reduction and its row, all of them free around Table 1 (step5)."""

    def row(inputs: int, width: int, depth: int, stride: int) -> Stage:
        hidden = int(inputs * rng.choice((1, 1.5, 2, 2.5, 3)))
        return Stage(hidden, width, depth, stride, rng.choice((3, 5)), rng.random() < 0.5)

    widths = [rng.randrange(16, 65, 8), rng.randrange(32, 97, 8), rng.randrange(64, 193, 8)]
    widths.append(rng.randrange(128, 385, 16))
    stem = rng.randrange(16, 65, 8)
    stages = [row(stem, widths[0], rng.randint(1, 4), 1)]
    for before, width, most in zip(widths, widths[1:], (10, 20, 28), strict=False):
        stages += [row(before, width, 1, 2), row(width, width, rng.randint(1, most), 1)]
    head, dim = rng.choice((256, 384, 512)), rng.choice((128, 192, 256, 384, 512))
    return SEMobileFaceNet(name, stem, tuple(stages), head, dim, rng.random() < 0.5, rng.choice(ACTIVATIONS))


def draw_distinct(count: int, seed: int) -> list[Arch]:
    """`count` different architectures; a draw that came before is drawn again."""
    rng = random.Random(seed)
    found: dict[Arch, None] = {}  # a set in the order of drawing
    while len(found) < count:
        found[draw(rng, "candidate")] = None
    return list(found)


def one_pass(candidates: list[Arch]) -> dict[str, float]:
    """Candidates a second by wall and by CPU time, with empty caches; then again with what they hold."""
    for cache in CACHES:
        cache.cache_clear()
    rates: dict[str, float] = {}
    for name in ("cold", "warm"):
        wall, cpu = time.perf_counter(), time.process_time()
        for candidate in candidates:
            costs.cost(candidate)
        rates[f"{name}_per_s"] = round(len(candidates) / (time.perf_counter() - wall), 1)
        rates[f"{name}_per_cpu_s"] = round(len(candidates) / (time.process_time() - cpu), 1)
    return rates


def measure(runs: int = RUNS, passes: int = PASSES, count: int = CANDIDATES) -> dict[str, Any]:
    """Both figures, and whether they keep the limits."""
    times = wall_times(runs)
    rates = [one_pass(draw_distinct(count, seed)) for seed in range(passes)]
    median = {name: statistics.median(rate[name] for rate in rates) for name in rates[0]}
    wall = {"median": statistics.median(times), "min": min(times), "max": max(times)}
    speed = median["cold_per_s"]
    return {
        "command": " ".join(["python", *COMMAND]),
        "runs": runs,
        "wall_s": {name: round(seconds, 4) for name, seconds in wall.items()},
        "candidates": count,
        "candidates_per_s": speed,
        "median_of_passes": median,
        "passes": rates,
        "limits": LIMITS,
        "within_limits": wall["median"] < LIMITS["wall_s"] and speed >= LIMITS["candidates_per_s"],
    }


def main() -> int:
    assert budget(["lfrc-step5", "--budget", "lfrc-light"]) == 0  # what is timed works
    result = measure()
    print(json.dumps(result, indent=2))
    print(write_result("budget_speed", result))
    return 0 if result["within_limits"] else 1


if __name__ == "__main__":
    sys.exit(main())
