"""The training section: what the log says, as facts and curves."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from markupsafe import Markup

from mobileface.report import plots, text
from mobileface.report.read import Json, Log, dig, number, objects, string
from mobileface.report.sections import mapping


def training(log: Log | None, card: Json) -> Json | None:
    """Facts of the training and its curves by term."""
    found = dig(card, "training")
    if (log is None or not (log.steps or log.validations)) and not found:
        return None
    facts = [
        ("images seen", text.count(number(found, "images_seen"))),
        ("time", text.duration(number(found, "seconds"))),
        ("device", string(found, "device")),
        ("precision", string(found, "precision")),
        ("torch.compile", on_off(dig(found, "compile"))),
        ("torch threads", string(found, "torch_threads")),
        ("steps in the log", text.count(log.rows) if log else None),
        ("resumed", f"{log.resumed} ×" if log and log.resumed else None),
        ("damaged log lines", f"{log.damaged}, left out" if log and log.damaged else None),
    ]
    return {
        "facts": [(name, value) for name, value in facts if value not in (None, text.NONE)],
        "plots": [*step_plots(log.steps, borders(log)), *validation_plots(log.validations, borders(log))]
        if log
        else [],
        "phases": phases(card),
        "dropped": dropped(log.steps) if log else 0,
    }


def borders(log: Log) -> list[float]:
    """Images seen where a phase ends and the next begins."""
    return [images for row in log.phases if (images := number(row, "images")) is not None]


def phases(card: Json) -> Json | None:
    """The ladder: a row for each phase, its losses, its score on held-out people and on every set. None for one."""
    found = objects(card, "training", "phases")
    if len(found) < 2:
        return None
    sets = list(dict.fromkeys(string(r, "set") or "" for phase in found for r in objects(phase, "results")))
    rows = []
    for phase in found:
        words = dig(phase, "losses")
        accuracy = {string(r, "set"): r for r in objects(phase, "results")}
        rows.append(
            {
                "name": string(phase, "name") or text.NONE,
                "losses": " + ".join(filter(None, map(string, words))) if isinstance(words, list) else "",
                "images": text.count(number(phase, "images")),
                "auc": text.percent(number(phase, "held_out_auc")),
                "sets": [
                    f"{text.percent(number(accuracy.get(name), 'accuracy'))} ± {points(accuracy.get(name))}"
                    for name in sets
                ],
            }
        )
    return {"sets": sets, "rows": rows}


def points(result: Json | None) -> str:
    """The deviation over folds in percentage points."""
    return text.NONE if (std := number(result, "std")) is None else f"{100 * std:.2f}"


def on_off(value: object) -> str | None:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else string(value)


def dropped(steps: list[Json]) -> int:
    """Kept rows with a loss or term that is no finite number; they cannot be drawn."""
    values = ([row.get("loss", 0.0), *mapping(dig(row, "terms")).values()] for row in steps)
    return sum(any(number(value) is None for value in one) for one in values)


def step_plots(steps: list[Json], borders: Sequence[float] = ()) -> list[Json]:
    """Loss, each of its terms, learning rate and speed against the images seen."""
    terms = list(dict.fromkeys(name for row in steps for name in mapping(dig(row, "terms"))))[:24]
    wanted: list[tuple[str, str, tuple[str, ...], bool]] = [("Loss", "all terms, weighted and summed", ("loss",), True)]
    wanted += [(f"Term {name}", "before its weight", ("terms", name), True) for name in terms]
    wanted += [("Learning rate", "", ("lr",), False), ("Images a second", "", ("images_per_s",), True)]
    made = []
    for i, (title, note, keys, smooth) in enumerate(wanted):
        points = [(number(row, "images"), number(row, *keys)) for row in steps]
        drawn = [(x, y) for x, y in points if x is not None and y is not None]
        if not drawn:
            continue
        x, y = zip(*drawn, strict=True)
        first, middle, last = (text.significant(v) for v in (y[0], median(y), y[-1]))
        notes = (note, f"median {middle}" if keys == ("images_per_s",) else f"first {first}, last {last}")
        made.append(
            {
                "title": title,
                "note": "; ".join(part for part in notes if part),
                "alt": f"{title} against images seen: first {first}, median {middle}, last {last}",
                "svg": Markup(plots.training_curve(f"step{i}", x, y, smooth, borders)),
                "legend": [],
            }
        )
    return made


def validation_plots(rows: list[Json], borders: Sequence[float] = ()) -> list[Json]:
    """Accuracy and area under the ROC on the held-out identities, as training went on."""
    curves, legend, last = [], [], []
    for name in ("accuracy", "auc"):
        points = [(number(row, "images"), number(row, name)) for row in rows]
        drawn = [(x, y) for x, y in points if x is not None and y is not None]
        if drawn:
            x, y = zip(*drawn, strict=True)
            curves.append((x, y))
            label = {"accuracy": "accuracy", "auc": "area under the ROC"}[name]
            legend.append(label)
            last.append(f"{label} {text.percent(y[-1])} at the end, best {text.percent(max(y))}")
    if not curves:
        return []
    return [
        {
            "title": "Held-out people",
            "note": "; ".join(last),
            "alt": f"Validation against images seen: {'; '.join(last)}",
            "svg": Markup(plots.validation_curve("validation", curves, borders)),
            "legend": legend,
        }
    ]
