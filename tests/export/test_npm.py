"""Files from npm: a stand-in for the client that packs what each test wants."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from export.npm import npm_files
from mobileface.errors import InputError

CONTENT = b"export const answer = 42;\n"
FILES = {"dist/a.mjs": hashlib.sha256(CONTENT).hexdigest()}
Pack = Callable[[dict[str, bytes | None]], Path]


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pack:
    """`pack({path: content})`: the npm on the PATH hands out such an archive (None: a link) and counts its calls."""
    programs = tmp_path / "programs"
    programs.mkdir()
    npm = programs / "npm"
    npm.write_text(f'#!/bin/sh\necho "$2" >> {tmp_path}/calls\ncp {tmp_path}/made "$4"/some-1.0.tgz\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")

    def made(members: dict[str, bytes | None]) -> Path:
        with tarfile.open(tmp_path / "made", "w:gz") as archive:
            for path, content in members.items():
                entry = tarfile.TarInfo(f"package/{path}")
                if content is None:
                    entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
                entry.size = len(content or b"")
                archive.addfile(entry, io.BytesIO(content or b""))
        return tmp_path

    return made


def test_fetched_once_and_again_where_the_copy_is_damaged(pack: Pack, cache: Path) -> None:
    home = pack({"package.json": b"{}", "dist/a.mjs": CONTENT})
    for _ in range(2):
        folder = npm_files("some", "1.0", FILES)
    assert folder == cache / "some-1.0"
    assert [path.name for path in folder.iterdir()] == ["a.mjs"]
    assert (folder / "a.mjs").read_bytes() == CONTENT
    assert (home / "calls").read_text() == "some@1.0\n"
    (folder / "a.mjs").write_bytes(CONTENT[:-1])
    npm_files("some", "1.0", FILES)
    assert (folder / "a.mjs").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"dist/a.mjs": b"alert(1)"}, "dist/a.mjs from npm is not the file that was released"),
        ({"dist/b.mjs": CONTENT}, "has no file dist/a.mjs"),
        ({"dist/a.mjs": None}, "has no file dist/a.mjs"),
        ({"dist/a.mjs": b"0" * 2048}, "has no file dist/a.mjs of at most 0 MiB"),
    ],
)
def test_another_file_is_refused(
    pack: Pack, cache: Path, monkeypatch: pytest.MonkeyPatch, members: dict[str, bytes | None], message: str
) -> None:
    monkeypatch.setattr("export.npm.MOST", 1024)
    pack(members)
    with pytest.raises(InputError, match=message):
        npm_files("some", "1.0", FILES)
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_no_archive(pack: Pack) -> None:
    (pack({}) / "made").write_bytes(b"<html>")
    with pytest.raises(InputError, match=r"some-1\.0\.tgz from npm: is no archive that can be read"):
        npm_files("some", "1.0", FILES)


def test_npm_fails(pack: Pack, tmp_path: Path) -> None:
    said = "npm error code ENOTFOUND\\nnpm error errno ENOTFOUND\\nnpm error getaddrinfo: no such host\\n"
    (tmp_path / "programs" / "npm").write_text(f"#!/bin/sh\nprintf '{said}' >&2\nexit 1\n")
    with pytest.raises(InputError) as error:
        npm_files("some", "1.0", FILES)
    assert str(error.value) == "npm pack some@1.0: fails (getaddrinfo: no such host), wanted a network connection"


def test_npm_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("npm") is None
    with pytest.raises(InputError, match=r"npm is missing, wanted: Node\.js with npm"):
        npm_files("some", "1.0", FILES)
