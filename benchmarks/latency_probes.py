"""What each run of blocks of a network takes on every runtime: for `benchmarks.latency_table`.

A block timed alone has the overhead of a call, and its weights never leave the nearest cache. So a whole network is
exported as it is shipped, its file is cut in front of each run of equal blocks, and the pieces from the pixels up to
each cut take turns: the difference between neighbours is what the run takes in its place. A reference takes turns with
them, by which times of a slow quarter of an hour are put right.
"""

from __future__ import annotations

import hashlib
import json
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

import export
from benchmarks.onnx_forms import network_like_trained
from export.activations import rewrite_activations
from export.images import parity_images
from export.int8 import Int8
from export.tflite_forms import split_global_depthwise
from export.tflite_graph import operators, packed, read
from export.timing import take_turns
from export.to_onnx import export_onnx
from export.to_tflite import convert, in_precision, silent
from mobileface.arch import ACTIVATIONS, SEMobileFaceNet, Stage
from mobileface.files import atomic_folder, write_json
from mobileface.models.fuse import fuse
from mobileface.zoo import ZOO

TABLES = {"onnx-fp32": ".onnx", "onnx-int8": ".onnx", "tflite-fp32": ".tflite", "tflite-int8": ".tflite"}
SECONDS = 0.3  # for each piece of a file
CROPS = 16  # that int8 takes its ranges from
REFERENCE = "student-real"  # of the zoo
Row = dict[str, Any]


def draw(seed: int, name: str) -> SEMobileFaceNet:
    """A random network with rows on all grids; widths are multiples of 8 for most, of 2 for some (the paper's are)."""
    rng = random.Random(seed)
    step = rng.choice((8, 8, 4, 4, 2))

    def channels(least: int, most: int) -> int:
        return rng.randrange(least, most + 1, step)

    def row(inputs: int, width: int, depth: int, stride: int) -> Stage:
        hidden = max(step, round(inputs * rng.uniform(0.6, 2.4) / step) * step)
        return Stage(hidden, width, depth, stride, rng.choice((3, 3, 5)), rng.random() < 0.5)

    stem = width = channels(16, 64)
    stages = [row(stem, width, 2, 1)] if rng.random() < 0.6 else []
    for most in (112, 224, 320):
        inputs, width = width, channels(most // 7 // 8 * 8, most)
        stages += [row(inputs, width, 1, 2), row(width, width, rng.randint(2, 4), 1)]
    activation = ACTIVATIONS[seed % len(ACTIVATIONS)]
    head, dim = channels(128, 640), channels(64, 512)
    return SEMobileFaceNet(name, stem, tuple(stages), head, dim, rng.random() < 0.3, activation)


def cuts(arch: SEMobileFaceNet) -> list[str]:
    """The convolutions that files are cut in front of: the first of each run, but for the stem and behind the head."""
    starts = [f"{block.names()[0]}.{block.layers[0].name}" for block in arch.walk()]
    return starts[1:-2]


def measured(arch: SEMobileFaceNet, at: list[str], folder: Path) -> Row:
    """The network, its cuts, and by table the median milliseconds up to each cut and of the whole, and the reference's.

    Kept in `folder`; what is there is not measured again, unless files were written in another way then.
    """
    about = {"arch": arch.to_dict(), "cuts": at, "exporter": exporter()}
    kept = folder / f"{arch.name}.json"
    if kept.is_file():
        row: Row = json.loads(kept.read_text(encoding="utf-8"))
        if all(row.get(key) == value for key, value in json.loads(json.dumps(about)).items()):
            return row
    row = {**about, "ms": {}, "reference": {}}
    beside = _reference(folder)
    with tempfile.TemporaryDirectory() as made:
        for table, whole in exported(arch, Path(made)).items():
            pieces = [piece(whole, conv) for conv in at]
            *found, reference = (t.median for t in take_turns([*pieces, whole, beside[table]], 1, SECONDS))
            row["ms"][table], row["reference"][table] = [round(ms, 4) for ms in found], round(reference, 4)
    write_json(kept, row)
    return row


def exporter() -> str:
    """A hash of the code that writes the files."""
    sources = sorted(Path(export.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def steady(rows: list[Row]) -> list[Row]:
    """The rows as if the machine had been as fast all the time as its median, by what the reference took."""
    usual = {table: statistics.median(row["reference"][table] for row in rows) for table in TABLES}
    found = []
    for row in rows:
        slow = {table: row["reference"][table] / usual[table] for table in TABLES}
        found.append({**row, "ms": {table: [ms / slow[table] for ms in row["ms"][table]] for table in TABLES}})
    return found


def _reference(folder: Path) -> dict[str, Path]:
    """Its files, made once."""
    made = folder / REFERENCE
    if not made.is_dir():
        arch = ZOO[REFERENCE]
        assert isinstance(arch, SEMobileFaceNet)
        with atomic_folder(made) as temporary:
            temporary.mkdir()
            exported(arch, temporary)
    return {table: made / f"{table}{suffix}" for table, suffix in TABLES.items()}


def exported(arch: SEMobileFaceNet, folder: Path) -> dict[str, Path]:
    """A network's file for each table, as `export` writes it; LiteRT's two come from one conversion."""
    crops = parity_images(most=CROPS)
    network = network_like_trained(arch, crops)
    return written(network, crops, folder)


def written(network: nn.Module, crops: NDArray[np.uint8], folder: Path) -> dict[str, Path]:
    """The same for a network that is there."""
    files = {table: folder / f"{table}{suffix}" for table, suffix in TABLES.items()}
    export_onnx(network, files["onnx-fp32"], {})
    export_onnx(network, files["onnx-int8"], {}, "int8", Int8(crops))
    with silent():
        content = split_global_depthwise(convert(rewrite_activations(fuse(network))))
        files["tflite-fp32"].write_bytes(in_precision(content, "fp32"))
        files["tflite-int8"].write_bytes(in_precision(content, "int8", Int8(crops)))
    return files


def piece(whole: Path, conv: str) -> Path:
    """A file beside `whole` that computes what the convolution of that name reads."""
    path = whole.with_name(f"{whole.stem}-{conv}{whole.suffix}")
    path.write_bytes(CUTS[whole.suffix](whole, conv))
    return path


def _onnx(whole: Path, conv: str) -> bytes:
    import onnx
    from onnx.utils import Extractor

    model = onnx.shape_inference.infer_shapes(onnx.load(whole))
    wanted = next(node.input[0] for node in model.graph.node if node.name == f"{conv}/Conv")
    content: bytes = Extractor(model).extract_model(["input"], [wanted]).SerializeToString()
    return content


def _tflite(whole: Path, conv: str) -> bytes:
    model = read(whole.read_bytes())
    graph = model.subgraphs[0]
    names = [graph.tensors[op.outputs[0]].name.decode() for _, op in operators(model)]
    place = names.index(conv)
    graph.outputs = [graph.operators[place].inputs[0]]
    graph.operators = graph.operators[:place]
    model.signatureDefs = None
    return packed(model)


CUTS = {".onnx": _onnx, ".tflite": _tflite}
