"""The page's list of words: those of the losses and batches in one sentence each, and what a fold is."""

from __future__ import annotations

from collections.abc import Sequence

from mobileface.report.read import Json, Log, dig, objects, string
from mobileface.report.sections import mapping

# word of a phase's losses or term of the log -> (family, sentence); of one family a phase has at most one
LOSSES = {
    "classification": ("term", "The main loss: name the person of a face among all people of the training."),
    "softmax": ("margin", "Classification without a margin: the own person's centre has to be the nearest."),
    "arcface": ("margin", "Classification with a margin: the own person's centre has to be nearer by a fixed angle."),
    "cosface": ("margin", "Classification with a margin: the own person's cosine has to be larger by a fixed amount."),
    "sphereface": (
        "margin",
        "Classification with a margin: the angle to the own centre counts several times.",
    ),
    "combined": ("margin", "Classification with the margins of SphereFace, ArcFace and CosFace in one formula."),
    "magface": ("margin", "Classification with an angle as margin that grows with the length of the embedding."),
    "adaface": ("margin", "Classification whose margin favours hard faces in good images and easy ones in bad images."),
    "support_vector": ("negatives", "Other people's centres that are too near to a face count more."),
    "curricular": ("negatives", "Other people's centres that are too near count more the longer the training lasts."),
    "class-balanced": ("balance", "Faces of people with few images count more than those of people with many."),
    "intra": ("intra", "Pulls each face towards the centre of its own person."),
    "inter": ("inter", "Pushes the centres of different people apart."),
    "centre": ("centre", "Pulls each face towards a second centre of its person, by distance instead of angle."),
    "triplet": ("term", "A face has to be nearer to one of the same person than to one of somebody else, by a margin."),
    "batch_hard triplet": ("triplet", "Triplets of each face, its farthest of the same person and its nearest other."),
    "semi_hard triplet": ("triplet", "Triplets whose stranger is farther than the same person, but not by the margin."),
    "octuplet": (
        "octuplet",
        "Triplets between faces and their low-resolution copies: the same person has to be nearer.",
    ),
    "contrastive": ("contrastive", "Pulls each poor image to its good one and away from other people's faces."),
    "partition": (
        "partition",
        "The main loss learns only faces whose embeddings are long enough: those of good quality.",
    ),
    "distillation": ("distillation", "The network learns to give the embeddings of a larger network, its teacher."),
    "relational_distillation": ("relational", "It learns how alike the teacher finds the images of a batch."),
    "logit_distillation": ("logit", "It learns how likely the teacher finds each person of the training."),
    "int8": (
        "int8",
        "The network is trained as what it becomes with numbers of eight bits, so that it loses less by them.",
    ),
    "pk batches": (
        "batches",
        "Each batch holds several images each of a few people, so that it has pairs.",
    ),
    "class_uniform batches": ("batches", "Each person comes equally often, however many images there are."),
}


def losses(card: Json, log: Log | None) -> list[tuple[str, str]]:
    """What the losses and batches on this page mean, in the order of LOSSES."""
    found = {word for phase in objects(card, "training", "phases") for word in phase_losses(phase)}
    found |= {term for row in (log.steps if log else []) for term in mapping(dig(row, "terms"))}
    found |= {"distillation"} if dig(card, "teacher") else set()
    return [(word, sentence) for word, (_, sentence) in LOSSES.items() if word in found]


def phase_losses(phase: Json) -> list[str]:
    """The words for a phase's losses and batches."""
    found = dig(phase, "losses")
    return [word for word in map(string, found) if word] if isinstance(found, list) else []


def what_is_new(before: Sequence[str], now: Sequence[str]) -> str:
    """What a phase changes in the losses of the one before: "arcface → combined, + intra"; all for the first."""
    if not before:
        return " + ".join(now)
    gone = [word for word in before if word not in now]
    parts = []
    for word in (word for word in now if word not in before):
        old = next((old for old in gone if family(old) == family(word)), None)
        if old is not None:
            gone.remove(old)
        parts.append(f"+ {word}" if old is None else f"{old} → {word}")
    return ", ".join([*parts, *(f"− {word}" for word in gone)]) or "the same losses"


def family(word: str) -> str:
    """Words of one family replace each other; a word that is not known is a family of its own."""
    return LOSSES[word][0] if word in LOSSES else word


def folds(result: Json | None) -> int | None:
    """Into how many parts the pairs of a set were cut; None where that is not stored."""
    return len(objects(result, "folds")) or None


def fold(sets: Sequence[Json]) -> str:
    """What a fold is, with its size on each judged set ({"name", "folds"})."""
    known = [(each["name"], each["folds"]) for each in sets if each["folds"]]
    size = {count for _, count in known}
    if size == {10}:
        what, others = "One tenth of the pairs.", "nine tenths"
    else:
        parts = ", ".join(f"one of {count} on {name}" for name, count in known)
        what, others = f"A part of the pairs{': ' + parts if parts else ''}.", "parts"
    return f"{what} The threshold is chosen on the other {others}, so that it never sees the pairs it is judged on."
