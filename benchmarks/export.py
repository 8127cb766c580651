"""Size, parity, accuracy and time of every exported file: `python -m benchmarks.export DATA STUDENT [--out DIR]`.

STUDENT is the run folder of a trained network (runs/distill-real): all formats in all precisions, each judged on LFW
and CFP-FP's folds 9-10, its ranges for int8 from its own training images in DATA. `lfrc-step5` is there for time and
size: the weights of WEIGHTS, a run folder, where given, else random ones whose batch norms fit their inputs. Through
fifty blocks of random weights every rounding grows, which no gate lets through: these files are written without it,
with all in int8 that the writers have in it, as the student's are.

One thread, batch 1; the files of a network and a plain ONNX export of it (batch norms and PReLU as they are) take
turns. Core ML has no runtime off macOS: its files are executed by our interpreter, and not timed.

An hour on one core, most of it for judging. Files and results that are in DIR are not made again.
"""

from __future__ import annotations

import copy
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import typer
from rich.console import Console
from safetensors.torch import save_file

from benchmarks.environment import write_result
from benchmarks.onnx_forms import network_like_trained
from export.formats import FORMATS, PRECISIONS, file_name, label
from export.images import crops_for, parity_images
from export.int8 import Int8
from export.metadata import WEIGHTS_KEY
from export.run import export_run
from export.tflite_graph import operators, read
from export.timing import take_turns
from export.to_onnx import write_onnx
from mobileface.embedders.network import load_network
from mobileface.factory import judge_model
from mobileface.files import sha256, size_of
from mobileface.models.equalise import equalise
from mobileface.models.fuse import fuse
from mobileface.training.plan import Plan, read_plan
from mobileface.zoo import find_arch
from search.cost import cost

SETS = ("lfw", "cfp-fp:9-10")
SECONDS = 10.0  # for each file
CONVERTED = ("arch.json", "model.safetensors", "plan.yaml", "card.json")
Row = dict[str, Any]


def folder_of(source: Path | None, folder: Path) -> Path:
    """A run folder to export from: a copy of `source`, or lfrc-step5 with weights of no training."""
    weights = folder / "model.safetensors"
    if source is not None and weights.exists() and sha256(weights) != sha256(source / "model.safetensors"):
        sys.exit(f"{folder}: holds another network; give another --out")
    folder.mkdir(parents=True, exist_ok=True)
    if source is not None:
        for name in CONVERTED:
            if (source / name).exists():
                shutil.copy(source / name, folder / name)
    elif not weights.exists():
        network = network_like_trained(find_arch("lfrc-step5"), parity_images())
        (folder / "arch.json").write_text(json.dumps(find_arch("lfrc-step5").to_dict()))
        save_file(network.state_dict(), folder / "model.safetensors")
    return folder


def rows_of(name: str, folder: Path, plan: Plan, sets: tuple[str, ...]) -> list[Row]:
    """Size, parity, accuracy of each file, and of the network itself."""
    console, root = Console(), Path(plan.data.root or ".")
    network = {"model": name, "format": "network", "precision": "fp32"}
    rows = [network | {spec: judge_model(folder, folder, spec, root, console)["accuracy"] for spec in sets}]
    (folder / "plan.yaml").write_text(plan.to_yaml())  # lfrc-step5 has no faces of its own
    crops = crops_for(folder, None, PRECISIONS)
    for kind in FORMATS:
        for precision in PRECISIONS:
            kept = folder / "export" / f"{label(kind, precision)}.json"
            found = json.loads(kept.read_text()) if kept.exists() else {"metadata": {WEIGHTS_KEY: None}}
            if found["metadata"][WEIGHTS_KEY] != sha256(folder / "model.safetensors"):
                [found] = export_run(folder, [kind], crops, precisions=[precision])
            file = folder / "export" / found["file"]
            exported = label(kind, precision)
            judged = {
                spec: judge_model(folder, file, spec, root, console, exported)["accuracy"] for spec in sets
            }  # judge_model keeps what it found
            figures = ("max_abs", "min_cosine", "mean_cosine", "quality_error", "images")
            parity = {key: found["parity"][key] for key in figures}
            row = {"model": name, "format": kind, "precision": precision, "bytes": found["bytes"], **parity, **judged}
            if kept_float := found.get("int8", {}).get("kept"):
                row["kept_float"] = kept_float
            rows.append(row | graph_facts(kind, file))
            print(json.dumps(rows[-1]), flush=True)
    return rows


def ungated_rows(name: str, folder: Path, plan: Plan) -> list[Row]:
    """Size of each file, written without being held to the network, whose weights are of no training."""
    (folder / "plan.yaml").write_text(plan.to_yaml())
    crops = crops_for(folder, None, PRECISIONS).images
    network = load_network(folder)
    equal, ranges = equalise(fuse(network), crops[::2]), Int8(crops[::2])
    (folder / "export").mkdir(exist_ok=True)
    rows = []
    for kind in FORMATS:
        for precision in PRECISIONS:
            file = folder / "export" / file_name(name, kind, precision)
            if not file.exists():
                searched = precision == "int8" and FORMATS[kind].searched
                given = copy.deepcopy(equal if searched else network)
                FORMATS[kind].write(given, file, {}, precision, ranges if precision == "int8" else None)
            rows.append({"model": name, "format": kind, "precision": precision, "bytes": size_of(file)})
            rows[-1] |= graph_facts(kind, file)
            print(json.dumps(rows[-1]), flush=True)
    return rows


def graph_facts(kind: str, file: Path) -> Row:
    """Where the file is, and how many values a TFLite file turns around."""
    if kind != "tflite":
        return {"file": str(file)}
    names = [name for name, _ in operators(read(file.read_bytes()))]
    return {"transposes": names.count("TRANSPOSE"), "file": str(file)}


def add_times(rows: list[Row], folder: Path) -> dict[str, Any]:
    """Milliseconds of each file that has a runtime here, beside a plain ONNX export of the network."""
    plain = folder / "plain.onnx"
    write_onnx(load_network(folder), plain, {})
    timed = [row for row in rows if row["format"] in ("onnx", "tflite")]
    *found, reference = take_turns([*(Path(row["file"]) for row in timed), plain], 1, SECONDS)
    for row, timing in zip(timed, found, strict=True):
        row |= timing.summary()
    return {"model": rows[0]["model"], "bytes": size_of(plain), **reference.summary()}


def checks(rows: list[Row], plain: dict[str, Any], predicted: dict[str, int]) -> list[Row]:
    """What was asked for, by name: the figure, the limit, and whether it holds."""
    by = {(row["format"], row["precision"]): row for row in rows}
    found: list[Row] = []

    def check(name: str, value: float | None, limit: float, holds: Callable[[float, float], bool]) -> None:
        passed = value is not None and holds(value, limit)
        found.append({"model": rows[0]["model"], "check": name, "value": value, "limit": limit, "passed": passed})

    def most(value: float, limit: float) -> bool:
        return value <= limit

    def least(value: float, limit: float) -> bool:
        return value >= limit

    for kind in FORMATS:
        fp32, fp16, int8 = (by[kind, precision] for precision in PRECISIONS)
        if "min_cosine" in fp32:
            check(f"{kind} fp32, least cosine", fp32["min_cosine"], 0.99999, least)
            check(f"{kind} fp32, largest difference", fp32["max_abs"], 1e-4, most)
            check(f"{kind} fp16, least cosine", fp16["min_cosine"], 0.9999, least)
            check(f"{kind} int8, mean cosine", int8["mean_cosine"], 0.99, least)
        check(f"{kind} fp32, size off its prediction", abs(fp32["bytes"] / predicted["fp32"] - 1), 0.03, most)
        check(f"{kind} int8, size of fp32's", int8["bytes"] / fp32["bytes"], 0.35, most)
        if "lfw" in int8:
            lost = 100 * (by["network", "fp32"]["lfw"] - int8["lfw"])
            check(f"{kind} int8, points lost on LFW", lost, 0.2, most)
    times = {key: row.get("median_ms") for key, row in by.items()}
    check("tflite int8, time of fp32's", times["tflite", "int8"] / times["tflite", "fp32"], 0.5, most)
    check("onnx int8, time of fp32's", times["onnx", "int8"] / times["onnx", "fp32"], 0.75, most)
    check("onnx fp32, time of a plain export's", times["onnx", "fp32"] / plain["median_ms"], 0.55, most)
    check("tflite, transposes", max(by["tflite", p]["transposes"] for p in PRECISIONS), 0, most)
    return found


def main(data: Path, student: Path, out: Path = Path("runs/export"), weights: Path | None = None) -> None:
    """Both networks."""
    torch.set_num_threads(1)
    plan = read_plan(student / "plan.yaml", [f"data.root={json.dumps(str(data.resolve()))}"])
    result: dict[str, Any] = {"sets": SETS, "weights": "trained" if weights else "random"}
    result |= {"rows": [], "plain": [], "checks": []}
    for name, source, sets in (("student", student, SETS), ("lfrc-step5", weights, ())):
        folder = folder_of(source, out / name)
        rows = ungated_rows(name, folder, plan) if source is None else rows_of(name, folder, plan, sets)
        plain = add_times(rows, folder)
        predicted = cost(load_network(folder).arch).bytes_by_precision
        result["rows"] += [{key: value for key, value in row.items() if key != "file"} for row in rows]
        result["plain"].append(plain)
        result["checks"] += checks(rows, plain, predicted)
    for row in result["checks"]:
        print(json.dumps(row))
    print(write_result("export", result))


if __name__ == "__main__":
    typer.run(main)
