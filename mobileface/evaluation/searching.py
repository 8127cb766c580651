"""An embedder judged on sets of searches and of templates: embed every image once, fuse, compare, describe."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobileface.card import versions
from mobileface.data.ijb import TemplatePairs
from mobileface.data.image_files import ImageFiles
from mobileface.data.searches import IdentificationSet, Members
from mobileface.embedders.contract import Embedder, embed_with_flip
from mobileface.evaluation import scores as sc
from mobileface.evaluation.identification import Units, empty_rows, identify
from mobileface.evaluation.templates import Fusion, described, fuse, pair_scores, verify
from mobileface.evaluation.verification import BATCH, Progress

TIES = "a tie with another person is lost"


def judge_search(
    embedder: Embedder, one: IdentificationSet, flip: str, fusion: Fusion, progress: Progress | None = None
) -> dict[str, Any]:
    """The result of a set of searches: `parts`, one for each, and how it was measured."""
    begin = time.perf_counter()
    return _search_result(embedder, one, embed_files(embedder, one.files, flip, progress), flip, fusion, begin)


def judge_templates(
    embedder: Embedder, pairs: TemplatePairs, flip: str, fusion: Fusion, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """The result of the 1:1 protocol, and that of 1:N where its lists are there; an image is embedded once."""
    begin = time.perf_counter()
    raw = embed_files(embedder, pairs.files, flip, progress)
    units = fuse(raw, pairs.members, fusion)
    members = pairs.members
    data = pairs.files.fingerprint(
        members.template, members.media, members.detector, pairs.first, pairs.second, pairs.same
    )
    result = {
        **_about(embedder, pairs.name, pairs.files, data, flip),
        "protocol": "1:1 templates by cosine",
        "pairs": len(pairs.same),
        **_counted(pairs.counts, pairs.official),
        **_fused(units, members, fusion, flip),
        **verify(pair_scores(units, pairs.first, pairs.second), pairs.same),
        "seconds": round(time.perf_counter() - begin, 3),
    }
    more = [_search_result(embedder, pairs.search, raw, flip, fusion, begin)] if pairs.search else []
    return [result, *more]


def embed_files(
    embedder: Embedder, files: ImageFiles, flip: str, progress: Progress | None = None
) -> NDArray[np.float32]:
    """Raw embeddings (N, D); with flip "sum", plus those of the mirror images. Pixels are held a batch at a time."""
    raw = np.empty((len(files), embedder.dim), np.float32)
    for start in range(0, len(files), BATCH):
        stop = min(start + BATCH, len(files))
        images = np.stack([files.crop(i) for i in range(start, stop)])
        raw[start:stop] = embed_with_flip(embedder, images) if flip == "sum" else embedder(images)
        if progress is not None:
            progress(stop, len(files))
    return raw


def _search_result(
    embedder: Embedder, one: IdentificationSet, raw: NDArray[np.float32], flip: str, fusion: Fusion, begin: float
) -> dict[str, Any]:
    units = sc.unit(raw) if one.members is None else fuse(raw, one.members, fusion)
    lists: list[NDArray[Any] | None] = [part for search in one.searches for part in (search.probes, *search.galleries)]
    if one.members is not None:
        members = one.members
        lists += [members.image, members.template, members.media, members.detector]
    return {
        **_about(embedder, one.name, one.files, one.files.fingerprint(one.identity, *lists), flip),
        "protocol": _protocol(one),
        **_counted(dict(one.counts), dict(one.official)),
        **({} if one.members is None else _fused(units, one.members, fusion, flip)),
        "notes": list(one.notes),
        "parts": [identify(units, one.identity, search, one.ranks, one.fpirs, one.joined) for search in one.searches],
        "seconds": round(time.perf_counter() - begin, 3),
    }


def _protocol(one: IdentificationSet) -> str:
    """In words, with what is done at a tie and with two galleries."""
    galleries = max(len(search.galleries) for search in one.searches)
    both = ", two galleries as one for the ranks" if one.joined else ", the mean of two galleries"
    tpir = ", TPIR at rank 1 with the FPIR kept exactly" if one.fpirs else ""
    return f"identification by cosine, closed set at a rank, {TIES}{tpir}{both if galleries > 1 else ''}"


def _about(embedder: Embedder, name: str, files: ImageFiles, data_sha256: str, flip: str) -> dict[str, Any]:
    """Who was judged, on what and by which versions; the keys mean what they do for a set of pairs."""
    aligned = "as they are" if files.landmarks is None else "by five points from the set's own list"
    return {
        "model": embedder.path.resolve().name,
        "model_sha256": embedder.sha256,
        "set": name,
        "data_sha256": data_sha256,
        "images": len(files),
        "crops": aligned,
        "flip": flip,
        "contract": {**embedder.contract.to_dict(), "flip": flip},
        "versions": versions(embedder.libraries),
    }


def _counted(counts: dict[str, int], official: dict[str, int]) -> dict[str, Any]:
    """What was found and, where it is known, whether that is the whole set."""
    known = {name: (counts.get(name), whole) for name, whole in official.items()}
    return {
        "counts": counts,
        "missing": {name: {"found": found, "whole": whole} for name, (found, whole) in known.items() if found != whole},
    }


def _fused(units: Units, members: Members, fusion: Fusion, flip: str) -> dict[str, Any]:
    empty = int(empty_rows(units).sum())
    return {"templates": members.count, "empty_templates": empty, "fusion": described(fusion, members, flip)}
