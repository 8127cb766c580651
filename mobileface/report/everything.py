"""The page of `evaluate --on all`: every set that was there, in the report's own style."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from mobileface.files import atomic_path
from mobileface.report import judged, plots, text
from mobileface.report.html import template
from mobileface.report.read import Json

NAME = "evaluation"
CURVES = 3  # that one plot can tell apart


def write_everything(results: Sequence[Json], absent: Sequence[tuple[str, str]], out: Path) -> Path:
    """Write out/evaluation.html and return its path. absent: sets that were not judged, and why."""
    page = out / f"{NAME}.html"
    with atomic_path(page) as temporary:
        temporary.write_text(render(results, absent), encoding="utf-8")
    return page


def render(results: Sequence[Json], absent: Sequence[tuple[str, str]]) -> str:
    """The page as text. `results` are those of one model, at least one."""
    first = results[0]
    versions = {name: version for result in results for name, version in result["versions"].items()}
    contract = [(name, judged.plain(value)) for name, value in first["contract"].items()]
    return template(f"{NAME}.html").render(
        model=first["model"],
        model_sha256=first["model_sha256"],
        contract=", ".join(f"{name} {value}" for name, value in contract),
        sets=[one_set(i, result) for i, result in enumerate(results)],
        absent=absent,
        versions=list(versions.items()),
    )


def one_set(i: int, result: Json) -> Json:
    """What the template prints of result number `i`: of pairs, of pairs of templates, or of searches."""
    searched = "parts" in result
    figures = (
        [cmc(i, result)] if searched else [judged.roc(i, ["network"], {"network": result}), judged.histogram(i, result)]
    )
    rows = [] if searched else [*judged.measures([result]), *nearest(result)]
    return {
        "anchor": f"set{i}",
        "name": result["set"],
        "protocol": result["protocol"],
        "headline": headline(result),
        "rows": rows,
        "columns": columns(result["parts"]) if searched else [],
        "parts": [part(one, result["parts"]) for one in result.get("parts", [])],
        "plots": [figure for figure in figures if figure],
        "facts": facts(result),
        "missing": missing(result),
    }


def headline(result: Json) -> list[str]:
    """The figures that a set is known by."""
    if "accuracy" in result:
        return [f"accuracy {judged.accuracy(result)}"]
    if "parts" in result:
        named = len(result["parts"]) > 1
        return [
            (f"{one['name']}: " if named else "") + ", ".join(f"{label} {value}" for label, value in rates(one)[:1])
            for one in result["parts"]
            if rates(one)
        ]
    tar = result["tar"]
    far = "1e-4" if "1e-4" in tar else next(iter(tar), None)  # 1e-4 is what tables of IJB compare
    return [f"TAR {text.percent(tar[far])} at FAR {far}" if far else f"EER {text.percent(result['eer'])}"]


def rates(part: Json) -> list[tuple[str, str]]:
    """(name, value) of a search's rates."""
    found = [(f"rank {k}", text.percent(rate)) for k, rate in part["rank"].items()]
    return [*found, *((f"TPIR at FPIR {fpir}", text.percent(rate)) for fpir, rate in part["tpir"].items())]


def columns(parts: Sequence[Json]) -> list[str]:
    """The rates that any of the searches has, in order."""
    return list(dict.fromkeys(label for one in parts for label, _ in rates(one)))


def part(one: Json, parts: Sequence[Json]) -> Json:
    """A row of the table of searches."""
    values = dict(rates(one))
    return {
        "name": one["name"],
        "rates": [values.get(label, text.NONE) for label in columns(parts)],
        "counts": [
            text.count(one["probes"]),
            " and ".join(text.count(size) for size in one["gallery"]),
            " and ".join(text.count(number) for number in one["unmated"]),
            text.count(one["empty_probes"] + one["empty_entries"]),
        ],
    }


def nearest(result: Json) -> list[Json]:
    """TPR as InsightFace's script reads it off the ROC, for a set of template pairs."""
    found = result.get("tpr_nearest", {})
    meaning = "as InsightFace reads it: at the nearest point of the ROC, which may let more through"
    return [judged.row(f"TPR near FPR {far}", [text.percent(value)], meaning) for far, value in found.items()]


def facts(result: Json) -> list[tuple[str, str]]:
    """How the set was judged, every choice of it, and on what."""
    found = [("protocol", result["protocol"]), ("flip", result["flip"])]
    if fusion := result.get("fusion"):
        choices = [
            f"{name.replace('_', ' ')} {'yes' if value else 'no'}"
            for name, value in fusion.items()
            if name != "variant"
        ]
        found.append(("templates", f"{fusion['variant']}: {', '.join(choices)}"))
        found.append(
            ("templates, of them empty", f"{text.count(result['templates'])}, {text.count(result['empty_templates'])}")
        )
    if "crops" in result:
        found.append(("crops", result["crops"]))
    found += [("note", note) for note in result.get("notes", [])]
    found.append(("images", text.count(result["images"])))
    if strangers := judged.strangers(result):
        found.append(("pairs of strangers behind TAR", strangers))
    return [*found, ("time", text.duration(result["seconds"])), ("data SHA-256", result["data_sha256"])]


def missing(result: Json) -> str:
    """What of the set was not there."""
    rows = result.get("missing", {}).items()
    return ", ".join(f"{text.count(one['found'] or 0)} of {text.count(one['whole'])} {name}" for name, one in rows)


def cmc(i: int, result: Json) -> Json | None:
    """The share of probes whose mate is among the first k, over k, for each search."""
    drawn = [one for one in result["parts"] if one["cmc"]][:CURVES]
    if not drawn:
        return None
    said = "; ".join(f"{one['name']}: rank 1 {text.percent(one['cmc'][0])}" for one in drawn)
    return {
        "title": "Found among the first k (CMC)",
        "note": "of the probes whose person is in the gallery; the higher, the better",
        "alt": f"Cumulative match characteristic; {said}",
        "svg": Markup(cmc_plot(f"cmc{i}", [one["cmc"] for one in drawn])),
        "legend": [one["name"] for one in drawn] if len(drawn) > 1 else [],
    }


def cmc_plot(key: str, curves: Sequence[Sequence[float]]) -> str:
    """Up to CURVES curves, one rate (0..1) for each rank from 1."""
    styles = ((plots.FIRST, "-", 1.8), (plots.SECOND, "--", 1.6), (plots.INK, ":", 1.6))
    with plots.drawing(key) as (axes, drawn):
        for curve, (colour, line, width) in zip(curves, styles, strict=False):
            ranks = range(1, len(curve) + 1)
            axes.plot(ranks, curve, color=colour, linestyle=line, linewidth=width)
            axes.plot([1], curve[:1], color=colour, marker="o", markersize=4)
        axes.set_ylim(0, 1.01)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axes.set_xlabel("rank k")
        axes.set_ylabel("mate among the first k")
    return drawn[0]
