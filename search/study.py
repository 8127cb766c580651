"""The study: where a search's trials are kept (Optuna's), what it was begun with, and what becomes of lost trials.

User attributes of a trial: `key` and `arch` of its network, `cost`, `rungs` {images seen: held-out AUC}, `where` it
runs (host and folder), `failed` (why, in words), `same_as` (the trial whose end it shares).
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobileface.errors import InputError
from mobileface.files import locked, write_json
from mobileface.report.read import read_json

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

JOURNAL = "study.journal"
BOUND = "study.json"  # which study an output folder belongs to, where a database keeps it
HEARTBEAT_S = 30  # a database is told so often that a trial lives,
GRACE_S = 120  # and holds it for dead after this silence
BEGINNERS, BEGIN_S = 5, 0.5  # machines that find an empty database at once: tries, and the pause between them
_FILTERS = threading.Lock()


def open_study(url: str | None, out: Path, settings: dict[str, Any]) -> optuna.Study:
    """The study of these settings, begun if it is not there: in out/study.journal, or in the database at `url`.

    InputError if the journal holds a search with other settings or none, or `out` the findings of another one, or the
    database cannot be reached.
    """
    import optuna

    _hush()
    name = f"{settings['space']}-{hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]}"
    if url:
        _require_same(out, settings)
    with reachable(url), nullcontext() if url else _readable(out / JOURNAL):
        storage = _database(url) if url else _journal(out / JOURNAL)
        names = [] if url else optuna.get_all_study_names(storage)
        if names and name not in names:
            before = optuna.load_study(study_name=names[0], storage=storage).user_attrs.get("settings", {})
            raise InputError(f"{out}: holds another search ({_difference(before, settings)}); give another --out")
        study = optuna.create_study(
            study_name=name, storage=storage, directions=["maximize", "minimize"], load_if_exists=True
        )
        if "settings" not in study.user_attrs:
            study.set_user_attr("settings", settings)
    if url and not (out / BOUND).exists():
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / BOUND, settings)
    return study


def _require_same(out: Path, settings: dict[str, Any]) -> None:
    """InputError for a folder of another study: networks of that would be taken for this one's."""
    now = json.loads(json.dumps(settings))
    if (out / BOUND).exists() and (before := read_json(out / BOUND)) != now:
        raise InputError(f"{out}: holds another search ({_difference(before, now)}); give another --out")


def _hush() -> None:
    """Optuna says nothing by itself: what failed, we say. For the whole process: threads share its warnings' filters,
    so that one that takes its own back, as `catch_warnings` does, may leave another without."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    with _FILTERS:
        experimental = optuna.exceptions.ExperimentalWarning
        if ("ignore", experimental) not in [(action, kind) for action, _, kind, *_ in warnings.filters]:
            warnings.simplefilter("ignore", experimental)


@contextmanager
def reachable(url: str | None) -> Iterator[None]:
    """One line, without a password, for a database that cannot be used."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = str(getattr(error, "orig", None) or type(error).__name__).partition("\n")[0]
        raise InputError(f"{shown(url)}: cannot be used ({cause})") from None


@contextmanager
def _readable(journal: Path) -> Iterator[None]:
    """One line for a file that Optuna cannot read; it says so with errors of many kinds."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError) as error:
        raise InputError(f"{journal}: is no journal of a search ({type(error).__name__}); give another --out") from None


def shown(url: str | None) -> str:
    """A database's address without user, password and options. InputError if `url` is none."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parts = make_url(url or "")
    except (ArgumentError, ValueError):
        raise InputError("--storage is no address of a database, wanted postgresql+psycopg://USER@HOST/NAME") from None
    return f"{parts.drivername}://{parts.host or ''}/{parts.database or ''}"


def _database(url: str) -> optuna.storages.RDBStorage:
    import optuna
    from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError
    from sqlalchemy.pool import NullPool

    shown(url)  # InputError for what is no address

    class Storage(optuna.storages.RDBStorage):
        def record_heartbeat(self, trial_id: int) -> None:
            """From a thread, which an error would end: a beat that fails is made up for by the next."""
            with suppress(SQLAlchemyError, optuna.exceptions.StorageInternalError):
                super().record_heartbeat(trial_id)

    open_it = partial(
        Storage,
        url,
        {"poolclass": NullPool},  # no connection is held over the minutes of a training
        heartbeat_interval=HEARTBEAT_S,
        grace_period=GRACE_S,
        heartbeat_stale_trial_callback=_begin_again,
    )
    for _ in range(BEGINNERS):
        try:
            return open_it()
        except (IntegrityError, ProgrammingError):  # another one makes the tables just now
            time.sleep(BEGIN_S)
        except ImportError:
            wanted = "pip install 'mobileface[postgres]'"
            raise InputError(f"{shown(url)}: its driver is not installed; {wanted}") from None
    return open_it()


def _journal(path: Path) -> optuna.storages.JournalStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    class Lock(JournalFileOpenLock):
        def acquire(self) -> bool:
            held = super().acquire()
            mend(path)
            return held

    return JournalStorage(JournalFileBackend(str(path), Lock(str(path))))


def mend(journal: Path) -> None:
    """Cut off a last line that is not whole, of a write that a full disk or a kill broke off: what is written behind it
    would make the whole journal unreadable. For who holds its lock."""
    with journal.open("rb+") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        if file.read() not in (b"", b"\n"):
            file.seek(0)
            if whole := file.read().rfind(b"\n") + 1:  # a file without lines is none of ours
                file.truncate(whole)


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The first setting in which two searches differ."""
    name = next((name for name in now if before.get(name) != now[name]), "settings")
    values = (before.get(name), now.get(name))
    simple = all(isinstance(value, str | int) and len(str(value)) < 40 for value in values)
    return f"{name} {values[0]} there, {values[1]} here" if simple else f"with another {name}"


# -- trials


def place(trials: Sequence[FrozenTrial], trial: FrozenTrial) -> int:
    """The trial's place in the search, from 0. A trial that was lost and begun again has one place, two numbers."""
    first = _first(trial)
    return first - sum(other.number < first and _first(other) != other.number for other in trials)


def _first(trial: FrozenTrial) -> int:
    """The trial's number; for one begun again, the number that it had at first."""
    number: int = trial.system_attrs.get("failed_trial", trial.number)  # by Optuna's RetryHeartbeatStaleTrialCallback
    return number


@dataclass(frozen=True)
class Tally:
    """How many trials are where, each place in the search counted once."""

    done: int
    pruned: int
    failed: int
    started: int  # these, and those that are running, waiting or lost
    waiting: int

    @property
    def finished(self) -> int:
        """Those that will not change any more."""
        return self.done + self.pruned + self.failed


def tally(trials: Sequence[FrozenTrial]) -> Tally:
    """Count a study's trials."""
    from optuna.trial import TrialState

    ended = {state: {_first(t) for t in trials if t.state == state} for state in TrialState}
    failed = {_first(t) for t in trials if "failed" in t.user_attrs and t.state == TrialState.FAIL}
    done, pruned = ended[TrialState.COMPLETE], ended[TrialState.PRUNED]
    started = {_first(t) for t in trials}
    return Tally(
        len(done), len(pruned - done), len(failed - done - pruned), len(started), len(ended[TrialState.WAITING])
    )


def here(out: Path) -> str:
    """What a trial that runs in `out` on this machine says of where it is."""
    return f"{socket.gethostname()}:{out.resolve()}"


def held_folder(out: Path, key: str) -> Path:
    """What a process holds while it works on a network; beside the network's own folder, which its training holds."""
    return out / ".held" / key[:8]


def take_up(study: optuna.Study, out: Path, alone: bool) -> int:
    """Put what was lost back in the queue, with the same genes and rungs; returns how many trials that were.

    Lost is what an error or Ctrl-C ended, and what is said to run in `out` while no process holds it. alone:
    nobody else works on this study, so whatever is said to run does not, unless a process holds it: InputError.
    """
    import optuna
    from optuna.trial import TrialState

    known = len(study.get_trials(deepcopy=False))
    optuna.storages.fail_stale_trials(study)  # in a database, where machines may have died; and puts them back
    silent = len(study.get_trials(deepcopy=False)) - known
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if _is_dead(trial, out, alone):
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
    lost = [t for t in study.get_trials(states=(TrialState.FAIL,)) if "failed" not in t.user_attrs]
    begun = {number for t in study.get_trials() for number in t.system_attrs.get("retry_history", [])}
    lost = [trial for trial in lost if trial.number not in begun]
    for trial in lost:
        _begin_again(study, trial)
    return silent + len(lost)


def _begin_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Put a lost trial back in the queue. Not with where it ran: until a process holds its network, nobody may judge
    by that whether it is lost again."""
    import optuna

    _hush()
    again = optuna.storages.RetryHeartbeatStaleTrialCallback()
    trial.user_attrs = {name: value for name, value in trial.user_attrs.items() if name != "where"}
    again(study, trial)


def lost_before(study: optuna.Study, trial: optuna.Trial) -> bool:
    """Whether it begins another one again."""
    return "retry_history" in study.get_trials(deepcopy=False)[trial.number].system_attrs


def put_back_twice(study: optuna.Study, trial: optuna.Trial) -> bool:
    """Whether an earlier trial stands for the same lost one: machines that look at once both put it back."""
    *before, own = study.get_trials(deepcopy=False)[: trial.number + 1]
    lost = own.system_attrs.get("retry_history")
    return bool(lost) and any(other.system_attrs.get("retry_history") == lost for other in before)


def _is_dead(trial: FrozenTrial, out: Path, alone: bool) -> bool:
    if trial.user_attrs.get("where") != here(out):
        return alone
    try:
        with locked(held_folder(out, trial.user_attrs["key"])):
            return True
    except InputError:
        if alone:
            raise
        return False
