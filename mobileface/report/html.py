"""One self-contained HTML file per run: no script, no request to the network, nothing unescaped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from mobileface.files import atomic_path
from mobileface.report import curves, judged, sections, text, words
from mobileface.report.read import Json, RunFiles, dig, read_run, string
from mobileface.report.unfinished import Budget, filled_in

HERE = Path(__file__).parent


def write_report(run: Path, budget: Budget | None = None) -> Path:
    """Write run/report.html from the files of the run folder and return its path.

    Parts that are not there are said to be "not run". InputError if `run` is not a run folder or one of its
    files is damaged or too large to be one. The same files give the same report, to the byte.
    `budget` makes the budget of a run whose training has not ended, see `filled_in`.
    """
    page = render(filled_in(read_run(Path(run)), budget))
    report = Path(run) / "report.html"
    with atomic_path(report) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return report


def render(files: RunFiles) -> str:
    """The page as text."""
    return template("report.html").render(**context(files))


def template(name: str) -> Template:
    """A page of this folder: escaped, strict, with the style sheet in `style`."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": text.percent, "breakable": text.breakable}
    environment.globals["style"] = Markup((HERE / "style.css").read_text(encoding="utf-8"))
    return environment.get_template(name)


def shown(value: object) -> object:
    """What jinja2 prints for a value: our own markup as it is, what is unprintable as escapes."""
    if isinstance(value, Markup):
        return value
    return text.visible("" if value is None else str(value))


def context(files: RunFiles) -> dict[str, Any]:
    """Everything that the template prints."""
    card = files.card
    found: dict[str, Any] = {
        "name": string(card, "name") or os.fspath(files.path.resolve().name),
        "created": string(card, "created"),
        "unfinished": string(card, "unfinished"),
        "budget": sections.budget(card),
        "training": curves.training(files.log, card),
        "sets": judged.evaluations(files),
        "exports": sections.exports(files),
        "compared": sections.compared(files),
        "data": sections.data(card),
        "source": source(card),
        "teacher": teacher(card),
        "plan": files.plan,
        "versions": versions(files),
        "losses": words.losses(card, files.log),
    }
    return found | {"headline": headline(found), "fold": words.fold(found["sets"])}


def versions(files: RunFiles) -> list[tuple[str, str]]:
    """Of the training, and of what the evaluations used besides (a runtime)."""
    found: Json = {}
    for source in (files.card, *(result for each in files.evaluations.values() for result in each.values())):
        found = sections.mapping(dig(source, "versions")) | found
    return [(name, value) for name in sorted(found) if (value := string(found, name))]


def teacher(card: Json) -> list[tuple[str, str]]:
    """The teacher's file, hash and input contract; empty without one."""
    return origin(card, "teacher", "path")


def source(card: Json) -> list[tuple[str, str]]:
    """The file that weights were imported from, its kind and licence, and what it was fed; empty for a trained run."""
    found = origin(card, "source", "file")
    more = [("kind", string(card, "source", "kind")), ("licence", string(card, "licence"))]
    return [*found, *((name, value) for name, value in more if value)] if found else []


def origin(card: Json, key: str, file: str) -> list[tuple[str, str]]:
    """File, hash and input contract of the model under `key` of the card."""
    contract = sections.mapping(dig(card, key, "contract"))
    rows = [
        ("file", string(card, key, file)),
        ("SHA-256", string(card, key, "sha256")),
        ("input", ", ".join(f"{name} {judged.plain(value)}" for name, value in list(contract.items())[:12])),
    ]
    return [(name, value) for name, value in rows if value]


def headline(found: dict[str, Any]) -> list[Json]:
    """Four answers: does it fit, how good is it, how large is it, is the export the same network."""
    budget, sets, exports = found["budget"], found["sets"], found["exports"]
    limits = [row for row in budget["limits"] if row["share"] is not None] if budget else []
    fits = budget["fits"] if budget else None
    first = sets[0] if sets else None
    file = min(exports, key=lambda row: row["precision"] != "fp32", default=None)  # the first one in fp32, if any
    parity = [row["passed"] for row in exports if row["passed"] is not None]
    equal = all(parity) if parity else None
    spread = [f"± {first['std']} points over the {first['over']}"] if first and first["std"] else []
    return [
        answer(
            "Fits its budget",
            {True: "yes", False: "no", None: "no budget" if budget else "not run"}[fits],
            [f"{text.percent(row['share'], 0)} of the {row['name']} allowed" for row in limits],
            fits,
        ),
        answer(
            f"Accuracy on {first['name']}" if first else "Accuracy",
            first["accuracy"] if first else "not run",
            spread + [f"{entry['name']}: {entry['accuracy']}" for entry in sets[1:4]],
        ),
        answer(
            f"Size of the {file['format']} {file['precision']} file" if file else "Size in fp32",
            file["size"] if file else budget["size"] if budget else "not run",
            [f"{budget['params']} parameters", f"{budget['flops']}FLOPs an image"] if budget else [],
        ),
        answer(
            "Export equals the network",
            {True: "yes", False: "no", None: "not run"}[equal],
            [f"{row['format']} {row['precision']}: cosine at least {row['cosine']}" for row in exports],
            equal,
        ),
    ]


def answer(label: str, value: str, lines: list[str], good: bool | None = None) -> Json:
    """One answer of the summary; `good` None means that it is a figure, not a yes or no."""
    return {"label": label, "value": value, "lines": lines, "good": good}
