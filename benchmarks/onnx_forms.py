"""Which form of an activation ONNX Runtime runs fastest: `taskset -c 1 python -m benchmarks.onnx_forms`. Ten minutes.

Each network is written with every form of its activation, batch norms folded, in fp32 and in int8. One thread, batch
1; the files take turns, so that other work on the machine hits all of them. What `export.to_onnx` ships
is the form of `SHIPPED`. Seeds: weights 0, slopes, gains and statistics 0, crops of `export.images`.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.environment import installed, write_result
from export.activations import ConvForm, MaxForm, rewritten
from export.images import parity_images
from export.int8 import Int8
from export.timing import take_turns
from export.to_onnx import write_onnx
from mobileface import models
from mobileface.arch import Arch, SEMobileFaceNet
from mobileface.models.equalise import equalise
from mobileface.models.fuse import fuse
from mobileface.zoo import find_arch

NETWORKS = (
    ("lfrc-step5", "prelu"),
    ("mobilefacenet", "prelu"),
    ("mobilefacenet", "leaky_relu"),
    ("mobilefacenet", "hard_swish"),
)
SLOPES = (0.05, 0.4)  # of PReLU: where those of trained networks lie
SHIPPED = {  # by precision
    "fp32": {"prelu": "conv", "leaky_relu": "plain", "hard_swish": "plain"},
    "int8": {"prelu": "conv", "leaky_relu": "plain", "hard_swish": "plain"},
}
LIMIT_FP32 = 0.55  # of the time with PReLU as it is
LIMIT_INT8 = 0.75  # of the time of the fp32 file that is shipped


class ClipForm(nn.Module):
    """Hard-swish as x min(max(x + 3, 0), 6) / 6."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x * (x + 3).clamp(0, 6) * (1 / 6)


# by form: what takes an activation's place; None keeps it
FORMS: dict[str, dict[str, Callable[[Any], nn.Module] | None]] = {
    "prelu": {"plain": None, "max": rewritten, "conv": partial(rewritten, form=ConvForm)},
    "leaky_relu": {"plain": None, "max": lambda layer: MaxForm(torch.tensor(layer.negative_slope))},
    "hard_swish": {"plain": None, "clip": lambda layer: ClipForm()},
}


def network_like_trained(arch: Arch, crops: NDArray[np.uint8]) -> nn.Module:
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
        network.train()(torch.from_numpy(crops[::2].transpose(0, 3, 1, 2).astype(np.float32)))
    return network.eval()


def in_form(fused: nn.Module, activation: str, form: str) -> nn.Module:
    """A copy with all its activations in that form."""
    network, make = copy.deepcopy(fused), FORMS[activation][form]
    kinds = (nn.PReLU, nn.LeakyReLU, nn.Hardswish)
    for part in list(network.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, kinds) and make is not None:
                setattr(part, name, make(child))
    return network


def measure(name: str, activation: str, seconds: float, folder: Path) -> dict[str, Any]:
    """The times of every form and precision, and the shipped ones as ratios of medians."""
    found = find_arch(name)
    assert isinstance(found, SEMobileFaceNet)
    arch, crops = replace(found, activation=activation), parity_images()
    fused = equalise(fuse(network_like_trained(arch, crops)), crops)
    files = {}
    for form in FORMS[activation]:
        for precision in ("fp32", "int8"):
            path = files[f"{precision} {form}"] = folder / f"{name}-{form}-{precision}.onnx"
            int8 = Int8(crops) if precision == "int8" else None
            write_onnx(in_form(fused, activation, form), path, {}, precision, int8)
    timings = dict(zip(files, take_turns(list(files.values()), 1, seconds), strict=True))
    fp32, int8_time = (timings[f"{p} {SHIPPED[p][activation]}"].median for p in ("fp32", "int8"))
    return {
        "arch": name,
        "activation": activation,
        "shipped": {precision: forms[activation] for precision, forms in SHIPPED.items()},
        "files": {key: timing.summary() for key, timing in timings.items()},
        "bytes": {key: path.stat().st_size for key, path in files.items()},
        "fp32_over_plain": round(fp32 / timings["fp32 plain"].median, 3),
        "int8_over_fp32": round(int8_time / fp32, 3),
    }


def within_limits(row: dict[str, Any]) -> bool:
    """What was asked for: fp32 where PReLU is rewritten, int8 everywhere."""
    rewritten_too_slow = row["shipped"]["fp32"] != "plain" and row["fp32_over_plain"] > LIMIT_FP32
    return row["int8_over_fp32"] <= LIMIT_INT8 and not rewritten_too_slow


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15, help="for each file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, activation in NETWORKS:
            rows.append(measure(name, activation, options.seconds, Path(folder)))
            print(json.dumps(rows[-1]), flush=True)
    result = {
        "onnxruntime": installed("onnxruntime"),
        "threads": 1,
        "batch": 1,
        "slopes": SLOPES,
        "rows": rows,
        "limit_fp32": LIMIT_FP32,
        "limit_int8": LIMIT_INT8,
        "within_limit": all(within_limits(row) for row in rows),
    }
    print(write_result("onnx_forms", result))
    return 0 if result["within_limit"] else 1


if __name__ == "__main__":
    sys.exit(main())
