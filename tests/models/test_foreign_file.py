"""Checkpoints from outside: every format, and files that are damaged, hostile or something else."""

from __future__ import annotations

import argparse
import collections
import io
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from mobileface.errors import InputError
from mobileface.models import foreign_file
from mobileface.models.foreign_file import read_state_dict
from tests.strategies import examples

STATE = {
    "conv1.weight": torch.arange(6.0).reshape(2, 3),
    "bn1.bias": torch.tensor([0.5, -1.0], dtype=torch.float16),
    "bn1.num_batches_tracked": torch.tensor(3),
}
FORMATS = ["zip", "legacy", "safetensors"]


def written(path: Path, value: Any, kind: str = "zip") -> Path:
    """The file that torch.save (as today, or before 1.6) or safetensors makes of `value`."""
    path = path.with_suffix(".safetensors" if kind == "safetensors" else ".pth")
    if kind == "safetensors":
        save_file(value, path)
    else:
        torch.save(value, path, _use_new_zipfile_serialization=kind == "zip")
    return path


def assert_state(found: dict[str, Tensor], wanted: dict[str, Tensor] = STATE) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def refused(path: Path, wanted: str) -> None:
    with pytest.raises(InputError, match=wanted) as caught:
        read_state_dict(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert len(text) < 400 + len(str(path))


# -- formats and wrappings


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same(tmp_path: Path, kind: str) -> None:
    assert_state(read_state_dict(written(tmp_path / "x", STATE, kind)))


@pytest.mark.parametrize("kind", FORMATS)
def test_the_prefixes_of_wrappers_are_taken_off(tmp_path: Path, kind: str) -> None:
    assert_state(read_state_dict(written(tmp_path / "x", {f"module.{k}": v for k, v in STATE.items()}, kind)))
    assert_state(read_state_dict(written(tmp_path / "y", {f"net.{k}": v for k, v in STATE.items()}, kind)))  # CVLface
    assert_state(read_state_dict(written(tmp_path / "z", {f"module.model.{k}": v for k, v in STATE.items()}, kind)))


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_a_lightning_checkpoint_of_plain_values(tmp_path: Path, kind: str) -> None:
    parts = {f"model.{k}": v for k, v in STATE.items()} | {"head.kernel": torch.ones(2, 9), "head.t": torch.ones(1)}
    whole = {
        "epoch": 3,
        "pytorch-lightning_version": "1.8.6",
        "state_dict": OrderedDict(parts),
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}],
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.9)}},
        "hyper_parameters": {"arch": "ir_50", "lr_milestones": [12, 20, 24], "distributed_backend": None},
    }
    assert_state(read_state_dict(written(tmp_path / "x", whole, kind)))
    assert_state(read_state_dict(written(tmp_path / "bare", parts, kind)))  # as the message below says to save it


@pytest.mark.parametrize("prefix", ["module", "model", "net"])
def test_what_stands_beside_network_and_head_is_refused(tmp_path: Path, prefix: str) -> None:
    state = {f"{prefix}.a": torch.ones(1), "a": torch.zeros(1)}
    refused(written(tmp_path / "x", state), rf"holds 'a' beside {prefix}\.\*, wanted {prefix}\.\* and head\.\* only$")


# -- classes


class Touches:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


class Attributes(dict[str, Any]):
    """A table that is an object as well, as Lightning keeps hyper-parameters."""


def test_objects_beside_the_state_dict_are_left_lying(tmp_path: Path) -> None:
    """A Lightning checkpoint as the public AdaFace files are: callbacks by class, settings as objects."""
    settings = Attributes(arch="ir_101", margin=0.4)
    settings.extra = 1  # type: ignore[attr-defined]
    whole = {
        "state_dict": {**{f"model.{k}": v for k, v in STATE.items()}, "head.kernel": torch.ones(2, 9)},
        "callbacks": {EarlyStopping: {"best_model_score": torch.tensor(0.9), "best": np.float64(0.5)}},
        "hyper_parameters": settings,
        "arguments": argparse.Namespace(gpus=2, path=Path("data")),
        "other": [collections.defaultdict(list, a=[1])],
    }
    assert_state(read_state_dict(written(tmp_path / "x", whole)))


class EarlyStopping:
    """Stands for a class of the code that a checkpoint was written by."""


def test_as_many_classes_as_a_hostile_file_likes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {"state_dict": STATE, "callbacks": EarlyStopping, "more": argparse.Namespace()}
    path = written(tmp_path / "x", whole)
    monkeypatch.setattr(foreign_file, "MAX_CLASSES", 2)
    assert_state(read_state_dict(path))
    monkeypatch.setattr(foreign_file, "MAX_CLASSES", 1)
    refused(path, r"needs the Python class")


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_classes_are_named_and_not_run(tmp_path: Path, kind: str) -> None:
    canary = tmp_path / "canary"
    path = written(tmp_path / "x", {"net": STATE, "callbacks": Touches(canary)}, kind)
    with path.open("rb") as file:
        assert b"touch" in file.read()
    save = re.escape('torch.save(torch.load(FILE, weights_only=False)["state_dict"], "bare.pth"), then import bare.pth')
    refused(path, rf"needs the Python class [\w.]+, and no code is run for a file; .*: {save}$")
    refused(written(tmp_path / "y", {"state_dict": {"a": Touches(canary)}}, kind), "needs the Python class|under 'a'")
    assert not canary.exists()


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_a_whole_module_is_a_class(tmp_path: Path, kind: str) -> None:
    refused(
        written(tmp_path / "x", nn.Linear(2, 2), kind), r"needs the Python class torch\.nn\.modules\.linear\.Linear"
    )


class Fills:
    """Unpickled, it would fill the memory."""

    def __reduce__(self) -> tuple[Any, ...]:
        return bytearray, (1 << 50,)


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_a_small_file_cannot_ask_for_much_memory(tmp_path: Path, kind: str) -> None:
    refused(written(tmp_path / "x", {"state_dict": STATE, "more": Fills()}, kind), "x.pth: asks for a bytearray")


def test_a_plain_pickle_is_not_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "x.pth").write_bytes(pickle.dumps(Touches(canary)))
    refused(tmp_path / "x.pth", "x.pth: ")
    assert not canary.exists()


# -- other contents


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (torch.ones(2), "holds a Tensor, wanted a state dict"),
        ([("a", torch.ones(2))], "holds a list, wanted a state dict"),
        ({}, "holds an empty table, wanted a state dict"),
        ({"state_dict": {}}, "holds an empty table, wanted a state dict"),
        ({0: torch.ones(2)}, "holds a Tensor under 0, wanted a state dict: names and tensors$"),
        ({"epoch": 3, "net": STATE}, "holds a int under 'epoch', wanted a state dict"),
        ({"net": STATE}, "holds a dict under 'net', wanted a state dict"),
        ({"x" * 5000 + "\n": 1}, "holds a int under 'x{100}' …, wanted"),
    ],
)
def test_what_is_no_state_dict(tmp_path: Path, value: Any, wanted: str) -> None:
    refused(written(tmp_path / "x", value), wanted)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(2).to_sparse(),
        lambda: torch.ones(2, device="meta"),
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, on such tensors
def test_tensors_of_special_kinds(tmp_path: Path, make: Callable[[], Tensor], kind: str) -> None:
    path = written(tmp_path / "x", {"a": torch.ones(1), "b": make()}, kind)
    refused(path, "'b' is sparse, nested, quantised or without values|cannot be read as a PyTorch")


def test_a_tensor_larger_than_its_file_costs_nothing(tmp_path: Path) -> None:
    """A view of one value, a terabyte if it were copied; shapes are judged before values."""
    path = written(tmp_path / "x", {"a": torch.ones(1).expand(1 << 40)})
    assert path.stat().st_size < 10_000
    assert read_state_dict(path)["a"].shape == (1 << 40,)


# -- damaged files


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"hello\n", b"PK\x03\x04", b"PK\x03\x04" + bytes(999), b"\x80\x02}q\x00.", b"{}"]
)
def test_files_of_other_kinds(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    refused(path, r"cannot be read as a PyTorch or safetensors file \(\w+")


@pytest.mark.parametrize("name", ["model.onnx", "model.pth"])
def test_an_onnx_file_is_named_as_what_it_is(tmp_path: Path, name: str) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([], "nothing", [], [])
    content = onnx.helper.make_model(graph, producer_name="someone").SerializeToString()
    for kept in (content, onnx.helper.make_model(graph).SerializeToString()):
        (tmp_path / name).write_bytes(kept)
        refused(tmp_path / name, r"is an ONNX file, wanted a state dict \(.pth, .*\); an ONNX file is used as it")


def test_a_tflite_file_is_named_as_what_it_is(tmp_path: Path) -> None:
    for name, content in (("model.tflite", b""), ("model.pt", b"\x20\0\0\0TFL3" + bytes(99))):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, "is a TFLite file, wanted a state dict")


def test_no_page_of_torch_is_printed(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(b"\x80\x02S'old'\n.")  # torch's reader knows no such text
    refused(tmp_path / "x.pth", r"cannot be read .* file \(UnpicklingError\), wanted a state dict \(.*\)$")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_is_cut_off(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path / "x", STATE, kind)
    content = path.read_bytes()
    for length in (*range(1, len(content), 1 + len(content) // 40), len(content) - 1):
        path.write_bytes(content[:length])
        refused(path, r"cannot be read as a PyTorch or safetensors file|needs the Python class \w")  # half a name


def test_places_that_are_no_files(tmp_path: Path) -> None:
    refused(tmp_path, "is no file; wanted a PyTorch .* file")
    refused(tmp_path / "missing.pth", "is no file")


def test_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "x", STATE)
    size = path.stat().st_size
    monkeypatch.setattr(foreign_file, "MAX_BYTES", size)
    assert_state(read_state_dict(path))
    monkeypatch.setattr(foreign_file, "MAX_BYTES", size - 1)
    refused(path, f"has {size} bytes, wanted at most {size - 1}$")


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "x", STATE)
    packed = tmp_path / "packed.pth"
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in plain.infolist():
            archive.writestr(entry.filename, plain.read(entry), zipfile.ZIP_DEFLATED)
    refused(packed, "is a compressed archive, wanted a file as torch.save writes it$")


def test_torchscript_is_refused_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "version"):
            archive.writestr(f"x/{name}", b"3\n")
    refused(path, "cannot be read as a PyTorch")


@pytest.mark.parametrize("kind", FORMATS)
def test_changed_bytes_end_in_one_line_or_in_tensors(tmp_path_factory: pytest.TempPathFactory, kind: str) -> None:
    folder = tmp_path_factory.mktemp("changed")
    content = written(folder / "x", STATE, kind).read_bytes()
    path = folder / f"y{'.safetensors' if kind == 'safetensors' else '.pth'}"
    places = st.integers(0, min(len(content), 700) - 1)  # names, shapes and the pickle stand there

    @examples(100)
    @given(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4))
    def check(changes: list[tuple[int, int]]) -> None:
        changed = bytearray(content)
        for place, value in changes:
            changed[place] = value
        path.write_bytes(changed)
        try:
            found = read_state_dict(path)
        except InputError as error:
            assert str(error).startswith(f"{path}: ")
        else:
            assert all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in found.items())

    check()


def test_a_name_that_no_text_can_hold(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(STATE, buffer)
    path = tmp_path / "\udcff.pth"
    path.write_bytes(buffer.getvalue())
    refused(path, "cannot be read as a PyTorch or safetensors file \\(UnicodeEncodeError")
