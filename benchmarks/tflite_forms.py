"""Which form of an activation LiteRT runs fastest: `python -m benchmarks.tflite_forms`. Six minutes.

Each network is converted with every form of its activation that `benchmarks.onnx_forms` has, batch norms folded, in
fp32 and in int8. "plain": the converter makes relu(x) - a relu(-x) of PReLU, and has an operator for LeakyReLU.
"joined": max(x, a x) as LiteRT's own operator for PReLU. "split": hard-swish as three operators. The global depthwise
convolution is a product and a sum, but where it says "as it is". What `export.to_tflite` ships is PReLU joined in float
and as max(x, a x) in int8, hard-swish split in int8, and the others as they are.

One thread, batch 1. The files take turns run by run. Times are of the processor, not of the clock, so that other work
on the machine counts less. Seeds as in `benchmarks.onnx_forms`; image 0.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.environment import installed, write_result
from benchmarks.onnx_forms import FORMS, in_form, network_like_trained
from export.images import parity_images
from export.int8 import Int8
from export.tflite_forms import join_prelu, split_global_depthwise, split_hard_swish
from export.tflite_graph import operators, read
from export.tflite_int8 import quantised
from export.timing import Timing
from export.to_tflite import convert, silent
from mobileface.embedders.tflite import open_interpreter
from mobileface.models.fuse import fuse
from mobileface.zoo import find_arch

NETWORKS = (("lfrc-step5", "prelu"), *(("mobilefacenet", kind) for kind in ("prelu", "leaky_relu", "hard_swish")))
SHIPPED = {"prelu": "max", "leaky_relu": "plain", "hard_swish": "plain"}  # as converted
WARM_UP = 20


def interpreter(content: bytes, folder: Path, name: str) -> Any:
    """The file with one thread."""
    path = folder / name
    path.write_bytes(content)
    return open_interpreter(path, threads=1)


def take_turns(interpreters: dict[str, Any], runs: int) -> dict[str, list[float]]:
    """Milliseconds of processor time of each run by name; who begins a round changes from round to round."""
    pixels = np.random.default_rng(0).integers(0, 256, (1, 112, 112, 3)).astype(np.float32)
    for interpreter in interpreters.values():
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels)
    spent: dict[str, list[float]] = {name: [] for name in interpreters}
    for turn in range(WARM_UP + runs):
        for name in list(interpreters) if turn % 2 else list(interpreters)[::-1]:
            start = time.process_time()
            interpreters[name].invoke()
            spent[name].append(1e3 * (time.process_time() - start))
    return {name: times[WARM_UP:] for name, times in spent.items()}


def measure(name: str, activation: str, runs: int, folder: Path) -> dict[str, Any]:
    """All files of one network: times, bytes, operators."""
    crops = parity_images()
    fused = fuse(network_like_trained(replace(find_arch(name), activation=activation), crops))
    files = {}
    for form in FORMS[activation]:
        with silent():
            converted = convert(in_form(fused, activation, form))
            files[f"fp32 {form}"] = split_global_depthwise(converted)
            files[f"int8 {form}"] = quantised(files[f"fp32 {form}"], Int8(crops))
        if (activation, form) == ("prelu", "max"):
            files["fp32 joined"] = join_prelu(files["fp32 max"])
        if (activation, form) == ("hard_swish", "plain"):
            files["fp32 split"] = split_hard_swish(files["fp32 plain"])
            files["int8 split"] = quantised(files["fp32 split"], Int8(crops))
        if form == SHIPPED[activation]:
            files[f"fp32 {form}, global depthwise as it is"] = converted
            files[f"int8 {form}, global depthwise as it is"] = quantised(converted, Int8(crops))
    times = take_turns({form: interpreter(content, folder, form) for form, content in files.items()}, runs)
    return {
        "arch": name,
        "activation": activation,
        "runs": runs,
        "files": {form: Timing(tuple(values)).summary() for form, values in times.items()},
        "bytes": {form: len(content) for form, content in files.items()},
        "operators": {form: Counter(kind for kind, _ in operators(read(c))) for form, c in files.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, activation in NETWORKS:
            rows.append(measure(name, activation, options.runs, Path(folder)))
            print(json.dumps(rows[-1]), flush=True)
    packages = ("ai-edge-litert", "litert-torch", "ai-edge-quantizer")
    versions = {package: installed(package) for package in packages}
    print(write_result("tflite_forms", {**versions, "threads": 1, "batch": 1, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
