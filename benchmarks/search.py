"""Does the search find a better network than the known ones made small? And the paper's Table 2, in small.

    python -m benchmarks.search DATA [--out DIR] [--seeds 3] [--table-seeds 1]

`python -m search.run small` looks for the best network of at most 20 MFLOPs (lfrc rule) by 40 short trainings with a
teacher (recipes/search-distill.yaml). Its winner is then trained by the same recipe on 12,000 images, and so are
MobileFaceNet and the steps 0 to 5 of the progressive paper's Table 2, with and without SE ("step 5, SE" is lfrc-step5),
each at three fifths of its depth and as wide as the budget allows. Judged on LFW. "Beyond the spread": the winner's
mean is further above the other's than both deviations over seeds together. (By held-out AUC the winner is ahead by
choice as well: the search chose it on the people that seed 0 holds out. LFW has no part in that.)

The winner, MobileFaceNet and lfrc-step5 are trained with three seeds, the rest of the table with `--table-seeds`. One
thread each, as many at a time as there are cores: about an hour on two cores. What is in DIR is not made again, and
what was broken off goes on; the result file is written when all are there.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import typer

from benchmarks.environment import write_result
from benchmarks.runs import RECIPES, Job, Row, recipe, rows_at_once, spread
from mobileface.arch import SEMobileFaceNet, load_arch
from mobileface.zoo import ZOO
from search.budget import Budget
from search.cost import cost

SPACE, RECIPE = "small", "search-distill.yaml"
MAX_FLOPS = 20e6
TRIALS, WORKERS = 40, 2
IMAGES = 12_000  # of the trainings that are compared
COMPARED = ("found", "mobilefacenet", "step 5, SE")  # with all seeds: the winner, and whom it is to beat
DEPTH, MULTIPLE = 0.6, 2  # of a scaled network: share of its blocks, what all channels are multiples of
LEAST_DIM = 128  # of its embedding, else half of what it was


def scaled(arch: SEMobileFaceNet, max_flops: float = MAX_FLOPS) -> SEMobileFaceNet:
    """Less deep, but rows of one block as they are, and with all channels times the largest factor that fits."""

    dim = max(LEAST_DIM, arch.embedding_dim // 2)

    def times(factor: float) -> SEMobileFaceNet:
        def channels(count: int) -> int:
            return max(MULTIPLE, round(count * factor / MULTIPLE) * MULTIPLE)

        rows = tuple(
            replace(
                row,
                hidden=channels(row.hiddens()[0]),
                width=channels(row.width),
                depth=math.ceil(DEPTH * row.depth),
            )
            for row in arch.stages
        )
        return replace(arch, stem=channels(arch.stem), stages=rows, head=channels(arch.head), embedding_dim=dim)

    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(times(middle)).flops_lfrc <= max_flops else (low, middle)
    return times(low)


def with_se(arch: SEMobileFaceNet, se: bool) -> SEMobileFaceNet:
    """All rows with squeeze-and-excitation, or none."""
    return replace(arch, stages=tuple(replace(row, se=se) for row in arch.stages))


def known() -> dict[str, SEMobileFaceNet]:
    """What the winner is compared with, by name."""
    found = {"mobilefacenet": scaled(_zoo("mobilefacenet"))}
    for step, se in product(range(6), (False, True)):
        arch = with_se(_zoo(f"lfrc-step{step}"), se)
        found[f"step {step}, {'SE' if se else 'no SE'}"] = scaled(arch)
    return found


def _zoo(name: str) -> SEMobileFaceNet:
    arch = ZOO[name]
    assert isinstance(arch, SEMobileFaceNet)
    return arch


def search(data: Path, out: Path) -> SEMobileFaceNet:
    """The winner; a search that is there is not made again."""
    command = [sys.executable, "-m", "search.run", SPACE, "--recipe", str(RECIPES / RECIPE), "--score", "distill"]
    command += ["--max-flops", f"{MAX_FLOPS:g}", "--trials", str(TRIALS), "--workers", str(WORKERS)]
    subprocess.run([*command, "--data", str(data), "--out", str(out)], check=True)
    arch = load_arch(out / "winner.yaml")
    assert isinstance(arch, SEMobileFaceNet)
    return arch


def plan_of(arch: SEMobileFaceNet, seed: int) -> dict[str, Any]:
    """The recipe of the search on more images."""
    plan = recipe(RECIPE)
    plan["phases"] = [{**plan["phases"][0], "images": IMAGES}]
    plan |= {"name": "search", "arch": json.loads(json.dumps(arch.to_dict())), "seed": seed}
    budget = Budget(max_flops=MAX_FLOPS)
    plan |= {"budget": {"max_flops": budget.max_flops}, "evaluate": ["lfw"], "export": {"formats": []}}
    return {**plan, "checkpoint": {"every_images": IMAGES // 4}}


def row_of(network: str, seed: int, arch: SEMobileFaceNet, card: dict[str, Any]) -> Row:
    """What one training reached."""
    spent, training = cost(arch), card["training"]
    return {
        "network": network,
        "seed": seed,
        "flops_lfrc": spent.flops_lfrc,
        "params": spent.params,
        "lfw": next(result["accuracy"] for result in card["results"] if result["set"] == "lfw"),
        "held_out_auc": training["held_out_auc"],
        "seconds": training["seconds"],
    }


def summary(rows: list[Row]) -> dict[str, Any]:
    """Mean and deviation over seeds of each network, and by how much the winner is above it."""
    found: dict[str, Any] = {}
    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == network]
        about = {key: own[0][key] for key in ("flops_lfrc", "params")}
        found[network] = about | spread([row["lfw"] for row in own]) | spread([r["held_out_auc"] for r in own], "auc")
    winner = found["found"]
    for one in found.values():
        one["winner_above"] = winner["lfw_mean"] - one["lfw_mean"]
        deviations = [winner["lfw_std"], one["lfw_std"]]
        one["beyond_spread"] = None not in deviations and one["winner_above"] > sum(deviations)
    return found


def main(data: Path, out: Path = Path("runs/search-benchmark"), seeds: int = 3, table_seeds: int = 1) -> None:
    """The search, then all trainings."""
    networks = {"found": search(data, out / "search"), **known()}
    jobs = []
    for seed, (name, arch) in product(range(seeds), networks.items()):
        if name in COMPARED or seed < table_seeds:
            folder = out / f"{name}-{seed}".replace(" ", "-").replace(",", "")
            jobs.append(Job(folder, plan_of(arch, seed), partial(row_of, name, seed, arch)))
    rows = rows_at_once(jobs, data)
    about = {"space": SPACE, "recipe": RECIPE, "max_flops": MAX_FLOPS, "trials": TRIALS, "images": IMAGES}
    archs = {name: arch.to_dict() for name, arch in networks.items()}
    write_result("search", {**about, "runs": rows, "networks": archs, "summary": summary(rows)})


if __name__ == "__main__":
    typer.run(main)
