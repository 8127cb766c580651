"""The README tells the truth: its commands run, its tables are those of the result files."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Data that no checkout holds, installations, and the commands that run this test.
NEEDS_MORE = ("DATA", "pip install", "make demo", "make test")
SHRUNK = ["data.synthetic.identities=12", "data.synthetic.images=8", "data.synthetic.held_out=8"]
SHRUNK += ["data.synthetic.pairs=40", "data.validate.identities=0", "phases.0.batch=16"]


def commands() -> list[str]:
    """Every line of the README's shell blocks, continued lines joined."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def runnable() -> list[str]:
    return [command for command in commands() if not any(word in command for word in NEEDS_MORE)]


def test_the_readme_holds_the_commands_that_are_promised() -> None:
    text = "\n".join(commands())
    for promised in ("make demo", "make test", "python -m search.budget lfrc-step5 --budget lfrc-light --json"):
        assert promised in text
    assert len(runnable()) >= 6


def test_make_knows_the_targets_of_the_readme() -> None:
    for target in ("demo", "test", "check"):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_commands_run(tmp_path: Path) -> None:
    """In order, in one folder, since later ones use what earlier ones wrote; the training one is shrunk."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    for command in runnable():
        words = shlex.split(command)
        words = [sys.executable, *words[1:]] if words[0] == "python" else [sys.executable, "-m", *words]
        if "make" in words:
            words[words.index("phases.0.images=6400")] = "phases.0.images=64"
            words += [part for setting in SHRUNK for part in ("--set", setting)]
        if words[1].startswith("docs/"):
            words = [words[0], str(ROOT / words[1]), "--out", str(tmp_path / "sheet.png")]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "runs/short/report.html").exists()


def test_tables_are_those_of_the_result_files() -> None:
    from benchmarks.tables import BLOCK, PAGES, TABLES, render

    pages = [(ROOT / name).read_text(encoding="utf-8") for name in PAGES]
    for page in pages:
        assert render(page) == page, "python -m benchmarks.tables rewrites them"
    assert sorted(match[2] for page in pages for match in BLOCK.finditer(page)) == sorted(TABLES)


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md")))])
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    assert links or page != "README.md"
    for link in links:
        assert (ROOT / page).parent.joinpath(link).exists(), link
