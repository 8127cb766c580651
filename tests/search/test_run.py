"""Whole searches: what they find, that they go on exactly where they were broken off, several workers, the words."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest
from rich.console import Console
from sqlalchemy.exc import OperationalError

import search.run
import search.study
from mobileface.arch import Arch
from mobileface.errors import CheckFailed, InputError
from mobileface.models.build import network
from mobileface.zoo import find_arch
from search import evolve
from search.cost import cost
from search.run import search_for
from search.sampling import Sampler
from search.space import key
from search.study import take_up, tally
from tests.search.searches import BUDGET, POPULATION, RUNGS, Formula, a_search, formula, history, tiny_space, trials_of

ROOT = Path(__file__).resolve().parents[2]
TRIALS = 14


@pytest.fixture(autouse=True)
def _short_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evolve, "POPULATION", POPULATION)
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # a journal waits for the disk hundreds of times


def quiet() -> Console:
    return Console(quiet=True)


def heard() -> Console:
    """A console that remembers what was said."""
    return Console(record=True, width=200, file=io.StringIO())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that nothing has disturbed."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evolve, "POPULATION", POPULATION)
        patch.setattr(os, "fsync", lambda handle: None)
        search_for(a_search(out, TRIALS), 1, quiet())
    return out


def last_scored(out: Path) -> int:
    """The place of the last network that came to a score; there are others behind it."""
    at = [place for place, _, state, *_ in history(a_search(out, TRIALS)) if state == "COMPLETE" and place < TRIALS - 1]
    assert at[-1] > POPULATION
    return at[-1]


def test_a_search_leaves_the_front_as_files_that_budget_takes(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads((whole / "pareto.json").read_text())
    assert found["trials"] == {
        "done": found["trials"]["done"],
        "pruned": found["trials"]["pruned"],
        "failed": 0,
        "wanted": TRIALS,
    }
    assert found["trials"]["done"] + found["trials"]["pruned"] == TRIALS
    names = [row["arch"] for row in found["front"]]
    assert sorted(names) == sorted(file.stem for file in (whole / "front").glob("*.yaml"))
    for row in found["front"]:
        arch = find_arch(str(whole / "front" / f"{row['arch']}.yaml"))
        assert (arch.name, key(arch)) == (row["arch"], row["key"])
        assert (cost(arch).flops_lfrc, cost(arch).params) == (row["cost"], row["params"])
        assert row["score"] == formula(arch)
        assert search.budget.main([str(whole / "front" / f"{row['arch']}.yaml"), "--max-flops", "2e7"]) == 0
    best = find_arch(str(whole / "winner.yaml"))
    scored = [values for _, _, state, values, _ in history(a_search(whole, TRIALS)) if state == "COMPLETE"]
    assert formula(best) == max(score for score, _ in scored)
    assert best.name == found["winner"] == names[-1]
    assert network(best).embedding is not None
    assert "20.0 MFLOPs" not in capsys.readouterr().err


def test_every_network_fits_and_none_is_scored_twice(whole: Path) -> None:
    sampler = Sampler(tiny_space(), BUDGET)
    networks = []
    for trial in trials_of(a_search(whole, TRIALS)):
        genes = evolve.genes_in(tiny_space(), trial.params)
        assert genes is not None
        assert sampler.fits(genes)
        networks.append(genes)
    assert len(set(networks)) == TRIALS


def test_trials_that_end_early_were_beaten_at_their_rung(whole: Path) -> None:
    rows = history(a_search(whole, TRIALS))
    costs = {trial.user_attrs["key"]: trial.user_attrs["cost"] for trial in trials_of(a_search(whole, TRIALS))}
    for at, name, state, _, rungs in rows:
        last = list(rungs)[-1]
        before = [(r[last], costs[k]) for place, k, _, _, r in rows if place < at and last in r]
        assert evolve.hopeless(rungs[last], costs[name], before) == (state == "PRUNED")
        assert state == "PRUNED" or last == str(RUNGS[-1])


@pytest.mark.parametrize("then", ["stop", "break", "tear"])
def test_a_broken_search_goes_on_exactly(tmp_path: Path, whole: Path, then: str) -> None:
    at = last_scored(whole)
    with pytest.raises(KeyboardInterrupt if then == "stop" else OSError):
        search_for(a_search(tmp_path, TRIALS, Formula(at, then)), 1, quiet())
    assert (tmp_path / "pareto.json").exists()  # what was found so far
    score = Formula()
    search_for(a_search(tmp_path, TRIALS, score), 1, quiet())
    assert history(a_search(tmp_path, TRIALS)) == history(a_search(whole, TRIALS))
    assert len(score.called) == TRIALS - at


def test_what_was_trained_to_its_end_is_scored(tmp_path: Path) -> None:
    """Many are hopeless at the last rung, and there is nothing left to save."""

    class Late(Formula):
        def __call__(self, arch: Arch, folder: Path, judged: Callable[[int, float], object]) -> float:
            judged(RUNGS[0], 0.5)
            judged(RUNGS[-1], formula(arch))
            return formula(arch)

    search_for(a_search(tmp_path, TRIALS, Late()), 1, quiet())
    rows = history(a_search(tmp_path, TRIALS))
    assert [state for _, _, state, *_ in rows] == ["COMPLETE"] * TRIALS
    costs = {trial.user_attrs["key"]: trial.user_attrs["cost"] for trial in trials_of(a_search(tmp_path, TRIALS))}
    ends = [(values[0], costs[name]) for _, name, _, values, _ in rows]
    assert any(evolve.hopeless(*end, [*ends[:at], *ends[at + 1 :]]) for at, end in enumerate(ends))


def test_a_search_can_be_made_longer(tmp_path: Path, whole: Path) -> None:
    search_for(a_search(tmp_path, 5), 1, quiet())
    score = Formula()
    search_for(a_search(tmp_path, TRIALS, score), 1, quiet())
    assert history(a_search(tmp_path, TRIALS)) == history(a_search(whole, TRIALS))
    assert len(score.called) == TRIALS - 5


def test_a_killed_search_goes_on_exactly(tmp_path: Path, whole: Path) -> None:
    for at in (2, last_scored(whole) - 2):  # calls of each process
        done = subprocess.run(
            [sys.executable, "-m", "tests.search.searches", str(tmp_path), str(TRIALS), str(at)],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == -9, done.stderr
    states = [trial.state.name for trial in trials_of(a_search(tmp_path, TRIALS))]
    assert states.count("RUNNING") == 1
    search_for(a_search(tmp_path, TRIALS), 1, quiet())
    assert history(a_search(tmp_path, TRIALS)) == history(a_search(whole, TRIALS))


def test_a_training_that_is_not_finite_fails_and_the_search_goes_on(tmp_path: Path) -> None:
    console = heard()
    search_for(a_search(tmp_path, 5, Formula(2, "nan")), 1, console)
    said = console.export_text().splitlines()
    assert "failed (the loss is nan)" in said[2]
    assert "5 of 5: 4 done, 0 ended early, 1 failed" in said[4]
    assert [row[2] for row in history(a_search(tmp_path, 5))] == [
        "COMPLETE",
        "COMPLETE",
        "FAIL",
        "COMPLETE",
        "COMPLETE",
    ]
    score = Formula()
    search_for(a_search(tmp_path, 5, score), 1, quiet())
    assert score.called == []  # it is not tried again


def test_a_network_that_comes_again_is_not_scored_again(tmp_path: Path) -> None:
    search_for(a_search(tmp_path, 2), 1, quiet())
    study = a_search(tmp_path, 4).study()
    for trial in study.trials[:2]:
        study.enqueue_trial(trial.params)
    score = Formula()
    search_for(a_search(tmp_path, 4, score), 1, quiet())
    rows = history(a_search(tmp_path, 4))
    assert [row[1:4] for row in rows[2:]] == [row[1:4] for row in rows[:2]]
    assert score.called == []
    assert len(json.loads((tmp_path / "pareto.json").read_text())["front"]) <= 2


def test_two_workers_share_a_journal(tmp_path: Path) -> None:
    search_for(a_search(tmp_path, 10), 2, quiet())
    trials = trials_of(a_search(tmp_path, 10))
    counts = tally(trials)
    assert counts.finished == counts.started
    assert 10 <= counts.finished <= 11  # both may begin the last one
    networks = [trial.user_attrs["key"] for trial in trials if "key" in trial.user_attrs]
    assert len(set(networks)) == len(networks)
    assert find_arch(str(tmp_path / "winner.yaml")).name in {trial.user_attrs["arch"] for trial in trials}


@pytest.mark.slow
def test_a_killed_worker_leaves_its_trial_to_the_others(tmp_path: Path) -> None:
    console = heard()
    with pytest.raises(CheckFailed, match="2 workers were killed and"):
        search_for(a_search(tmp_path, 30, Formula(1, "kill")), 2, console)  # each has a copy of the score
    assert console.export_text().count("was killed (SIGKILL); its trial is taken up again") == 2
    assert take_up(a_search(tmp_path, 30).study(), tmp_path, alone=True) == 0  # they wait already
    search_for(a_search(tmp_path, 12), 1, quiet())
    trials = trials_of(a_search(tmp_path, 12))
    assert tally(trials).finished == tally(trials).started >= 12
    assert sum("failed_trial" in trial.system_attrs for trial in trials) == 2


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_workers_begin_ends_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], stop: signal.Signals
) -> None:
    """By Ctrl-C; and by SIGTERM where Ctrl-C is ignored, as behind a shell's `&`."""
    original = SpawnProcess.start

    def start(process: SpawnProcess) -> None:
        original(process)
        signal.raise_signal(stop)

    monkeypatch.setattr(SpawnProcess, "start", start)
    ctrl_c = signal.default_int_handler if stop == signal.SIGINT else signal.SIG_IGN
    before = signal.signal(signal.SIGINT, ctrl_c)  # these tests may have been started behind a `&` themselves
    try:
        with pytest.raises(KeyboardInterrupt):
            search_for(a_search(tmp_path, 20), 2, quiet())
    finally:
        signal.signal(signal.SIGINT, before)
    assert multiprocessing.active_children() == []
    assert capfd.readouterr().err == ""
    assert trials_of(a_search(tmp_path, 20)) == []


def test_a_database_that_goes_away_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*args: object, **others: object) -> int:
        raise OperationalError("SELECT 1", {}, Exception("server closed the connection\nunexpectedly"))

    monkeypatch.setattr(search.study, "take_up", gone)
    with pytest.raises(InputError, match=r"study\.db: cannot be used \(server closed the connection\)$"):
        search_for(a_search(tmp_path, 1, storage=f"sqlite:///{tmp_path}/study.db"), 1, quiet())


def test_one_error_ends_all_workers(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"worker \d ended with exit code 2, see above"):
        search_for(a_search(tmp_path, 50, Formula(1, "break")), 2, quiet())
    assert tally(trials_of(a_search(tmp_path, 50))).finished < 50


def test_two_commands_do_not_work_in_one_folder(tmp_path: Path) -> None:
    class Nested(Formula):
        def __call__(self, *args: object) -> float:
            with pytest.raises(InputError, match="another process works in it"):
                search_for(a_search(tmp_path, 1), 1, quiet())
            self.called.append("asked")
            return 0.5

    score = Nested()
    search_for(a_search(tmp_path, 1, score), 1, quiet())
    assert score.called == ["asked"]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "front" / "mine.yaml"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(InputError, match=r"is not empty and holds no study\.journal; give another --out"):
        search_for(a_search(tmp_path, 1), 1, quiet())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]


def test_nothing_scored_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="none of 1 trials came to a score"):
        search_for(a_search(tmp_path, 1, Formula(0, "nan")), 1, quiet())
