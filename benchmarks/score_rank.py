"""How well does each cheap score rank networks by what they reach when they are trained longer?

    python -m benchmarks.score_rank DATA [--out DIR]

21 networks of the space `small`: seven drawn uniformly within each of three budgets, so spread over sizes (of the
networks within a budget most are near its limit; none that the budget before allows is taken). The truth: each trained
as recipes/search-small.yaml says, on three times as many images, from other initial values and with other people held
out; judged on these people (AUC) and on LFW. The scores: every kind of search.score, the short trainings at each of
their validations too. How well: Kendall's tau-b against either truth, over all pairs of networks and over those within
one budget (among which a search has to choose, and size says least), with 95 % of 1,000 bootstrap samples of networks.
How far the two truths agree with each other is shown beside them.

63 trainings, as many at a time as there are cores, with one thread each: about 50 minutes on two cores. What is in DIR
is not made again, and what was broken off goes on; the result file is written when all are there.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import typer
from numpy.typing import ArrayLike, NDArray
from rich.console import Console

from benchmarks.environment import write_result
from benchmarks.runs import Job, Row, recipe, rows_at_once
from mobileface.arch import SEMobileFaceNet
from mobileface.training.loop import finished_facts
from mobileface.training.plan import parse_plan
from search.budget import Budget
from search.cost import cost
from search.sampling import Sampler
from search.score import KINDS, TRAINED, Score, open_score
from search.space import find_space, key

SPACE, RECIPE, TAUGHT = "small", "search-small.yaml", "search-distill.yaml"
LIMITS = (10e6, 15e6, 20e6)  # FLOPs by the lfrc rule
EACH = 7  # networks of a budget
EVERY = 1_500  # images between the validations of a short training; the recipe has fewer
TIMES = 3  # as many images as a short training
SEED = 1  # of the truth
DRAWS, MOST = 1_000, 10_000  # bootstrap samples; draws until the networks of a budget are there
TRUTHS = ("auc", "lfw")


def networks() -> list[tuple[int, SEMobileFaceNet]]:
    """(number of its budget, network), the same at every start."""
    space, rng = find_space(SPACE), np.random.default_rng(0)
    found: dict[str, tuple[int, SEMobileFaceNet]] = {}
    least = 0.0
    for number, limit in enumerate(LIMITS):
        sampler = Sampler(space, Budget(max_flops=limit))
        for _ in range(MOST):
            arch = space.arch(sampler.draw(rng))
            if cost(arch).flops_lfrc > least:
                found[key(arch)] = number, arch
            if len(found) == (number + 1) * EACH:
                break
        else:
            raise SystemExit(f"{len(found)} networks in {MOST} draws; wanted {EACH} up to {limit / 1e6:g} MFLOPs")
        least = limit
    return list(found.values())


def plan_of(name: str, data: Path) -> dict[str, Any]:
    """A recipe as plain data, without an end."""
    plan = recipe(name)
    plan["data"]["root"] = str(data)
    plan["checkpoint"]["every_images"] = EVERY
    return {**plan, "evaluate": [], "export": {"formats": []}}


def truth_of(arch: SEMobileFaceNet, data: Path) -> dict[str, Any]:
    """The plan of the long training."""
    plan = plan_of(RECIPE, data)
    phase, every = plan["phases"][0], plan["checkpoint"]["every_images"]
    plan["phases"] = [{**phase, "images": TIMES * phase["images"]}]
    plan |= {"arch": json.loads(json.dumps(arch.to_dict())), "seed": SEED, "evaluate": ["lfw"]}
    return {**plan, "checkpoint": {"every_images": TIMES * every}}


@lru_cache
def opened(kind: str, data: Path) -> Score:
    """A score, once in each process."""
    return open_score(
        kind, parse_plan(plan_of(TAUGHT if kind == "distill" else RECIPE, data), kind), Console(quiet=True)
    )


def scored(score: Score, arch: SEMobileFaceNet, folder: Path) -> Iterator[tuple[str, Row]]:
    """(name, {"value", "seconds"}) of a score, and of each of its validations as KIND@IMAGES."""
    heard: dict[int, float] = {}
    began = time.monotonic()
    value = score(arch, folder, heard.__setitem__)
    seconds = time.monotonic() - began
    if score.kind in TRAINED:  # whatever it was broken off by
        facts = finished_facts(folder)
        assert facts is not None
        seconds = facts["seconds"]
    for images, auc in heard.items():
        yield f"{score.kind}@{images}", {"value": auc, "seconds": seconds * images / max(heard)}
    yield score.kind, {"value": value, "seconds": seconds}


def row_of(number: int, arch: SEMobileFaceNet, data: Path, out: Path, card: dict[str, Any]) -> Row:
    """What one network costs, reached when trained longer (the card), and is said to be worth: {"value", "seconds"} of
    each score."""
    scores = {name: row for kind in KINDS for name, row in scored(opened(kind, data), arch, out / kind / arch.name)}
    spent, training = cost(arch), card["training"]
    return {
        "network": arch.name,
        "budget": number,
        "flops_lfrc": spent.flops_lfrc,
        "params": spent.params,
        "auc": training["held_out_auc"],
        "lfw": next(result["accuracy"] for result in card["results"] if result["set"] == "lfw"),
        "seconds": training["seconds"],
        "scores": scores,
    }


def kendall(x: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> float:
    """Tau-b of two rows (N,), -1..1, over pairs of the same group (N,); 0 where one of them tells none apart."""
    i, j = np.triu_indices(len(np.asarray(x)), 1)
    if groups is not None:
        same = np.asarray(groups)[i] == np.asarray(groups)[j]
        i, j = i[same], j[same]
    signs: list[NDArray[np.int64]] = []
    for values in map(np.asarray, (x, y)):
        signs.append((values[i] > values[j]).astype(int) - (values[i] < values[j]))
    told = np.sqrt(np.prod([np.count_nonzero(sign) for sign in signs], dtype=float))
    return float((signs[0] * signs[1]).sum() / told) if told else 0.0


def judged(values: ArrayLike, truth: ArrayLike, groups: ArrayLike) -> dict[str, Any]:
    """Tau over all pairs and over those within a group, each with its 95 % of bootstrap samples."""
    x, y, g = (np.asarray(row) for row in (values, truth, groups))
    rng = np.random.default_rng(0)
    samples = rng.integers(0, len(x), (DRAWS, len(x)))
    found: dict[str, Any] = {}
    for name, own in (("all", np.zeros_like(g)), ("within", g)):
        taus = [kendall(x[sample], y[sample], own[sample]) for sample in samples]
        found[name] = {"tau": kendall(x, y, own), "interval": np.quantile(taus, (0.025, 0.975)).tolist()}
    return found


def summary(rows: list[Row]) -> dict[str, Any]:
    """Each score against each truth, the best within a budget first; and the truths against each other."""
    groups = [row["budget"] for row in rows]
    truths = {truth: [row[truth] for row in rows] for truth in TRUTHS}
    found: dict[str, Any] = {}
    for name in rows[0]["scores"]:
        each = [row["scores"][name] for row in rows]
        against = {truth: judged([one["value"] for one in each], truths[truth], groups) for truth in TRUTHS}
        found[name] = {"seconds": float(np.mean([one["seconds"] for one in each])), **against}
    ranked = sorted(found, key=lambda name: -sum(found[name][truth]["within"]["tau"] for truth in TRUTHS))
    return {"scores": {name: found[name] for name in ranked}, "truths": judged(truths["auc"], truths["lfw"], groups)}


def main(data: Path, out: Path = Path("runs/score-rank")) -> None:
    """The long training of each network, then its cheap scores."""
    jobs = [
        Job(out / "truth" / arch.name, truth_of(arch, data), partial(row_of, number, arch, data, out))
        for number, arch in networks()
    ]
    opened("distill", data)  # the teacher's embeddings are cached before several processes ask for them
    rows = rows_at_once(jobs, data)
    about = {"space": SPACE, "recipes": [RECIPE, TAUGHT], "max_flops": LIMITS, "times": TIMES, "seed": SEED}
    if "NO_RESULT" not in os.environ:
        write_result("score_rank", {**about, **summary(rows), "networks": rows})


if __name__ == "__main__":
    typer.run(main)
