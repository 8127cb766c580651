"""What a TFLite file says of itself, with every offset checked: LiteRT trusts a file, and may crash on a bad one."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobileface.errors import InputError, one_line

METADATA = "mobileface"  # the entry of our exports' metadata: texts by name, as JSON
IDENTIFIER = b"TFL3"  # at byte 4
MOST_BYTES = 1 << 31  # offsets in a flatbuffer are signed
MOST_GRAPHS = 10
MOST_PARTS = 20_000  # graphs, operators, tensors, what operators take, ...; lfrc-step5 has 7,700
MOST_TEXT = 1 << 24  # bytes of all names; of our metadata
DAMAGE = (struct.error, IndexError, ValueError, TypeError, OverflowError, AttributeError, MemoryError, RecursionError)


@dataclass(frozen=True)
class TFLiteFile:
    """content: the whole file; outputs: the main graph's, tensor number by name; texts: ours, None if foreign."""

    content: bytes
    outputs: dict[str, int]
    texts: dict[str, str] | None


def read_file(path: Path) -> TFLiteFile:
    """Read a file and check that all that it points at is in it. InputError where that is not so."""
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError:
        raise InputError(f"{path}: LiteRT is missing, wanted: pip install 'mobileface[tflite]'") from None
    if not path.is_file():
        raise InputError(f"{path}: not found, wanted a TFLite file")
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES or content[4:8] != IDENTIFIER:
        raise InputError(f"{path}: is no TFLite file ({len(content):,} bytes), wanted {IDENTIFIER.decode()} at byte 4")
    try:
        root = schema.Model.GetRootAs(content, 0)
        _check_size(root)
        model = schema.ModelT.InitFromObj(root)
        _check(model, len(content))
        return TFLiteFile(content, _outputs(model), _texts(model))
    except DAMAGE as error:
        raise InputError(f"{path}: is damaged or no TFLite file ({one_line(error)})") from None


def _check_size(root: Any) -> None:
    """ValueError for too many parts: a list may name one part again and again, and grow when it is read."""
    _at_most(MOST_GRAPHS, "graphs", root.SubgraphsLength())
    if root.ExternalBuffersLength() or root.ExternalBufferGroupsLength():
        raise ValueError("weights lie outside of the file")
    parts = root.BuffersLength() + root.OperatorCodesLength() + root.SignatureDefsLength() + root.MetadataLength()
    parts += sum(graph.TensorsLength() + graph.OperatorsLength() for graph in _each(root, "Subgraphs"))
    _at_most(MOST_PARTS, "parts", parts)
    for graph in _each(root, "Subgraphs"):
        for tensor in _each(graph, "Tensors"):
            sparsity = tensor.Sparsity()
            parts += tensor.VariantTensorsLength() + (sparsity.DimMetadataLength() if sparsity else 0)
        for op in _each(graph, "Operators"):
            parts += op.InputsLength() + op.OutputsLength() + op.IntermediatesLength()
    parts += sum(entry.InputsLength() + entry.OutputsLength() for entry in _each(root, "SignatureDefs"))
    _at_most(MOST_PARTS, "parts", parts)
    text = 0
    for name in _names(root):
        text = _at_most(MOST_TEXT, "bytes of names", text + len(name or b""))


def _names(root: Any) -> Iterator[bytes | None]:
    yield root.Description()
    for graph in _each(root, "Subgraphs"):
        yield graph.Name()
        yield from (tensor.Name() for tensor in _each(graph, "Tensors"))
    yield from (code.CustomCode() for code in _each(root, "OperatorCodes"))
    yield from (entry.Name() for entry in _each(root, "Metadata"))
    for signature in _each(root, "SignatureDefs"):
        yield signature.SignatureKey()
        yield from (entry.Name() for kind in ("Inputs", "Outputs") for entry in _each(signature, kind))


def _each(part: Any, name: str) -> Iterator[Any]:
    """The entries of a list in the file, one at a time."""
    return (getattr(part, name)(i) for i in range(getattr(part, f"{name}Length")()))


def _at_most(most: int, kind: str, count: int) -> int:
    if count > most:
        raise ValueError(f"{count:,} {kind}, at most {most:,} are read")
    return count


def _check(model: Any, size: int) -> None:
    """ValueError for a number that stands for nothing."""
    buffers = _list(model.buffers)
    if not _list(model.subgraphs):
        raise ValueError("holds no graph")
    for buffer in buffers:
        if buffer.offset and buffer.offset + buffer.size > size:
            raise ValueError("weights lie behind the end of the file")
    for graph in model.subgraphs:
        count = len(_list(graph.tensors))
        _within("buffer", (tensor.buffer for tensor in _list(graph.tensors)), 0, len(buffers))
        ends = (*_list(graph.inputs), *_list(graph.outputs))
        _within("tensor", ends, 0, count)
        for name in (graph.tensors[i].name for i in ends):  # LiteRT gives them as text
            if isinstance(name, bytes) and _text(name).encode() != name:
                raise ValueError(f"the name {name!r} is no text")
        for op in _list(graph.operators):
            _within("operator", [op.opcodeIndex], 0, len(_list(model.operatorCodes)))
            _within("tensor", (*_list(op.outputs), *_list(op.intermediates)), 0, count)
            _within("tensor", _list(op.inputs), -1, count)  # -1: an input that is left out
    for signature in _list(model.signatureDefs):
        _within("graph", [signature.subgraphIndex], 0, len(model.subgraphs))
        count = len(_list(model.subgraphs[signature.subgraphIndex].tensors))
        entries = (*_list(signature.inputs), *_list(signature.outputs))
        _within("tensor", (entry.tensorIndex for entry in entries), 0, count)
    _within("buffer", (entry.buffer for entry in _list(model.metadata)), 0, len(buffers))


def _outputs(model: Any) -> dict[str, int]:
    """By the names of the main graph's signature, else by those of its tensors."""
    graph = model.subgraphs[0]
    for signature in _list(model.signatureDefs):
        if signature.subgraphIndex == 0:
            found = {_text(entry.name): int(entry.tensorIndex) for entry in _list(signature.outputs)}
            if unknown := found.keys() - {name for name, i in found.items() if i in _list(graph.outputs)}:
                raise ValueError(f"output {min(unknown)!r} of the signature is none of the graph")
            return found
    return {_text(graph.tensors[i].name) or f"output {i}": int(i) for i in _list(graph.outputs)}


def _texts(model: Any) -> dict[str, str] | None:
    for entry in _list(model.metadata):
        if _text(entry.name) == METADATA:
            stored = bytes(_list(model.buffers[entry.buffer].data))
            texts = json.loads(stored[: _at_most(MOST_TEXT, "bytes of metadata", len(stored))])
            if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
                raise ValueError(f"metadata {METADATA!r} are not texts")
            return texts
    return None


def _within(kind: str, numbers: Iterable[int], least: int, count: int) -> None:
    for number in numbers:
        if not least <= number < count:
            raise ValueError(f"{kind} {number} is not there, {count} are")


def _list(values: Any) -> Any:
    """What the schema gives for a list; it has None for an empty one."""
    return () if values is None else values


def _text(value: bytes | str | None) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""
