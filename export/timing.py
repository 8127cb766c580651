"""Milliseconds of one image on a file's own runtime; several files take turns."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.images import parity_images
from mobileface.arch import INPUT_SIZE
from mobileface.errors import InputError, one_line

WARM_UP = 5  # calls that are not counted
LEAST = 5  # turns, however slow
IN_A_TURN = 4  # counted calls
QUARTILES = {"min": 0, "lower_quartile": 25, "median": 50, "upper_quartile": 75, "p90": 90}
Call = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Milliseconds of each call."""

    milliseconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of all calls."""
        return statistics.median(self.milliseconds)

    def summary(self) -> dict[str, float]:
        """Least, quartiles and the 90th percentile, ms."""
        marks = {name: float(np.percentile(self.milliseconds, q)) for name, q in QUARTILES.items()}
        return {f"{name}_ms": round(mark, 3) for name, mark in marks.items()}


def take_turns(files: Sequence[Path], threads: int, seconds: float) -> list[Timing]:
    """Each file's calls, about `seconds` of them; the files take turns, so that a slow moment hits all.

    The first call of a turn is not counted: it finds the caches full of another file's weights, and what is timed is a
    network that runs again and again, as in an application.
    """
    calls = [runner(file, threads) for file in files]
    found: list[list[float]] = [[] for _ in files]
    for _ in range(WARM_UP):
        for call in calls:
            call()
    end, turn = time.perf_counter() + seconds * len(files), 0
    while turn < LEAST or time.perf_counter() < end:
        for place in range(len(files)) if turn % 2 else reversed(range(len(files))):
            calls[place]()
            for _ in range(IN_A_TURN):
                began = time.perf_counter()
                calls[place]()
                found[place].append(1e3 * (time.perf_counter() - began))
        turn += 1
    return [Timing(tuple(values)) for values in found]


def runner(file: Path, threads: int) -> Call:
    """A call that runs one face through the file. InputError for a file that no runtime here runs so."""
    if not file.exists():
        raise InputError(f"{file}: not found, wanted an .onnx or a .tflite file")
    if file.suffix == ".onnx":
        return _onnx(file, threads)
    if file.suffix == ".tflite":
        return _tflite(file, threads)
    raise InputError(f"{file}: has no runtime here, wanted an .onnx or a .tflite file")


def _onnx(file: Path, threads: int, options: Any = None) -> Call:
    from mobileface.embedders.onnx import INPUT_TYPES, open_session, runtime_errors

    session = open_session(file, threads, options)
    fed = _only(file, session.get_inputs())
    pixels = _face(file, fed.name, fed.shape, fed.type, INPUT_TYPES)
    return _tried(file, lambda: session.run(None, {fed.name: pixels}), runtime_errors())


def _tflite(file: Path, threads: int) -> Call:
    from mobileface.embedders.tflite import FLOATS, INTEGERS, open_interpreter

    interpreter = open_interpreter(file, threads)
    fed = _only(file, interpreter.get_input_details())
    types = {np.dtype(kind).name: kind for kind in (*FLOATS, *INTEGERS)}
    pixels = _face(file, fed["name"], fed["shape"].tolist(), np.dtype(fed["dtype"]).name, types)
    interpreter.set_tensor(fed["index"], pixels)
    return _tried(file, interpreter.invoke, (ValueError, RuntimeError))


def _only(file: Path, inputs: Sequence[Any]) -> Any:
    if len(inputs) != 1:
        raise InputError(f"{file}: has {len(inputs)} inputs, wanted one that takes an image")
    return inputs[0]


def _face(file: Path, name: str, shape: list[Any], kind: str, types: Mapping[str, Any]) -> NDArray[Any]:
    """One procedural face as an input takes it. Sizes that are free (no numbers) are those of ours.

    Not a plain colour: some kernels (ONNX Runtime's PReLU) branch by sign and are twice as fast where signs repeat.
    """
    if kind not in types:
        raise InputError(f"{file}: input {name!r} is {kind}, wanted one of {list(types)}")
    if len(shape) != 4 or (isinstance(shape[0], int) and shape[0] != 1):
        raise InputError(f"{file}: input {name!r} is {shape}, wanted one image at a time, e.g. [1, 3, 112, 112]")
    sizes = [size if isinstance(size, int) else INPUT_SIZE for size in shape[1:]]
    [face] = parity_images(most=1)
    return np.resize(face if sizes[2] == 3 else face.transpose(2, 0, 1), (1, *sizes)).astype(types[kind])


def _tried(file: Path, call: Call, errors: tuple[type[Exception], ...]) -> Call:
    """The call, once it has run."""
    try:
        call()
    except errors as error:
        raise InputError(f"{file}: does not run on an image ({one_line(error)})") from None
    return call


def profile(file: Path, threads: int, calls: int = 25) -> dict[str, float]:
    """Milliseconds of a call by kind of operator, medians of its nodes summed; empty where the runtime tells none."""
    if file.suffix != ".onnx":
        return {}
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = os.path.join(folder, "profile")
        session_call = _onnx(file, threads, options)
        for _ in range(calls - 1):  # the first was made on opening
            session_call()
        del session_call  # the session writes its profile when it goes
        [written] = Path(folder).iterdir()
        events = json.loads(written.read_text(encoding="utf-8"))
    took: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            took[event["args"]["op_name"], event["name"]].append(event["dur"] / 1e3)
    spent: defaultdict[str, float] = defaultdict(float)
    for (kind, _), milliseconds in took.items():
        spent[kind] += statistics.median(milliseconds)
    return dict(spent)


def all_threads() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
