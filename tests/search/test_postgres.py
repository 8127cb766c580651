"""A search on a PostgreSQL server, a real one: the test starts it from the machine's own binaries, on a socket."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rich.console import Console

from mobileface.errors import InputError
from search import evolve, study
from search.run import search_for
from search.sampling import Sampler
from search.study import open_study, tally
from tests.search.searches import BUDGET, POPULATION, Formula, a_search, tiny_space, trials_of

pytestmark = pytest.mark.slow
START_TRIES = 300


def binaries() -> Path | None:
    """The folder of the newest PostgreSQL server here: Debian keeps it out of the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda file: int(file.parts[4]))
    there = found[-1] if found else shutil.which("postgres")
    return Path(there).parent if there else None


def prefix() -> list[str] | None:
    """What a command of the server begins with: it refuses to run as root. None where there is nobody else."""
    if os.getuid() != 0:
        return []
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        return None
    if not shutil.which("setpriv"):
        return None
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of an empty database on a server of its own."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'mobileface[postgres]'")
    if (where := binaries()) is None:
        pytest.skip("no PostgreSQL server here: apt-get install postgresql")
    if (user := prefix()) is None:
        pytest.skip("root may not start PostgreSQL, and there is no user postgres or no setpriv")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # a socket's path must be short
    if user:
        shutil.chown(folder, "postgres", "postgres")
    made = [*user, str(where / "initdb"), "-D", str(folder / "data"), "-U", "ann", "-A", "trust", "--no-sync"]
    subprocess.run(made, check=True, capture_output=True, cwd=folder)
    options = ["-k", str(folder), "-c", "listen_addresses=", "-c", "fsync=off"]
    with (folder / "log").open("w") as log:
        command = [*user, str(where / "postgres"), "-D", str(folder / "data"), *options]
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        ready = [str(where / "pg_isready"), "-q", "-h", str(folder), "-U", "ann"]
        for _ in range(START_TRIES):
            if subprocess.run(ready, capture_output=True).returncode == 0:
                break
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        yield f"postgresql+psycopg://ann:secret@/postgres?host={folder}"
    finally:
        process.send_signal(signal.SIGINT)  # a fast shutdown
        process.wait()
        shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def _short_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evolve, "POPULATION", POPULATION)


def quiet() -> Console:
    return Console(quiet=True)


def test_machines_share_a_search_and_two_may_begin_it_at_once(server: str, tmp_path: Path) -> None:
    import sqlalchemy.pool  # noqa: F401  threads must not be the first to import it

    settings = {"space": "x", "seed": 0}
    with ThreadPoolExecutor(4) as pool:
        studies = list(pool.map(lambda _: open_study(server, tmp_path, settings), range(4)))
    assert len({each.study_name for each in studies}) == 1


def test_two_workers_and_a_second_folder_work_on_one_study(server: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    search_for(a_search(here, 4, storage=server, seed=1), 2, quiet())
    begun = len(trials_of(a_search(here, 4, storage=server, seed=1)))
    assert 4 <= begun <= 5
    score = Formula()
    search_for(a_search(there, 6, score, storage=server, seed=1), 1, quiet())  # another machine, so to say
    trials = trials_of(a_search(there, 6, storage=server, seed=1))
    assert tally(trials).finished == 6
    assert len(score.called) == 6 - begun
    assert {trial.user_attrs["where"] for trial in trials if trial.number >= begun} == {study.here(there)}
    for name in ("pareto.json", "winner.yaml", "page.html"):
        assert "secret" not in (there / name).read_text()
    assert not (there / study.JOURNAL).exists()


def test_a_trial_that_died_elsewhere_is_taken_up_when_it_is_silent(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "HEARTBEAT_S", 1)
    monkeypatch.setattr(study, "GRACE_S", 1)
    other, space = a_search(tmp_path / "there", 2, storage=server, seed=2).study(), tiny_space()
    other.sampler = evolve.evolution(space, Sampler(space, BUDGET), 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Optuna's: only study.optimize tells that it lives
        dead = other.ask()
    genes = evolve.suggest(space, dead)
    other._storage.record_heartbeat(dead._trial_id)  # type: ignore[attr-defined]
    time.sleep(2.5)  # silence
    search_for(a_search(tmp_path / "here", 2, storage=server, seed=2), 1, quiet())
    trials = trials_of(a_search(tmp_path / "here", 2, storage=server, seed=2))
    again = [trial for trial in trials if trial.system_attrs.get("failed_trial") == dead.number]
    assert [trial.state.name for trial in again] == ["COMPLETE"]
    assert evolve.genes_in(space, again[0].params) == genes
    assert tally(trials).finished == 2


def test_a_killed_worker_here_is_taken_up_at_once(server: str, tmp_path: Path) -> None:
    search = a_search(tmp_path, 40, Formula(1, "kill"), storage=server, seed=3)
    with pytest.raises(Exception, match="2 workers were killed"):
        search_for(search, 2, quiet())
    waiting = [trial.state.name for trial in trials_of(search)].count("WAITING")
    search_for(a_search(tmp_path, 4, storage=server, seed=3), 1, quiet())
    trials = trials_of(search)
    assert sum("failed_trial" in trial.system_attrs for trial in trials) == 2 >= waiting
    assert tally(trials).finished == tally(trials).started >= 4


def test_a_server_that_refuses_is_said_without_the_password(server: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"postgresql\+psycopg:///nothing: cannot be used") as error:
        open_study(server.replace("/postgres?", "/nothing?"), tmp_path, {"space": "x"})
    assert "secret" not in str(error.value)
