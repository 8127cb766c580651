"""Identification: who in a gallery is it? Closed-set rates at a rank (CMC), open-set TPIR at an FPIR.

The rules, ties included. Scores are cosines.

* An entry is a gallery's image or template. A probe is mated when the gallery holds an entry of its person; an entry
  without an identity (a distractor) is nobody's mate.
* Rank of a probe: 1 + the entries of other people that score at least as high as its best mate. A tie is lost; equal
  entries tie whatever the rounding, since each different one is multiplied once.
* An empty template scores NO_SCORE with everything: as a probe it finds nobody at any rank and is no false alarm, as an
  entry it is found by nobody. It counts in every denominator. (Public IJB-S code gives it random numbers, or zeros.)
* Closed set: the share of the mated probes whose rank is at most k. Probes with no mate are left out, and counted.
* Open set: the share of the mated probes that have rank 1 and a mate's score at or above the threshold. The threshold
  is the lowest that at most FPIR x (probes with no mate), rounded down, reach with any entry, ties included. An FPIR
  that they are too few to resolve (fewer than 1 / FPIR) is left out.
* Two galleries: each is searched and the rates are averaged; `joined` sets (IJB-S) search both as one for the rates at
  a rank, and average TPIR alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobileface.data.faces import UNLABELLED
from mobileface.data.image_files import numbered
from mobileface.data.searches import Search
from mobileface.errors import InputError
from mobileface.evaluation import scores as sc

NO_SCORE = -2.0  # below every cosine
NEVER = int(np.iinfo(np.int64).max)  # rank of a probe that is empty, or whose mates all are
CURVE = 50  # ranks of a CMC curve

Units = NDArray[np.float32]  # (N, D), rows of length 1, or of zeros for an empty template


@dataclass(frozen=True, eq=False)
class Found:
    """What each of P probes found. mate, stranger: the highest scores of the probe's person and of anybody else."""

    mated: NDArray[np.bool_]  # (P,)
    rank: NDArray[np.int64]  # (P,), from 1; 0 without a mate; NEVER where one of the two is empty
    mate: sc.Floats  # (P,), NO_SCORE where there is none
    stranger: sc.Floats  # (P,)


def search(
    probes: Units, probe_identity: NDArray[np.int64], gallery: Units, gallery_identity: NDArray[np.int64]
) -> Found:
    """Look for each probe in a gallery. Goes through the scores in blocks: memory grows with sc.BLOCK and P."""
    if not len(probes) or not len(gallery):
        raise InputError(f"found {len(probes)} probes and a gallery of {len(gallery)}, wanted at least one of each")
    empty_probe, empty_entry = empty_rows(probes), empty_rows(gallery)
    entries, which = _distinct(gallery)
    mated, rank = np.zeros(len(probes), bool), np.zeros(len(probes), np.int64)
    mate, stranger = np.full(len(probes), NO_SCORE), np.full(len(probes), NO_SCORE)
    rows = max(1, sc.BLOCK // len(gallery))
    for start in range(0, len(probes), rows):
        block = slice(start, start + rows)
        scores = probes[block] @ entries.T
        if len(entries) < len(gallery):
            scores = scores[:, which]
        scores[:, empty_entry] = NO_SCORE
        scores[empty_probe[block]] = NO_SCORE
        identity = probe_identity[block, None]
        mates = (identity == gallery_identity[None, :]) & (identity != UNLABELLED)
        mated[block] = mates.any(axis=1)
        best = np.where(mates, scores, NO_SCORE).max(axis=1)
        scores[mates] = -np.inf
        ahead = np.count_nonzero(scores >= best[:, None], axis=1)
        rank[block] = np.where(mated[block], np.where(best > NO_SCORE, 1 + ahead, NEVER), 0)
        mate[block], stranger[block] = best, np.maximum(scores.max(axis=1), NO_SCORE)
    return Found(mated, rank, mate, stranger)


def _distinct(units: Units) -> tuple[Units, NDArray[np.int64]]:
    """(U, D) the different rows, in order, and (N,) which of them each row is."""
    which = numbered(hashlib.sha256(row).digest() for row in np.ascontiguousarray(units))
    first = np.unique(which, return_index=True)[1]
    return (units if len(first) == len(units) else units[first]), which


def empty_rows(units: Units) -> NDArray[np.bool_]:
    """(N,) which rows are all zero: an empty template has no direction."""
    return np.linalg.norm(units, axis=1) == 0


def cmc(found: Found, most: int = CURVE) -> list[float]:
    """The share of the mated probes at rank 1, 2, … `most` or better; empty where no probe is mated."""
    ranks = found.rank[found.mated]
    return [float(np.mean(ranks <= k)) for k in range(1, most + 1)] if len(ranks) else []


def tpir(found: Found, fpirs: Mapping[str, float]) -> dict[str, float]:
    """TPIR at rank 1, by name of the FPIR; those that cannot be resolved are left out, all where no probe is mated."""
    alarms = np.sort(found.stranger[~found.mated])[::-1]
    hits = np.where(found.rank == 1, found.mate, NO_SCORE)[found.mated]
    resolved = {name: fpir for name, fpir in fpirs.items() if len(hits) and sc.allowed(fpir, len(alarms)) >= 1}
    return {name: sc.tar_at_far(hits, alarms, len(alarms), fpir) for name, fpir in resolved.items()}


def identify(
    units: Units,
    identity: NDArray[np.int64],
    one: Search,
    ranks: Sequence[int],
    fpirs: Mapping[str, float],
    joined: bool,
) -> dict[str, Any]:
    """One search's rates: `rank` by k, the `cmc` curve, `tpir` by FPIR, and how many of what they are made of.

    units (T, D) and identity (T,) are of all templates (or images) of the set.
    """
    probes = units[one.probes], identity[one.probes]
    each = [search(*probes, units[entries], identity[entries]) for entries in one.galleries]
    if joined and len(each) > 1:
        together = np.unique(np.concatenate(one.galleries))
        closed = [search(*probes, units[together], identity[together])]
    else:
        closed = each
    curves = [curve for found in closed if (curve := cmc(found, max(CURVE, *ranks)))]
    mean = np.mean(curves, axis=0).tolist() if curves else []
    rates = [tpir(found, fpirs) for found in each]
    empty = empty_rows(units)
    sizes = [len(entries) for entries in one.galleries]
    return {
        "name": one.name,
        "probes": len(one.probes),
        "gallery": sizes,
        "mated": [int(found.mated.sum()) for found in closed],
        "unmated": [int((~found.mated).sum()) for found in each],
        "empty_probes": int(empty[one.probes].sum()),
        "empty_entries": int(sum(empty[entries].sum() for entries in one.galleries)),
        "rank": {str(k): mean[k - 1] for k in ranks} if mean else {},
        "cmc": mean[: min(CURVE, sum(sizes) if joined else max(sizes))],
        "tpir": {name: float(np.mean([r[name] for r in rates])) for name in fpirs if all(name in r for r in rates)},
    }
