"""Any TFLite file as an embedder, on LiteRT's interpreter."""

from __future__ import annotations

import fcntl
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobileface.embedders.contract import InputContract
from mobileface.embedders.file import CONTRACT_KEY, FileEmbedder, Outputs, padded, stored_contract
from mobileface.embedders.tflite_file import TFLiteFile, read_file
from mobileface.errors import InputError, one_line
from mobileface.files import sha256

FLOATS, INTEGERS = (np.float32,), (np.int8, np.uint8)
_STDERR = threading.RLock()


class TFLiteEmbedder(FileEmbedder):
    """See `FileEmbedder`. int8 and uint8 inputs and outputs are scaled as the file says.

    A batch size that is fixed in the file is met by running pieces, the last one padded. `contract` None means the one
    in the file's metadata; `threads` None means all cores. Raises InputError for a missing, corrupt or unfitting file,
    and for a foreign file without a contract.
    """

    libraries: tuple[str, ...] = ("ai-edge-litert", "numpy")

    def __init__(self, path: Path, contract: InputContract | None = None, threads: int | None = None) -> None:
        file = read_file(path)
        contract = contract or stored_contract(path, (file.texts or {}).get(CONTRACT_KEY))
        self._interpreter = open_interpreter(path, threads, file)
        self._input = _check_input(path, self._interpreter, contract)
        signature = self._input["shape_signature"]
        self._held = int(self._input["shape"][0])  # images that memory is laid out for
        batch = self._held if len(signature) == 0 or signature[0] > 0 else None
        self._outputs = file.outputs
        super().__init__(path, sha256(path), contract, batch, file.texts is not None)
        wanted = {self._embedding, *([self._quality] if self._quality else [])}
        self._outputs = {name: index for name, index in file.outputs.items() if name in wanted}

    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        count, pixels = len(images), padded(self.contract.normalise(images), self._batch)
        try:
            self._make_room(len(pixels))
            self._interpreter.set_tensor(self._input["index"], _stored(pixels, self._input))
            self._interpreter.invoke()
            values = {name: self._value(index) for name, index in self._outputs.items()}
        except (ValueError, RuntimeError) as error:
            raise InputError(f"{self.path}: does not run on {count} images ({one_line(error)})") from None
        return {name: value[:count] for name, value in values.items() if np.ndim(value) > 0}

    def _make_room(self, count: int) -> None:
        if count != self._held:
            self._held = 0  # none, should this fail
            with quiet():
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
    """Nothing reaches file 2 (stderr), for a moment: LiteRT's remarks on itself know no other way.

    That holds for all threads; one at a time is in here, or one would put back what another has put there.
    """
    with _STDERR:
        if sys.stderr is not None and not sys.stderr.closed:
            sys.stderr.flush()
        kept = None
        with suppress(OSError):  # it is closed, and shows nothing
            kept = fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, 3)
        try:
            if kept is not None:
                with open(os.devnull, "w") as nowhere:
                    os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            if kept is not None:
                os.dup2(kept, 2)
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
