"""How good is a network? Scores of a search, by kind; what each is worth measures `benchmarks/score_rank.py`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from mobileface.arch import Arch
from mobileface.data.faceset import FaceSet, split_identities
from mobileface.data.images import SIZE, BadImage, decode
from mobileface.errors import InputError, nearest
from mobileface.files import atomic_path, locked, remove, write_json
from mobileface.models import build
from mobileface.report.read import read_log
from mobileface.training.loop import Judged, train
from mobileface.training.plan import Export, Plan
from mobileface.training.run_folder import check_run_folder
from mobileface.training.sources import teach
from mobileface.training.whole import plan_faces
from search.zero_cost import SEEING, ZERO_COST

TRAINED = ("train", "distill")
KINDS = (*TRAINED, *ZERO_COST)
BATCH = 64  # images of a zero-cost score, as Abdelfattah et al. 2021
SEEDS = 3  # networks of a zero-cost score, each with other initial values


class Score(Protocol):
    """A score of networks: a number, higher is better."""

    kind: str

    def __call__(self, arch: Arch, folder: Path, judged: Judged) -> float:
        """The network's score. What lasts longer leaves a run folder in `folder`, or goes on with the one there.

        judged: hears (images seen, held-out AUC) of each validation of a short training, and may raise to end it.
        Raises what `judged` raises, NonFiniteError, InputError, KeyboardInterrupt.
        """


class ShortTraining:
    """Held-out AUC after the training that the plan describes, for another network.

    AUC is that of the weights that the run folder keeps: the best validation's, a mean over data.validate.sides.
    The faces and the teacher's embeddings of them are opened once, for all networks.
    """

    def __init__(self, kind: str, plan: Plan, console: Console) -> None:
        self.kind, self.plan, self.console = kind, plan, console
        self.faces = plan_faces(plan, console)
        teacher, self.targets = teach(plan, self.faces, console)
        self.online = teacher if plan.teacher is not None and plan.teacher.online else None

    def __call__(self, arch: Arch, folder: Path, judged: Judged) -> float:
        """`judged` hears of all validations of the training, also of those before it was taken up again.

        A training that is done is not made again. Its checkpoints are not kept: a search makes hundreds of them.
        """
        plain = json.loads(json.dumps(arch.to_dict()))
        plan = self.plan.model_copy(update={"arch": plain, "budget": None})  # the search keeps to its own
        kept = _what_counts(plan)
        check_run_folder(folder, kept, arch)
        tell = _once(judged)
        with locked(folder):
            for row in read_log(folder / "log.jsonl").validations if (folder / "log.jsonl").exists() else []:
                tell(row["images"], row["auc"])
            write_json(folder / "arch.json", arch.to_dict())
            with atomic_path(folder / "plan.yaml") as temporary:
                temporary.write_text(kept.to_yaml(), encoding="utf-8")
            facts = train(plan, arch, folder, self.faces, self.targets, self.console, online=self.online, judged=tell)
            for checkpoint in (folder / "checkpoints").glob("*.safetensors"):
                remove(checkpoint)
        if facts["held_out_auc"] is None:
            raise InputError(f"{folder}: none of the held-out people has two good images; wanted more of them")
        return float(facts["held_out_auc"])


def _what_counts(plan: Plan) -> Plan:
    """The plan without what may change while a search goes on: where the data lie, and what is done with the winner."""
    return plan.model_copy(
        update={"data": plan.data.model_copy(update={"root": "."}), "evaluate": [], "export": Export()}
    )


class Untrained:
    """A zero-cost score: the mean over SEEDS networks with other initial values, on one batch of training images."""

    def __init__(self, kind: str, plan: Plan, console: Console) -> None:
        self.kind, self.plan = kind, plan
        self.images, self.labels = torch.empty(0, 3, SIZE, SIZE), torch.empty(0)
        if kind in SEEING:
            self.images, self.labels = first_images(plan, plan_faces(plan, console))

    def __call__(self, arch: Arch, folder: Path, judged: Judged) -> float:
        """Nothing is written, nobody is asked."""
        seeds = range(self.plan.seed, self.plan.seed + SEEDS)
        return float(np.mean([self.measure(arch, seed) for seed in seeds]))

    def measure(self, arch: Arch, seed: int) -> float:
        """The score of the network with the initial values of `seed`."""
        generator = torch.Generator().manual_seed(seed)
        return ZERO_COST[self.kind](build(arch, seed), self.images, self.labels, generator)


def open_score(kind: str, plan: Plan, console: Console) -> Score:
    """The score of a kind of KINDS, on the plan's faces; the plan's own network has no part in it.

    train: as the plan says, without a teacher; distill: the same with one. InputError for a plan that cannot do it.
    """
    if kind not in KINDS:
        raise InputError(f"no score is called {kind!r}{nearest(kind, KINDS)}; known: {', '.join(KINDS)}")
    if kind not in TRAINED:
        return Untrained(kind, plan, console)
    if plan.start is not None:
        raise InputError(f"score {kind}: {plan.name} has start: {plan.start}; wanted arch: each begins from scratch")
    if (plan.teacher is None) == (kind == "distill"):
        found, wanted = ("no", "a") if kind == "distill" else ("a", "no")
        raise InputError(f"score {kind}: {plan.name} has {found} teacher; wanted a recipe with {wanted} teacher")
    if plan.data.validate_.identities == 0:
        raise InputError(f"score {kind}: {plan.name} holds nobody out; wanted data.validate.identities above 0")
    return ShortTraining(kind, plan, console)


def first_images(plan: Plan, faces: FaceSet) -> tuple[Tensor, Tensor]:
    """(B, 3, 112, 112) float RGB 0..255 and their classes (B,): BATCH training images, drawn by the plan's seed.

    Fewer where there are fewer good ones with a label; InputError below two.
    """
    split = split_identities(faces, plan.data.validate_.identities, plan.seed, plan.data.min_images)
    rng = np.random.Generator(np.random.Philox(key=[plan.seed, 3]))
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    for i in rng.permutation(split.train[split.classes[split.train] >= 0]):
        if len(images) == BATCH:
            break
        try:
            images.append(decode(faces.read(int(i)), faces.key(int(i))))
            labels.append(int(split.classes[i]))
        except BadImage:
            continue
    if len(images) < 2:
        raise InputError(f"{plan.name}: {len(images)} training images with a label can be read; wanted two or more")
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float(), torch.tensor(labels)


def _once(judged: Judged) -> Callable[[int, float], None]:
    """`judged`, that hears only once of the same validation: a kill right behind one makes it again."""
    told: set[int] = set()

    def tell(images: int, auc: float) -> None:
        if images not in told:
            told.add(images)
            judged(images, auc)

    return tell
