"""The training section: what the log says, as facts and curves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import median

from markupsafe import Markup

from mobileface.report import ladder, plots, text
from mobileface.report.read import Json, Log, dig, number, string
from mobileface.report.sections import mapping

AT, MOST_SIDES = "auc_at_", 12  # of the log's rows; sides that are drawn


def training(log: Log | None, card: Json) -> Json | None:
    """Facts of the training and its curves by term."""
    found = dig(card, "training")
    if (log is None or not (log.steps or log.validations)) and not found:
        return None
    edges = ladder.edges(log) if log else []
    facts = [
        ("images seen", text.count(number(found, "images_seen"))),
        ("time", text.duration(number(found, "seconds"))),
        ("people held out", text.count(people_held_out(card))),
        ("images held out", text.count(number(found, "held_out_images"))),
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
        "plots": [*step_plots(log.steps, edges), *validation_plots(log.validations, edges)] if log else [],
        "phases": ladder.phases(card),
        "begun": ladder.begun(card, log) if log else [],
        "dropped": dropped(log.steps) if log else 0,
    }


def people_held_out(card: Json) -> float | None:
    """How many people were kept from the training, to choose its best weights; None if that cannot be told.

    All people but those trained on, where every image of the data is either trained on or held out.
    """
    found = dig(card, "training")
    trained, held = number(found, "train_images"), number(found, "held_out_images")
    everyone, learned = number(card, "data", "identities"), number(found, "identities")
    if trained is None or held is None or everyone is None or learned is None:
        return None
    return everyone - learned if trained + held == number(card, "data", "images") else None


def on_off(value: object) -> str | None:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else string(value)


def dropped(steps: list[Json]) -> int:
    """Kept rows with a loss or term that is no finite number; they cannot be drawn."""
    values = ([row.get("loss", 0.0), *mapping(dig(row, "terms")).values()] for row in steps)
    return sum(any(number(value) is None for value in one) for one in values)


def step_plots(steps: list[Json], edges: Sequence[float] = ()) -> list[Json]:
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
                "svg": Markup(plots.training_curve(f"step{i}", x, y, smooth, edges)),
                "legend": [],
            }
        )
    return made


def validation_plots(rows: list[Json], edges: Sequence[float] = ()) -> list[Json]:
    """Accuracy and area under the ROC on the held-out identities, as training went on; beside it the area at each side,
    where they were judged across resolutions."""
    sides = sorted({int(key.removeprefix(AT)) for row in rows for key in row if re.fullmatch(AT + "[0-9]{1,3}", key)})
    whole = {"accuracy": "accuracy", "auc": "mean area under the ROC" if sides else "area under the ROC"}
    made = [_validation_plot("validation", "Held-out people", rows, whole, edges)]
    for side in sides[:MOST_SIDES]:
        label = {f"{AT}{side}": "area under the ROC"}
        made.append(_validation_plot(f"validation{side}", f"Held-out people, one at {side} px", rows, label, edges))
    return [plot for plot in made if plot is not None]


def _validation_plot(
    key: str, title: str, rows: list[Json], labels: dict[str, str], edges: Sequence[float]
) -> Json | None:
    """One plot of some of the rows' numbers, at most two; None where no row has them."""
    curves, legend, last = [], [], []
    for name, label in labels.items():
        points = [(number(row, "images"), number(row, name)) for row in rows]
        drawn = [(x, y) for x, y in points if x is not None and y is not None]
        if drawn:
            x, y = zip(*drawn, strict=True)
            curves.append((x, y))
            legend.append(label)
            last.append(f"{label} {text.percent(y[-1])} at the end, best {text.percent(max(y))}")
    if not curves:
        return None
    return {
        "title": title,
        "note": "; ".join(last),
        "alt": f"Validation against images seen: {'; '.join(last)}",
        "svg": Markup(plots.validation_curve(key, curves, edges)),
        "legend": legend,
    }
