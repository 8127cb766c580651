"""Run folders to proven files: `export_run` and the command line."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

import export.run
from export.__main__ import main
from export.formats import FORMATS
from export.images import FEW, Crops
from export.int8 import Int8
from export.run import WANTED, described, export_run
from export.to_onnx import export_onnx
from export.to_web import RUNTIME_FILES
from mobileface.data.align import TEMPLATE
from mobileface.embedders.opening import open_embedder
from mobileface.errors import CheckFailed, InputError
from mobileface.files import sha256

pytestmark = pytest.mark.slow

Pixels = NDArray[np.uint8]
RESULT = {"format": "onnx"}
PLAN = "name: my-student\narch: micro\ndata: {train: [{folder: faces}], licence: CC0}\n"


def forgets_the_slopes(network: nn.Module, path: Path, *rest: Any) -> None:
    """An exporter with a fault, in the very network that it was given."""
    for part in network.modules():
        if isinstance(part, nn.PReLU):
            part.weight.data.fill_(0.25)
    export_onnx(network, path, *rest)


@pytest.fixture(scope="module")
def files(make: Callable[..., nn.Module], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A good file of the run and a faulty one: an export takes two seconds."""
    folder = tmp_path_factory.mktemp("files")
    for name, write in {"good": export_onnx, "faulty": forgets_the_slopes}.items():
        write(make(), folder / name, {})
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _refuse(why: str) -> None:
    raise InputError(why)


def writes_with(monkeypatch: pytest.MonkeyPatch, write: Callable[..., None]) -> None:
    monkeypatch.setitem(FORMATS, "onnx", replace(FORMATS["onnx"], write=write))


def test_a_whole_run(run: Path, images: Pixels) -> None:
    (run / "plan.yaml").write_text(PLAN)
    card = {
        "data": {"sha256": "ab" * 32, "licence": "research only"},
        "budget": {"budget": {"max_size_mib": 1}},
    }
    (run / "card.json").write_text(json.dumps(card))
    [result] = export_run(run, ["onnx", "onnx"], Crops(images, "noise"))
    file = run / "export" / "my-student.onnx"
    assert json.loads((run / "export" / "onnx.json").read_text()) == result
    assert sorted(path.name for path in file.parent.iterdir()) == ["my-student.onnx", "onnx.json"]
    told = {key: result[key] for key in ("file", "format", "precision", "bytes", "sha256")}
    assert told == {
        "file": "my-student.onnx", "format": "onnx", "precision": "fp32", "bytes": file.stat().st_size,
        "sha256": sha256(file),
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
    monkeypatch.setattr(export.run, "_export", lambda kind, precision, source, file: written.append(file) or RESULT)
    export_run(run, ["onnx"], Crops(images, "noise"), run / "out")
    assert written == [run / "out" / f"{file}.onnx"]


def stale(folder: Path) -> None:
    """What an earlier export left."""
    folder.mkdir()
    (folder / "nano.onnx").write_bytes(b"of other weights")
    (folder / "onnx.json").write_text("{}")


def test_over_the_budget(run: Path, images: Pixels, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit comes from the card or the plan; what was exported before goes as well."""
    stale(run / "out")
    writes_with(monkeypatch, lambda network, path, *rest: path.write_bytes(files["good"]))
    (run / "card.json").write_text('{"budget": {"budget": {"max_size_mib": 0.001}}}')
    message = r"nano\.onnx: has 0\.0\d MiB and is not kept, the budget allows 0\.001"
    with pytest.raises(CheckFailed, match=message):
        export_run(run, ["onnx"], Crops(images, "noise"), run / "out")
    assert list((run / "out").iterdir()) == []
    limit = export.run._size_limit
    (run / "plan.yaml").write_text(PLAN + "budget: {max_size_mib: 0.002}\n")
    plan = export.run.read_plan(run / "plan.yaml")
    assert limit({}, plan) == 0.002
    assert limit({"budget": {"budget": {"max_size_mib": 3}}}, plan) == 3
    assert limit({"budget": {"budget": None}}, None) is None


def test_an_exporter_at_fault_leaves_nothing(run: Path, images: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even one that changes the very network that it was given."""
    stale(run / "export")
    writes_with(monkeypatch, forgets_the_slopes)
    with pytest.raises(CheckFailed, match=r"nano\.onnx: is not the network, and is not kept: largest diff"):
        export_run(run, ["onnx"], Crops(images, "noise"))
    assert list((run / "export").iterdir()) == []


def test_what_a_converter_raises_is_one_line(run: Path, images: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*arguments: Any) -> None:
        raise NotImplementedError("no rule for\nthis op")

    writes_with(monkeypatch, breaks)
    message = r"^nano\.onnx: cannot be written \(NotImplementedError: no rule for this op\)$"
    with pytest.raises(CheckFailed, match=message):
        export_run(run, ["onnx"], Crops(images, "noise"))
    assert list((run / "export").iterdir()) == []


def test_a_file_cut_off_by_its_writer_leaves_nothing(
    run: Path, images: Pixels, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    writes_with(monkeypatch, lambda network, path, *rest: path.write_bytes(files["good"][:-500]))
    with pytest.raises(CheckFailed, match=r"^nano\.onnx: cannot be read back, and is not kept \("):
        export_run(run, ["onnx"], Crops(images, "noise"))
    assert list((run / "export").iterdir()) == []


def test_int8_keeps_more_in_float_until_the_gate_opens(
    run: Path, images: Pixels, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first two ways give a file too far from the network; it is not judged on the images that ranges are from."""
    crops = np.random.default_rng(1).integers(0, 256, (48, 112, 112, 3), dtype=np.uint8)
    asked: list[float] = []

    def choose(network: nn.Module, given: Pixels, wanted: float) -> tuple[frozenset[str], Any]:
        np.testing.assert_array_equal(given, crops[::2])
        asked.append(wanted)
        return frozenset({"stem.conv"} if len(asked) > 2 else ()), Told(wanted)

    class Told:
        def __init__(self, wanted: float) -> None:
            self.wanted = wanted

        def to_dict(self) -> dict[str, Any]:
            return {"wanted": self.wanted, "kept": [{"name": "stem.conv"}]}

    def write(network: nn.Module, path: Path, metadata: dict[str, str], precision: str, int8: Int8) -> None:
        path.write_bytes(files["good" if int8.keep else "faulty"])

    monkeypatch.setattr(export.run, "choose", choose)
    writes_with(monkeypatch, write)
    [result] = export_run(run, ["onnx"], Crops(crops, "noise"), precisions=["int8"])
    assert asked == list(WANTED)
    assert result["int8"]["wanted"] == WANTED[-1]
    assert result["parity"]["images"] == 24
    assert result["metadata"]["mobileface.precision"] == "int8"
    assert sorted(path.name for path in (run / "export").iterdir()) == ["nano-int8.onnx", "onnx-int8.json"]
    writes_with(monkeypatch, lambda network, path, *rest: path.write_bytes(files["faulty"]))
    with pytest.raises(CheckFailed, match=r"nano-int8\.onnx: is not the network"):
        export_run(run, ["onnx"], Crops(crops, "noise"), precisions=["int8"])
    assert list((run / "export").iterdir()) == []
    few = Crops(crops[:30], "noise")
    with pytest.raises(
        InputError, match=r"calibration: 30 crops \(noise\), wanted at least 31, every second one to judge"
    ):
        export_run(run, ["onnx"], few, precisions=["int8"])
    with pytest.raises(InputError, match="calibration: 24 of 24 crops are of one colour, wanted faces"):
        export_run(run, ["onnx"], Crops(np.zeros_like(crops), "blank"), precisions=["int8"])


def test_thresholds_of_the_set_with_most_impostors(
    run: Path, images: Pixels, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of results for these very weights alone; the worst pairs' file is none."""
    weights = sha256(run / "model.safetensors")
    folder = run / "evaluation"
    folder.mkdir()

    def judged(name: str, pairs: int, thresholds: dict[str, float], model: str = weights) -> None:
        said = {"model_sha256": model, "set": name, "tar_impostors": {"pairs": pairs}, "single_thresholds": thresholds}
        (folder / f"{name}.json").write_text(json.dumps(said))

    judged("small", 2000, {"1e-3": 0.4})
    judged("large", 90_000, {"1e-3": 0.3, "1e-4": 0.5})
    judged("other", 10**9, {"1e-3": 0.1, "1e-4": 0.1}, "of other weights")
    (folder / "large.worst.json").write_text("{}")
    writes_with(monkeypatch, lambda network, path, *rest: path.write_bytes(files["good"]))
    [result] = export_run(run, ["onnx"], Crops(images, "noise"))
    assert json.loads(result["metadata"]["mobileface.thresholds"]) == {
        "1e-3": {"threshold": 0.3, "set": "large", "pairs": 90_000},
        "1e-4": {"threshold": 0.5, "set": "large", "pairs": 90_000},
    }


def test_a_full_disk_is_no_failed_check(
    run: Path, images: Pixels, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older export, proven once, stays."""

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    writes_with(monkeypatch, lambda network, path, *rest: path.write_bytes(files["good"]))
    export_run(run, ["onnx"], Crops(images, "noise"))
    writes_with(monkeypatch, full)
    with pytest.raises(OSError, match="No space left"):
        export_run(run, ["onnx"], Crops(images, "noise"))
    assert (run / "export/nano.onnx").read_bytes() == files["good"]


def test_after_a_miss_the_other_files_are_made_and_told(
    run: Path, images: Pixels, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(network: nn.Module, path: Path, metadata: dict[str, str], precision: str, int8: Int8 | None) -> None:
        path.write_bytes(files["faulty" if precision == "fp32" else "good"])

    writes_with(monkeypatch, write)
    told: list[dict[str, Any]] = []
    with pytest.raises(CheckFailed, match=r"^nano\.onnx: is not the network") as missed:
        export_run(run, ["onnx"], Crops(images, "noise"), precisions=["fp32", "fp16"], say=told.append)
    assert "nano-fp16" not in str(missed.value)
    assert [result["file"] for result in told] == ["nano-fp16.onnx"]
    assert sorted(path.name for path in (run / "export").iterdir()) == ["nano-fp16.onnx", "onnx-fp16.json"]


def test_exports_of_other_weights_go(
    run: Path, images: Pixels, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    writes_with(monkeypatch, lambda network, path, *rest: path.write_bytes(files["good"]))
    export_run(run, ["onnx"], Crops(images, "noise"), precisions=["fp32", "fp16"])
    record = run / "export/onnx-fp16.json"
    told = json.loads(record.read_text())
    told["metadata"]["mobileface.weights_sha256"] = "of an older training"
    record.write_text(json.dumps(told))
    (run / "export/notes.json").write_text("{}")
    export_run(run, ["onnx"], Crops(images, "noise"))
    assert sorted(path.name for path in (run / "export").iterdir()) == ["nano.onnx", "notes.json", "onnx.json"]


def test_a_page_around_the_onnx_file(
    run: Path, images: Pixels, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of a run that was never judged; it stays where a new one cannot be made, and goes with its ONNX file."""
    (tmp_path / "runtime").mkdir()
    for path in RUNTIME_FILES:
        (tmp_path / "runtime" / Path(path).name).write_text("runtime")
    monkeypatch.setattr("export.to_web.npm_files", lambda *arguments: tmp_path / "runtime")
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    writes_with(monkeypatch, lambda network, path, *rest: path.write_bytes(files["good"]))
    first, page = export_run(run, ["web"], Crops(images, "noise"))
    assert (first["file"], page["file"]) == ("nano.onnx", "web")
    assert "mobileface.thresholds" not in first["metadata"]
    assert (run / "export/web/model.onnx").read_bytes() == files["good"]
    assert json.loads((run / "export/web/meta.json").read_text())["thresholds"] == []
    assert described(page, run / "export").startswith(f"{run}/export/web: ")
    with monkeypatch.context() as offline:
        offline.setattr("export.to_web.npm_files", lambda *arguments: _refuse("npm: no network"))
        with pytest.raises(InputError, match="npm: no network"):
            export_run(run, ["web"], Crops(images, "noise"))
    assert (run / "export/web/model.onnx").read_bytes() == files["good"]
    writes_with(monkeypatch, lambda network, path, *rest: path.write_bytes(files["faulty"]))
    with pytest.raises(CheckFailed):
        export_run(run, ["web"], Crops(images, "noise"))
    assert not (run / "export/web").exists()
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(InputError, match="web: npm is missing"):
        export_run(run, ["web"], Crops(images, "noise"))


def test_bad_calls(run: Path, images: Pixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InputError, match=r"no format is called 'onx' \(did you mean 'onnx'\?\); known: onnx, coreml, tflite, web"
    ):
        export_run(run, ["onx"], Crops(images, "noise"))
    with pytest.raises(InputError, match=r"no precision is called 'int4' \(did you mean 'int8'\?\); known: fp32, fp16"):
        export_run(run, ["onnx"], Crops(images, "noise"), precisions=["int4"])
    with pytest.raises(InputError, match=r"holds no arch\.json, wanted a run folder"):
        export_run(tmp_path, ["onnx"], Crops(images, "noise"))
    with monkeypatch.context() as without:
        without.setattr("export.formats.find_spec", lambda name: None)
        wanted = r"^coreml: coremltools is missing, wanted: pip install 'mobileface\[coreml\]'$"
        with pytest.raises(InputError, match=wanted):
            export_run(run, ["coreml"], Crops(images, "noise"))
    (run / "card.json").write_text("{")
    with pytest.raises(InputError, match=r"card\.json: not readable as JSON"):
        export_run(run, ["onnx"], Crops(images, "noise"))
    assert not (run / "export").exists()


def test_command_line(run: Path, tmp_path: Path, images: Pixels, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run), "--to", "onnx"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{run}/export/nano.onnx: 0.0")
    assert f"against the network on {FEW} images at batch 1 and 8: largest difference " in out
    assert main([str(run), "--to", "onnx", "--images", str(tmp_path / "none")]) == 2
    assert "none: not found, wanted a folder of aligned 112x112 crops or a verification .bin" in capsys.readouterr().err
    assert main([str(run), "--to", "tflight"]) == 2
    assert main([str(run)]) == 2
    capsys.readouterr()
    weights = run / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    assert main([str(run), "--to", "onnx"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
