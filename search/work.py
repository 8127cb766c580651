"""One worker of a search: it asks the study for the next network, scores it, and tells, until the search is done."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console

from mobileface.arch import Arch
from mobileface.errors import InputError, NonFiniteError
from mobileface.files import locked, remove
from search.budget import Budget, judge
from search.cost import cost
from search.evolve import evolution, genes_in, hopeless, suggest
from search.sampling import Sampler
from search.space import Space, key
from search.study import held_folder, here, lost_before, open_study, put_back_twice, reachable, tally

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

AGAINST = ("flops", "size", "ms")
WAIT_S = 1.0  # between looks at a network that another worker holds


class Score(Protocol):
    """A score of networks, see `search.score`: higher is better."""

    def __call__(self, arch: Arch, folder: Path, judged: Callable[[int, float], object]) -> float:
        """The score of `arch`, which may be trained in `folder`; `judged` may end that."""


@dataclass(frozen=True)
class Search:
    """What is searched, and how. Plain data, for the processes that work on it.

    against: the cost that the score is held against, one of AGAINST. trials: how many networks in all.
    images: of a whole training; what has seen them is scored, however hopeless.
    storage: address of a database, None for a journal in `out`. opened: opens the score.
    settings: what makes two searches one study, beside space, budget, cost and seed: kind and plan of the score.
    """

    space: Space
    budget: Budget
    against: str
    trials: int
    images: int
    seed: int
    out: Path
    storage: str | None
    opened: Callable[[Console], Score]
    settings: dict[str, Any]

    def study(self) -> optuna.Study:
        """The study, opened or begun. See `open_study`."""
        about = {
            "space": self.space.name,
            "genes": [[gene.name, list(gene.choices)] for gene in self.space.genes],
            "budget": dataclasses.asdict(self.budget),
            "against": self.against,
            "seed": self.seed,
        }
        return open_study(self.storage, self.out, {**about, **self.settings})

    def cost(self, arch: Arch) -> float:
        """FLOPs by the budget's rule, MiB or milliseconds."""
        if self.against == "ms":
            return float(judge(arch, self.budget)["ms"])
        spent = cost(arch)
        return float(spent.size_mib if self.against == "size" else spent.flops(self.budget.rule))

    def folder(self, name: str) -> Path:
        """Where the network of this key is trained."""
        return self.out / "trials" / name[:8]

    def arch_of(self, params: dict[str, Any]) -> Arch:
        """The network of a trial, by Optuna's parameters."""
        genes = genes_in(self.space, params)
        assert genes is not None
        return self.space.arch(genes)


def work(search: Search, score: Score, said: Callable[[optuna.Study], None], parent: int | None = None) -> None:
    """Run trials until as many as the search wants are begun; `said` hears of the study behind each.

    parent: the process that has to be there, else the worker ends. Whatever else ends it, its trial is taken up again:
    at once by another worker, or by the next one that is started.
    """
    worker = _Worker(search, Sampler(search.space, search.budget), score, search.study(), parent)
    study = worker.study
    study.sampler = evolution(search.space, worker.sampler, search.seed)
    with reachable(search.storage):
        while (now := tally(study.get_trials(deepcopy=False))).waiting or now.started < search.trials:
            _go_on(parent)
            worker.number, worker.error = -1, None
            with ExitStack() as worker.held:
                try:
                    study.optimize(worker.score_one, n_trials=1, catch=(NonFiniteError,))
                except Exception as error:
                    if isinstance(worker.error or error.__context__, KeyboardInterrupt):
                        raise KeyboardInterrupt from None
                    if not worker.given_up():
                        raise
            said(study)


@dataclass
class _Worker:
    """held: what the trial holds; it is let go when the study knows how the trial ended. number: of the trial, -1 until
    the study has given one. error: what its score raised."""

    search: Search
    sampler: Sampler
    score: Score
    study: optuna.Study
    parent: int | None
    held: ExitStack = field(default_factory=ExitStack)
    number: int = -1
    error: BaseException | None = None

    def score_one(self, trial: optuna.Trial) -> tuple[float, float]:
        """(score, cost) of the trial's network. Raises TrialPruned, NonFiniteError, whatever the score raises."""
        self.number = trial.number
        try:
            return self._score(trial)
        except BaseException as error:
            self.error = error
            raise

    def given_up(self) -> bool:
        """Whether another machine held this worker for dead, as behind a laptop's sleep, and ended its last trial."""
        import optuna

        ours = (optuna.TrialPruned, optuna.exceptions.UpdateFinishedTrialError, NonFiniteError)
        if self.error is not None and not isinstance(self.error, ours):
            return False
        own = [t for t in self.study.get_trials(deepcopy=False) if t.number == self.number]
        return any(t.state.name == "FAIL" and "failed" not in t.user_attrs for t in own)

    def _score(self, trial: optuna.Trial) -> tuple[float, float]:
        import optuna

        search = self.search
        if not self.sampler.fits(genes := suggest(search.space, trial)):
            raise optuna.TrialPruned("lost while it was drawn, and drawn to its end when the search stood elsewhere")
        if put_back_twice(self.study, trial):
            raise optuna.TrialPruned("two machines have put it back in the queue at once")
        arch = search.space.arch(genes)
        name, spent = key(arch), search.cost(arch)
        while True:
            try:
                self.held.enter_context(locked(held_folder(search.out, name)))
                break
            except InputError:
                if not lost_before(self.study, trial):
                    raise optuna.TrialPruned("another worker has the same network") from None
            _go_on(self.parent)  # one that was held for dead and still trains it: it will notice
            time.sleep(WAIT_S)
        for attribute, value in {"key": name, "arch": arch.name, "cost": spent, "where": here(search.out)}.items():
            trial.set_user_attr(attribute, value)
        if (known := _ended(self.study, trial, name)) is not None:
            return _same(trial, known, spent)
        try:
            found = self.score(arch, search.folder(name), partial(self._judged, trial, spent))
            if not math.isfinite(found):
                raise NonFiniteError(f"its score is {found}")
            return found, spent
        except optuna.TrialPruned:
            remove(search.folder(name) / "checkpoints")  # hundreds of them fill a disk
            raise
        except NonFiniteError as error:
            trial.set_user_attr("failed", str(error))
            raise

    def _judged(self, trial: optuna.Trial, cost: float, images: int, auc: float) -> None:
        """A rung: TrialPruned where the trial ends. Not behind the last image: it would save nothing."""
        import optuna

        _go_on(self.parent)
        trial.set_user_attr("rungs", {**trial.user_attrs.get("rungs", {}), str(images): auc})
        if images < self.search.images and hopeless(auc, cost, _at_rung(self.study, trial.number, str(images))):
            raise optuna.TrialPruned


def _go_on(parent: int | None) -> None:
    """KeyboardInterrupt where the process that started this one was killed: nobody would hear of what it finds."""
    if parent is not None and os.getppid() != parent:
        raise KeyboardInterrupt


def _ended(study: optuna.Study, trial: optuna.Trial, name: str) -> FrozenTrial | None:
    """The trial that has settled what the network of this key is worth, if there is one."""
    for other in study.get_trials(deepcopy=False):
        settled = other.state.name in ("COMPLETE", "PRUNED") or "failed" in other.user_attrs
        held = "where" in other.user_attrs  # else it has the key of the trial that it was to begin again, and no more
        if settled and held and other.number != trial.number and other.user_attrs.get("key") == name:
            return other
    return None


def _same(trial: optuna.Trial, known: FrozenTrial, cost: float) -> tuple[float, float]:
    """End as the trial of the same network did."""
    import optuna

    trial.set_user_attr("same_as", known.number)
    if known.state.name == "PRUNED":
        raise optuna.TrialPruned
    if "failed" in known.user_attrs:
        trial.set_user_attr("failed", known.user_attrs["failed"])
        raise NonFiniteError(known.user_attrs["failed"])
    return known.values[0], cost


def _at_rung(study: optuna.Study, number: int, images: str) -> list[tuple[float, float]]:
    """(held-out AUC, cost) of the other trials that have reached a rung; those that were lost are begun again."""
    return [
        (trial.user_attrs["rungs"][images], trial.user_attrs["cost"])
        for trial in study.get_trials(deepcopy=False)
        if trial.number != number and trial.state.name != "FAIL" and images in trial.user_attrs.get("rungs", {})
    ]
