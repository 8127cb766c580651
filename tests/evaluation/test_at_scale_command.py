"""`mobileface score`: what it prints, what it refuses in one line, and several processes together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mobileface.cli import main
from mobileface.data.features import write_features
from tests.cli.output import Captured, one_line


def write(folder: Path, name: str, count: int, dim: int = 16, seed: int = 0) -> list[str]:
    """Rows of +1 and -1 of ten people; gives the file and `--labels` with its labels."""
    draw = np.random.default_rng(seed)
    write_features(folder / f"{name}.bin", [draw.choice([-1, 1], (count, dim)).astype(np.float32)], count, dim)
    people = [f"n{p}\tmore" if p else "-1" for p in draw.integers(0, 10, count)]
    (folder / f"{name}.txt").write_text("\n".join(people) + "\n")
    return [str(folder / f"{name}.bin"), "--labels", str(folder / f"{name}.txt")]


def test_it_prints_json_or_lines(tmp_path: Path, capsys: Captured) -> None:
    arguments = ["score", *write(tmp_path, "a", 60), *write(tmp_path, "b", 50, seed=1), "--far", "1e-2, 1e-9"]
    assert main([*arguments, "--json", "--out", str(tmp_path / "out")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["pairs"], list(result["tar"])) == (3000, ["1e-2", "1e-9"])
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == result
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("3,000 pairs, ")
    assert [line[:3] for line in lines[1:]] == ["TAR", "TAR"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["--far", "0"], "--far holds '0'; wanted numbers above 0, at most 0.5"),
        (["--far", "1e-3,x"], "--far holds 'x'"),
        (["--far", "nan"], "--far holds 'nan'"),
        (["--memory", "63"], "--memory is 63 MiB; wanted 64 or more"),
        (["--precision", "fp8"], "--precision is 'fp8'; wanted auto, bf16, fp32, fp64"),
        (["--device", "tpu"], "--device is 'tpu'"),
        (["--device", "cuda"], "--device is 'cuda'; wanted auto, cpu, or cuda where there is a GPU"),
    ],
)
def test_options_that_are_none(tmp_path: Path, capsys: Captured, change: list[str], told: str) -> None:
    assert main(["score", *write(tmp_path, "a", 9), "--far", "1e-3", *change]) == 2
    one_line(capsys, told)


def test_files_that_do_not_fit(tmp_path: Path, capsys: Captured) -> None:
    probe, flag, labels = write(tmp_path, "a", 60)
    other = write(tmp_path, "b", 60, dim=32)
    text = (tmp_path / "a.txt").read_text()
    rows = np.ones((60, 16), np.float32)
    rows[7, 3] = np.nan
    np.save(tmp_path / "nan.npy", rows)
    np.save(tmp_path / "zero.npy", np.zeros_like(rows))
    (tmp_path / "short.txt").write_text(text.split("\n", 1)[1])
    (tmp_path / "long.txt").write_text(text + "n1\n")
    (tmp_path / "gap.txt").write_text("n1\n\n" + text)
    (tmp_path / "wide.txt").write_text("n" * 2000 + "\n" + text)
    (tmp_path / "alone.txt").write_text("-1\n" * 60)
    (tmp_path / "one.txt").write_text("n1\n" * 60)
    far = ["--far", "1e-3"]
    cases = [
        ([probe, flag, labels, *other, *far], "b.bin: rows of 32 numbers; wanted 16, as in"),
        ([probe, *far, flag, labels, flag, labels], "--labels is given 2 times; wanted one for each of 1"),
        ([probe, flag, str(tmp_path / "missing"), *far], "missing: no such label file"),
        ([str(tmp_path / "none"), flag, labels, *far], "none: no such feature file"),
        (
            [str(tmp_path / "nan.npy"), flag, labels, *far],
            "nan.npy: 1 of 60 rows hold a NaN or an infinity, the first: row 7",
        ),
        ([str(tmp_path / "zero.npy"), flag, labels, *far], "zero.npy: 0 impostor pairs have no row of zeros"),
        *(
            ([probe, flag, str(tmp_path / f"{name}.txt"), *far], told)
            for name, told in {
                "short": "short.txt: 59 lines; wanted 60, one for each row",
                "long": "long.txt: more than 60 lines",
                "gap": "gap.txt: line 2 is empty; wanted an identity, or -1",
                "wide": "wide.txt: line 1 is longer than 1024 bytes",
                "alone": "alone.txt: 0 of 1,770 pairs are genuine; wanted genuine and impostor pairs",
                "one": "one.txt: 1,770 of 1,770 pairs are genuine",
            }.items()
        ),
    ]
    for arguments, told in cases:
        assert main(["score", *arguments]) == 2, told
        one_line(capsys, told)


@pytest.mark.slow
def test_ranks_share_the_blocks(tmp_path: Path) -> None:
    """Three processes count what one does."""
    arguments = [*write(tmp_path, "a", 700, 64), *write(tmp_path, "b", 500, 64, seed=1), "--far", "1e-2,1e-4"]
    assert main(["score", *arguments, "--out", str(tmp_path / "one")]) == 0
    wanted = json.loads((tmp_path / "one" / "scores.json").read_text())
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    out = tmp_path / "ranks"
    command = [*torchrun, "-m", "mobileface", "score", *arguments, "--out", str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)  # one of them speaks
    assert (result["rows"], result["tar"]) == (wanted["rows"], wanted["tar"])
    assert len(list((out / "pass-0").glob("block-*.counts"))) % 3 == 0


def test_ranks_need_a_folder_where_they_meet(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mobileface.evaluation.at_scale.world_size", lambda: 2)
    assert main(["score", *write(tmp_path, "a", 9), "--far", "1e-3"]) == 2
    one_line(capsys, "--out is missing; wanted a folder where the ranks find each other's counts")
