"""Commands that are cut off: by Ctrl-C, by a signal to all processes, by a full disk."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mobileface.cli import main
from mobileface.embedders import opening
from mobileface.training import checkpoint, loop, teaching
from tests.cli.output import Captured, one_line
from tests.disks import mounted


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


def test_ctrl_c_while_the_teacher_embeds(
    trained: Path, shared_faces: Path, make_plan_data: Callable[..., dict[str, Any]], tmp_path: Path, capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """One line, and what was embedded by then is not embedded again."""
    taught = make_plan_data(
        shared_faces, phase={"images": 8, "terms": ["distillation"]}, teacher={"model": str(trained)}
    )
    (tmp_path / "taught.yaml").write_text(yaml.safe_dump(taught))
    monkeypatch.setattr(teaching, "BATCH", 4)
    embed, counted = teaching._embed, itertools.count(1)

    def count(*arguments: Any) -> None:
        if next(counted) == 3:
            raise KeyboardInterrupt  # what a signal does in the main thread, where this is called

    monkeypatch.setattr(teaching, "_count", count)
    assert main(["train", str(tmp_path / "taught.yaml"), "--out", str(tmp_path / "run")]) == 130
    assert capsys.readouterr().err == "interrupted; what was saved stays, and the same command goes on from there\n"
    (begun,) = (tmp_path / "cache" / "teachers").iterdir()
    kept = len(checkpoint.load(begun)[0][teaching.TARGETS])
    assert kept == 12
    embedded: list[range] = []
    monkeypatch.setattr(teaching, "_embed", lambda *arguments: (embedded.append(arguments[-1]), embed(*arguments)))
    assert main(["train", str(tmp_path / "taught.yaml"), "--out", str(tmp_path / "run")]) == 0
    assert sorted(i for batch in embedded for i in batch) == list(range(kept, 30))


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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    yield from mounted(tmp_path / "disk", "2m")


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
