"""Milliseconds of one image on one thread, predicted from measured blocks: a table for each runtime and precision.

A table says what a unit of each kind of work takes on one machine. `benchmarks/latency_table.py` measures blocks inside
of whole exported networks, finds the times that explain them best, and keeps both. No torch, no NumPy.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mobileface.arch import ACTIVATIONS, Arch, Block, Layer, SEMobileFaceNet
from mobileface.arch.checks import MAX_NAME, shown
from mobileface.errors import InputError, nearest

TABLES = ("onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-int8")  # those that come with the package
FOLDER = Path(__file__).parent / "latency_tables"
MAX_TABLE_BYTES = 1 << 20
LANES = 16  # float32 values in the widest vector register: channels are computed in such groups
EVEN = 4  # channels; for any other multiple runtimes have but a slow depthwise convolution (a kind of its own)

# Kinds of work, and what one unit of each is; "uneven" and "unfilled" (no multiple of LANES, as ONNX Runtime's blocked
# kernels want it) come on top of the depthwise convolution.
DEPTHWISE = tuple(f"depthwise {k}x{k} / {s}" for k in (3, 5) for s in (1, 2))
MILLION_MACS = ("convolution", "pointwise", *DEPTHWISE, "uneven depthwise", "unfilled depthwise", "gdc")
MILLION_VALUES = (*ACTIVATIONS, "residual", "se values", "pointwise weights", "vector weights")
ONE = ("call", "layer", "se")
KINDS = (*MILLION_MACS, *MILLION_VALUES, *ONE)


@dataclass(frozen=True)
class LatencyTable:
    """runtime: onnx (ONNX Runtime) or tflite (LiteRT). times: by kind of KINDS the milliseconds of one unit."""

    runtime: str
    precision: str
    times: MappingProxyType[str, float]

    def ms(self, arch: Arch) -> float:
        """Of one image: the call, and the sum over the walk. InputError for another family."""
        if not isinstance(arch, SEMobileFaceNet):
            family = SEMobileFaceNet.family
            raise InputError(f"latency: {arch.name} is a network of {arch.family}, the tables hold those of {family}")
        return self.times["call"] + sum(block.repeat * self.block_ms(block) for block in arch.walk())

    def block_ms(self, block: Block) -> float:
        """Of one block of a run."""
        return sum(units * self.times[kind] for kind, units in work(block.layers, block.residual, block.grid))


@lru_cache(maxsize=1 << 16)
def work(layers: tuple[Layer, ...], residual: bool, grid: int) -> tuple[tuple[str, float], ...]:
    """(kind, units) of one block whose output map has sides of `grid` px; values and MACs of filled-up channels."""
    done: defaultdict[str, float] = defaultdict(float)
    for layer in layers:
        if layer.kind == "conv":
            kind = _kind(layer)
            macs = layer.weights() * layer.grid * layer.grid * filled(layer.outputs) / layer.outputs / 1e6
            done[kind] += macs
            done["layer"] += 1
            if kind == "pointwise":
                done["pointwise weights"] += layer.weights() / 1e6
            elif kind in DEPTHWISE and layer.outputs % LANES:
                done["unfilled depthwise"] += macs
                if layer.outputs % EVEN:
                    done["uneven depthwise"] += macs
        elif layer.kind in ACTIVATIONS and layer.grid > 1:
            done[layer.kind] += _values(layer, layer.grid)
        elif layer.kind == "pool":
            done["se"] += 1
            done["se values"] += _values(layer, grid)
    if residual:
        done["residual"] += _values(layers[-1], grid)
    return tuple(done.items())


def filled(channels: int) -> int:
    """The channels that are computed: whole groups of LANES."""
    return -(-channels // LANES) * LANES


def _values(layer: Layer, grid: int) -> float:
    return filled(layer.outputs) * grid * grid / 1e6


def _kind(layer: Layer) -> str:
    """Of a convolution."""
    if layer.grid == 1:
        return "gdc" if layer.kernel > 1 else "vector weights"
    if layer.groups > 1:
        return f"depthwise {layer.kernel}x{layer.kernel} / {layer.stride}"
    return "pointwise" if layer.kernel == 1 else "convolution"


@lru_cache(maxsize=64)
def find_table(name: str) -> LatencyTable:
    """A table by name of TABLES or from a file, JSON as `benchmarks/latency_table.py` writes it."""
    path = Path(name)
    if name in TABLES:
        path = FOLDER / f"{name}.json"
    elif path.suffix != ".json" and not path.is_file():
        known = ", ".join(TABLES)
        raise InputError(f"no latency table is called {name!r}{nearest(name, TABLES)}; known: {known}, or a file")
    if not path.is_file():
        raise InputError(f"{path}: no such file; wanted a latency table, which benchmarks/latency_table.py makes")
    with path.open("rb") as file:
        content = file.read(MAX_TABLE_BYTES + 1)
    if len(content) > MAX_TABLE_BYTES:
        raise InputError(f"{path}: is larger than {MAX_TABLE_BYTES} bytes; not a latency table")
    try:
        return parse_table(json.loads(content), str(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as a latency table ({error})") from None


def parse_table(data: Any, source: str) -> LatencyTable:
    """Check plain data. InputError that names what is missing or wrong; what else is there is not read."""
    for name, kind in (("runtime", str), ("precision", str), ("ms", dict)):
        if not (isinstance(data, dict) and isinstance(data.get(name), kind)):
            raise InputError(f"{source}: {name!r} is missing or no {kind.__name__}, wanted a latency table")
    times = data["ms"]
    for kind in dict.fromkeys((*KINDS, *times)):
        if kind not in times or kind not in KINDS:
            wrong = "is missing" if kind in KINDS else f"is no kind of work{nearest(kind[:MAX_NAME], KINDS)}"
            again = "; benchmarks.latency_table fills it anew" if kind in KINDS else ""
            raise InputError(f"{source}: ms: {shown(kind)} {wrong}{again}; known: {', '.join(KINDS)}")
        ms = times[kind]
        if not (isinstance(ms, int | float) and not isinstance(ms, bool) and 0 <= ms < 1e6):
            raise InputError(f"{source}: ms: {kind} is {shown(ms)}, wanted milliseconds from 0 to 1e6")
    return LatencyTable(data["runtime"], data["precision"], MappingProxyType(dict(times)))
