"""`data synth`, `info`, `pack` and `clean`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobileface.cli import main
from mobileface.data.images import decode
from mobileface.embedders import opening
from mobileface.embedders.contract import InputContract
from tests.cli.output import Captured, one_line


def test_data_commands(tmp_path: Path, shared_faces: Path, capsys: Captured) -> None:
    synth = ["data", "synth", str(tmp_path / "set"), "--identities", "2", "--images", "2", "--held-out", "2"]
    assert main([*synth, "--pairs", "20"]) == 0
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == [
        "factors.csv", "held_out.bin", "property", "train.idx", "train.rec",
    ]  # fmt: skip
    capsys.readouterr()
    assert main([*synth, "--pairs", "20"]) == 2
    one_line(capsys, "train.rec: is there already")
    assert main(["data", "info", str(tmp_path / "set" / "train.rec"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images_per_identity"] == {"least": 2, "mean": 2.0, "most": 2}
    assert main(["data", "info", str(tmp_path / "set" / "held_out.bin")]) == 0
    assert "pairs: 20" in capsys.readouterr().out
    assert main(["data", "pack", str(shared_faces), "--to", str(tmp_path / "all.rec")]) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / 'all.rec'}: 30 images of 5 identities\n"
    assert main(["data", "pack", str(shared_faces), "--to", str(tmp_path / "all.tar")]) == 2
    one_line(capsys, "wanted --to FILE.rec")


def test_cleaning_prints_what_it_found(
    trained: Path, shared_faces: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three images of person-1 and a broken file lie in the folder of person-0; the teacher reads the file's name."""
    faces = tmp_path / "faces"
    shutil.copytree(shared_faces, faces)
    for n in range(3):
        shutil.copy(shared_faces / "person-1" / f"face-{n}.jpg", faces / "person-0" / f"other-{n}.jpg")
    (faces / "person-0" / "broken.jpg").write_bytes(b"bad")

    class Teacher:
        path, dim, sha256, libraries = Path("teacher.onnx"), 5, "0" * 64, ("numpy",)
        contract = InputContract()

        def __call__(self, images: Any) -> Any:
            owners = [known.get(image.tobytes(), known.get(image[:, ::-1].tobytes())) for image in images]
            return np.eye(5, dtype=np.float32)[owners]

    known = {
        decode(path.read_bytes(), path.name).tobytes(): int(path.parent.name[-1])
        for path in shared_faces.glob("person-*/*.jpg")
    }
    monkeypatch.setattr(opening, "open_embedder", lambda *arguments: Teacher())
    assert main(["data", "clean", str(faces), "--teacher", "teacher.onnx", "--out", str(tmp_path / "out")]) == 0
    *counts, misfiled, _ = capsys.readouterr().out.splitlines()
    assert counts == [
        "keep: 30",
        "long-tail: 0",
        "wrong-label: 3",
        "other-domain: 0",
        "poor-quality: 0",
        "corrupt: 1",
    ]
    assert misfiled == "  3 images in faces/person-0 look like faces/person-1 (component 1, mean cosine 1.00)"
