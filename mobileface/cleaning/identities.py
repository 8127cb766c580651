"""What is wrong with the images of an identity, judged by a teacher's embeddings.

Progressive framework, last stage ("cutting long tail identities (Fig.5)") and its Fig. 5: (a) poor quality, (b) wrong
label, (c) same class but different domain. The paper shows the three kinds and uses union-find for video frames; how a
kind is told from embeddings is not printed. The rules are ours:

- The images of an identity are joined by union-find where their cosine is at least `threshold`. The largest component
  is the person (ties: higher mean norm, then the earliest image). What is in it is kept.
- A component of `component` images or more beside it is `other-domain`: the teacher sees one person there, but does
  not see this one (profiles, a child, drawings). Where its images look like the person of *another* identity instead
  (mean cosine of all pairs at least `threshold`, and above that to the own person) it is `wrong-label`: a series that
  was filed under the wrong name.
- A smaller component is `wrong-label`. Two images that agree with each other alone are often one photograph twice, so
  they say no more than one image does.
- Images of a low norm are `poor-quality`, in whatever component. That evidence is the stronger one: the direction of
  an embedding with a low norm says little, so an image of the right person falls out of the component *because* it is
  poor, and its distance is no sign of another person. Low means: so many deviations below the set's median (1.4826
  times the median absolute deviation, which is the standard deviation of a normal distribution). That needs no
  knowledge of the teacher's scale, and cuts no fixed share of a set without outliers. There are two levels: an image in
  a large component has shown that the teacher can read it, and must be `poor_joined` deviations below; for one outside,
  which has shown nothing, `poor_alone` are enough.
- Identities with fewer than `least` images are `long-tail`, and so is what is left of an identity when fewer than
  `least` of its images are kept.

A verdict is the teacher's opinion. One that is weak at profiles gives them low norms and calls them poor: look at the
contact sheets before anything is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobileface.errors import InputError
from mobileface.unionfind import by_size, components

VERDICTS = ("keep", "long-tail", "wrong-label", "other-domain", "poor-quality")
KEEP, LONG_TAIL, WRONG_LABEL, OTHER_DOMAIN, POOR_QUALITY = range(5)
NORMAL = 1.4826  # a normal distribution's standard deviation / its median absolute deviation
TINY = float(np.finfo(np.float64).tiny)  # below any length; keeps 0 / 0 away


@dataclass(frozen=True)
class Settings:
    """threshold: cosine that joins two images (0.4: Table 5 of the paper). least: images that an identity needs.
    component: images that make another domain. poor_joined, poor_alone: deviations of the norm below the median."""

    threshold: float = 0.4
    least: int = 3
    component: int = 3
    poor_joined: float = 2.5
    poor_alone: float = 1.5

    def __post_init__(self) -> None:
        if not -1 <= self.threshold <= 1:  # NaN fails as well
            raise InputError(f"cleaning: threshold is {self.threshold:g}; wanted a cosine, -1 to 1")
        if self.least < 1:
            raise InputError(f"cleaning: least is {self.least}; wanted 1 image or more")
        if self.component < 2:
            raise InputError(f"cleaning: component is {self.component}; wanted 2 images or more")
        if not 0 <= self.poor_alone <= self.poor_joined < math.inf:
            raise InputError(
                f"cleaning: poor_alone is {self.poor_alone:g} and poor_joined {self.poor_joined:g}; "
                "wanted 0 <= poor_alone <= poor_joined, finite"
            )


DEFAULTS = Settings()


@dataclass(frozen=True)
class Misfiled:
    """A component of identity `label` that looks like the person of identity `person`; mean cosine of all pairs."""

    label: int
    component: int
    images: int
    person: int
    cosine: float


@dataclass(frozen=True, eq=False)
class Judged:
    """One entry for each image, (N,) each.

    verdict: int64, index into VERDICTS. component: int64, 0 = the person, the others by falling size. cosine: float32,
    to the centre of component 0 (the mean of its unit embeddings). norm: float32. median and deviation are those of
    the norms; `misfiled` names the large components that were found to be somebody else.
    """

    verdict: NDArray[np.int64]
    component: NDArray[np.int64]
    cosine: NDArray[np.float32]
    norm: NDArray[np.float32]
    median: float
    deviation: float
    misfiled: tuple[Misfiled, ...]


def judge(raw: NDArray[np.float32], labels: NDArray[np.int64], settings: Settings = DEFAULTS) -> Judged:
    """Judge each image of a set.

    raw: (N, D) embedding of the image plus that of its mirror image, not normalised; the norm is half its length.
    labels: (N,), 0 or more. One identity is looked at a time; memory beside the arguments is a block of cosines, the
    unit embeddings of one identity, and one (D,) mean for each person.

    Raises InputError for shapes that do not fit, a negative label, an embedding of length zero or not finite.
    """
    norms = _norms(raw, labels)
    found = _compare(raw, labels, norms, settings)
    large = (found.component == 0) | (found.size >= settings.component)
    verdict = np.where(found.component == 0, KEEP, np.where(large, OTHER_DOMAIN, WRONG_LABEL)).astype(np.int64)
    misfiled = _misfiled(found, labels, settings.threshold)
    for members, _ in misfiled:
        verdict[members] = WRONG_LABEL
    median, deviation = _spread(norms)
    if deviation > 0:  # else most norms are equal, and a little below them means nothing
        below = np.where(large, settings.poor_joined, settings.poor_alone)
        verdict[norms < median - below * deviation] = POOR_QUALITY
    verdict[np.bincount(labels)[labels] < settings.least] = LONG_TAIL
    kept = np.bincount(labels[verdict == KEEP], minlength=int(labels.max(initial=0)) + 1)
    verdict[(verdict == KEEP) & (kept[labels] < settings.least)] = LONG_TAIL
    series = tuple(series for _, series in misfiled)
    return Judged(verdict, found.component, found.cosine, norms, median, deviation, series)


def identities(labels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The indices of each label's images, in order; labels in rising order."""
    order = np.argsort(labels, kind="stable")
    return [part for part in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if len(part)]


def _norms(raw: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    if raw.ndim != 2 or labels.shape != raw.shape[:1]:
        raise InputError(f"embeddings are {raw.shape} and labels {labels.shape}; wanted (N, D) and (N,)")
    if (labels < 0).any():
        raise InputError(f"image {int((labels < 0).argmax())} has a label below 0; wanted labelled images only")
    norms: NDArray[np.float32] = np.linalg.norm(raw, axis=1).astype(np.float32, copy=False) / 2
    wrong = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if len(wrong):
        raise InputError(f"embedding {int(wrong[0])} has length {2 * norms[wrong[0]]:g}; wanted above 0 and finite")
    return norms


@dataclass(frozen=True, eq=False)
class _Compared:
    """component, cosine: as in Judged. size: (N,) images in the component that holds the image. persons: label ->
    mean unit embedding of component 0. others: indices and mean of each other component that is large."""

    component: NDArray[np.int64]
    cosine: NDArray[np.float32]
    size: NDArray[np.int64]
    persons: dict[int, NDArray[np.float64]]
    others: list[tuple[NDArray[np.int64], NDArray[np.float64]]]


def _compare(
    raw: NDArray[np.float32], labels: NDArray[np.int64], norms: NDArray[np.float32], settings: Settings
) -> _Compared:
    """Components of each identity. Those in the long tail give no person and no other component."""
    count = len(raw)
    found = _Compared(np.zeros(count, np.int64), np.zeros(count, np.float32), np.zeros(count, np.int64), {}, [])
    for members in identities(labels):
        units = raw[members] / (2 * norms[members, None])
        number = by_size(components(units, settings.threshold), norms[members])
        sizes = np.bincount(number)
        person = units[number == 0].mean(axis=0, dtype=np.float64)
        length = max(float(np.linalg.norm(person)), TINY)
        found.component[members], found.size[members] = number, sizes[number]
        found.cosine[members] = units @ (person / length)
        if len(members) >= settings.least:
            found.persons[int(labels[members[0]])] = person
            for n in range(1, int((sizes >= settings.component).sum())):
                chosen = number == n
                found.others.append((members[chosen], units[chosen].mean(axis=0, dtype=np.float64)))
    return found


def _misfiled(
    found: _Compared, labels: NDArray[np.int64], threshold: float
) -> list[tuple[NDArray[np.int64], Misfiled]]:
    """The large components that look like the person of another identity, with the indices of their images."""
    who, means = np.array(list(found.persons)), np.array(list(found.persons.values()))
    misfiled = []
    for members, mean in found.others:
        similar = means @ mean  # the product of two means of units is the mean cosine of all pairs
        best, label = int(similar.argmax()), int(labels[members[0]])
        if who[best] != label and similar[best] >= threshold:
            number = int(found.component[members[0]])
            misfiled.append((members, Misfiled(label, number, len(members), int(who[best]), float(similar[best]))))
    return misfiled


def _spread(norms: NDArray[np.float32]) -> tuple[float, float]:
    """Median and deviation (1.4826 MAD) of the norms; 0 and 0 of none."""
    if not len(norms):
        return 0.0, 0.0
    median = float(np.median(norms))
    return median, NORMAL * float(np.median(np.abs(norms - median)))
