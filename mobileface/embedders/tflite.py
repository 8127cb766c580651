"""Any TFLite file as an embedder, on LiteRT's interpreter."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobileface.embedders.contract import InputContract, check_finite
from mobileface.embedders.tflite_file import TFLiteFile, read_file
from mobileface.errors import InputError, one_line
from mobileface.files import sha256

CONTRACT_KEY = "mobileface.contract"  # in the metadata of our exports: the contract as JSON
FLOATS, INTEGERS = (np.float32,), (np.int8, np.uint8)
GREY = 127


class TFLiteEmbedder:
    """uint8 RGB images (B, 112, 112, 3) -> raw embeddings (B, dim) float32, computed by a TFLite file.

    The embedding is the output named `embedding`, else the only output with two dimensions. Our exports (those with
    `mobileface` in their metadata) give a unit `embedding` and its norm before normalisation as `quality`; their
    product, the raw embedding, is returned. int8 and uint8 inputs and outputs are scaled as the file says. A batch
    size that is fixed in the file is met by running pieces, the last one padded.

    `contract` None means the one in the file's metadata; `threads` None means all cores. Raises InputError for a
    missing, corrupt or unfitting file, and for a foreign file without a contract.
    """

    libraries: tuple[str, ...] = ("ai-edge-litert", "numpy")

    def __init__(self, path: Path, contract: InputContract | None = None, threads: int | None = None) -> None:
        self.path = path
        file = read_file(path)
        self.contract = contract or _stored_contract(path, file.texts)
        self.sha256 = sha256(path)
        self._interpreter = open_interpreter(path, threads, file)
        self._input = _check_input(path, self._interpreter, self.contract)
        signature = self._input["shape_signature"]
        self._batch = int(self._input["shape"][0]) if len(signature) == 0 or signature[0] > 0 else None
        self._held = int(self._input["shape"][0])  # images that memory is laid out for
        self._outputs = file.outputs
        found = self._run(self.contract.normalise(np.full((1, 112, 112, 3), GREY, np.uint8)))
        self._embedding = _pick_embedding(path, found)
        ours = file.texts is not None and {"embedding", "quality"} <= found.keys()
        wanted = {self._embedding, *(["quality"] if ours else [])}
        self._outputs = {name: index for name, index in file.outputs.items() if name in wanted}
        self._quality = "quality" if ours else None
        self.dim = int(found[self._embedding].shape[1])

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = self.contract.normalise(images)
        step = self._batch or max(len(pixels), 1)
        pieces = [self._embed(pixels[start : start + step]) for start in range(0, len(pixels), step)]
        return check_finite(np.concatenate([np.empty((0, self.dim), np.float32), *pieces]), self.path)

    def _embed(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        found = self._run(pixels)
        raw = found[self._embedding]
        if raw.shape != (len(pixels), self.dim):
            raise InputError(
                f"{self.path}: output {self._embedding!r} is {raw.shape} for {len(pixels)} images, "
                f"wanted {(len(pixels), self.dim)}"
            )
        return raw if self._quality is None else raw * found[self._quality].reshape(-1, 1)

    def _run(self, pixels: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Outputs by name, for one piece: at most the file's batch size, if that is fixed."""
        count = len(pixels)
        if self._batch and count < self._batch:
            pixels = np.concatenate([pixels, np.repeat(pixels[-1:], self._batch - count, axis=0)])
        try:
            with quiet():
                self._make_room(len(pixels))
                self._interpreter.set_tensor(self._input["index"], _stored(pixels, self._input))
                self._interpreter.invoke()
            values = {name: self._value(index) for name, index in self._outputs.items()}
        except (ValueError, RuntimeError) as error:
            raise InputError(f"{self.path}: does not run on {count} images ({one_line(error)})") from None
        return {name: value[:count] for name, value in values.items() if np.ndim(value) > 0}

    def _make_room(self, count: int) -> None:
        if count != self._held:
            self._interpreter.resize_tensor_input(self._input["index"], [count, *self._input["shape"][1:]])
            self._interpreter.allocate_tensors()
            self._held = count

    def _value(self, index: int) -> NDArray[np.float32]:
        details = next(entry for entry in self._interpreter.get_output_details() if entry["index"] == index)
        value = self._interpreter.get_tensor(index)
        scale, zero = details["quantization"]
        plain = details["dtype"] not in INTEGERS or not scale
        return value.astype(np.float32) if plain else (value.astype(np.float32) - zero) * np.float32(scale)


@contextmanager
def quiet() -> Iterator[None]:
    """Warnings and all that is written to the terminal go nowhere: LiteRT's remarks on itself know no other way."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = {number: os.dup(number) for number in (1, 2)}
    with open(os.devnull, "w") as nowhere, warnings.catch_warnings():
        try:
            for number in saved:
                os.dup2(nowhere.fileno(), number)
            warnings.simplefilter("ignore")
            with redirect_stdout(nowhere), redirect_stderr(nowhere):
                yield
        finally:
            for number, kept in saved.items():
                os.dup2(kept, number)
                os.close(kept)


def open_interpreter(path: Path, threads: int | None = None, file: TFLiteFile | None = None) -> Any:
    """LiteRT's interpreter for a file, with memory laid out; `file` is what `read_file` gave, if it was called.

    `threads` None means all cores. InputError for a file that cannot be loaded.
    """
    file = file or read_file(path)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        with quiet():
            from ai_edge_litert.interpreter import Interpreter

            interpreter = Interpreter(model_content=file.content, num_threads=threads or cores)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{path}: is no TFLite file that can be loaded ({one_line(error)})") from None
    return interpreter


def _stored_contract(path: Path, texts: dict[str, str] | None) -> InputContract:
    if texts is None or CONTRACT_KEY not in texts:
        raise InputError(
            f"{path}: does not say how its input is normalised, wanted --scale, --mean and --std, in a recipe "
            "teacher.contract (x' = (x / scale - mean) / std)"
        )
    try:
        return InputContract.from_dict(json.loads(texts[CONTRACT_KEY]))
    except (ValueError, InputError) as error:
        raise InputError(f"{path}: metadata {CONTRACT_KEY!r} cannot be used: {one_line(error)}") from None


def _check_input(path: Path, interpreter: Any, contract: InputContract) -> dict[str, Any]:
    """What LiteRT knows of the input; InputError if it takes no such images."""
    inputs = interpreter.get_input_details()
    if len(inputs) != 1:
        names = [entry["name"] for entry in inputs]
        raise InputError(f"{path}: has {len(inputs)} inputs {names}, wanted one that takes images")
    entry: dict[str, Any] = inputs[0]
    if entry["dtype"] not in (*FLOATS, *INTEGERS):
        known = [np.dtype(kind).name for kind in (*FLOATS, *INTEGERS)]
        raise InputError(f"{path}: input {entry['name']!r} is {np.dtype(entry['dtype'])}, wanted one of {known}")
    shape = [int(size) for size in entry["shape"]]
    if len(shape) != 4 or shape[0] < 1 or tuple(shape[1:]) != contract.shape():
        raise InputError(
            f"{path}: input {entry['name']!r} is {shape}, wanted [N, {', '.join(map(str, contract.shape()))}] "
            f"for layout {contract.layout}"
        )
    return entry


def _stored(pixels: NDArray[np.float32], entry: dict[str, Any]) -> NDArray[Any]:
    """Pixels as the input stores them: value = scale * (stored - zero)."""
    scale, zero = entry["quantization"]
    if entry["dtype"] in FLOATS:
        return pixels
    limits = np.iinfo(entry["dtype"])
    stored = np.rint(pixels / scale) + zero if scale else np.rint(pixels)
    return np.clip(stored, limits.min, limits.max).astype(entry["dtype"])


def _pick_embedding(path: Path, found: dict[str, NDArray[Any]]) -> str:
    flat = [name for name, value in found.items() if value.ndim == 2]
    if "embedding" in flat:
        return "embedding"
    if len(flat) == 1:
        return flat[0]
    shapes = {name: list(value.shape) for name, value in found.items()}
    raise InputError(f"{path}: outputs are {shapes}, wanted `embedding` (N, D) or just one of two dimensions")
