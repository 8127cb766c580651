"""The command line: exit codes, one line for an error, no traceback unless asked for."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from mobileface.cli import main
from mobileface.data.images import decode
from mobileface.embedders import opening
from mobileface.embedders.contract import InputContract
from mobileface.training import checkpoint, loop

MakeFolder = Callable[..., Path]
MakeData = Callable[..., dict[str, Any]]
Captured = pytest.CaptureFixture[str]
COMMANDS = [
    [], ["make"], ["train"], ["evaluate"], ["export"], ["import"], ["report"], ["data"], ["data", "synth"],
    ["data", "info"], ["data", "pack"], ["data", "align"], ["data", "look"], ["understand"],
]  # fmt: skip
ODD_PEOPLE = [
    b"\xff\xfe person", b"<script>alert(1)<b>", b"..dots..", b"[bold]a[", b"\"onload='x\" & :smile:",
    b"new\nline\x1b[31m",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.12 warns where a process with threads forks, and warnings are errors here."""
    monkeypatch.setattr(loop, "default_workers", lambda: 0)


@pytest.fixture
def recipe(tmp_path: Path, shared_faces: Path, make_plan_data: MakeData) -> Path:
    """A recipe over the shared folder; `--data` is left to the plan."""
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(make_plan_data(shared_faces, phase={"images": 16})))
    return path


def one_line(captured: Captured, *wanted: str) -> str:
    """The one line on stderr, which holds all of `wanted`."""
    err = captured.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("error: ")
    for text in wanted:
        assert text in err
    return err


# ---- help and usage


def test_help_is_fast_because_it_loads_no_tensor_library() -> None:
    code = (
        "import sys\n"
        "from mobileface.cli import main\n"
        f"codes = [main([*command, '--help']) for command in {COMMANDS!r}]\n"
        "heavy = {'torch', 'numpy', 'cv2', 'yaml', 'onnx', 'matplotlib'} & set(sys.modules)\n"
        "print(codes, sorted(heavy), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == f"{[0] * len(COMMANDS)} []\n"
    words = "make train evaluate export import report synth info pack align look --set --scale --as"
    for word in words.split():
        assert word in done.stdout


@pytest.mark.parametrize("arguments", [["nothing"], ["make"], ["train", "a", "--no-such"], ["evaluate", "x"]])
def test_wrong_usage_is_bad_input(arguments: list[str], capsys: Captured) -> None:
    assert main(arguments) == 2
    assert "Usage" in capsys.readouterr().err


def test_python_m_mobileface() -> None:
    done = subprocess.run([sys.executable, "-m", "mobileface", "train", "missing.yaml"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: missing.yaml: no such recipe; wanted a YAML file\n"


# ---- exit codes of a training


def test_a_training_and_a_second_one_in_its_folder(recipe: Path, tmp_path: Path, capsys: Captured) -> None:
    run = tmp_path / "run"
    assert main(["train", str(recipe), "--out", str(run)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.endswith(f"run: {run}\n")
    weights = (run / "model.safetensors").stat().st_mtime_ns
    assert main(["train", str(recipe), "--out", str(run)]) == 0
    assert (run / "model.safetensors").stat().st_mtime_ns == weights
    capsys.readouterr()
    assert main(["train", str(recipe), "--out", str(run), "--set", "phases.0.optimizer.lr=0.5"]) == 2
    one_line(capsys, str(run), "another plan", "phases.0.optimizer.lr=0.05 there", "phases.0.optimizer.lr=0.5 here")


@pytest.mark.parametrize(
    ("arguments", "code", "wanted"),
    [
        (["--set", "budget={max_flops: 1e5}"], 1, ["micro is over budget custom", "allowed 0.1 M"]),
        (["--set", "budget=lfrc-lite"], 2, ["lfrc-lite", "did you mean 'lfrc-light'?"]),
        (["--set", "arch=mikro"], 2, ["'mikro'", "did you mean 'micro'?"]),
        (["--set", "arch={stem: 8, stages: [{hiden: 16, width: 8}]}"], 2, ["'hiden'", "did you mean 'hidden'?"]),
        (["--set", "phases.0.optimiser.lr=1"], 2, ["'phases.0.optimiser'", "did you mean 'optimizer'?"]),
        (["--set", "phases.7.batch=1"], 2, ["'7' is no place in a list of 1"]),
        (["--set", "data.train.0.folder=empty"], 2, ["empty: holds no image"]),
        (["--set", "data.train=[{rec: no.rec}]"], 2, ["no.rec"]),
        (["--set", "data.train.0.labelled=false"], 2, ["none of 30 training images", "labelled: false"]),
        (["--set", "data.min_images=50"], 2, ["data.min_images 50 leaves 0 of 5 identities"]),
        (["--set", "phases.0.batch=100"], 2, ["18 training images are fewer than one batch of 100"]),
        (["--data", "nowhere"], 2, ["nowhere/faces: is not a folder"]),
    ],
)
def test_what_is_refused_before_anything_is_spent(
    recipe: Path, tmp_path: Path, capsys: Captured, arguments: list[str], code: int, wanted: list[str]
) -> None:
    if "data.train.0.folder=empty" in arguments:
        (tmp_path / "empty").mkdir()
        arguments = [*arguments, "--data", str(tmp_path)]
    for command in ("train", "make"):
        assert main([command, str(recipe), "--out", str(tmp_path / "run"), *arguments]) == code
        assert "Traceback" not in one_line(capsys, *wanted)
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert main(["train", str(recipe), "--out", str(tmp_path / "run")]) == 0  # the folder was not spoilt


@pytest.mark.parametrize("missing", ["missing.yaml", "folder.yaml"])
def test_a_recipe_that_is_not_there(tmp_path: Path, capsys: Captured, missing: str) -> None:
    (tmp_path / "folder.yaml").mkdir()
    assert main(["make", str(tmp_path / missing)]) == 2
    one_line(capsys, f"{missing}: no such recipe")


def test_a_folder_that_holds_other_things(recipe: Path, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    assert main(["train", str(recipe), "--out", str(tmp_path / "mine")]) == 2
    one_line(capsys, "mine: is not empty and holds no plan.yaml")
    assert main(["train", str(recipe), "--out", str(tmp_path / "mine" / "thesis.tex")]) == 2
    one_line(capsys, "thesis.tex")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "x"


def test_a_training_that_is_not_finite(recipe: Path, tmp_path: Path, capsys: Captured) -> None:
    changes = ["phases.0.optimizer.lr=1e37", "phases.0.schedule.kind=constant", "checkpoint.every_images=4"]
    sets = [text for change in changes for text in ("--set", change)]
    assert main(["train", str(recipe), "--out", str(tmp_path / "run"), *sets]) == 3
    one_line(capsys, "not finite")
    for kept in (tmp_path / "run").glob("checkpoints/*"):
        checkpoint.load(kept)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_training_that_is_interrupted(
    recipe: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = loop.step

    def interrupted(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "step", interrupted)
        assert main(["train", str(recipe), "--out", str(tmp_path / "run")]) == 130
    captured = capsys.readouterr()
    assert captured.err == "interrupted; what was saved stays, and the same command goes on from there\n"
    assert main(["train", str(recipe), "--out", str(tmp_path / "run")]) == 0
    assert "going on from 4 images" in capsys.readouterr().out


def test_debug_shows_where(recipe: Path, tmp_path: Path, capsys: Captured) -> None:
    arguments = ["train", str(recipe), "--out", str(tmp_path / "run"), "--set", "arch=none"]
    assert main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert main([*arguments, "--debug"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last):")
    assert err.splitlines()[-1].startswith("error: no architecture is called 'none'")


# ---- the other commands


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, shared_faces: Path, make_plan_data: MakeData) -> Iterator[Path]:
    """A run folder; tests must not change what it holds."""
    top = tmp_path_factory.mktemp("trained")
    (top / "toy.yaml").write_text(yaml.safe_dump(make_plan_data(shared_faces, phase={"images": 16})))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "default_workers", lambda: 0)
        assert main(["train", str(top / "toy.yaml"), "--out", str(top / "run")]) == 0
    return top / "run"


def pairs_folder(top: Path, faces: Path, people: tuple[str, str]) -> Path:
    """Two people, six images each, named and paired as LFW does; returns the list."""
    for person, source in zip(people, ("person-0", "person-1"), strict=True):
        (top / person).mkdir(parents=True)
        for i in range(6):
            (top / person / f"{person}_{i + 1:04d}.jpg").write_bytes((faces / source / f"face-{i}.jpg").read_bytes())
    one, two = people
    same = [f"{one}\t1\t2\n{two}\t3\t4\n", f"{one}\t3\t5\n{two}\t1\t6\n"]
    other = [f"{one}\t1\t{two}\t2\n{one}\t4\t{two}\t3\n", f"{one}\t6\t{two}\t5\n{one}\t2\t{two}\t1\n"]
    (top / "pairs.txt").write_text("2\t2\n" + same[0] + other[0] + same[1] + other[1], encoding="utf-8")
    return top / "pairs.txt"


def test_evaluate_prints_one_object_or_one_line(
    trained: Path, shared_faces: Path, tmp_path: Path, capsys: Captured
) -> None:
    pairs = pairs_folder(tmp_path / "some", shared_faces, ("a", "b"))
    arguments = ["evaluate", str(trained), "--on", str(pairs), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    keys = "model model_sha256 set protocol pairs accuracy std tar eer auc threshold flip data_sha256"
    assert set(keys.split()) <= result.keys()
    assert (result["set"], result["pairs"], result["flip"]) == ("some", 8, "sum")
    assert json.loads((tmp_path / "out" / "some.json").read_text()) == result
    assert (tmp_path / "out" / "some.worst.json").exists()
    assert main([*arguments, "--json", "--on", str(pairs) + ":1-2", "--flip", "none"]) == 0
    both = json.loads(capsys.readouterr().out)
    assert [found["flip"] for found in both["results"]] == ["none", "none"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith(f"some: accuracy {result['accuracy']:.4f} +- ")


@pytest.mark.parametrize(
    ("arguments", "code", "wanted"),
    [
        (["--min-accuracy", "1"], 1, ["some: accuracy", "asked for 1.0"]),
        (["--min-accuracy", "99"], 2, ["--min-accuracy is 99, wanted 0..1"]),
        (["--min-accuracy", "-0.1"], 2, ["wanted 0..1"]),
        (["--min-accuracy", "nan"], 2, ["wanted 0..1"]),
        (["--scale", "255"], 2, ["a run folder takes RGB in 0..255 and needs no contract; leave --scale out"]),
        (["--color", "bgr", "--flip", "sum"], 2, ["leave --color out"]),
        (["--flip", "both"], 2, ["'both'", "sum, none"]),
        (["--on", "lwf"], 2, ["'lwf'", "did you mean 'lfw'?"]),
        (["--on", "no.bin"], 2, ["no.bin: not found"]),
        (["--on", "lfw"], 2, ["lfw: not found, wanted lfw; --data says where lfw/ lies"]),
        (["--on", "some/pairs.txt"], 2, ["--on: two sets are called 'some', and results are kept by name"]),
    ],
)
def test_evaluate_ends_with(
    trained: Path,
    shared_faces: Path,
    tmp_path: Path,
    capsys: Captured,
    arguments: list[str],
    code: int,
    wanted: list[str],
) -> None:
    pairs = pairs_folder(tmp_path / "some", shared_faces, ("a", "b"))
    fixed = ["evaluate", str(trained), "--on", str(pairs), "--out", str(tmp_path / "out"), "--data", str(tmp_path)]
    assert main([*fixed, *arguments]) == code
    one_line(capsys, *wanted)
    assert (tmp_path / "out").exists() == (code == 1)  # what is refused is refused before anything is judged


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--scale", "1", "--mean", "0.5,0.5", "--std", "1,1,1"], ["mean", "wanted three numbers"]),
        (["--mean", "a,b,c"], ["--mean", "'a,b,c'", "wanted three numbers"]),
        (["--scale", "255"], ["--mean is missing"]),
        (["--layout", "nhwc"], ["--scale is missing"]),
    ],
)
def test_contracts_that_are_refused(capsys: Captured, arguments: list[str], wanted: list[str]) -> None:
    assert main(["evaluate", "foreign.onnx", "--on", "lfw", *arguments]) == 2
    one_line(capsys, *wanted)


def test_a_foreign_teacher_without_its_contract(
    trained: Path, shared_faces: Path, make_plan_data: MakeData, tmp_path: Path, capsys: Captured
) -> None:
    """An export whose metadata was taken out."""
    onnx = pytest.importorskip("onnx")
    shutil.copytree(trained, tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), "--to", "onnx"]) == 0
    foreign = onnx.load(next((tmp_path / "run").glob("export/*.onnx")))
    foreign.ClearField("metadata_props")
    onnx.save(foreign, tmp_path / "foreign.onnx")
    taught = make_plan_data(shared_faces, phase={"terms": ["distillation"]})
    taught["teacher"] = {"model": str(tmp_path / "foreign.onnx")}
    (tmp_path / "taught.yaml").write_text(yaml.safe_dump(taught))
    capsys.readouterr()
    assert main(["train", str(tmp_path / "taught.yaml"), "--out", str(tmp_path / "taught")]) == 2
    one_line(capsys, "foreign.onnx: does not say", "wanted --scale, --mean and --std, in a recipe teacher.contract")


@pytest.mark.parametrize("command", ["evaluate", "clean"])
def test_what_is_not_taken_up_again_does_not_say_so(
    trained: Path, shared_faces: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(opening, "open_embedder", interrupted)
    out = ["--out", str(tmp_path / "out")]
    clean = ["data", "clean", str(shared_faces), "--teacher", str(trained), *out]
    assert main(["evaluate", str(trained), "--on", "lfw", *out] if command == "evaluate" else clean) == 130
    assert capsys.readouterr().err == "interrupted; the same command begins anew\n"


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


def test_warnings_are_shown(shared_faces: Path, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "exclude.txt").write_text("person-4/face-0.jpg\nnobody\n")
    sets = ["--set", f"data.train.0.exclude={tmp_path / 'exclude.txt'}", "--set", "phases.0.images=4"]
    command = [sys.executable, "-m", "mobileface", "train", str(recipe), "--out", str(tmp_path / "run"), *sets]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == f"warning: {tmp_path}/exclude.txt: 1 name matches nothing in {shared_faces}: nobody\n"
    assert done.returncode == 0


@pytest.mark.parametrize("command", [["evaluate", "--on", "x.bin"], ["report"], ["export"]])
def test_folders_that_are_no_runs(tmp_path: Path, capsys: Captured, command: list[str]) -> None:
    for path in (tmp_path / "missing", tmp_path):
        assert main([command[0], str(path), *command[1:]]) == 2
        one_line(capsys, str(path))
    assert list(tmp_path.iterdir()) == []


def test_export_knows_its_formats(trained: Path, capsys: Captured) -> None:
    assert main(["export", str(trained), "--to", "onyx"]) == 2
    one_line(capsys, "'onnx'", "found 'onyx'")


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


# ---- odd names


class Tags(HTMLParser):
    """Every tag of a page with its attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attributes))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def odd_faces(tmp_path: Path, shared_faces: Path) -> Path:
    """Six people with hostile names, images named alike, one of them bad."""
    top = tmp_path / "odd"
    for number, person in enumerate(ODD_PEOPLE):
        folder = os.fsencode(top) + b"/" + person
        os.makedirs(folder)
        for i in range(6):
            source = shared_faces / f"person-{number % 5}" / f"face-{i}.jpg"
            Path(os.fsdecode(folder + b"/" + person + b"_%d.jpg" % i)).write_bytes(source.read_bytes())
    for person in (ODD_PEOPLE[0], ODD_PEOPLE[1], ODD_PEOPLE[5]):
        Path(os.fsdecode(os.fsencode(top) + b"/" + person + b"/" + person + b"_3.jpg")).write_bytes(b"bad")
    return top


def test_odd_names_from_training_to_report(
    odd_faces: Path, shared_faces: Path, tmp_path: Path, make_plan_data: MakeData, capsys: Captured
) -> None:
    people = ("<img src=x onerror=alert(2)>", "..b'\"&\u202e\U0001f600")
    pairs = pairs_folder(tmp_path / "judge<b>", shared_faces, people)
    data = make_plan_data(odd_faces, evaluate=[str(pairs)], phase={"images": 40})
    (tmp_path / "odd.yaml").write_text(yaml.safe_dump(data))
    run = tmp_path / "run é[/red]:smile:😀"
    assert main(["make", str(tmp_path / "odd.yaml"), "--out", str(run)]) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"report: {run}/report.html"
    card = json.loads((run / "card.json").read_text())
    assert len(card["data"]["skipped"]) == 3
    page = Tags((run / "report.html").read_text(encoding="utf-8"))
    assert "<script>alert(1)<b>_3.jpg" in page.text
    assert "onerror" not in {name for _, attributes in page.tags for name, _ in attributes}
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert main(["report", str(run)]) == 0
    assert main(["evaluate", str(run), "--on", str(pairs)]) == 0
    assert main(["data", "info", str(odd_faces)]) == 0
    assert "bad images: 3" in capsys.readouterr().out
    assert main(["data", "pack", str(odd_faces), "--to", str(tmp_path / "odd.rec")]) == 2
    one_line(capsys, "does not decode as an image").encode("utf-8")


def test_a_data_folder_of_any_name(shared_faces: Path, recipe: Path, tmp_path: Path, capsys: Captured) -> None:
    names = ["\U0001f600 x", "a: b #c", "tab\there", "'\"", "~", "é" * 100, os.fsdecode(b"\xff\xe9")]
    for number, name in enumerate(names):
        (tmp_path / "roots" / name).mkdir(parents=True)
        (tmp_path / "roots" / name / "faces").symlink_to(shared_faces)
        arguments = ["train", str(recipe), "--out", str(tmp_path / f"run{number}"), "--set", "phases.0.images=4"]
        assert main([*arguments, "--data", str(tmp_path / "roots" / name)]) == 0, (name, capsys.readouterr().err)
        assert main([*arguments, "--data", str(tmp_path / "roots" / name)]) == 0  # the plan was kept as it is


@pytest.mark.parametrize("name", [b"\xff", b"a\nb", b"\x1b[31m"])
def test_a_run_folder_has_a_name_that_can_be_printed(
    recipe: Path, tmp_path: Path, capsys: Captured, name: bytes
) -> None:
    run = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
    assert main(["train", str(recipe), "--out", run]) == 2
    one_line(capsys, "wanted a name of printable text for a run folder")
    assert not os.path.exists(run)


def test_output_that_knows_only_ascii(shared_faces: Path, tmp_path: Path) -> None:
    top = tmp_path / "é\udcff"
    (top / "a").mkdir(parents=True)
    (top / "a" / "ü.jpg").write_bytes(b"bad")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "mobileface", "data", "info", str(top)]
    done = subprocess.run(command, capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"/\xfc.jpg: does not decode as an image" in done.stdout


# ---- disks and signals


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("no right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_loses_nothing(
    recipe: Path, trained: Path, small_disk: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, step = small_disk / "run", loop.step

    def filling(*arguments: Any) -> Any:
        """After the second step, at eight images, there is no space left."""
        row = step(*arguments)
        if arguments[0].state.seen == 4:
            with pytest.raises(OSError, match="No space"), (small_disk / "film.mp4").open("wb", buffering=0) as film:
                while film.write(bytes(4096)):
                    pass
        return row

    save_often = ["--set", "checkpoint.every_images=4"]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "step", filling)
        assert main(["train", str(recipe), "--out", str(run), *save_often]) == 2
    one_line(capsys, "No space left on device")
    assert checkpoint.load(run / "checkpoints" / "last.safetensors")[1]["seen"] == 4
    (small_disk / "film.mp4").unlink()
    assert main(["train", str(recipe), "--out", str(run), *save_often]) == 0
    last = [load_file(folder / "checkpoints" / "last.safetensors") for folder in (run, trained)]
    assert all(torch.equal(last[0][name], tensor) for name, tensor in last[1].items())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_signal_to_all_processes_of_a_training(recipe: Path, tmp_path: Path, number: int) -> None:
    """What a terminal does on Ctrl-C: the loading processes get it as well."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "mobileface", "train", str(recipe), "--out", str(run)]
    command += ["--set", "phases.0.images=100000"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 300
        log = run / "log.jsonl"
        while not (log.exists() and log.read_text().count('"step"') >= 3):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "no step within five minutes"
            time.sleep(0.05)
        os.killpg(process.pid, number)
        _, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert (process.returncode, err.splitlines()[-1:]) == (130, [
        "interrupted; what was saved stays, and the same command goes on from there"
    ])  # fmt: skip
    assert "Traceback" not in err
    steps = log.read_text().count('"step"')
    assert checkpoint.load(run / "checkpoints" / "last.safetensors")[1]["seen"] == 4 * steps
