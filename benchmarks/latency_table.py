"""Fill the latency tables and predict unseen networks: `taskset -c 1 python -m benchmarks.latency_table`.

Twenty minutes of one quiet core. What was measured is kept in --work, by default runs/latency-table, and is not
measured again: the same command goes on from there. On another machine this refills search/latency_tables; with --out
the tables go elsewhere, and `python -m search.budget ARCH --latency FILE` reads them there.

Random networks (`benchmarks.latency_probes`) are cut between their blocks. A kind of work takes the same time wherever
it is done: the times of all kinds, none below zero, are those with the least squared relative error over all pieces. A
whole network weighs as much more as lets probes be predicted best from the other ones (WEIGHTS). Then networks of the
zoo and of both spaces that no table has seen are predicted and measured. One thread, batch 1.
Seeds: probes 0 to 29, networks of the spaces 0.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from benchmarks.environment import describe, installed, write_result
from benchmarks.latency_probes import TABLES, Row, cuts, draw, measured, steady
from mobileface.arch import Block, SEMobileFaceNet, arch_from_dict
from mobileface.files import write_json
from mobileface.zoo import ZOO
from search.budget import BUDGETS
from search.latency import FOLDER, KINDS, LatencyTable, filled, work
from search.sampling import Sampler
from search.space import find_space

PROBES = 30
KNOWN = ("tiny", "student-real", "mobilefacenet", "lfrc-step0", "lfrc-step5")  # of the zoo
MEMBERS = {"lfrc": 4, "small": 4}
LIMIT = 0.10  # median relative error
WEIGHTS = (1, 2, 4, 8, 16)  # of a whole network, where a piece has 1
VERSIONS = {"onnx": ("onnxruntime",), "tflite": ("ai-edge-litert",)}
CUT = "cut"  # million values at a cut, which a whole network does not hand out: not in a table
ROW_BLOCKS = "stages."


def fitted(rows: list[Row], table: str, whole: int = 1) -> MappingProxyType[str, float]:
    """Milliseconds of a unit of each kind of work, from networks, each of weight `whole`, and their pieces."""
    from scipy.optimize import nnls

    kinds = (*KINDS, CUT)
    found = [(units, ms) for row in rows for units, ms in zip(_pieces(row), row["ms"][table], strict=True)]
    weight = np.concatenate([[*[1] * len(row["cuts"]), whole] for row in rows])
    units = np.array([[piece.get(kind, 0.0) for kind in kinds] for piece, _ in found])
    times, _ = nnls(units * (weight / [ms for _, ms in found])[:, None], weight)
    return MappingProxyType({kind: round(float(t), 6) for kind, t in zip(kinds, times, strict=True) if kind != CUT})


def _pieces(row: Row) -> list[dict[str, float]]:
    """The work up to each cut, and of the whole network."""
    done, pieces, values = defaultdict[str, float](float, call=1), [], 0.0
    for block in _arch(row).walk():
        if _first(block) in row["cuts"]:
            pieces.append({**done, CUT: values})
        for kind, units in work(block.layers, block.residual, block.grid):
            done[kind] += block.repeat * units
        values = filled(block.layers[-1].outputs) * block.grid * block.grid / 1e6
    return [*pieces, done]


def block_times(rows: list[Row], table: str) -> dict[str, float]:
    """Measured milliseconds of one block of each run, from cut to cut, by its shape and activation."""
    found: dict[str, list[float]] = {}
    for row in rows:
        upto = dict(zip(row["cuts"], row["ms"][table], strict=False))
        runs = [block for block in _arch(row).walk() if _first(block) in upto]
        for run, after in pairwise(runs):
            if run.prefix.startswith(ROW_BLOCKS):
                took = (upto[_first(after)] - upto[_first(run)]) / run.repeat
                found.setdefault(_shape(run), []).append(took)
    return {shape: round(statistics.mean(times), 4) for shape, times in sorted(found.items())}


def _shape(block: Block) -> str:
    """`28px 64-128-64 3x3/1 se prelu`: side of the output, inputs, hidden, width, kernel / stride, SE, activation."""
    layers = {layer.name: layer for layer in block.layers}
    expand, depthwise, project = (layers[f"{part}.conv"] for part in ("expand", "depthwise", "project"))
    widths = f"{expand.inputs}-{expand.outputs}-{project.outputs}"
    kernel = f"{depthwise.kernel}x{depthwise.kernel}/{depthwise.stride}"
    return f"{block.grid}px {widths} {kernel} {'se ' if 'se.pool' in layers else ''}{layers['expand.act'].kind}"


def _first(block: Block) -> str:
    return f"{block.names()[0]}.{block.layers[0].name}"


def _arch(row: Row) -> SEMobileFaceNet:
    arch = arch_from_dict(row["arch"])
    assert isinstance(arch, SEMobileFaceNet)
    return arch


def unseen() -> list[SEMobileFaceNet]:
    """The zoo's, and random members of the spaces within the challenge's budget."""
    found = [ZOO[name] for name in KNOWN]
    for name, count in MEMBERS.items():
        space, rng = find_space(name), np.random.default_rng(0)
        sampler = Sampler(space, BUDGETS["lfrc-light"])
        found += [space.arch(sampler.draw(rng)) for _ in range(count)]
    return [arch for arch in found if isinstance(arch, SEMobileFaceNet)]


def errors(table: LatencyTable, name: str, rows: list[Row]) -> dict[str, Any]:
    """Predicted and measured milliseconds of each network; median and worst relative error."""
    networks = []
    for row in rows:
        predicted, ms = table.ms(_arch(row)), row["ms"][name][-1]
        networks.append(
            {
                "arch": row["arch"]["name"],
                "predicted_ms": round(predicted, 3),
                "measured_ms": round(ms, 3),
                "error": round(predicted / ms - 1, 4),
            }
        )
    off = [abs(network["error"]) for network in networks]
    return {"median_error": statistics.median(off), "worst_error": max(off), "networks": networks}


def left_out(rows: list[Row], name: str, whole: int) -> float:
    """Mean relative error of the networks, each predicted from the other ones."""
    found = []
    for row in rows:
        table = _table(name, fitted([other for other in rows if other is not row], name, whole))
        found.append(errors(table, name, [row])["median_error"])
    return statistics.mean(found)


def by_weight(seen: list[Row], others: list[Row]) -> tuple[int, list[dict[str, Any]]]:
    """The weight that is best for left-out probes, on the mean of all tables; and what each of WEIGHTS gives."""
    found = []
    for whole in WEIGHTS:
        unseen = {name: errors(_table(name, fitted(seen, name, whole)), name, others) for name in TABLES}
        row = {"left_out_mean": {name: round(left_out(seen, name, whole), 4) for name in TABLES}}
        row |= {
            f"unseen_{kind}": {name: unseen[name][f"{kind}_error"] for name in TABLES} for kind in ("median", "worst")
        }
        found.append({"weight": whole, **row})
    best = min(found, key=lambda row: statistics.mean(row["left_out_mean"].values()))
    return best["weight"], found


def _table(name: str, times: MappingProxyType[str, float]) -> LatencyTable:
    runtime, _, precision = name.partition("-")
    return LatencyTable(runtime, precision, times)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/latency-table"), help="what was measured is kept here")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where the tables go")
    options = parser.parse_args()
    torch.set_num_threads(1)
    probes = [draw(seed, f"probe-{seed:02}") for seed in range(PROBES)]
    wanted = [*((arch, cuts(arch)) for arch in probes), *((arch, []) for arch in unseen())]
    print(f"{len(wanted)} networks, about half a minute each on a quiet core; what {options.work} holds is kept")
    rows: list[Row] = []
    for number, (arch, at) in enumerate(wanted, 1):
        rows.append(measured(arch, at, options.work))
        print(f"{number}/{len(wanted)} {arch.name} {json.dumps(_whole(rows[-1]))} ms", flush=True)
    rows = steady(rows)
    seen, others = rows[:PROBES], rows[PROBES:]
    whole, weights = by_weight(seen, others)
    found = {}
    for name in TABLES:
        table = _table(name, fitted(seen, name, whole))
        versions = {package: installed(package) for package in VERSIONS[table.runtime]}
        kind = {"runtime": table.runtime, "precision": table.precision}
        about = {**kind, "threads": 1, "environment": {**describe(), **versions}}
        blocks = block_times(seen, name)
        write_json(options.out / f"{name}.json", {**about, "ms": dict(table.times), "blocks": blocks})
        found[name] = {"blocks": len(blocks), **errors(table, name, others)}
        print(name, json.dumps({key: found[name][key] for key in ("median_error", "worst_error")}))
    within = all(table["median_error"] <= LIMIT for table in found.values())
    about = {"threads": 1, "probes": PROBES, "limit": LIMIT, "within_limit": within}
    result = {**about, "whole_weight": whole, "by_weight": weights, "tables": found}
    print(write_result("latency_table", result))
    return 0 if within else 1


def _whole(row: Row) -> dict[str, float]:
    return {table: upto[-1] for table, upto in row["ms"].items()}


if __name__ == "__main__":
    sys.exit(main())
