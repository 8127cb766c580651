"""Read a run folder for its report: every part may be missing, none is trusted, all reads are bounded.

The layout is design 5's. A part that is not there is None or empty; a part that is there and damaged is an
`InputError` that names the file, because run files are written whole or not at all. Only the log may end in
half a line: a training that was killed, or that is still running, leaves it so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mobileface.errors import InputError

JSON_LIMIT = 64 << 20  # bytes; the largest honest file (64 small images in base64) stays under 2 MB
PLAN_LIMIT = 1 << 20  # bytes
LINE_LIMIT = 1 << 20  # bytes of one log line
LOG_POINTS = 2000  # rows kept for a curve: more than a screen has pixels
# what an export may be called, also one that is no longer there
EXPORTED = [f"{kind}{end}" for kind in ("onnx", "tflite", "coreml") for end in ("", "-fp16", "-int8")]
FILES_LIMIT = 64  # evaluation or export files of one run
MARKERS = ("plan.yaml", "arch.json", "card.json", "log.jsonl")

Json = dict[str, Any]


@dataclass(frozen=True)
class Log:
    """The training log, thinned to at most LOG_POINTS rows of each kind."""

    steps: list[Json]
    validations: list[Json]
    rows: int  # step rows in the file, before thinning
    resumed: int  # times the run was taken up again
    damaged: int  # lines that could not be read; half a last line does not count
    phases: list[Json]  # where each phase after the first begins
    start: Json  # the first row, of a start or a resumption: device, precision, counts of the data


@dataclass(frozen=True)
class RunFiles:
    """What a run folder holds. Keys of `evaluations` and `worst` are set names."""

    path: Path
    card: Json
    plan: str | None
    log: Log | None
    evaluations: dict[str, dict[str, Json]]  # set -> {"network" or an export's name: result}
    worst: dict[str, Json]
    exports: dict[str, Json]  # "onnx" -> the object of export/onnx.json


@dataclass
class Thinned:
    """At most `limit` rows, evenly spread over all that were added, the last one among them."""

    limit: int
    kept: list[Json] = field(default_factory=list)
    count: int = 0
    stride: int = 1
    last: Json | None = None

    def add(self, row: Json) -> None:
        if self.count % self.stride == 0:
            self.kept.append(row)
        self.count += 1
        self.last = row
        if len(self.kept) >= self.limit:
            self.kept = self.kept[::2]
            self.stride *= 2

    def rows(self) -> list[Json]:
        if self.last is None or self.kept[-1] is self.last:
            return self.kept
        return [*self.kept, self.last]


def read_run(run: Path) -> RunFiles:
    """Read the parts of `run` that are there. InputError if it is not a run folder or a part is damaged."""
    if not run.is_dir():
        raise InputError(f"{run}: not a folder; want a run folder, as `mobileface train` or `make` writes it")
    if not any((run / name).is_file() for name in MARKERS):
        raise InputError(f"{run}: not a run folder: it holds none of {', '.join(MARKERS)}")
    exports = {path.stem: read_json(path) for path in json_files(run / "export")}
    evaluations, worst = read_evaluations(run / "evaluation", [*exports, *EXPORTED])
    plan, log = run / "plan.yaml", run / "log.jsonl"
    return RunFiles(
        path=run,
        card=read_json(run / "card.json") if (run / "card.json").is_file() else {},
        plan=read_bounded(plan, PLAN_LIMIT).decode("utf-8", "backslashreplace") if plan.is_file() else None,
        log=read_log(log) if log.is_file() else None,
        evaluations=evaluations,
        worst=worst,
        exports=exports,
    )


def read_evaluations(folder: Path, formats: list[str]) -> tuple[dict[str, dict[str, Json]], dict[str, Json]]:
    """SET.json, SET.FORMAT.json and SET.worst.json of `folder`, as RunFiles keeps them. Of pairs of images
    only: searches and templates have a page of their own (`evaluate --on all`)."""
    results: dict[str, dict[str, Json]] = {}
    worst: dict[str, Json] = {}
    for path in json_files(folder):
        base, _, last = path.stem.rpartition(".")
        if base and last == "worst":
            worst[base] = read_json(path)
        elif base and last in formats:
            results.setdefault(base, {})[last] = read_json(path)
        elif not {"parts", "fusion"} & (found := read_json(path)).keys():
            results.setdefault(path.stem, {})["network"] = found
    return results, worst


def json_files(folder: Path) -> list[Path]:
    """The regular .json files of `folder` in the order of their names, hidden ones left out."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.glob("*.json") if path.is_file() and not path.name.startswith(".")]
    if len(found) > FILES_LIMIT:
        raise InputError(f"{folder}: holds {len(found)} .json files; want at most {FILES_LIMIT}")
    return sorted(found)


def read_bounded(path: Path, limit: int) -> bytes:
    """The file's bytes; InputError above `limit` bytes."""
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise InputError(f"{path}: larger than {limit} bytes, the most that a report reads of such a file")
    return content


def read_json(path: Path) -> Json:
    """One JSON object. InputError for anything else."""
    try:
        value = json.loads(read_bounded(path, JSON_LIMIT).decode("utf-8", "backslashreplace"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); want one object") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: found a JSON {type(value).__name__}, want an object")
    return value


def read_log(path: Path) -> Log:
    """log.jsonl in one pass and bounded memory."""
    steps, validations, phases = Thinned(LOG_POINTS), Thinned(LOG_POINTS), Thinned(FILES_LIMIT)
    resumed = damaged = 0
    start: Json = {}
    for row in log_rows(path):
        if row is not None and row.get("event") in ("start", "resume"):
            start = start or row
        match row.get("event") if row is not None else "damaged":
            case "step":
                steps.add(row or {})
            case "validation":
                validations.add(row or {})
            case "phase":
                phases.add(row or {})
            case "resume":
                resumed += 1
            case "damaged":
                damaged += 1
    return Log(steps.rows(), validations.rows(), steps.count, resumed, damaged, phases.rows(), start)


def log_rows(path: Path) -> Iterator[Json | None]:
    """Each line's object, None for a line that is none; half a last line is passed over in silence."""
    with path.open("rb") as file:
        while line := file.readline(LINE_LIMIT):
            try:
                row = json.loads(line.decode("utf-8", "backslashreplace"))
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict):
                yield row
            elif line.endswith(b"\n") or len(line) == LINE_LIMIT:
                yield None


def dig(value: object, *keys: str) -> Any:
    """value[key][key]..., or None as soon as one of them is not there."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def number(value: object, *keys: str) -> float | None:
    """The finite number at that place, or None. Above 1e30 counts as not finite: no honest value is there."""
    found = dig(value, *keys)
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return float(found) if -1e30 < found < 1e30 else None  # False for NaN too; compares ints of any length


def numbers(value: object, *keys: str) -> list[float]:
    """The list of finite numbers at that place; empty if any entry is not one."""
    found = dig(value, *keys)
    if not isinstance(found, list):
        return []
    values = [number(entry) for entry in found]
    return [entry for entry in values if entry is not None] if None not in values else []


def objects(value: object, *keys: str) -> list[Json]:
    """The objects in the list at that place; empty if there is none."""
    found = dig(value, *keys)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def string(value: object, *keys: str) -> str | None:
    """The text at that place, a number as text, cut at 300 characters; None if there is none."""
    found = dig(value, *keys)
    if not isinstance(found, str | bool | int | float) or found == "":
        return None
    text = str(found)
    return text if len(text) <= 300 else text[:297] + "..."
