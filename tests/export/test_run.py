"""Run folders to proven files: `export_run` and the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

import export.run
from export.__main__ import main
from export.images import MOST, parity_images
from export.run import EXPORTERS, export_run
from export.to_onnx import export_onnx
from mobileface.data.align import TEMPLATE
from mobileface.data.images import encode
from mobileface.data.verification_bin import write_bin
from mobileface.embedders.onnx import OnnxEmbedder
from mobileface.embedders.opening import open_embedder
from mobileface.errors import CheckFailed, InputError
from mobileface.files import sha256

Pixels = NDArray[np.uint8]
PLAN = "name: my-student\narch: micro\ndata: {train: [{folder: faces}], licence: CC0}\n"


@pytest.fixture
def run(tmp_path: Path, make: Callable[..., nn.Module]) -> Path:
    """A run folder without plan and card."""
    folder, network = tmp_path / "run", make()
    folder.mkdir()
    (folder / "arch.json").write_text(json.dumps(network.arch.to_dict()))
    save_file(network.state_dict(), folder / "model.safetensors")
    return folder


def forgets_the_slopes(network: nn.Module, path: Path, metadata: dict[str, str]) -> OnnxEmbedder:
    """An exporter with a fault, in the very network that it was given."""
    for part in network.modules():
        if isinstance(part, nn.PReLU):
            part.weight.data.fill_(0.25)
    return export_onnx(network, path, metadata)


def test_a_whole_run(run: Path, images: Pixels) -> None:
    (run / "plan.yaml").write_text(PLAN)
    card = {
        "data": {"sha256": "ab" * 32, "licence": "research only"},
        "budget": {"budget": {"max_size_mib": 1}},
    }
    (run / "card.json").write_text(json.dumps(card))
    [result] = export_run(run, ["onnx", "onnx"], images)
    file = run / "export" / "my-student.onnx"
    assert json.loads((run / "export" / "onnx.json").read_text()) == result
    assert sorted(path.name for path in file.parent.iterdir()) == ["my-student.onnx", "onnx.json"]
    told = {key: result[key] for key in ("file", "format", "precision", "bytes", "sha256", "opset")}
    assert told == {
        "file": "my-student.onnx", "format": "onnx", "precision": "fp32", "bytes": file.stat().st_size,
        "sha256": sha256(file), "opset": 20,
    }  # fmt: skip
    parity = result["parity"]
    assert (parity["passed"], parity["batches"], parity["images"]) == (True, [1, 8], 9)
    metadata = {key.removeprefix("mobileface."): text for key, text in result["metadata"].items()}
    assert metadata["color"] == "RGB"
    assert metadata["alignment"] == "arcface-112"
    assert json.loads(metadata["alignment_points"]) == TEMPLATE.tolist()
    assert json.loads(metadata["arch"]) == json.loads((run / "arch.json").read_text())
    assert json.loads(metadata["versions"]).keys() >= {"mobileface", "python", "torch", "onnx"}
    assert metadata["plan_sha256"] == sha256(run / "plan.yaml")
    assert metadata["weights_sha256"] == sha256(run / "model.safetensors")
    assert (metadata["data_sha256"], metadata["data_licence"]) == ("ab" * 32, "research only")
    assert metadata["weights_licence"] == "not stated"
    found, wanted = open_embedder(file)(images), open_embedder(run)(images)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("name", "file"),
    [("../../evil name/…", "evil-name"), ("..", "model"), ("<b>", "b"), ("a.b-c_d", "a.b-c_d")],
)
def test_odd_names_stay_in_the_folder(
    run: Path, images: Pixels, name: str, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arch = json.loads((run / "arch.json").read_text())
    (run / "arch.json").write_text(json.dumps({**arch, "name": name}))
    written: list[Path] = []
    monkeypatch.setattr(export.run, "_export", lambda kind, ref, file, *rest: written.append(file) or {})
    export_run(run, ["onnx"], images, run / "out")
    assert written == [run / "out" / f"{file}.onnx"]


def stale(folder: Path) -> None:
    """What an earlier export left."""
    folder.mkdir()
    (folder / "nano.onnx").write_bytes(b"of other weights")
    (folder / "onnx.json").write_text("{}")


def test_over_the_budget(run: Path, images: Pixels) -> None:
    """The limit comes from the call, the card or the plan; what was exported before goes as well."""
    stale(run / "out")
    message = r"nano\.onnx: has 0\.0\d MiB and is not kept, the budget allows 0\.001"
    with pytest.raises(CheckFailed, match=message):
        export_run(run, ["onnx"], images, run / "out", max_size_mib=0.001)
    assert list((run / "out").iterdir()) == []
    limit = export.run._size_limit
    (run / "plan.yaml").write_text(PLAN + "budget: {max_size_mib: 0.002}\n")
    plan = export.run.read_plan(run / "plan.yaml")
    assert limit({}, plan) == 0.002
    assert limit({"budget": {"budget": {"max_size_mib": 3}}}, plan) == 3
    assert limit({"budget": {"budget": None}}, None) is None


def test_an_exporter_at_fault_leaves_nothing(run: Path, images: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    stale(run / "export")
    monkeypatch.setitem(EXPORTERS, "onnx", forgets_the_slopes)
    with pytest.raises(CheckFailed, match=r"nano\.onnx: is not the network, and is not kept: largest diff"):
        export_run(run, ["onnx"], images)
    assert list((run / "export").iterdir()) == []


def test_bad_calls(run: Path, images: Pixels, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no format is called 'onx' \(did you mean 'onnx'\?\); known: onnx"):
        export_run(run, ["onx"], images)
    with pytest.raises(InputError, match=r"holds no arch\.json, wanted a run folder"):
        export_run(tmp_path, ["onnx"], images)
    (run / "card.json").write_text("{")
    with pytest.raises(InputError, match=r"card\.json: not readable as JSON"):
        export_run(run, ["onnx"], images)
    assert not (run / "export").exists()


def test_command_line(run: Path, tmp_path: Path, images: Pixels, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run), "--to", "onnx"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{run}/export/nano.onnx: 0.0")
    assert f"equal to the network on {MOST} images at batch 1 and 8 (largest difference " in out
    assert main([str(run), "--to", "onnx", "--images", str(tmp_path / "none")]) == 2
    assert "none: wanted a folder of aligned 112x112 crops or a verification .bin" in capsys.readouterr().err
    assert main([str(run), "--to", "tflite"]) == 2
    assert main([str(run)]) == 2
    capsys.readouterr()
    weights = run / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    assert main([str(run), "--to", "onnx"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_images_of_a_folder_and_of_a_bin(tmp_path: Path, images: Pixels) -> None:
    for i in range(40):
        image = np.full((112, 112, 3), 5 * i, np.uint8)
        path = tmp_path / "faces" / f"person {i % 3}" / f"{i:02}.PNG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    (tmp_path / "faces" / "readme.txt").write_text("no image")
    found = parity_images(tmp_path / "faces")
    assert found.shape == (MOST, 112, 112, 3)
    assert len(np.unique(found[:, 0, 0, 0])) == MOST
    write_bin(tmp_path / "set.bin", [(encode(images[0]), encode(images[1]), True)] * 5)
    assert parity_images(tmp_path / "set.bin").shape == (10, 112, 112, 3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: holds no image, wanted aligned"):
        parity_images(tmp_path / "empty")
    (tmp_path / "empty" / "cut.jpg").write_bytes(encode(images[0])[:50])
    with pytest.raises(InputError, match=r"cut\.jpg: does not decode"):
        parity_images(tmp_path / "empty")


def test_synthetic_images_are_the_same_every_time() -> None:
    first = parity_images()
    assert (first.shape, first.dtype) == ((MOST, 112, 112, 3), np.uint8)
    np.testing.assert_array_equal(first, parity_images())
    assert len(np.unique(first.reshape(MOST, -1), axis=0)) == MOST
