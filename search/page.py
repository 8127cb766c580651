"""The page of a search: the Pareto front, the way to it, and its best network beside lfrc-step5, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from mobileface.arch import Arch, SEMobileFaceNet
from mobileface.files import atomic_path
from mobileface.report import text
from mobileface.report.html import template
from mobileface.zoo import ZOO
from search import page_plots
from search.budget import judge
from search.cost import cost, cost_by_stage
from search.found import complete, cost_in_words, front, score_in_words, score_named, unit_of
from search.study import tally
from search.work import Search

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

PEER = "lfrc-step5"  # the paper's own best, Table 1
KNOWN = ("tiny", "student-real", "mobilefacenet", "lfrc-step0", PEER)
ROOM = 1.15  # known networks up to so much right of the dearest trial are drawn
Json = dict[str, Any]


def write_page(search: Search, trials: Sequence[FrozenTrial]) -> Path:
    """Write out/page.html, one self-contained file; returns its path. There must be a trial that came to a score."""
    page = search.out / "page.html"
    with atomic_path(page) as temporary:
        temporary.write_text(render(search, list(trials)), encoding="utf-8")
    return page


def render(search: Search, trials: list[FrozenTrial]) -> str:
    """The page as text."""
    best, peer = search.arch_of(front(trials)[-1].params), ZOO[PEER]
    source = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return (
        template("macros.html")
        .environment.from_string(source)
        .render(
            space=search.space.name,
            budget=search.budget.in_words(),
            cards=cards(search, trials),
            plots=[pareto(search, trials), progress(search, trials)],
            front=[front_row(search, trial) for trial in front(trials)[::-1]],
            unit=unit_of(search)[1],
            best=best.name,
            peer=PEER,
            activations=[getattr(arch, "activation", text.NONE) for arch in (best, peer)],
            rows=[*compared(best, peer), {"name": "total", "rows": [whole(best), whole(peer)]}],
            shares=shares(best, peer),
            how=how(search),
        )
    )


def cards(search: Search, trials: list[FrozenTrial]) -> list[Json]:
    """Four answers: how good, at what cost, out of how many, how many to choose from."""
    found, now = front(trials), tally(trials)
    best = found[-1]
    limit = limit_of(search)
    share = [] if limit is None else [f"{text.percent(best.values[1] / limit, 0)} of the budget"]
    return [
        {"label": "Best score", "value": score_in_words(best.values[0]), "lines": [score_named(search)]},
        {"label": "Its cost", "value": cost_in_words(search, best.values[1]), "lines": share},
        {
            "label": "Networks tried",
            "value": str(now.finished),
            "lines": [f"{now.done} scored, {now.pruned} ended early, {now.failed} failed"],
        },
        {"label": "On the Pareto front", "value": str(len(found)), "lines": ["none is better and cheaper"]},
    ]


def limit_of(search: Search) -> float | None:
    """The budget's limit on the cost that the score is held against."""
    budget = search.budget
    return {"flops": budget.max_flops, "size": budget.max_size_mib, "ms": budget.max_ms}[search.against]


def pareto(search: Search, trials: list[FrozenTrial]) -> Json:
    """Score against cost of all trials."""
    scale, unit = unit_of(search)
    done, best = complete(trials), front(trials)
    early = [
        (trial.user_attrs["cost"] / scale, list(trial.user_attrs["rungs"].values())[-1])
        for trial in trials
        if trial.state.name == "PRUNED" and trial.user_attrs.get("rungs") and "same_as" not in trial.user_attrs
    ]
    points = [(t.values[1] / scale, t.values[0]) for t in done]
    edge = ROOM * max(cost for cost, _ in points + early)
    costs = {name: search.cost(ZOO[name]) / scale for name in KNOWN}
    costs |= {} if (limit := limit_of(search)) is None else {"the budget": limit / scale}
    drawn = {name: cost for name, cost in costs.items() if cost <= edge}
    beyond = [f"{name} at {cost:.1f} {unit}" for name, cost in costs.items() if cost > edge]
    note = f"dotted: the budget, and what known networks cost{'; off the plot: ' + ', '.join(beyond) if beyond else ''}"
    line = [(t.values[1] / scale, t.values[0]) for t in best]
    svg = page_plots.pareto("p", points, early, line, drawn, unit)
    return {
        "title": "Score against cost",
        "note": note,
        "alt": f"{len(points)} networks, {len(early)} ended early; front from {line[0]} to {line[-1]}",
        "svg": Markup(svg),
        "legend": [("dot", "the Pareto front"), ("ring", "dominated"), ("cross", "ended early, its last score")],
    }


def progress(search: Search, trials: list[FrozenTrial]) -> Json:
    """The best score so far, trial by trial."""
    points = [(trial.number, trial.values[0]) for trial in complete(trials)]
    return {
        "title": "Best score over the search",
        "note": "in order of the trials; a ring is one network's score",
        "alt": f"Best score over {len(trials)} trials; at the end {score_in_words(max(score for _, score in points))}",
        "svg": Markup(page_plots.progress("b", points, len(trials))),
        "legend": [("dot", "the best so far"), ("ring", "each network")],
    }


def front_row(search: Search, trial: FrozenTrial) -> Json:
    """A network of the front as the table shows it."""
    verdict = judge(search.arch_of(trial.params), search.budget)
    return {
        "arch": trial.user_attrs["arch"],
        "score": score_in_words(trial.values[0]),
        "cells": [
            f"{trial.values[1] / unit_of(search)[0]:.1f}",
            text.millions(verdict["macs"]),
            text.count(verdict["params"]),
            f"{verdict['size_mib']:.2f}",
            str(verdict["embedding_dim"]),
            str(trial.number),
        ],
    }


# -- stage by stage


@dataclass(frozen=True)
class Row:
    """A stage of a network: its numbers as text, its MACs as a share of the network's."""

    blocks: int
    width: str
    hidden: str
    kernel: str
    se: str
    macs: str
    share: float
    params: str


Place = tuple[int, int, int, int]  # sorts: part, minus the grid, reduction first, which one of several


def stages(arch: Arch) -> dict[Place, tuple[str, Row]]:
    """By place the name and the row of each stage."""
    assert isinstance(arch, SEMobileFaceNet)
    found: dict[Place, tuple[str, Row]] = {}
    total = sum(part.macs for *_, part in cost_by_stage(arch))
    for stage, grid, blocks, part in cost_by_stage(arch):
        width, hidden, kernel, se = str(getattr(arch, stage, "")) or str(arch.head), text.NONE, text.NONE, text.NONE
        place, name = ({"stem": 0, "head": 2, "gdc": 3, "embedding": 4}.get(stage, 1), 0, 0, 0), stage
        if stage == "embedding":
            width = str(arch.embedding_dim)
        if place[0] == 1:
            row = arch.stages[int(stage.partition(".")[2])]
            same = sum(key[:3] == (1, -grid, row.stride == 1) for key in found)
            place, name = (1, -grid, row.stride == 1, same), f"{'to ' if row.stride == 2 else ''}{grid} px"
            low, high = min(row.hiddens()), max(row.hiddens())
            width, kernel, se = str(row.width), str(row.kernel), "yes" if row.se else "no"
            hidden = str(low) if low == high else f"{low} to {high}"
        own = (text.millions(part.macs), part.macs / total, text.count(part.params))
        found[place] = (name, Row(blocks, width, hidden, kernel, se, *own))
    return found


def whole(arch: Arch) -> Row:
    """The network as one row."""
    spent, blocks = cost(arch), sum(count for _, _, count, _ in cost_by_stage(arch))
    return Row(blocks, "", "", "", "", text.millions(spent.macs), 1.0, text.count(spent.params))


def compared(first: Arch, second: Arch) -> list[Json]:
    """For each stage that one of both has: its name, and the rows of both, None where it is missing."""
    tables = [stages(first), stages(second)]
    places = sorted(set(tables[0]) | set(tables[1]))
    return [
        {
            "name": next(table[place][0] for table in tables if place in table),
            "rows": [table[place][1] if place in table else None for table in tables],
        }
        for place in places
    ]


def shares(first: Arch, second: Arch) -> Json:
    """Where the work of both networks goes."""
    rows = compared(first, second)
    names = [row["name"] for row in rows]
    both = [[row["rows"][i].share if row["rows"][i] else 0.0 for row in rows] for i in range(2)]
    said = [f"{name} {text.percent(a, 0)} and {text.percent(b, 0)}" for name, a, b in zip(names, *both, strict=True)]
    return {
        "title": "Where the work goes",
        "note": "share of the network's multiply-adds by stage",
        "alt": "; ".join(said),
        "svg": Markup(page_plots.bars("s", names, both)),
        "legend": [first.name, second.name],
    }


def how(search: Search) -> list[tuple[str, str]]:
    """What was searched, and how."""
    return [
        ("space", search.space.name),
        ("budget", f"at most {search.budget.in_words()}; FLOPs by the rule {search.budget.rule}"),
        ("score", score_named(search)),
        ("recipe", f"{search.settings.get('plan', {}).get('name', text.NONE)}, {search.images:,} images"),
        ("against", search.against),
        ("seed", str(search.seed)),
    ]
