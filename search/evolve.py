"""Which network a search tries next, and which training is not worth its end.

Next: NSGA-II (Deb et al. 2002; Optuna's) over genomes that all fit the budget. Worth: asynchronous successive halving
(Li et al. 2018), made for two objectives.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from search.sampling import Sampler
from search.space import Gene, Genes, Space
from search.study import place

if TYPE_CHECKING:
    import optuna

POPULATION = 12  # ours: a trial takes minutes, so generations are small
ETA = 3  # Li et al.: a rung lets one in three pass
RIVALS = 4  # ours: fewer at a rung say nothing
ALIKE = 1.05  # ours: a network of 5 % more cost is about as dear
FRESH = 20  # draws for a network that was not tried yet


def hopeless(score: float, cost: float, others: Iterable[tuple[float, float]]) -> bool:
    """Whether a trial with this score at a rung ends there. others: (score, cost) of the other trials at that rung.

    Halving among all of them would leave only large networks, which are better. So a trial's rivals are those of about
    its own cost or less: it ends if it is not in the best third of them (rounded up). The cheapest have too few rivals
    to end, and what no rival beats, a point of the Pareto front at this rung, goes on whatever its cost.
    """
    rivals = [rival for rival, spent in others if spent <= ALIKE * cost]
    better = sum(rival > score for rival in rivals)
    return len(rivals) >= RIVALS and better >= math.ceil((len(rivals) + 1) / ETA)


def open_genes(space: Space) -> list[Gene]:
    """The genes that have more than one choice: those that Optuna knows, by name and value."""
    return [gene for gene in space.genes if len(gene.choices) > 1]


def suggest(space: Space, trial: optuna.Trial) -> Genes:
    """The genes of a trial, drawn if they were not yet."""
    drawn = {gene.name: trial.suggest_categorical(gene.name, gene.choices) for gene in open_genes(space)}
    genes = genes_in(space, drawn)
    assert genes is not None
    return genes


def genes_in(space: Space, params: dict[str, Any]) -> Genes | None:
    """The genes of a trial by its parameters; None before all of them were drawn."""
    if any(gene.name not in params for gene in open_genes(space)):
        return None
    return tuple(gene.choices.index(params.get(gene.name, gene.choices[0])) for gene in space.genes)


def evolution(space: Space, sampler: Sampler, seed: int) -> optuna.samplers.NSGAIISampler:
    """Optuna's NSGA-II, whose individuals `sampler` makes: it draws the first generation, then crosses and mutates.

    What a trial tries is a function of the seed, of its place in the search and of the trials that were finished.
    """
    import optuna
    from optuna.distributions import CategoricalDistribution

    class Evolution(optuna.samplers.NSGAIISampler):
        def infer_relative_search_space(
            self, study: optuna.Study, trial: optuna.trial.FrozenTrial
        ) -> dict[str, optuna.distributions.BaseDistribution]:
            choices = {gene.name: CategoricalDistribution(gene.choices) for gene in open_genes(space)}
            return dict(choices)  # always the whole: no gene is drawn on its own

        def get_parent_population(self, study: optuna.Study, generation: int) -> list[optuna.trial.FrozenTrial]:
            return sorted(super().get_parent_population(study, generation), key=lambda trial: trial.number)

        def sample_relative(
            self,
            study: optuna.Study,
            trial: optuna.trial.FrozenTrial,
            search_space: dict[str, optuna.distributions.BaseDistribution],
        ) -> dict[str, Any]:
            parents = self.get_parent_population(study, self.get_trial_generation(study, trial))
            trials = study.get_trials(deepcopy=False)
            tried = {genes_in(space, other.params) for other in trials if other.number != trial.number}
            population = [(genes, other.values) for other in parents if (genes := genes_in(space, other.params))]
            rng = np.random.default_rng([seed, place(trials, trial)])
            genes = propose(sampler, population, tried, rng)
            chosen = {gene.name: gene.choices[at] for gene, at in zip(space.genes, genes, strict=True)}
            return {name: chosen[name] for name in search_space}

    return Evolution(population_size=POPULATION, seed=seed)


def propose(
    sampler: Sampler,
    parents: Sequence[tuple[Genes, Sequence[float]]],
    tried: Collection[Genes | None],
    rng: np.random.Generator,
) -> Genes:
    """A network to try, new unless FRESH draws found none. parents: (genes, (score, cost)), empty at the beginning."""
    for _ in range(FRESH):
        if parents:
            one, other = _tournament(parents, rng), _tournament(parents, rng)
            genes = sampler.mutate(sampler.cross(one, other, rng), rng)
        else:
            genes = sampler.draw(rng)
        if genes not in tried:
            break
    return genes


def _tournament(parents: Sequence[tuple[Genes, Sequence[float]]], rng: np.random.Generator) -> Genes:
    """The better of two parents drawn at random; the first, where neither dominates the other."""
    (one, first), (other, second) = (parents[at] for at in rng.integers(len(parents), size=2))
    return other if dominates(second, first) else one


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether `a` is as good as `b` in both of (score, cost), and better in one."""
    return a[0] >= b[0] and a[1] <= b[1] and (a[0], a[1]) != (b[0], b[1])
