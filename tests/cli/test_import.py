"""`mobileface import`: public weights become a run folder that every other command takes; or nothing is left."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from torch import nn

from mobileface.cli import main
from mobileface.data.images import decode, encode
from mobileface.data.pairs import open_pairs
from mobileface.data.verification_bin import read_bin, write_bin
from mobileface.embedders.contract import InputContract
from mobileface.embedders.opening import open_embedder
from mobileface.evaluation.verification import evaluate
from mobileface.files import sha256
from mobileface.training import checkpoint, loop
from search.budget import main as budget
from tests.models.publics import MobileFaceNet, scrambled

Captured = pytest.CaptureFixture[str]
MakeData = Callable[..., dict[str, Any]]


class Public:
    """The public network as an embedder, by its own code's order of channels and normalisation."""

    libraries = ("torch",)
    contract = InputContract()

    def __init__(self, network: nn.Module, path: Path) -> None:
        self.network, self.path, self.dim, self.sha256 = network, path, 128, "of the test"

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = torch.from_numpy(images[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32))  # BGR
        return self.network((pixels / 255 - 0.5) / 0.5).numpy()


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Public:
    """A MobileFaceNet with weights of its own, and its file."""
    network = scrambled(MobileFaceNet(128))
    path = tmp_path_factory.mktemp("public") / "model_mobilefacenet.pth"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)
    return Public(network, path)


@pytest.fixture(scope="module")
def imported(public: Public, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its run folder. Tests must not change what it holds but `evaluation/` and `export/`."""
    run = tmp_path_factory.mktemp("imported") / "new" / "y1"
    arguments = ["import", str(public.path), "--as", "mobilefacenet-y1", "--out", str(run), "--licence", "MIT"]
    assert main(arguments) == 0
    return run


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, make_face: Callable[[int, int], NDArray[np.uint8]]) -> Path:
    """A .bin of 20 pairs."""
    path = tmp_path_factory.mktemp("pairs") / "tiny.bin"
    both = [(i % 5, i, (i + i % 2) % 5, i + 50) for i in range(20)]
    write_bin(path, ((encode(make_face(a, m)), encode(make_face(b, n)), a == b) for a, m, b, n in both))
    return path


def one_line(captured: Captured, *wanted: str) -> None:
    out, err = captured.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("error: ")
    for text in wanted:
        assert text in err


# -- the run folder


def test_the_folder_says_what_it_is(imported: Path, public: Public) -> None:
    assert {path.name for path in imported.iterdir()} - {"evaluation", "export", "report.html"} == {
        "arch.json", "card.json", "model.safetensors",
    }  # fmt: skip
    assert {path.name for path in imported.parent.iterdir()} == {"y1"}
    card = json.loads((imported / "card.json").read_text())
    assert card["source"] == {
        "file": "model_mobilefacenet.pth",
        "sha256": sha256(public.path),
        "kind": "mobilefacenet-y1",
        "contract": InputContract(mean=(127.5,) * 3, std=(127.5,) * 3, color="bgr").to_dict(),
    }
    assert (card["name"], card["licence"], card["results"]) == ("mobilefacenet-y1", "MIT", [])
    assert card["arch"] == json.loads((imported / "arch.json").read_text())
    assert "torch" in card["versions"]
    assert checkpoint.load(imported / "model.safetensors")[1] == {"source": card["source"]}


def test_it_is_said_in_one_line(public: Public, tmp_path: Path, capsys: Captured) -> None:
    run = tmp_path / "run"
    arguments = ["import", str(public.path), "--as", "mobilefacenet-y1", "--out", str(run)]
    assert main([*arguments, "--color", "rgb"]) == 0
    assert capsys.readouterr().out == (
        f"wrote {run}: mobilefacenet-y1 from model_mobilefacenet.pth, 128-d, trained on rgb as (x - 127.5) / 127.5; "
        "licence: not stated\n"
    )
    card = json.loads((run / "card.json").read_text())
    assert (card["licence"], card["source"]["contract"]["color"]) == ("not stated", "rgb")


# -- every other command


def test_it_is_judged_as_its_own_code_is(imported: Path, public: Public, pairs: Path, capsys: Captured) -> None:
    assert main(["evaluate", str(imported), "--on", str(pairs), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    wanted = evaluate(public, open_pairs(str(pairs), Path())).result
    for key in ("accuracy", "threshold", "auc", "eer"):
        assert result[key] == pytest.approx(wanted[key], abs=1e-4), key
    assert (result["model"], result["flip"]) == ("y1", "sum")
    assert result["model_sha256"] == sha256(imported / "model.safetensors")
    images = np.stack([decode(image, "image") for image in read_bin(pairs)[0][:3]])
    found, answer = open_embedder(imported)(images), public(images)
    assert np.abs(found - answer).max() <= 1e-4 * np.abs(answer).max()
    assert (imported / "evaluation" / "tiny.json").exists()


def test_its_cost_is_that_of_the_paper(imported: Path, capsys: Captured) -> None:
    """MobileFaceNets (2018), Table 1: 221 MMACs, 1.00 M parameters; 439.8 MFLOPs by the lfrc rule."""
    assert budget([str(imported), "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert (round(verdict["macs"] / 1e6), round(verdict["flops_lfrc"] / 1e6, 1)) == (221, 439.8)
    assert round(verdict["params"] / 1e6, 2) == 1.0
    assert (verdict["arch"], verdict["embedding_dim"]) == ("mobilefacenet-y1", 128)


def test_a_report_is_written_of_it(imported: Path, capsys: Captured) -> None:
    assert main(["report", str(imported)]) == 0
    page = (imported / "report.html").read_text(encoding="utf-8")
    assert "<title>mobilefacenet-y1" in page
    assert "Not run." in page


def test_a_student_learns_from_it(
    imported: Path, shared_faces: Path, tmp_path: Path, make_plan_data: MakeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "default_workers", lambda: 0)  # Python 3.12 warns where a process with threads forks
    rows = [{"hidden": 8, "width": 8, "depth": 1, "stride": 2}]
    plan = make_plan_data(
        shared_faces,
        phase={"images": 16, "terms": [{"kind": "distillation"}]},
        arch={"stem": 8, "stages": rows, "head": 16, "embedding_dim": 128},
        teacher={"model": os.path.relpath(imported, shared_faces.parent)},
    )
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    assert main(["train", str(tmp_path / "plan.yaml"), "--out", str(tmp_path / "run")]) == 0
    teacher = json.loads((tmp_path / "run" / "card.json").read_text())["teacher"]
    assert (teacher["path"], teacher["sha256"]) == ("y1", sha256(imported / "model.safetensors"))


@pytest.mark.slow
def test_it_is_exported_without_a_plan(imported: Path, pairs: Path, capsys: Captured) -> None:
    assert main(["export", str(imported)]) == 0
    file = imported / "export" / "mobilefacenet-y1.onnx"
    assert capsys.readouterr().out.startswith(f"export: {file}: 3.8")
    metadata = json.loads((imported / "export" / "onnx.json").read_text())["metadata"]
    assert (metadata["mobileface.weights_licence"], metadata["mobileface.data_sha256"]) == ("MIT", "not stated")
    assert main(["evaluate", str(file), "--on", str(pairs), "--json"]) == 0
    from_file = json.loads(capsys.readouterr().out)
    assert main(["evaluate", str(imported), "--on", str(pairs), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["threshold"] == pytest.approx(from_file["threshold"], abs=1e-4)


def test_an_export_knows_its_formats(imported: Path, capsys: Captured) -> None:
    assert main(["export", str(imported), "--to", "onyx"]) == 2
    one_line(capsys, "export: formats.0: ", "'onnx'", "found 'onyx'")


# -- nothing is left behind


@pytest.mark.parametrize(
    ("content", "arguments", "wanted"),
    [
        ({"a": 1}, [], ["holds a int under 'a', wanted a state dict"]),
        ({"a": nn.Linear(1, 1)}, [], ["needs the Python class torch.nn.modules.linear.Linear"]),
        ({"a": torch.ones(1)}, [], ["is no mobilefacenet-y1; tensors: ", "1 unexpected (first 'a')"]),
        ({"a": torch.ones(1)}, ["--as", "mobilefacenet"], ["did you mean 'mobilefacenet-y1'?"]),
        ({"a": torch.ones(1)}, ["--as", "arcface-mbf"], ["groups of two channels"]),
        ({"a": torch.ones(1)}, ["--color", "RGB"], ["color is 'RGB', wanted rgb or bgr"]),
    ],
)
def test_what_cannot_be_imported(
    tmp_path: Path, capsys: Captured, content: Any, arguments: list[str], wanted: list[str]
) -> None:
    torch.save(content, tmp_path / "x.pth")
    out = tmp_path / "runs" / "new"
    assert main(["import", str(tmp_path / "x.pth"), "--as", "mobilefacenet-y1", "--out", str(out), *arguments]) == 2
    one_line(capsys, *wanted)
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]


def test_values_are_looked_at_before_anything_is_written(public: Public, tmp_path: Path, capsys: Captured) -> None:
    state = public.network.state_dict()
    state["bn.running_var"] = torch.full((128,), float("nan"))
    torch.save(state, tmp_path / "x.pth")
    arguments = ["import", str(tmp_path / "x.pth"), "--as", "mobilefacenet-y1", "--out", str(tmp_path / "run")]
    assert main(arguments) == 2
    one_line(capsys, "x.pth: 'bn.running_var' holds a NaN or an infinity")
    assert main(["import", str(tmp_path / "none.pth"), *arguments[2:]]) == 2
    one_line(capsys, "none.pth: is no file")
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails(
    public: Public, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    save = checkpoint.save

    def failing(path: Path, *rest: Any) -> None:
        save(path, *rest)
        raise error

    monkeypatch.setattr(checkpoint, "save", failing)
    arguments = ["import", str(public.path), "--as", "mobilefacenet-y1", "--out", str(tmp_path / "run")]
    assert main(arguments) == (2 if isinstance(error, OSError) else 130)
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays(public: Public, imported: Path, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "file").write_text("mine")
    before = sha256(imported / "model.safetensors")
    for out in (tmp_path / "file", imported):
        assert main(["import", str(public.path), "--as", "mobilefacenet-y1", "--out", str(out)]) == 2
        one_line(capsys, f"{out}: is there already; give another --out")
    assert ((tmp_path / "file").read_text(), sha256(imported / "model.safetensors")) == ("mine", before)
