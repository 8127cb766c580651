"""Architectures from files: round trips, and what is broken or hostile ends in one short line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobileface.arch import MAX_FILE_BYTES, Arch, SEMobileFaceNet, Stage, arch_from_dict, load_arch
from mobileface.errors import InputError, one_line
from mobileface.zoo import ZOO, find_arch
from tests.strategies import ODD, archs, examples, iresnets, lgafs

ROW: dict[str, Any] = {"hidden": 8, "width": 4, "depth": 2, "stride": 2}
PLAIN: dict[str, Any] = {"name": "p", "stem": 4, "head": 8, "embedding_dim": 5, "stages": [ROW]}
PLAIN_YAML = """\
stem: 4
head: 8
embedding_dim: 5
stages:
  - {hidden: [8, 6], width: 4, depth: 2, stride: 2}
"""


def refused_file(path: Path, text: str | bytes) -> str:
    """The error's text without the file's name: one line, short, and it names the file."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError) as caught:
        load_arch(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert len(message) < 1000
    assert message == one_line(caught.value)
    return message.removeprefix(str(path))


# -- round trips and files


@pytest.mark.parametrize("name", ZOO)
def test_zoo_entries_survive_plain_data(name: str) -> None:
    arch = ZOO[name]
    assert arch_from_dict(json.loads(json.dumps(arch.to_dict()))) == arch


@examples(50)
@given(archs() | iresnets() | lgafs())
def test_random_architectures_survive_plain_data(arch: Arch) -> None:
    plain = json.loads(json.dumps(arch.to_dict()))
    assert list(plain)[:2] == ["family", "name"]
    back = arch_from_dict(plain)
    assert back == arch
    assert hash(back) == hash(arch)


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json", ".txt"])
def test_files_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mine{suffix}"
    data = {"stem": 4, "head": 8, "embedding_dim": 5, "stages": [{**ROW, "hidden": [8, 6]}]}
    path.write_text(json.dumps(data) if suffix == ".json" else PLAIN_YAML)
    wanted = SEMobileFaceNet("mine", 4, (Stage((8, 6), 4, 2, 2),), 8, 5)  # the file's name unless it holds one
    assert load_arch(path) == wanted
    assert find_arch(str(path)) == wanted


def test_a_run_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "arch.json").write_text(json.dumps(ODD.to_dict()))
    assert load_arch(tmp_path) == find_arch(str(tmp_path)) == ODD


def test_a_name_in_the_zoo_is_not_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "micro").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_arch("micro") is ZOO["micro"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mobilefacenett", "no architecture is called 'mobilefacenett' (did you mean 'mobilefacenet'?); known: micro"),
        ("lfrc-step9", "(did you mean 'lfrc-step"),
        ("?", "no architecture is called '?'; known: micro, tiny"),
        ("no-such.yaml", "no-such.yaml: no architecture there; wanted a YAML or JSON file, or a run folder"),
        ("no-such.json", "no-such.json: no architecture there"),
        ("", "no architecture there"),  # the current folder, which is no run
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        find_arch(name)
    assert text in str(caught.value)


# -- hostile files


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_hostile_files_end_in_one_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    assert "is larger than 1048576 bytes" in refused_file(path, b" " * (MAX_FILE_BYTES + 1))
    assert "wanted a table" in refused_file(path, "[1, 2]")
    assert "wanted a table" in refused_file(path, "3")
    assert "cannot be read as an architecture" in refused_file(path, "{")
    assert "cannot be read as an architecture" in refused_file(path, b"\xff\xfe\x00x")
    assert "cannot be read as an architecture" in refused_file(path, "[" * 5000)
    assert "cannot be read as an architecture" in refused_file(path, '{"stem": ' + "9" * 10_000 + "}")
    assert "'family' is missing, wanted one of se_mobilefacenet, iresnet, lgaf" in refused_file(path, "{}")
    assert "unknown key" in refused_file(path, json.dumps({**PLAIN, "k" * 1000: 1}))
    assert "stem is 'xxx" in refused_file(path, json.dumps({**PLAIN, "stem": "x" * 100_000}))
    infinity = "Infinity" if suffix == ".json" else ".inf"
    assert "stem is inf" in refused_file(path, json.dumps({**PLAIN, "stem": "?"}).replace('"?"', infinity))


def lists_of_aliases(levels: int) -> str:
    """9 ** levels strings once it is unfolded."""
    rows = ["&a0 [" + ", ".join("x" * 9) + "]"]
    rows += [f"&a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return PLAIN_YAML.replace("stem: 4", f"stem: [{', '.join(rows)}]")


def merged_tables(levels: int) -> str:
    """9 ** levels keys for PyYAML to copy, in merge keys."""
    rows = ["&m0 {" + ", ".join(f"k{i}: 1" for i in range(9)) + "}"]
    rows += [f"&m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}" for i in range(1, levels)]
    return PLAIN_YAML.replace("stem: 4", f"stem: [{', '.join(rows)}]")


@pytest.mark.parametrize(
    "text",
    [
        lists_of_aliases(30),
        merged_tables(30),
        "&a [*a]",
        "*a",
        PLAIN_YAML.replace("stem: 4", "stem: !!timestamp x"),
        PLAIN_YAML.replace("stem: 4", 'stem: !!int ""'),
        "!!python/object/apply:os.system [touch executed]",
        "!!python/name:os.system",
    ],
)
def test_yaml_holds_plain_data_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    message = refused_file(tmp_path / "x.yaml", text)
    assert "anchors, aliases and tags are not read here" in message
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "text", ["stem: 0x" + "f" * 5000, "stem: 2001-99-99", "? [a, b]\n: 1", "stem: 1\n stem: 2", "=: =", "\x00"]
)
def test_odd_yaml_scalars_end_in_one_line(tmp_path: Path, text: str) -> None:
    refused_file(tmp_path / "x.yaml", PLAIN_YAML.replace("stem: 4", text))


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for name in ("pipe.yaml", "/dev/zero"):
        with pytest.raises(InputError, match="no architecture there"):
            load_arch(tmp_path / name)


@examples(200)
@given(st.text("-[]{}:,&*! \n\"'stemhidnw0128x.", max_size=60))
def test_odd_text_is_an_input_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "odd.yaml"
    path.write_text(text)
    with pytest.raises(InputError):
        load_arch(path)
