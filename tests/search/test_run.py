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
import yaml
from rich.console import Console
from sqlalchemy.exc import OperationalError

import search.run
import search.study
from mobileface.arch import Arch
from mobileface.errors import CheckFailed, InputError
from mobileface.models.build import network
from mobileface.zoo import find_arch
from search import evolve
from search.budget import Budget
from search.cost import cost
from search.run import plan_search, search_for
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
    assert "5 of 5: 4 done, 0 pruned, 1 failed" in said[4]
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


def test_nothing_scored_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="none of 1 trials came to a score"):
        search_for(a_search(tmp_path, 1, Formula(0, "nan")), 1, quiet())


# -- the command line


FACES = {"synthetic": {"identities": 6, "images": 4, "held_out": 4, "pairs": 20}, "train": [{"rec": "train.rec"}]}
PHASE = {"name": "p", "images": 64, "batch": 8}
RECIPE = {"name": "r", "arch": "tiny", "data": FACES, "budget": {"max_flops": 1e8}, "phases": [PHASE], "compile": "off"}
RECIPE["export"] = {"formats": ["onnx"]}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(RECIPE))
    return file


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["smal"], 2, "did you mean 'small'?"),
        (["small", "--budget", "lfrc-lite"], 2, "did you mean 'lfrc-light'?"),
        (["small", "--against", "flop"], 2, "--against is 'flop' (did you mean 'flops'?)"),
        (["small", "--against", "ms"], 2, "budget custom names no latency table"),
        (["small", "--set", "budget.max_flops=1e3"], 1, "fits"),
        (["small", "--set", "sed=3"], 2, "did you mean 'seed'?"),
        (["small", "--score", "trian"], 2, "did you mean 'train'?"),
        (["small", "--storage", "x:secret"], 2, "--storage is no address of a database"),
        (["small", "--data", "no\\where", "--set", "data.synthetic=null"], 2, "no\\where/train.rec"),
    ],
)
def test_what_cannot_be_is_one_line(
    tmp_path: Path, recipe: Path, capfd: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    more = ["--trials", "2", "--recipe", str(recipe), "--out", str(tmp_path / "out")]
    assert search.run.main([*words, *more]) == code
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert said in lines[0]
    assert "secret" not in lines[0]


def test_a_budget_is_named_or_the_recipes(recipe: Path, tmp_path: Path) -> None:
    from mobileface.training.plan import parse_plan

    plan = parse_plan(RECIPE, "r")
    where = {"out": tmp_path, "storage": None}
    assert plan_search("small", None, plan, "train", "flops", 1, 0, **where).budget.max_flops == 1e8
    assert plan_search("small", "lfrc-light", plan, "train", "flops", 1, 0, **where).budget.max_size_mib == 20
    bare = plan.model_copy(update={"budget": None})
    with pytest.raises(InputError, match="r names no budget; wanted --budget NAME or --set budget"):
        plan_search("small", None, bare, "train", "flops", 1, 0, **where)


def test_costs_are_by_the_budgets_rule(tmp_path: Path) -> None:
    arch = find_arch("tiny")
    assert a_search(tmp_path, 1).cost(arch) == cost(arch).flops_lfrc
    assert a_search(tmp_path, 1, budget=Budget("b", "macs", 1e8)).cost(arch) == cost(arch).macs
    assert a_search(tmp_path, 1, against="size").cost(arch) == cost(arch).size_mib


@pytest.mark.slow
def test_a_winner_is_trained_and_exported_like_any_network(tmp_path: Path, recipe: Path) -> None:
    out = tmp_path / "found"
    words = ["--trials", "3", "--recipe", str(recipe), "--out", str(out), "--score", "params", "--workers", "2"]
    assert search.run.main(["small", *words]) == 0
    from mobileface.cli import main

    made = ["make", str(recipe), "--out", str(tmp_path / "run"), "--set", f"arch={out / 'winner.yaml'}"]
    assert main(made) == 0
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    assert card["arch"]["name"] == json.loads((out / "pareto.json").read_text())["winner"]
    assert (tmp_path / "run" / "export").is_dir()
