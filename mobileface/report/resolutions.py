"""The page across resolutions: plain data for report/resolutions.html, in the report's own style."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from mobileface.files import atomic_path, write_json
from mobileface.report import plots, resolutions_plots, text
from mobileface.report.html import template
from mobileface.report.judged import plain
from mobileface.report.read import Json

NAME = "resolutions"
KINDS = {"cross": "one image degraded (cross)", "same": "both images degraded (same)"}
GUESSING = 0.5  # accuracy whose cell has no colour


def write_resolutions(numbers: Json, out: Path) -> Path:
    """Write out/resolutions.json and out/resolutions.html; returns the latter. The same numbers, the same page."""
    write_json(out / f"{NAME}.json", numbers)
    page = out / f"{NAME}.html"
    with atomic_path(page) as temporary:
        temporary.write_text(render(numbers), encoding="utf-8")
    return page


def render(numbers: Json) -> str:
    """The page as text, from what `compare` found."""
    sides, models = numbers["sides"], numbers["models"]
    steps = {scheme: resolutions_plots.scale(len(sides), scheme) for scheme in resolutions_plots.ENDS}
    return template(f"{NAME}.html").render(
        title=", ".join(model["name"] for model in models),
        sides=sides,
        kinds=KINDS,
        steps={scheme: Markup(variables(colours)) for scheme, colours in steps.items()},
        two=len(models) == 2,
        sets=[one_set(i, found, numbers) for i, found in enumerate(numbers["sets"])],
        models=[{"name": model["name"], "facts": facts(model, numbers)} for model in models],
        protocol=numbers["protocol"],
        degradation=numbers["degradation"],
        versions=list(numbers["versions"].items()),
    )


def variables(colours: Sequence[str]) -> str:
    return " ".join(f"--step{number}: {colour};" for number, colour in enumerate(colours))


def facts(model: Json, numbers: Json) -> list[tuple[str, str]]:
    """What was judged, and how its pixels were fed."""
    flips = sorted({result["flip"] for result in numbers["results"] if result["model"] == model["name"]})
    contract = {name: value for name, value in model["contract"].items() if name != "flip"}
    return [
        ("flip", ", ".join(flips)),
        ("input", ", ".join(f"{name} {plain(value)}" for name, value in contract.items())),
        ("model SHA-256", model["model_sha256"]),
    ]


def one_set(i: int, found: Json, numbers: Json) -> Json:
    """What the template prints of pair set number `i`."""
    results = [result for result in numbers["results"] if result["set"] == found["name"]]
    sides = numbers["sides"]
    return {
        "name": found["name"],
        "pairs": text.count(found["pairs"]),
        "images": text.count(found["images"]),
        "folds": found["folds"],
        "sha256": found["data_sha256"],
        "means": [{"model": r["model"], **{kind: text.percent(r["mean"][kind]) for kind in KINDS}} for r in results],
        "compared": [comparison(f"c{i}{kind}", kind, sides, results) for kind in KINDS] if len(results) == 2 else [],
        "models": [one_model(f"s{i}m{j}", result, results[:j], sides) for j, result in enumerate(results)],
    }


def one_model(key: str, result: Json, before: Sequence[Json], sides: Sequence[int]) -> Json:
    """A model on a set: the matrix, the rows, the plots. before: the model that its differences are held against."""
    rows = {kind: [row for row in result["rows"] if row["kind"] == kind] for kind in KINDS}
    return {
        "name": result["model"],
        "matrix": [cells(row) for row in result["matrix"]],
        "rows": [{"side": side, **{kind: measures(rows[kind][at]) for kind in KINDS}} for at, side in enumerate(sides)],
        "rocs": [roc(f"{key}r{kind}", kind, rows[kind]) for kind in KINDS],
        "unmatched": unmatched(f"{key}h", result, before),
    }


def cells(accuracies: Sequence[float]) -> list[Json]:
    """A row of the matrix: the accuracy, and how much of the colour its cell has (0..0.5)."""
    shares = [min(max((accuracy - GUESSING) / (1 - GUESSING), 0.0), 1.0) for accuracy in accuracies]
    return [
        {"value": f"{100 * accuracy:.1f}", "share": f"{share / 2:.3f}"}
        for accuracy, share in zip(accuracies, shares, strict=True)
    ]


def measures(row: Json) -> list[tuple[str, str]]:
    """(name, value) of one kind at one side, as a table shows them."""
    return [
        ("Accuracy", f"{text.percent(row['accuracy'])} ± {100 * row['std']:.2f}"),
        ("EER", text.percent(row["eer"])),
        ("AUC", f"{row['auc']:.4f}"),
        *((f"TAR at {far}", text.percent(tar)) for far, tar in row["tar"].items()),
    ]


def roc(key: str, kind: str, rows: Sequence[Json]) -> Json:
    """The ROC at each side, with its EER in the legend."""
    svg = resolutions_plots.roc(key, [(r["roc"]["fpr"], r["roc"]["tpr"]) for r in rows], [r["eer"] for r in rows])
    legend = [f"{row['side']} px {text.percent(row['eer'], 1)}" for row in rows]
    return {
        "title": f"ROC, {KINDS[kind]}",
        "note": "over the pairs of the list; the dots are the equal error rates (EER), here by side",
        "alt": f"ROC curves, {KINDS[kind]}; equal error rates {', '.join(legend)}",
        "svg": Markup(svg),
        "legend": legend,
    }


def comparison(key: str, kind: str, sides: Sequence[int], results: Sequence[Json]) -> Json:
    """Accuracy of the first model and of the second at each side."""
    before, after = ([row["accuracy"] for row in r["rows"] if row["kind"] == kind] for r in results)
    points = [round(100 * (new - old), 1) for old, new in zip(before, after, strict=True)]
    said = ", ".join(f"{side} px {resolutions_plots.signed(d)}" for side, d in zip(sides, points, strict=True))
    mean = round(100 * (results[1]["mean"][kind] - results[0]["mean"][kind]), 1)
    return {
        "title": f"Accuracy, {KINDS[kind]}",
        "note": f"mean over the sides {resolutions_plots.signed(mean)} points",
        "alt": f"Accuracy of two models by side, {KINDS[kind]}; difference in points: {said}",
        "svg": Markup(resolutions_plots.comparison(key, sides, before, after)),
        "legend": [],
    }


def unmatched(key: str, result: Json, before: Sequence[Json]) -> list[Json]:
    """Of each side, genuine pairs against hardest strangers; empty where nobody knows who is who."""
    old = {row["side"]: row["unmatched"] for r in before for row in r["rows"] if row["kind"] == "cross"}
    made = []
    for row in result["rows"]:
        if row["kind"] != "cross" or (found := row["unmatched"]) is None:
            continue
        side, difference, histogram = row["side"], found["difference"], found["histogram"]
        change = f" ({cosine(difference - old[side]['difference'])})" if side in old else ""
        svg = plots.histogram(f"{key}{side}", histogram["edges"], histogram["matched"], histogram["hardest"], None)
        made.append(
            {
                "title": f"{side} px: {cosine(difference)}{change}",
                "note": f"matched {found['matched_mean']:.3f}, hardest unmatched {found['hardest_mean']:.3f}",
                "alt": f"Histogram of cosines at {side} px; difference of the means {cosine(difference)}{change}",
                "svg": Markup(svg),
                "legend": ["matched", "hardest unmatched"],
            }
        )
    return made


def cosine(difference: float) -> str:
    """A difference of cosines with its sign."""
    return f"{difference:+.3f}".replace("-", "−")
