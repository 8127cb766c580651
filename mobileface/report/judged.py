"""The evaluation sections: per set, the numbers of the network and of its exported files, and the plots."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from markupsafe import Markup

from mobileface.report import plots, text
from mobileface.report.read import Json, RunFiles, dig, number, numbers, string
from mobileface.report.sections import mapping, set_names, set_title, worst_pairs
from mobileface.report.words import folds


def evaluations(files: RunFiles) -> list[Json]:
    """One entry per set."""
    names = set_names(files)
    return [one_set(i, name, files.evaluations[name], files.worst.get(name)) for i, name in enumerate(names)]


def one_set(i: int, name: str, results: dict[str, Json], worst: Json | None) -> Json:
    """Set number `i` of the page; `results` by "network" or export name."""
    kinds = sorted(results, key=lambda kind: (kind != "network", kind))
    main = results[kinds[0]]
    pairs = number(main, "pairs")
    return {
        "anchor": f"set{i}",
        "name": set_title(name, results),
        "columns": [column(kind) for kind in kinds],
        "rows": measures([results[kind] for kind in kinds]),
        "pairs": text.count(pairs),
        "protocol": string(main, "protocol"),
        "accuracy": text.percent(number(main, "accuracy")),
        "std": None if (std := number(main, "std")) is None else f"{100 * std:.2f}",
        "folds": folds(main),
        "over": over_folds(folds(main)),
        "facts": facts(main),
        "plots": [plot for plot in (roc(i, kinds, results), histogram(i, main)) if plot],
        "worst": worst_pairs(worst),
    }


def column(kind: str) -> str:
    """What a column or a curve is called."""
    return "network" if kind == "network" else f"{text.format_name(kind)} file"


def facts(result: Json) -> list[tuple[str, str]]:
    """How the set was judged, and the hashes that say on what."""
    contract = mapping(dig(result, "contract"))
    found = [
        ("protocol", string(result, "protocol")),
        ("flip", string(result, "flip")),
        ("input", ", ".join(f"{name} {plain(value)}" for name, value in list(contract.items())[:12])),
        ("pairs of strangers behind TAR", strangers(result)),
        ("time", text.duration(number(result, "seconds"))),
        ("data SHA-256", string(result, "data_sha256")),
        ("model SHA-256", string(result, "model_sha256")),
    ]
    return [(name, value) for name, value in found if value and value != text.NONE]


def strangers(result: Json) -> str | None:
    """How many pairs of different people the thresholds of TAR at FAR come from, and which."""
    pairs = number(result, "tar_impostors", "pairs")
    source = string(result, "tar_impostors", "source")
    return None if pairs is None else f"{text.count(pairs)}" + (f" ({source})" if source else "")


def plain(value: object) -> str:
    """A contract's value on one line."""
    if isinstance(value, list):
        return "(" + ", ".join(string(entry) or "?" for entry in value[:8]) + ")"
    return string(value) or text.NONE


def measures(results: list[Json]) -> list[Json]:
    """The table's rows: a measure, its value for each result, and what it means in plain words."""
    rows = [
        row(
            "Accuracy",
            [accuracy(r) for r in results],
            f"share of the pairs judged rightly; ± is over the {over_folds(folds(results[0]))}",
        ),
    ]
    rates = {rate: key for r in results for key in mapping(dig(r, "tar")) if (rate := parsed(key)) is not None}
    for rate in sorted(rates, reverse=True)[:8]:
        key = rates[rate]
        rows.append(
            row(
                f"TAR at FAR {key}",
                [text.percent(number(r, "tar", key)) for r in results],
                f"share of true pairs accepted when {text.one_in(rate)} pairs of strangers gets through",
            )
        )
    rows += [
        row(
            "EER",
            [text.percent(number(r, "eer")) for r in results],
            "error rate where both kinds of error are equally frequent; the lower, the better",
        ),
        row(
            "AUC",
            [text.significant(number(r, "auc"), 5) for r in results],
            "chance that a true pair scores higher than a pair of strangers; 1 is perfect, 0.5 is guessing",
        ),
        row(
            "Threshold",
            [text.significant(number(r, "threshold")) for r in results],
            "cosine similarity from which on two images count as one person",
        ),
        row("Pairs", [text.count(number(r, "pairs")) for r in results], "compared in all"),
    ]
    return [entry for entry in rows if any(value != text.NONE for value in entry["values"])]


def row(label: str, values: list[str], meaning: str) -> dict[str, Any]:
    return {"label": label, "values": values, "meaning": meaning}


def over_folds(count: int | None) -> str:
    """ "10 folds", or "folds" where their number is not stored."""
    return f"{count} folds" if count else "folds"


def accuracy(result: Json) -> str:
    share, std = number(result, "accuracy"), number(result, "std")
    return text.percent(share) + (f" ±\u00a0{100 * std:.2f}" if std is not None and share is not None else "")


def parsed(rate: str) -> float | None:
    """A false accept rate from its key, "1e-3"; None if it is none."""
    try:
        value = float(rate)
    except ValueError:
        return None
    return value if 0 < value <= 1 else None


def roc(i: int, kinds: list[str], results: dict[str, Json]) -> Json | None:
    """The ROC of the network and of the first exported file."""
    curves, legend = [], []
    for kind in kinds[:2]:
        fpr, tpr = numbers(results[kind], "roc", "fpr"), numbers(results[kind], "roc", "tpr")
        inside = all(0 <= value <= 1 for value in (*fpr, *tpr))
        if fpr and len(fpr) == len(tpr) <= 10_000 and inside and any(value > 0 for value in fpr):
            curves.append((fpr, tpr))
            legend.append(column(kind))
    if not curves:
        return None
    auc = text.significant(number(results[kinds[0]], "auc"), 4)
    return {
        "title": "ROC",
        "note": "over the pairs of the list; the higher and the flatter to the left, the better"
        + ("; where the curves are one, file and network answer alike" if len(curves) > 1 else ""),
        "alt": f"ROC curve over a logarithmic false accept rate; area under the curve {auc}",
        "svg": Markup(plots.roc(f"roc{i}", curves)),
        "legend": legend,
    }


def histogram(i: int, result: Json) -> Json | None:
    """How the scores of true and of false pairs spread."""
    edges, same, different = (numbers(result, "histogram", key) for key in ("edges", "same", "different"))
    rising = all(low < high for low, high in pairwise(edges))
    if not (1 < len(edges) <= 2001 and len(same) == len(different) == len(edges) - 1 and rising):
        return None
    if min(*same, *different) < 0:
        return None
    threshold = number(result, "threshold")
    return {
        "title": "Scores",
        "note": "the less the two hills overlap, the better; the dotted line is the threshold",
        "alt": "Histogram of the cosine similarity of same and of different people; threshold "
        + text.significant(threshold),
        "svg": Markup(plots.histogram(f"scores{i}", edges, same, different, threshold)),
        "legend": ["same person", "different people"],
    }
