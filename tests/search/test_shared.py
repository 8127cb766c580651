"""A search on a database that machines share: workers held for dead, trials put back twice, beats that fail.

SQLite stands for the server; `test_postgres.py` has a real one.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from rich.console import Console

from mobileface.arch import Arch
from mobileface.errors import InputError, NonFiniteError
from mobileface.files import locked
from search import evolve, study, work
from search.run import search_for
from search.sampling import Sampler
from search.study import tally
from search.work import Search
from tests.search.searches import BUDGET, POPULATION, Formula, a_search, tiny_space, trials_of

QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def _short_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evolve, "POPULATION", POPULATION)


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/study.db"


class HeldForDead(Formula):
    """Another machine ends the first trial while this score works on it: before its first rung, or behind its last."""

    def __init__(self, search: Callable[[], Search], late: bool) -> None:
        super().__init__()
        self.search, self.late = search, late

    def __call__(self, arch: Arch, folder: Path, judged: Callable[[int, float], object]) -> float:
        found = super().__call__(arch, folder, judged) if self.late else 0.0
        if len(self.called) <= self.late:
            one = self.search().study()
            (running,) = one.get_trials(states=(TrialState.RUNNING,))
            one._storage.set_trial_state_values(running._trial_id, TrialState.FAIL)  # type: ignore[attr-defined]
            study._begin_again(one, one.get_trials()[running.number])
        return found if self.late else super().__call__(arch, folder, judged)


@pytest.mark.parametrize("late", [False, True])
def test_a_worker_that_was_held_for_dead_goes_on(tmp_path: Path, address: str, late: bool) -> None:
    """As behind a laptop's sleep: another machine has begun its trial again."""
    score = HeldForDead(lambda: a_search(tmp_path / "out", 3, storage=address), late)
    search_for(a_search(tmp_path / "out", 3, score, storage=address), 1, QUIET)
    counts = tally(trials_of(a_search(tmp_path / "out", 3, storage=address)))
    assert counts.finished == counts.started == 3
    assert [t.state.name for t in trials_of(a_search(tmp_path / "out", 3, storage=address))].count("FAIL") == 1


def test_another_error_of_the_database_is_not_taken_for_that(tmp_path: Path, address: str) -> None:
    with pytest.raises(OSError, match="the disk is full"):
        search_for(a_search(tmp_path / "out", 3, Formula(0, "break"), storage=address), 1, QUIET)


def test_what_two_machines_put_back_is_scored_once(tmp_path: Path, address: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        search_for(a_search(tmp_path / "out", 2, Formula(0, "stop"), storage=address), 1, QUIET)
    one = a_search(tmp_path / "out", 2, storage=address).study()
    (lost,) = one.get_trials(states=(TrialState.FAIL,))
    study._begin_again(one, lost)  # the end of the search above has put it back already
    assert len(one.get_trials(states=(TrialState.WAITING,))) == 2
    score = Formula()
    search_for(a_search(tmp_path / "out", 2, score, storage=address), 1, QUIET)
    assert len(score.called) == len(set(score.called)) == 2
    states = [trial.state.name for trial in trials_of(a_search(tmp_path / "out", 2, storage=address))]
    assert states == ["FAIL", "COMPLETE", "PRUNED", "COMPLETE"]
    assert tally(trials_of(a_search(tmp_path / "out", 2, storage=address))).done == 2


def lost_and_put_back(out: Path, address: str) -> optuna.Study:
    """A search of one network whose training was stopped; it waits."""
    with pytest.raises(KeyboardInterrupt):
        search_for(a_search(out, 1, Formula(0, "stop"), storage=address), 1, QUIET)
    return a_search(out, 1, storage=address).study()


def test_the_twin_of_a_lost_trial_decides_nothing(tmp_path: Path, address: str) -> None:
    """Another machine has looked at it already while we begin the first one."""
    one = lost_and_put_back(tmp_path / "out", address)
    study._begin_again(one, one.get_trials()[0])
    twin = one.get_trials()[2]
    for state in (TrialState.RUNNING, TrialState.PRUNED):
        one._storage.set_trial_state_values(twin._trial_id, state)  # type: ignore[attr-defined]
    score = Formula()
    search_for(a_search(tmp_path / "out", 1, score, storage=address), 1, QUIET)
    assert len(score.called) == 1
    assert [trial.state.name for trial in one.get_trials()] == ["FAIL", "COMPLETE", "PRUNED"]


def test_what_a_worker_held_for_dead_still_trains_is_waited_for(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, held = lost_and_put_back(tmp_path / "out", address), ExitStack()
    held.enter_context(locked(study.held_folder(tmp_path / "out", one.get_trials()[1].user_attrs["key"])))
    monkeypatch.setattr(work.time, "sleep", lambda seconds: held.close())  # it has noticed
    search_for(a_search(tmp_path / "out", 1, storage=address), 1, QUIET)
    assert [trial.state.name for trial in one.get_trials()] == ["FAIL", "COMPLETE"]


def test_a_database_that_fails_behind_a_failed_trial_ends_the_search(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not taken for that trial's."""
    asked: list[object] = []

    def full(*args: object, **others: object) -> int:
        asked.append(args)
        raise OSError("no space left") if len(asked) < 5 else KeyboardInterrupt

    class Diverges(Formula):
        def __call__(self, *args: object) -> float:
            monkeypatch.setattr(optuna.study.Study, "ask", full)
            raise NonFiniteError("the loss is nan")

    with pytest.raises(OSError, match="no space left"):
        search_for(a_search(tmp_path / "out", 3, Diverges(), storage=address), 1, QUIET)
    assert len(asked) == 1


def test_a_beat_that_fails_is_made_up_for_by_the_next(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes from a thread: an error would end it, and the trial would count as dead."""

    def gone(*_: object) -> None:
        raise StorageInternalError

    monkeypatch.setattr(optuna.storages.RDBStorage, "record_heartbeat", gone)
    search_for(a_search(tmp_path / "out", 1, storage=address), 1, QUIET)
    assert tally(trials_of(a_search(tmp_path / "out", 1, storage=address))).done == 1


def test_the_last_trial_of_a_machine_that_died_is_taken_up(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the same command again, though no further trial is to be begun."""
    monkeypatch.setattr(study, "HEARTBEAT_S", 1)
    monkeypatch.setattr(study, "GRACE_S", 1)
    other = a_search(tmp_path / "there", 1, storage=address).study()
    other.sampler = evolve.evolution(tiny_space(), Sampler(tiny_space(), BUDGET), 7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Optuna's: only study.optimize tells that it lives
        dead = other.ask()
    evolve.suggest(tiny_space(), dead)
    other._storage.record_heartbeat(dead._trial_id)  # type: ignore[attr-defined]
    time.sleep(2.5)  # silence
    search_for(a_search(tmp_path / "here", 1, storage=address), 1, QUIET)
    assert tally(trials_of(a_search(tmp_path / "here", 1, storage=address))).done == 1


def test_a_folder_is_for_one_search_on_a_database_too(tmp_path: Path, address: str) -> None:
    search_for(a_search(tmp_path / "out", 1, storage=address), 1, QUIET)
    winner = (tmp_path / "out" / "winner.yaml").read_text()
    with pytest.raises(InputError, match=r"out: holds another search \(seed 7 there, 8 here\); give another --out"):
        search_for(a_search(tmp_path / "out", 1, storage=address, seed=8), 1, QUIET)
    assert (tmp_path / "out" / "winner.yaml").read_text() == winner
    search_for(a_search(tmp_path / "out", 2, storage=address), 1, QUIET)  # the same one, made longer
