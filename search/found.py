"""What a search has found: lines while it runs; pareto.json, the networks' files and the page when it ends."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mobileface.arch import Arch
from mobileface.errors import visible
from mobileface.files import atomic_folder, atomic_path, write_json
from mobileface.report.text import duration
from search.budget import judge
from search.evolve import dominates
from search.study import Tally, tally
from search.work import Search

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial
    from rich.console import Console

UNITS = {"flops": (1e6, "MFLOPs"), "size": (1.0, "MiB"), "ms": (1.0, "ms")}


def cost_in_words(search: Search, cost: float) -> str:
    """103.2 MFLOPs; 0.26 ms."""
    scale, unit = unit_of(search)
    return f"{cost / scale:.{1 if search.against == 'flops' else 2}f} {unit}"


def score_in_words(score: float) -> str:
    """0.9312; 461,394 for a score that is no share."""
    return f"{score:.4f}" if abs(score) < 100 else f"{score:,.0f}"


def score_named(search: Search) -> str:
    """What the score is."""
    kind = str(search.settings.get("score", "given"))
    return f"held-out AUC of a short training ({kind})" if kind in ("train", "distill") else kind


def unit_of(search: Search) -> tuple[float, str]:
    """What a cost is divided by, and the unit that it then has."""
    if search.against == "flops" and search.budget.rule == "macs":
        return 1e6, "MMACs"
    return UNITS[search.against]


class Watch:
    """Says a line for each trial that has ended since it looked last."""

    def __init__(self, search: Search, study: optuna.Study, workers: int, console: Console) -> None:
        self.search, self.study, self.workers, self.console = search, study, workers, console
        self.said = {trial.number for trial in self._ended()}
        self.before, self.began = self.tally().finished, time.monotonic()

    def tally(self) -> Tally:
        """Where the trials are."""
        return tally(self.study.get_trials(deepcopy=False))

    def look(self) -> None:
        """Say what is new."""
        for trial in self._ended():
            if trial.number not in self.said:
                self.said.add(trial.number)
                line = visible(f"{self._how(trial)} · {self.in_words()}")
                self.console.print(line, highlight=False)

    def in_words(self) -> str:
        """12 of 40: 9 done, 2 ended early, 1 failed · best 0.9312 at 103.2 MFLOPs · 12 min left."""
        now = self.tally()
        parts = [
            f"{now.finished} of {self.search.trials}: {now.done} done, {now.pruned} ended early, {now.failed} failed"
        ]
        if (best := winner(self.study.get_trials(deepcopy=False))) is not None:
            parts.append(f"best {score_in_words(best.values[0])} at {cost_in_words(self.search, best.values[1])}")
        left = max(0, self.search.trials - now.finished)
        if left and now.finished > self.before:
            each = (time.monotonic() - self.began) / (now.finished - self.before)
            parts.append(f"{duration(left * each)} left")
        return " · ".join(parts)

    def _ended(self) -> list[FrozenTrial]:
        return [t for t in self.study.get_trials(deepcopy=False) if t.state.is_finished()]

    def _how(self, trial: FrozenTrial) -> str:
        """How one trial ended."""
        attrs, state = trial.user_attrs, trial.state.name
        name = f"{attrs.get('arch', f'trial {trial.number}')}"
        if "cost" in attrs:
            name += f" ({cost_in_words(self.search, attrs['cost'])})"
        same = f", as trial {attrs['same_as']} of the same network" if "same_as" in attrs else ""
        if state == "COMPLETE":
            return f"{name}: {score_in_words(trial.values[0])}{same}"
        if state == "PRUNED":
            rungs = attrs.get("rungs", {})
            at = f" at {list(rungs)[-1]} images with {list(rungs.values())[-1]:.4f}" if rungs else ""
            return f"{name}: ended early{at}{same}"
        return f"{name}: failed ({attrs['failed']}){same}" if "failed" in attrs else f"{name}: broken off"


def complete(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that came to a score of their own, in order."""
    return [t for t in trials if t.state.name == "COMPLETE" and "same_as" not in t.user_attrs]


def front(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that no other one dominates, from the cheapest on. Of equal ones the first."""
    found: list[FrozenTrial] = []
    for trial in sorted(complete(trials), key=lambda t: (t.values[1], -t.values[0], t.number)):
        if not any(dominates(t.values, trial.values) or list(t.values) == list(trial.values) for t in found):
            found.append(trial)
    return found


def winner(trials: list[FrozenTrial]) -> FrozenTrial | None:
    """The best score, and of equal ones the cheapest: the last of the front. All networks fit the budget."""
    return found[-1] if (found := front(trials)) else None


def write_found(search: Search, study: optuna.Study) -> Path | None:
    """Write pareto.json, winner.yaml, front/NAME.yaml and page.html; returns the page, None without any score."""
    from search.page import write_page

    trials = study.get_trials(deepcopy=False)
    if not (found := front(trials)):
        return None
    rows = [describe(search, trial) for trial in found]
    with atomic_folder(search.out / "front") as folder:
        folder.mkdir()
        for trial in found:
            arch = search.arch_of(trial.params)
            (folder / f"{arch.name}.yaml").write_text(arch_text(search, trial, arch), encoding="utf-8")
    best = found[-1]
    with atomic_path(search.out / "winner.yaml") as file:
        file.write_text(arch_text(search, best, search.arch_of(best.params)), encoding="utf-8")
    now = tally(trials)
    numbers = {
        **{name: value for name, value in study.user_attrs["settings"].items() if name != "genes"},
        "trials": {"done": now.done, "pruned": now.pruned, "failed": now.failed, "wanted": search.trials},
        "unit": unit_of(search)[1],
        "winner": rows[-1]["arch"],
        "front": rows,
    }
    write_json(search.out / "pareto.json", numbers)
    return write_page(search, trials)


def describe(search: Search, trial: FrozenTrial) -> dict[str, Any]:
    """A network of the front: its score, and what `search.budget` says of it."""
    verdict = judge(search.arch_of(trial.params), search.budget)
    kept = {name: verdict[name] for name in ("macs", "flops_lfrc", "params", "size_mib", "embedding_dim")}
    return {
        "arch": trial.user_attrs["arch"],
        "key": trial.user_attrs["key"],
        "trial": trial.number,
        "score": trial.values[0],
        "cost": trial.values[1],
        "rungs": trial.user_attrs.get("rungs", {}),
        **kept,
    }


def arch_text(search: Search, trial: FrozenTrial, arch: Arch) -> str:
    """A network as a file that `train`, `budget` and `export` take: a row of the table on a line."""
    score = f"{score_named(search)} {score_in_words(trial.values[0])}"
    head = f"# {search.space.name} within {search.budget.in_words()}: {score}"
    data = json.loads(json.dumps(arch.to_dict()))
    rows = yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=200)
    return f"{visible(head)} at {cost_in_words(search, trial.values[1])}\n{rows}"
