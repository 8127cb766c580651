"""Which network comes next, which training ends early, and what becomes of trials that were lost."""

from __future__ import annotations

import itertools
import json
import threading
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

from mobileface.errors import InputError
from mobileface.files import locked
from search import evolve
from search.evolve import ALIKE, FRESH, dominates, evolution, hopeless, propose
from search.found import front, winner
from search.sampling import Sampler
from search.study import held_folder, here, mend, open_study, place, shown, take_up, tally
from tests.search.searches import BUDGET, tiny_space
from tests.strategies import examples

SETTINGS = {"space": "tiny", "seed": 0, "plan": {"name": "x"}}
SCORES = st.sampled_from([0.5, 0.6, 0.7, 0.8, 0.9])
COSTS = st.sampled_from([1.0, 1.04, 2.0, 3.0])
POINTS = st.lists(st.tuples(SCORES, COSTS), max_size=14)


# -- halving


@examples(200)
@given(SCORES, COSTS, POINTS)
def test_halving_against_a_ranking_of_the_rivals(score: float, cost: float, others: list[tuple[float, float]]) -> None:
    rivals = sorted((s for s, c in others if c <= ALIKE * cost), reverse=True)
    ranking = sorted([*rivals, score], reverse=True)
    best_third = ranking[: -(-len(ranking) // 3)]
    assert hopeless(score, cost, others) == (len(rivals) >= 4 and score < best_third[-1])


@examples(100)
@given(SCORES, COSTS, POINTS)
def test_what_nothing_as_cheap_beats_goes_on(score: float, cost: float, others: list[tuple[float, float]]) -> None:
    if not any(s > score and c <= ALIKE * cost for s, c in others):
        assert not hopeless(score, cost, others)


def test_small_networks_do_not_die_of_large_ones() -> None:
    large = [(0.9, 10.0)] * 50
    assert not hopeless(0.5, 1.0, large)
    assert hopeless(0.5, 10.0, large)


# -- the next network


def _first_genes(seed: int) -> tuple[int, ...]:
    """What a fresh study asks for."""
    space = tiny_space()
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=evolution(space, Sampler(space, BUDGET), seed)
    )
    return evolve.suggest(space, study.ask())


def test_the_next_network_is_a_function_of_seed_and_place() -> None:
    assert _first_genes(3) == _first_genes(3)
    assert any(_first_genes(3) != _first_genes(seed) for seed in range(4, 9))


class Recorder:
    """A sampler that says where its genes come from."""

    def draw(self, rng: np.random.Generator) -> tuple[int, ...]:
        return (int(rng.integers(5)), 0)

    def cross(self, a: tuple[int, ...], b: tuple[int, ...], rng: np.random.Generator) -> tuple[int, ...]:
        return (a[0], b[0])

    def mutate(self, genes: tuple[int, ...], rng: np.random.Generator) -> tuple[int, ...]:
        return (genes[0] + 100, genes[1] + 100)


def test_children_come_from_winners_of_tournaments() -> None:
    parents = [((n,), (0.9 - 0.01 * n, 1.0 + n)) for n in range(6)]  # each dominates those behind it
    children = [propose(Recorder(), parents, [], np.random.default_rng(n)) for n in range(600)]  # type: ignore[arg-type]
    genes = np.array(children).ravel() - 100
    share = np.bincount(genes, minlength=6) / len(genes)
    wins = [(2 * (6 - n) - 1) / 36 for n in range(6)]  # the better of two draws with replacement
    assert np.abs(share - wins).max() < 0.05


def test_tried_networks_are_avoided_as_long_as_there_are_others() -> None:
    tried = {(n, 0) for n in range(4)}
    for seed in range(30):
        assert propose(Recorder(), [], tried, np.random.default_rng(seed)) == (4, 0)  # type: ignore[arg-type]
    assert (4 / 5) ** FRESH < 0.02
    everything = {(n, 0) for n in range(5)}
    assert propose(Recorder(), [], everything, np.random.default_rng(0)) in everything  # type: ignore[arg-type]


def test_every_child_of_a_study_fits_and_generations_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evolve, "POPULATION", 4)
    space = tiny_space()
    sampler = Sampler(space, BUDGET)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=evolution(space, sampler, 0))
    for number in range(20):
        trial = study.ask()
        genes = evolve.suggest(space, trial)
        assert genes == evolve.genes_in(space, study.trials[number].params)
        assert sampler.fits(genes)
        study.tell(trial, [sum(genes), sampler.spent(genes)[0]])  # type: ignore[index]
    generations = [trial.system_attrs["Evolution:generation"] for trial in study.trials]
    assert generations == [number // 4 for number in range(20)]


# -- what was found


def _trial(score: float, spent: float) -> optuna.trial.FrozenTrial:
    return create_trial(values=[score, spent], user_attrs={"arch": "a"})


@examples(100)
@given(st.lists(st.tuples(SCORES, COSTS), min_size=1, max_size=12))
def test_the_front_against_all_pairs(points: list[tuple[float, float]]) -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.add_trials([_trial(*point) for point in points])
    optimal = {tuple(trial.values) for trial in study.best_trials}  # Optuna's
    found = [tuple(trial.values) for trial in front(study.trials)]
    assert found == sorted(optimal, key=lambda point: point[1])
    assert optimal == {a for a in points if not any(dominates(b, a) for b in points)}
    best = winner(study.trials)
    assert best is not None
    assert best.values[0] == max(score for score, _ in points)


# -- lost trials


def _study(tmp_path: Path) -> optuna.Study:
    return open_study(None, tmp_path, SETTINGS)


def _begin(study: optuna.Study, out: Path, key: str) -> optuna.Trial:
    trial = study.ask()
    trial.suggest_categorical("width", [8, 16])
    trial.set_user_attr("key", key)
    trial.set_user_attr("where", here(out))
    trial.set_user_attr("rungs", {"1000": 0.5})
    return trial


def test_a_lost_trial_waits_with_its_genes_and_rungs_and_keeps_its_place(tmp_path: Path) -> None:
    study = _study(tmp_path)
    study.tell(_begin(study, tmp_path, "a" * 64), [0.9, 1.0])
    lost = _begin(study, tmp_path, "b" * 64)
    assert take_up(_study(tmp_path), tmp_path, alone=True) == 1
    assert take_up(_study(tmp_path), tmp_path, alone=True) == 0  # not twice
    trials = _study(tmp_path).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.WAITING]
    assert trials[2].params == trials[1].params == lost.params
    assert trials[2].user_attrs["rungs"] == {"1000": 0.5}
    again = _study(tmp_path).ask()
    assert again.number == 2
    after = _study(tmp_path).ask()
    assert after.number == 3
    trials = _study(tmp_path).trials
    assert [place(trials, trial) for trial in trials] == [0, 1, 1, 2]
    counts = tally(trials)
    assert (counts.done, counts.failed, counts.started, counts.finished) == (1, 0, 3, 1)


def test_what_is_taken_up_is_not_lost_before_its_process_holds_it(tmp_path: Path) -> None:
    study = _study(tmp_path)
    lost = _begin(study, tmp_path, "b" * 64)
    assert take_up(study, tmp_path, alone=False) == 1
    again = study.ask()  # another worker, and its network is not held yet
    assert again.params == lost.params
    assert take_up(study, tmp_path, alone=False) == 0
    assert study.trials[again.number].state == TrialState.RUNNING


def test_what_a_process_holds_is_not_lost(tmp_path: Path) -> None:
    study = _study(tmp_path)
    _begin(study, tmp_path, "c" * 64)
    with locked(held_folder(tmp_path, "c" * 64)):
        assert take_up(study, tmp_path, alone=False) == 0
        with pytest.raises(InputError, match="another process works in it"):
            take_up(study, tmp_path, alone=True)
    assert take_up(study, tmp_path, alone=False) == 1


def test_a_trial_elsewhere_is_lost_only_if_nobody_else_is_there(tmp_path: Path) -> None:
    study = _study(tmp_path)
    trial = _begin(study, tmp_path, "d" * 64)
    trial.set_user_attr("where", "another-host:/runs")
    assert take_up(study, tmp_path, alone=False) == 0
    assert take_up(study, tmp_path, alone=True) == 1


def test_a_trial_that_failed_for_a_reason_stays(tmp_path: Path) -> None:
    study = _study(tmp_path)
    trial = _begin(study, tmp_path, "e" * 64)
    trial.set_user_attr("failed", "the loss is nan")
    study.tell(trial, state=TrialState.FAIL)
    assert take_up(study, tmp_path, alone=True) == 0
    assert tally(study.trials).failed == 1


@pytest.mark.parametrize("losses", list(itertools.product([False, True], repeat=4)))
def test_places_run_on_whatever_was_lost(tmp_path: Path, losses: tuple[bool, ...]) -> None:
    study = _study(tmp_path)
    for number, lost in enumerate(losses):
        trial = _begin(study, tmp_path, f"{number:064x}")
        if lost:
            study.tell(trial, state=TrialState.FAIL)
            take_up(study, tmp_path, alone=True)
            trial = study.ask()
        study.tell(trial, [0.5, 1.0])
    ended = [place(study.trials, trial) for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert ended == [0, 1, 2, 3]


# -- storage


def test_a_folder_is_for_one_search(tmp_path: Path) -> None:
    _study(tmp_path)
    with pytest.raises(InputError, match=r"holds another search \(seed 0 there, 1 here\); give another --out"):
        open_study(None, tmp_path, {**SETTINGS, "seed": 1})
    with pytest.raises(InputError, match=r"holds another search \(with another plan\)"):
        open_study(None, tmp_path, {**SETTINGS, "plan": {"name": "y"}})


@pytest.mark.parametrize(
    "text", ["no journal\n", '{"op_code": 99}\n{"a": 1}\n', "[" * 5000 + "\n", json.dumps([1]) + "\n"]
)
def test_what_is_no_journal_is_said_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "study.journal").write_text(text)
    with pytest.raises(InputError, match=r"study\.journal: is no journal of a search"):
        _study(tmp_path)


@pytest.mark.parametrize("tail", ["", "{", '{"op_code": 6', "[1,\n{"])
def test_the_broken_end_of_a_journal_is_cut_off(tmp_path: Path, tail: str) -> None:
    _study(tmp_path)
    whole = (tmp_path / "study.journal").read_text() + "".join(tail.splitlines(keepends=True)[:-1])
    (tmp_path / "study.journal").write_text(whole + "".join(tail.splitlines()[-1:]))
    mend(tmp_path / "study.journal")
    assert (tmp_path / "study.journal").read_text() == whole
    for other in ("", "no lines"):
        (tmp_path / "study.journal").write_text(other)
        mend(tmp_path / "study.journal")
        assert (tmp_path / "study.journal").read_text() == other


@pytest.mark.parametrize("url", ["runs/study", "postgres", "", "postgresql+psycopg:/:secret"])
def test_what_is_no_address_is_not_repeated(tmp_path: Path, url: str) -> None:
    with pytest.raises(InputError, match="--storage is no address of a database") as error:
        open_study(url or "nothing", tmp_path, SETTINGS)
    assert "secret" not in str(error.value)


def test_an_address_is_shown_without_user_password_and_options() -> None:
    text = shown("postgresql+psycopg://ann:secret@db.example/faces?password=hidden&sslkey=x")
    assert text == "postgresql+psycopg://db.example/faces"


def test_a_driver_that_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mysql://db/faces: its driver is not installed"):
        open_study("mysql://ann:secret@db/faces", tmp_path, SETTINGS)


def test_a_database_that_is_not_there_is_said_without_its_password(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(InputError, match=r"postgresql\+psycopg://127\.0\.0\.1/faces: cannot be used") as error:
        open_study("postgresql+psycopg://ann:secret@127.0.0.1:1/faces", tmp_path, SETTINGS)
    assert "secret" not in str(error.value)


def test_a_study_that_is_opened_leaves_the_others_quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Threads share the filters of warnings: one begins while another opens its study, and is warned behind it."""
    begun, first_is_out, others = threading.Event(), threading.Event(), list[Future[optuna.Study]]()

    class Storage(optuna.storages.InMemoryStorage):
        def __init__(self, *_: object, **__: object) -> None:
            super().__init__()
            if threading.current_thread() is not threading.main_thread():
                begun.set()
                assert first_is_out.wait(10)
            else:
                others.append(pool.submit(open_study, "sqlite://", tmp_path, SETTINGS))
                assert begun.wait(10)
            warnings.warn("experimental", optuna.exceptions.ExperimentalWarning, stacklevel=2)

    monkeypatch.setattr(optuna.storages, "RDBStorage", Storage)
    with ThreadPoolExecutor(1) as pool:
        open_study("sqlite://", tmp_path, SETTINGS)
        first_is_out.set()
        others[0].result()
