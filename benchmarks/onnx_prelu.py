"""How much time the rewritten PReLU saves on ONNX Runtime: `python -m benchmarks.onnx_prelu`. Two minutes.

Each architecture is exported twice, batch norms folded in both: with PReLU as it is, and as `export.to_onnx`
writes it. One thread, batch 1. The two files take turns run by run, so that other work on the machine hits
both; the least time is the figure that such work disturbs least. Seeds: weights 0, slopes, gains and
statistics 0, image 0.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.environment import installed, write_result
from export.prelu import rewrite_prelu
from export.to_onnx import write_onnx
from mobileface import models
from mobileface.arch import Arch
from mobileface.models.fuse import fuse
from mobileface.zoo import find_arch

ARCHS = ("mobilefacenet", "lfrc-step5", "tiny")
SLOPES = (0.05, 0.4)  # where those of trained networks lie
WARM_UP = 20
LIMIT = 0.6  # of the time with PReLU as it is


def network_like_trained(arch: Arch) -> nn.Module:
    """A slope of its own for each channel, random gains, and batch norms that fit their inputs."""
    network, generator = models.build(arch), torch.Generator().manual_seed(0)
    for part in network.modules():
        if isinstance(part, nn.PReLU):
            part.weight.data.uniform_(*SLOPES, generator=generator)
        if isinstance(part, nn.BatchNorm2d):
            part.weight.data.uniform_(0.7, 1.3, generator=generator)
            part.bias.data.normal_(0, 0.1, generator=generator)
            part.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.randint(0, 256, (16, 3, 112, 112), generator=generator).float())
    return network.eval()


def open_session(path: Path) -> Any:
    """The file on the CPU provider, with one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def take_turns(sessions: dict[str, Any], pixels: NDArray[np.float32], runs: int) -> dict[str, list[float]]:
    """Milliseconds of each run by name; who begins a round changes from round to round."""
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(WARM_UP + runs):
        order = list(sessions) if turn % 2 else list(sessions)[::-1]
        for name in order:
            start = time.perf_counter()
            sessions[name].run(None, {"input": pixels})
            seconds[name].append(1e3 * (time.perf_counter() - start))
    return {name: times[WARM_UP:] for name, times in seconds.items()}


def summary(times: list[float]) -> dict[str, float]:
    """Least, quartiles and the 90th percentile, ms."""
    marks = {"min": 0, "lower_quartile": 25, "median": 50, "upper_quartile": 75, "p90": 90}
    return {f"{name}_ms": round(float(np.percentile(times, q)), 3) for name, q in marks.items()}


def measure(arch: Arch, runs: int, folder: Path) -> dict[str, Any]:
    """Both files of one architecture: times, ratio rewritten / as it is, largest difference of outputs."""
    fused = fuse(network_like_trained(arch))
    files = {name: folder / f"{arch.name}-{name}.onnx" for name in ("prelu", "rewritten")}
    write_onnx(fused, files["prelu"], {})
    write_onnx(rewrite_prelu(fused), files["rewritten"], {})
    sessions = {name: open_session(path) for name, path in files.items()}
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 112, 112)).astype(np.float32)
    first, second = (session.run(["embedding"], {"input": pixels})[0] for session in sessions.values())
    times = take_turns(sessions, pixels, runs)
    found = {name: summary(values) for name, values in times.items()}
    ratios = {f"ratio_{k}": found["rewritten"][f"{k}_ms"] / found["prelu"][f"{k}_ms"] for k in ("min", "median")}
    return {
        "arch": arch.name,
        "runs": runs,
        **found,
        **{name: round(ratio, 3) for name, ratio in ratios.items()},
        "max_abs_difference": float(np.abs(first - second).max()),
        "bytes": {name: path.stat().st_size for name, path in files.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("archs", nargs="*", default=list(ARCHS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.archs:
            rows.append(measure(find_arch(name), options.runs, Path(folder)))
            print(json.dumps(rows[-1]), flush=True)
    result = {
        "onnxruntime": installed("onnxruntime"),
        "threads": 1,
        "batch": 1,
        "slopes": SLOPES,
        "rows": rows,
        "limit": LIMIT,
        "within_limit": all(row["ratio_median"] <= LIMIT for row in rows),
    }
    print(write_result("onnx_prelu", result))
    return 0 if result["within_limit"] else 1


if __name__ == "__main__":
    sys.exit(main())
