"""Files of a package on npm: fetched once by npm itself, held to their hashes each time."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from mobileface.errors import InputError, visible
from mobileface.files import atomic_path, cache_folder, sha256

MOST = 1 << 25  # bytes of one file
SECONDS = 600  # for the download
CODES = ("code ", "syscall ", "errno ", "path ")  # what npm says before it says what is wrong


def npm_files(package: str, version: str, files: dict[str, str]) -> Path:
    """The folder, in our cache, that holds `files`: path inside the package -> hex SHA-256; kept by their last names.

    Downloads only what is not there or is not what it should be. Raises InputError where npm is missing or
    fails, and where a file is not in the package or has another hash.
    """
    folder = cache_folder() / f"{package}-{version}"
    kept = {path: folder / Path(path).name for path in files}
    if any(not copy.is_file() or sha256(copy) != files[path] for path, copy in kept.items()):
        with tempfile.TemporaryDirectory() as temporary:
            archive = _pack(f"{package}@{version}", Path(temporary))
            for path, content in _unpack(archive, list(files)).items():
                with atomic_path(kept[path]) as copy:
                    copy.write_bytes(content)
                    if sha256(copy) != files[path]:
                        raise InputError(f"{package}@{version}: {path} from npm is not the file that was released")
    return folder


def _pack(wanted: str, folder: Path) -> Path:
    """`npm pack` into an empty folder: the archive's path."""
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(f"npm is missing, wanted: Node.js with npm, which fetches {wanted} (https://nodejs.org)")
    command = [npm, "pack", wanted, "--pack-destination", str(folder)]
    command += ["--ignore-scripts", "--prefer-offline", "--loglevel=error"]
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"npm pack {wanted}: not done after {SECONDS} s, wanted a network connection") from None
    archives = sorted(folder.glob("*.tgz"))
    if done.returncode or not archives:
        said = [line.removeprefix("npm error").strip() for line in done.stderr.splitlines()]
        reason = next((line for line in said if line and not line.startswith(CODES)), f"exit code {done.returncode}")
        raise InputError(f"npm pack {wanted}: fails ({visible(reason)[:200]}), wanted a network connection")
    return archives[0]


def _unpack(archive: Path, paths: list[str]) -> dict[str, bytes]:
    """The content of these files of an npm archive, read into memory: nothing else of it touches the disk."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r|gz") as packed:
            for member in packed:
                path = member.name.removeprefix("package/")
                content = packed.extractfile(member) if path in paths and member.isreg() else None
                if content is not None and member.size <= MOST:
                    found[path] = content.read()
                if len(found) == len(paths):
                    break
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"{archive.name} from npm: is no archive that can be read ({visible(str(error))})") from None
    if missing := [path for path in paths if path not in found]:
        raise InputError(f"{archive.name} from npm: has no file {missing[0]} of at most {MOST >> 20} MiB")
    return found
