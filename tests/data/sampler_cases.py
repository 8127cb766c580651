"""Training sets, batches that fit them, and what samplers draw from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from mobileface.data.samplers import SAMPLERS, ClassUniformSampler, Indices, PKSampler, Sampler

few = settings(max_examples=60, deadline=None)
MASK = 2**64 - 1


@dataclass(frozen=True)
class Case:
    """A training set, and batches that fit it."""

    train: Indices
    classes: Indices
    images: int
    places: int
    seed: int

    @property
    def batch(self) -> int:
        return self.images * self.places

    @property
    def own(self) -> dict[int, list[int]]:
        """Identity -> its images, both rising."""
        names = sorted({int(self.classes[i]) for i in self.train} - {-1})
        return {name: [i for i in self.train.tolist() if self.classes[i] == name] for name in names}

    def pk(self) -> PKSampler:
        return PKSampler(self.train, self.classes, self.batch, self.seed, images=self.images)

    def class_uniform(self) -> ClassUniformSampler:
        return ClassUniformSampler(self.train, self.classes, self.batch, self.seed)

    def any(self, name: str) -> Sampler:
        return self.pk() if name == "pk" else SAMPLERS[name](self.train, self.classes, self.batch, self.seed)


def case(sizes: list[int], places: int, images: int = 4, unlabelled: int = 0, seed: int = 0) -> Case:
    """Identities of these sizes, their images scattered over the set; as many images beside them are held out."""
    rng = np.random.default_rng(seed)
    names = rng.choice(3 * len(sizes), len(sizes), replace=False)  # as where some identities are held out
    labels = np.concatenate([np.repeat(names, sizes), np.full(unlabelled, -1)]).astype(np.int64)
    labels = rng.permutation(labels)
    train = np.sort(rng.choice(2 * len(labels), len(labels), replace=False))
    classes = np.full(2 * len(labels), -1, np.int64)
    classes[train] = labels
    return Case(train, classes, images, places, seed)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    sizes = draw(st.lists(st.one_of(st.integers(1, 9), st.integers(1, 40)), min_size=1, max_size=9))
    places = draw(st.integers(1, len(sizes)))
    return case(sizes, places, draw(st.integers(1, 5)), draw(st.integers(0, 3)), draw(st.integers(0, 2**32)))


def taken(sampler: Sampler, first: int, count: int) -> list[int]:
    return [sampler(position) for position in range(first, first + count)]


def epoch_of(sampler: Sampler, epoch: int) -> list[int]:
    return taken(sampler, epoch * sampler.epoch_length, sampler.epoch_length)
