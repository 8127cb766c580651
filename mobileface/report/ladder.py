"""The ladder: what each phase of a training added, and how good its network was."""

from __future__ import annotations

from itertools import pairwise

from mobileface.report import text
from mobileface.report.read import Json, Log, number, objects, string
from mobileface.report.words import phase_losses, what_is_new


def phases(card: Json) -> Json | None:
    """A row for each phase: its score on every set and on held-out people, and what is new. None for one phase.

    The best row is that of the highest accuracy on the first set, else of the highest score on held-out people.
    """
    found = objects(card, "training", "phases")
    if len(found) < 2:
        return None
    sets = list(dict.fromkeys(string(r, "set") or "" for phase in found for r in objects(phase, "results")))
    accuracy = [{string(r, "set"): r for r in objects(phase, "results")} for phase in found]
    auc = [number(phase, "held_out_auc") for phase in found]
    scores = [number(by_set.get(sets[0]), "accuracy") for by_set in accuracy] if sets else auc
    best = max((score for score in scores if score is not None), default=None)
    words = [phase_losses(phase) for phase in found]
    new = [what_is_new(before, now) for before, now in pairwise([[], *words])]
    rows = [
        {
            "number": i + 1,
            "name": string(phase, "name") or text.NONE,
            "sets": [percent_and_deviation(accuracy[i].get(name)) for name in sets],
            "auc": text.percent(auc[i]),
            "images": text.count(number(phase, "images")),
            "new": new[i],
            "best": best is not None and scores.index(best) == i,
        }
        for i, phase in enumerate(found)
    ]
    return {"sets": sets, "rows": rows, "best_on": sets[0] if sets else "held-out people"}


def percent_and_deviation(result: Json | None) -> str:
    """Accuracy and its deviation over the folds, in percent and percentage points."""
    std = number(result, "std")
    return text.percent(number(result, "accuracy")) + (f" ±\u00a0{100 * std:.2f}" if std is not None else "")


def edges(log: Log) -> list[float]:
    """Images seen at the beginning, at each border of two phases, and at the end of the log."""
    borders = {images for row in log.phases if (images := number(row, "images")) is not None and images > 0}
    seen = [number(row, "images") or 0.0 for row in (*log.steps, *log.validations)]
    return [0.0, *sorted(borders), max([*seen, 0.0, *borders])]


def begun(card: Json, log: Log) -> list[str]:
    """Names of the phases that the log tells of, where there is more than one."""
    first = objects(card, "training", "phases")[:1]
    names = [string(row, "name") or text.NONE for row in log.phases]
    return [string(first[0], "name") or text.NONE if first else "the first", *names] if names else []
