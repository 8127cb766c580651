"""Any ONNX file as an embedder, on ONNX Runtime's CPU provider."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobileface.embedders.contract import InputContract, check_finite
from mobileface.errors import InputError, one_line
from mobileface.files import sha256

CONTRACT_KEY = "mobileface.contract"  # in metadata_props of our exports: the contract as JSON
INPUT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
GREY = 127


class OnnxEmbedder:
    """uint8 RGB images (B, 112, 112, 3) -> raw embeddings (B, dim) float32, computed by an ONNX file.

    The embedding is the output named `embedding`, else the only output with two dimensions. Our exports
    (those with the key `mobileface.contract` in their metadata) give a unit `embedding` and its norm before
    normalisation as `quality`; their product, the raw embedding, is returned. A batch size that is fixed in
    the file is met by running pieces, the last one padded.

    `contract` None means the one in the file's metadata; `threads` None means all cores. Raises InputError
    for a missing, corrupt or unfitting file, and for a foreign file without a contract.
    """

    libraries: tuple[str, ...] = ("onnxruntime", "numpy")

    def __init__(self, path: Path, contract: InputContract | None = None, threads: int | None = None) -> None:
        self.path = path
        self._session = open_session(path, threads)
        stored = self._session.get_modelmeta().custom_metadata_map.get(CONTRACT_KEY)
        self.contract = contract or _stored_contract(path, stored)
        self._input, self._batch, self._type = _check_input(path, self._session, self.contract)
        self.sha256 = _hash(path)
        self._outputs = [output.name for output in self._session.get_outputs()]
        found = self._run(self.contract.normalise(np.full((1, 112, 112, 3), GREY, np.uint8)))
        self._embedding = _pick_embedding(path, found)
        ours = stored is not None and {"embedding", "quality"} <= found.keys()
        self._quality = "quality" if ours else None
        self._outputs = [self._embedding, *(["quality"] if ours else [])]
        self.dim = int(found[self._embedding].shape[1])

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = self.contract.normalise(images)
        step = self._batch or max(len(pixels), 1)
        pieces = [self._embed(pixels[start : start + step]) for start in range(0, len(pixels), step)]
        return check_finite(np.concatenate([np.empty((0, self.dim), np.float32), *pieces]), self.path)

    def _embed(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        found = self._run(pixels)
        raw = found[self._embedding].astype(np.float32, copy=False)
        if raw.shape != (len(pixels), self.dim):
            raise InputError(
                f"{self.path}: output {self._embedding!r} is {raw.shape} for {len(pixels)} images, "
                f"wanted {(len(pixels), self.dim)}"
            )
        return raw if self._quality is None else raw * found[self._quality].astype(np.float32).reshape(-1, 1)

    def _run(self, pixels: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Outputs by name, for one piece: at most the file's batch size, if that is fixed."""
        count = len(pixels)
        if self._batch and count < self._batch:
            padding = np.repeat(pixels[-1:], self._batch - count, axis=0)
            pixels = np.concatenate([pixels, padding])
        feed = {self._input: pixels.astype(self._type, copy=False)}
        try:
            values = self._session.run(self._outputs, feed)
        except runtime_errors() as error:
            raise InputError(f"{self.path}: does not run on {len(pixels)} images ({one_line(error)})") from None
        found = zip(self._outputs, values, strict=True)
        return {name: value[:count] for name, value in found if np.ndim(value) > 0}


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


def _stored_contract(path: Path, stored: str | None) -> InputContract:
    if stored is None:
        raise InputError(
            f"{path}: does not say how its input is normalised, wanted --scale, --mean and --std, in a recipe "
            "teacher.contract (x' = (x / scale - mean) / std)"
        )
    try:
        return InputContract.from_dict(json.loads(stored))
    except (ValueError, InputError) as error:
        raise InputError(f"{path}: metadata {CONTRACT_KEY!r} cannot be used: {one_line(error)}") from None


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


def _pick_embedding(path: Path, found: dict[str, NDArray[Any]]) -> str:
    flat = [name for name, value in found.items() if value.ndim == 2]
    if "embedding" in flat:
        return "embedding"
    if len(flat) == 1:
        return flat[0]
    shapes = {name: list(value.shape) for name, value in found.items()}
    raise InputError(f"{path}: outputs are {shapes}, wanted `embedding` (N, D) or just one of two dimensions")


def _hash(path: Path) -> str:
    """The file's SHA-256; with weights beside it (NAME.onnx.data), the SHA-256 over both hashes."""
    import hashlib

    weights = path.with_name(path.name + ".data")
    if not weights.is_file():
        return sha256(path)
    return hashlib.sha256(f"{sha256(path)}\n{sha256(weights)}\n".encode()).hexdigest()
