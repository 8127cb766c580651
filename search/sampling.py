"""Networks of a space within a budget: drawn uniformly, mutated, crossed.

Drawing is uniform without endless rejection. Work and bytes are sums over a chain of parts (search.space_costs), so
the networks below a limit can be counted backwards along it, if every cost is rounded down to one of BUCKETS steps
between the cheapest network and the limit: that counts all networks that fit and some that do not. A network is drawn
from these counts part by part, all with the same chance, and drawn again if it does not fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mobileface.errors import CheckFailed
from search.budget import Budget
from search.cost import MIB
from search.latency import find_table
from search.space import Genes, Space
from search.space_costs import Numbers, Part, parts

BUCKETS = 64
MOST_DRAWS = 10_000  # for a network that fits
OTHER_DRAWS = 64  # for another one: of two, each misses with a chance of 1/2
Counts = NDArray[np.float64]


class _Step(NamedTuple):
    """The options of a part from one state, in groups that lead to the same state at the same rounded cost.

    to: where the networks are counted that go on from there, in the flat counts of the next part, less the room that
    is left. work, size: the rounded costs. options: how many the group has; `order` holds them from `first` on.
    """

    to: Numbers
    work: Numbers
    size: Numbers
    options: Numbers
    first: Numbers
    order: Numbers


class Sampler:
    """Draws from the networks of `space` that fit `budget`; a limit on latency is kept by drawing again.

    bound: how many networks the rounded costs let through: all that keep the limits on work, bytes and embedding, and
    some more. In float64: exact up to 2^53, to some 1e-13 beyond, and so are the chances.
    Raises CheckFailed with the least costs of the space if no network fits.
    """

    def __init__(self, space: Space, budget: Budget) -> None:
        self.space, self.budget = space, budget
        *before, head = parts(space, budget.rule)
        self._parts = [*before, _narrow(head, space, budget)]
        self._options = [[tuple(option) for option in part.options.tolist()] for part in self._parts]
        self._places = [{option: place for place, option in enumerate(options)} for options in self._options]
        self._latency = find_table(budget.latency) if budget.latency else None
        self._room, rounded = self._round()
        self._steps, self._counts = self._counted(rounded)
        self.bound = float(self._counts[0][0, -1, -1])
        if not self.bound:
            raise self._nothing_fits()

    def spent(self, genes: Genes) -> tuple[int, int] | None:
        """Work by the budget's rule, and bytes; None for no network of the space, or one of too wide an embedding."""
        state = work = size = 0
        for part, places in zip(self._parts, self._places, strict=True):
            option = places.get(tuple(genes[place] for place in part.genes))
            if option is None:
                return None
            work += part.costs.item(state, option, 0)
            size += part.costs.item(state, option, 1)
            state = part.follows.item(state, option)
        return work, size

    def fits(self, genes: Genes) -> bool:
        """Whether they are the genes of a network of the space that fits the budget."""
        return self._small(genes) and self._ms(genes) <= (self.budget.max_ms or inf)

    def draw(self, rng: np.random.Generator) -> Genes:
        """A network that fits, each with the same chance; CheckFailed if MOST_DRAWS all miss."""
        fastest = inf
        for _ in range(MOST_DRAWS):
            if self._small(genes := self._candidate(rng)):
                if (ms := self._ms(genes)) <= (self.budget.max_ms or inf):
                    return genes
                fastest = min(fastest, ms)
        said = f"; the fastest within the other limits took {fastest:.2f} ms" if fastest < inf else ""
        limit = f" of {self.budget.max_ms} ms ({self.budget.latency})" if self._latency else ""
        drawn = f"none of {MOST_DRAWS:,} networks drawn from {self.space.name}"
        raise CheckFailed(f"{drawn} fits budget {self.budget.name}{limit}{said}")

    def mutate(self, genes: Genes, rng: np.random.Generator) -> Genes:
        """Another network that fits: one gene is another, and blocks that were not there get random genes.

        If no such network fits one is drawn; `genes` come back where nothing else fits.
        """
        whole = list(genes)
        for place in self.space.idle(genes):
            whole[place] = int(rng.integers(len(self.space.genes[place].choices)))
        for place in rng.permutation(len(whole)).tolist():
            for choice in rng.permutation(len(self.space.genes[place].choices)).tolist():
                made = self.space.canonical((*whole[:place], choice, *whole[place + 1 :]))
                if made != genes and self.fits(made):
                    return made
        drawn = (self.draw(rng) for _ in range(OTHER_DRAWS))
        return next((made for made in drawn if made != genes), genes)

    def cross(self, a: Genes, b: Genes, rng: np.random.Generator) -> Genes:
        """Each gene from one of two networks by the toss of a coin (uniform crossover).

        If the child does not fit, genes of `b` give way to those of `a`, in random order, until it does.
        """
        a, b = self._lent(a, b), self._lent(b, a)
        from_b = rng.random(len(a)) < 0.5
        child = [theirs if toss else ours for ours, theirs, toss in zip(a, b, from_b, strict=True)]
        for place in (-1, *rng.permutation(np.flatnonzero(from_b)).tolist()):
            if place >= 0:
                child[place] = a[place]
            if self.fits(made := self.space.canonical(tuple(child))):
                return made
        return self.draw(rng)  # not even `a` fits

    def _lent(self, genes: Genes, other: Genes) -> Genes:
        """The genes, those that mean nothing taken from the other network."""
        idle = self.space.idle(genes)
        return tuple(other[place] if place in idle else gene for place, gene in enumerate(genes))

    def _small(self, genes: Genes) -> bool:
        spent = self.spent(genes)
        return spent is not None and all(used <= limit for used, limit in zip(spent, self._limits, strict=True))

    def _ms(self, genes: Genes) -> float:
        return self._latency.ms(self.space.arch(genes)) if self._latency else 0.0

    @property
    def _limits(self) -> tuple[float, float]:
        """Of work and of bytes."""
        budget = self.budget
        return budget.max_flops or inf, (budget.max_size_mib or inf) * MIB

    def _ends(self, best: Callable[..., Numbers]) -> list[Numbers]:
        """The least or the most that networks still cost from each state on, (states, 2) for each part and the end."""
        found = [np.zeros((1, 2), np.int64)]
        for part in reversed(self._parts):
            found.insert(0, best(part.costs + found[0][part.follows], axis=1))
        return found

    def _round(self) -> tuple[tuple[int, int], list[Numbers]]:
        """The room for work and for bytes, in steps, and each part's rounded costs, (states, n, 2).

        What a part costs is how much dearer it makes the cheapest network that can still be had. A limit that no
        network reaches has one step.
        """
        least = self._ends(np.min)
        most = self._ends(np.max)[0][0]
        limits = np.minimum(most, self._limits)
        spare = np.floor(limits).astype(np.int64) - least[0][0]
        if (spare < 0).any():
            raise self._nothing_fits()
        step = np.where(limits < most, spare // BUCKETS, spare) + 1
        rounded = [
            (part.costs + after[part.follows] - before[:, None]) // step
            for part, before, after in zip(self._parts, least, least[1:], strict=False)
        ]
        work, size = (spare // step).tolist()
        return (work, size), rounded

    def _counted(self, rounded: list[Numbers]) -> tuple[list[list[_Step]], list[Counts]]:
        """The steps of each part by state; and how many networks go on from each state within a room.

        Counts are (states, 2 (work + 1), 2 (size + 1)) for each part and the end, in the last half of both for what
        room is left, in the first half 0, where costs of a later part lead that are above it.
        """
        works, sizes = (room + 1 for room in self._room)
        end = np.zeros((1, 2 * works, 2 * sizes))
        end[:, works:, sizes:] = 1
        counts, steps = [end], list[list[_Step]]()
        for part, costs in zip(reversed(self._parts), reversed(rounded), strict=True):
            own = [_step(*both, works, sizes) for both in zip(part.follows, costs, strict=True)]
            here = np.zeros((len(own), *end.shape[1:]))
            for state, step in enumerate(own):
                room = here[state, works:, sizes:]
                for to, work, size, count in zip(step.to, step.work, step.size, step.options, strict=True):
                    state_then = to // (4 * works * sizes)
                    rest = counts[0][state_then, works - work : 2 * works - work, sizes - size : 2 * sizes - size]
                    room += count * rest
            counts.insert(0, here)
            steps.insert(0, own)
        return steps, counts

    def _candidate(self, rng: np.random.Generator) -> Genes:
        """A network that the rounded costs let through, each with the same chance."""
        genes, state, (work, size) = [0] * len(self.space.genes), 0, self._room
        line = self._counts[0].shape[2]
        for part, options, steps, counts in zip(self._parts, self._options, self._steps, self._counts[1:], strict=True):
            step = steps[state]
            sums = (counts.ravel()[step.to + (work * line + size)] * step.options).cumsum()
            group = sums[:-1].searchsorted(rng.random() * sums[-1], side="right")
            option = step.order.item(step.first[group] + rng.integers(step.options[group]))
            work, size = work - step.work.item(group), size - step.size.item(group)
            state = part.follows.item(state, option)
            for place, choice in zip(part.genes, options[option], strict=True):
                genes[place] = choice
        return tuple(genes)

    def _nothing_fits(self) -> CheckFailed:
        work, size = self._ends(np.min)[0][0].tolist()
        budget, said = self.budget, []
        if budget.max_flops:
            said.append(f"{work / 1e6:.2f} M of work by rule {budget.rule}, allowed {budget.max_flops / 1e6:.2f} M")
        if budget.max_size_mib:
            said.append(f"{size / MIB:.3f} MiB, allowed {budget.max_size_mib:g} MiB")
        return CheckFailed(
            f"no network of {self.space.name} fits budget {budget.name}; the least that any has: {'; '.join(said)}"
        )


def _narrow(head: Part, space: Space, budget: Budget) -> Part:
    """The last part without embeddings that are too wide."""
    place = space.places["embedding_dim"]
    dims = np.array(space.genes[place].choices)
    keep = dims[head.options[:, head.genes.index(place)]] <= (budget.max_dim or inf)
    if not keep.any():
        has = f"the narrowest embedding is {dims.min()}-d, allowed {budget.max_dim}-d"
        raise CheckFailed(f"no network of {space.name} fits budget {budget.name}; {has}")
    return replace(head, options=head.options[keep], follows=head.follows[:, keep], costs=head.costs[:, keep])


def _step(follows: Numbers, costs: Numbers, works: int, sizes: int) -> _Step:
    """The groups of options that there is room for. follows (n,), costs (n, 2)."""
    fit = np.flatnonzero((costs < (works, sizes)).all(axis=1))
    keys = (follows[fit] * works + costs[fit, 0]) * sizes + costs[fit, 1]
    order = keys.argsort(kind="stable")
    groups, first, count = np.unique(keys[order], return_index=True, return_counts=True)
    state, work, size = groups // (works * sizes), groups // sizes % works, groups % sizes
    to = (state * 2 * works + works - work) * 2 * sizes + sizes - size
    return _Step(to, work, size, count, first, fit[order])
