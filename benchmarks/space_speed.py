"""How fast networks of a space are drawn and costed: `python -m benchmarks.space_speed`. About 20 seconds.

On one core, the median of PASSES with seeds 0, 1, ...: seconds until 1,000 distinct networks of `lfrc` within
lfrc-light are drawn, by a new sampler with empty caches; of which its making; and, of 10,000 networks that fit, how
many a second are costed: by the sampler's tables (`Sampler.fits`), by the walk of finished architectures
(`search.cost`, with empty caches), and with the making and naming of the architectures. The limits are on the
wall time of drawing and on costing by tables (benchmarks/budget_speed.py has that of the walk).
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.budget_speed import CACHES
from benchmarks.environment import write_result
from search.budget import BUDGETS
from search.cost import cost
from search.sampling import Sampler
from search.space import Genes, find_space

SPACE, BUDGET = "lfrc", "lfrc-light"
PASSES, DISTINCT, COSTED = 5, 1000, 10_000
LIMITS = {"draw_s": 1.0, "costed_per_s": 10_000}


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What `work` returns, and its seconds by wall and by CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def distinct(sampler: Sampler, count: int, rng: np.random.Generator) -> list[Genes]:
    """`count` different networks; one that came before is drawn again."""
    found: dict[Genes, None] = {}  # a set in the order of drawing
    while len(found) < count:
        found[sampler.draw(rng)] = None
    return list(found)


def one_pass(seed: int) -> dict[str, dict[str, float]]:
    """Seconds, and networks a second, by wall and CPU."""
    space, rng = find_space(SPACE), np.random.default_rng(seed)
    empty_caches()
    sampler, making = timed(lambda: Sampler(space, BUDGETS[BUDGET]))
    _, drawing = timed(lambda: distinct(sampler, DISTINCT, rng))
    networks = distinct(sampler, COSTED, rng)
    fits, by_tables = timed(lambda: sum(map(sampler.fits, networks)))
    assert fits == COSTED
    archs, making_archs = timed(lambda: [space.arch(genes) for genes in networks])
    empty_caches()
    costs, by_walk = timed(lambda: [cost(arch) for arch in archs])
    assert [sampler.spent(genes) for genes in networks] == [(spent.flops_lfrc, spent.size_bytes) for spent in costs]
    return {
        "sampler_s": making,
        "draw_s": {clock: making[clock] + drawing[clock] for clock in making},
        "costed_by_tables_per_s": {clock: COSTED / spent for clock, spent in by_tables.items()},
        "costed_by_walk_per_s": {clock: COSTED / spent for clock, spent in by_walk.items()},
        "made_and_costed_per_s": {clock: COSTED / (spent + making_archs[clock]) for clock, spent in by_walk.items()},
    }


def empty_caches() -> None:
    for cache in CACHES:
        cache.cache_clear()


def measure() -> dict[str, Any]:
    """The figures, and whether they keep the limits."""
    passes = [one_pass(seed) for seed in range(PASSES)]
    median = {
        name: {clock: round(statistics.median(each[name][clock] for each in passes), 4) for clock in ("wall", "cpu")}
        for name in passes[0]
    }
    draw, costed = median["draw_s"]["wall"], median["costed_by_tables_per_s"]["wall"]
    return {
        "space": SPACE,
        "budget": BUDGET,
        "distinct": DISTINCT,
        "costed": COSTED,
        "median_of_passes": median,
        "limits": LIMITS,
        "within_limits": draw < LIMITS["draw_s"] and costed >= LIMITS["costed_per_s"],
    }


def main() -> int:
    result = measure()
    print(json.dumps(result, indent=2))
    print(write_result("space_speed", result))
    return 0 if result["within_limits"] else 1


if __name__ == "__main__":
    sys.exit(main())
