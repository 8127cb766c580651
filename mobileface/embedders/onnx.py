"""Any ONNX file as an embedder, on ONNX Runtime's CPU provider."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobileface.embedders.contract import InputContract
from mobileface.embedders.file import CONTRACT_KEY, FileEmbedder, Outputs, padded, stored_contract
from mobileface.errors import InputError, one_line
from mobileface.files import sha256

INPUT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxEmbedder(FileEmbedder):
    """See `FileEmbedder`. A batch size that is fixed in the file is met by running pieces, the last one padded.

    `contract` None means the one in the file's metadata; `threads` None means all cores. Raises InputError
    for a missing, corrupt or unfitting file, and for a foreign file without a contract.
    """

    libraries: tuple[str, ...] = ("onnxruntime", "numpy")

    def __init__(self, path: Path, contract: InputContract | None = None, threads: int | None = None) -> None:
        self._session = open_session(path, threads)
        stored = self._session.get_modelmeta().custom_metadata_map.get(CONTRACT_KEY)
        contract = contract or stored_contract(path, stored)
        self._input, batch, self._type = _check_input(path, self._session, contract)
        self._outputs = [output.name for output in self._session.get_outputs()]
        super().__init__(path, _hash(path), contract, batch, stored is not None)
        self._outputs = [self._embedding, *([self._quality] if self._quality else [])]

    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        pixels = padded(self.contract.normalise(images), self._batch)
        try:
            values = self._session.run(self._outputs, {self._input: pixels.astype(self._type, copy=False)})
        except runtime_errors() as error:
            raise InputError(f"{self.path}: does not run on {len(pixels)} images ({one_line(error)})") from None
        found = zip(self._outputs, values, strict=True)
        return {name: value[: len(images)] for name, value in found if isinstance(value, np.ndarray) and value.ndim}


def runtime_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for a file that it cannot load or run; they share no base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = "EPFail EngineError Fail InvalidArgument InvalidGraph InvalidProtobuf ModelLoaded NoModel NoSuchFile"
    found = (getattr(state, name, None) for name in f"{names} NotFound NotImplemented RuntimeException".split())
    return (RuntimeError, *(error for error in found if error is not None))


def open_session(path: Path, threads: int | None, options: Any = None) -> Any:
    """The file on ONNX Runtime's CPU provider. InputError where it cannot be loaded. options: SessionOptions."""
    try:
        import onnxruntime
    except ImportError:
        raise InputError(f"{path}: ONNX Runtime is missing, wanted: pip install 'mobileface[onnx]'") from None
    if not path.is_file():
        raise InputError(f"{path}: not found, wanted an ONNX file")
    options = options or onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors come as exceptions; copies on stderr would hide our one line
    options.intra_op_num_threads = threads or 0
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except runtime_errors() as error:
        raise InputError(f"{path}: is no ONNX file that can be loaded ({one_line(error)})") from None


def _check_input(path: Path, session: Any, contract: InputContract) -> tuple[str, int | None, Any]:
    """The input's name, its batch size (None = any) and its dtype; InputError if it takes no such images."""
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = [entry.name for entry in inputs]
        raise InputError(f"{path}: has {len(inputs)} inputs {names}, wanted one that takes images")
    entry = inputs[0]
    if entry.type not in INPUT_TYPES:
        raise InputError(f"{path}: input {entry.name!r} is {entry.type}, wanted one of {list(INPUT_TYPES)}")
    shape = list(entry.shape)
    wanted = contract.shape()
    fits = len(shape) == 4 and all(
        not isinstance(got, int) or got == want for got, want in zip(shape[1:], wanted, strict=True)
    )
    if not fits:
        raise InputError(
            f"{path}: input {entry.name!r} is {shape}, wanted [N, {', '.join(map(str, wanted))}] "
            f"for layout {contract.layout}"
        )
    return entry.name, shape[0] if isinstance(shape[0], int) else None, INPUT_TYPES[entry.type]


def _hash(path: Path) -> str:
    """The file's SHA-256; with weights beside it (NAME.onnx.data), the SHA-256 over both hashes."""
    import hashlib

    weights = path.with_name(path.name + ".data")
    if not weights.is_file():
        return sha256(path)
    return hashlib.sha256(f"{sha256(path)}\n{sha256(weights)}\n".encode()).hexdigest()
