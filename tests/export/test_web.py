"""The folder of the browser page, without a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from torch import nn

from export.to_onnx import export_onnx
from export.to_web import PAGE, RUNTIME_FILES, export_web, pattern
from mobileface.errors import InputError

METADATA = {"mobileface.data_licence": "CC-BY-4.0", "mobileface.weights_licence": "MIT"}
STORED = {"1e-3": {"threshold": 0.31, "set": "lfw", "pairs": 5000}, "1e-2": {"threshold": 0.2}}


@pytest.fixture(scope="module")
def exported(make: Callable[..., nn.Module], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("web") / "nano.onnx"
    export_onnx(make(), path, METADATA)
    return path


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the files from npm."""
    folder = tmp_path / "runtime"
    folder.mkdir()
    for name in RUNTIME_FILES:
        (folder / Path(name).name).write_text(name)
    monkeypatch.setattr("export.to_web.npm_files", lambda *_: folder)
    return folder


def with_metadata(source: Path, target: Path, **metadata: str) -> Path:
    model = onnx.load(source)
    onnx.helper.set_model_props(model, {entry.key: entry.value for entry in model.metadata_props} | metadata)
    onnx.save(model, target)
    return target


def test_the_folder_is_complete(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    meta = export_web(exported, folder)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    page = {path.name for path in PAGE.iterdir() if path.is_file()}
    assert {"index.html", "app.js", "style.css"} < page
    assert files == page | {"model.onnx", "meta.json"} | {f"ort/{Path(name).name}" for name in RUNTIME_FILES}
    assert json.loads((folder / "meta.json").read_text()) == meta
    assert (folder / "model.onnx").read_bytes() == exported.read_bytes()
    assert (meta["name"], meta["bytes"], meta["dim"]) == ("nano", exported.stat().st_size, 8)
    assert meta["licence"] == {"data": "CC-BY-4.0", "weights": "MIT"}
    assert meta["thresholds"] == []


def test_the_stored_answer_is_the_models(exported: Path, tmp_path: Path) -> None:
    check = export_web(exported, tmp_path / "site")["check"]
    pixels = pattern().transpose(0, 3, 1, 2).astype(np.float32)
    embedding, quality = onnxruntime.InferenceSession(str(exported)).run(None, {"input": pixels})
    np.testing.assert_allclose(check["embedding"], embedding[0], atol=1e-6)
    assert check["quality"] == pytest.approx(float(quality[0]), rel=1e-5)


def test_the_pattern_by_hand() -> None:
    assert pattern().shape == (1, 112, 112, 3)
    assert pattern()[0, 100, 50].tolist() == [(150 + 500 + 70 * c + 625) % 256 for c in range(3)]


def test_thresholds_are_those_of_the_file_unless_told(exported: Path, tmp_path: Path) -> None:
    file = with_metadata(exported, tmp_path / "stored.onnx", **{"mobileface.thresholds": json.dumps(STORED)})
    lenient = {"rate": 0.01, "threshold": 0.2, "set": "", "pairs": 0}
    strict = {"rate": 0.001, "threshold": 0.31, "set": "lfw", "pairs": 5000}
    assert export_web(file, tmp_path / "site")["thresholds"] == [lenient, strict]
    told = export_web(file, tmp_path / "site", {"1e-4": 0.4})["thresholds"]
    assert told == [{"rate": 0.0001, "threshold": 0.4, "set": "", "pairs": 0}]


@pytest.mark.parametrize("text", ["[", "[1]", '{"1e-3": 0.3}', '{"1e-3": {}}', '{"2": {"threshold": 0.3}}'])
def test_thresholds_that_cannot_be_used(exported: Path, tmp_path: Path, text: str) -> None:
    file = with_metadata(exported, tmp_path / "bad.onnx", **{"mobileface.thresholds": text})
    with pytest.raises(InputError, match="threshold"):
        export_web(file, tmp_path / "site")
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize("given", [{"1e-3": 1.5}, {"1e-3": float("nan")}, {"often": 0.3}, {"0": 0.3}])
def test_given_thresholds_that_cannot_be_used(exported: Path, tmp_path: Path, given: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"wanted a rate in 0\.\.1 and a cosine in -1\.\.1"):
        export_web(exported, tmp_path / "site", given)


def test_a_foreign_file_is_refused(exported: Path, tmp_path: Path) -> None:
    contract = json.dumps({"scale": 255.0})
    file = with_metadata(exported, tmp_path / "scaled.onnx", **{"mobileface.contract": contract})
    with pytest.raises(InputError, match="wanted an export of ours"):
        export_web(file, tmp_path / "site")
    model = onnx.load(exported)
    del model.graph.output[1]
    onnx.save(model, tmp_path / "one.onnx")
    with pytest.raises(InputError, match=r"has \['input', 'embedding'\], wanted an export of ours"):
        export_web(tmp_path / "one.onnx", tmp_path / "site")


def test_what_is_in_the_folder_already_stays(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "mine.txt").write_text("mine")
    export_web(exported, tmp_path / "site")
    assert (tmp_path / "site" / "mine.txt").read_text() == "mine"


def test_the_page_names_no_other_server() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(PAGE.iterdir()) if path.is_file())
    assert set(re.findall(r"https?://[\w.:/-]*", text)) == {
        "https://",
        "https://onnxruntime.ai",
        "http://localhost:8000",
    }  # in sentences
    assert "//" not in re.sub(r"https?://", "", "".join(re.findall(r'(?:src|href|from|import\()\s*=?\s*"[^"]*"', text)))


def test_the_policy_allows_no_other_server() -> None:
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert found is not None
    policy: dict[str, Any] = {rule.split()[0]: rule.split()[1:] for rule in found[1].split("; ")}
    assert policy["default-src"] == policy["connect-src"] == ["'self'"]
    assert policy["script-src"] == ["'self'", "'wasm-unsafe-eval'"]
    allowed = {source for sources in policy.values() for source in sources}
    assert allowed == {"'self'", "'none'", "'wasm-unsafe-eval'", "blob:", "data:"}
