"""What a plan's words stand for: its data root, its training faces, its teacher and the teacher's embeddings."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from mobileface.data.blends import BlendedFaces
from mobileface.data.faces import FaceSource
from mobileface.data.faceset import FaceSet, split_identities
from mobileface.data.folder import FolderFaces
from mobileface.data.recordio import RecordFaces
from mobileface.data.synthetic import VERSION as SYNTHETIC_VERSION
from mobileface.data.synthetic import write_synthetic
from mobileface.embedders.contract import Embedder, InputContract
from mobileface.embedders.network import NetworkEmbedder
from mobileface.embedders.opening import open_embedder
from mobileface.errors import InputError
from mobileface.files import cache_folder, sha256
from mobileface.training.plan import Plan, Source, Synthetic, Teacher

log = logging.getLogger(__name__)
POOR_TEACHER = 0.8  # AUC; raw pixels reach about 0.7


def data_root(plan: Plan) -> Path:
    """Where the plan's paths begin; synthetic faces lie in the user's cache, by what they were drawn from."""
    if plan.data.synthetic:
        key = json.dumps([SYNTHETIC_VERSION, plan.data.synthetic.model_dump()], sort_keys=True)
        return cache_folder() / "synthetic" / hashlib.sha256(key.encode()).hexdigest()[:16]
    return Path(plan.data.root)


def start_folder(plan: Plan) -> Path:
    """The run folder that the plan begins with. InputError where it is none."""
    assert plan.start is not None
    wanted = "a run folder, of a training or of mobileface import"
    folder = _model("start", plan.start, data_root(plan), wanted)
    for name in ("arch.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise InputError(f"start: {folder}: holds no {name}; wanted {wanted}")
    return folder


def start_weights(plan: Plan) -> str | None:
    """Hash of the weights that the plan begins with, if it names any."""
    return None if plan.start is None else sha256(start_folder(plan) / "model.safetensors")


def _model(key: str, name: str, root: Path, wanted: str) -> Path:
    """A model that a plan names: in the working directory, as on the command line, or else inside the data root."""
    folders = dict.fromkeys([Path.cwd(), root.absolute()])
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    looked = "not found" if Path(name).is_absolute() else f"not found in {' nor in '.join(map(str, folders))}"
    raise InputError(f"{key}: {name}: {looked}; wanted {wanted}")


def write_synthetic_once(wanted: Synthetic, root: Path, console: Console) -> None:
    """Write train.rec and held_out.bin as the folder `root`, unless it is there: all of it or nothing."""
    if root.exists():
        return
    console.print(f"writing {wanted.identities * wanted.images:,} synthetic faces to {root}", highlight=False)
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=".making-") as folder:
        made = Path(folder) / "set"
        write_synthetic(made, **wanted.model_dump())
        if not root.exists():  # another process may have been faster
            made.rename(root)


def open_faces(plan: Plan) -> FaceSet:
    """The plan's training sources as one set, with blends of those images that are not held out."""
    if plan.data.root == "." and not plan.data.synthetic:
        _require_there(plan)
    sources = [_open_source(source, data_root(plan)) for source in plan.data.train]
    faces = FaceSet(sources)
    if plan.teacher is None or not plan.teacher.blends:
        return faces
    chosen = split_identities(faces, plan.data.validate_.identities, plan.seed, plan.data.min_images).train
    return FaceSet([*sources, BlendedFaces(faces, chosen, plan.teacher.blends, plan.seed)])


def _require_there(plan: Plan) -> None:
    """InputError that names --data, which is what is forgotten where a relative path leads nowhere."""
    for source in plan.data.train:
        path = Path(source.rec or source.folder or "")
        if not (path.is_absolute() or path.exists()):
            raise InputError(f"{path}: is not there; --data DIR says where the plan's relative paths begin")


def _open_source(source: Source, root: Path) -> FaceSource:
    lists = (source.include, source.exclude, source.scores)
    include, exclude, scores = (None if name is None else root / name for name in lists)
    if source.rec is not None:
        return RecordFaces(root / source.rec, cache_folder(), exclude)
    assert source.folder is not None  # the plan has checked it
    return FolderFaces(root / source.folder, include, exclude, source.labelled, scores)


def teach(plan: Plan, faces: FaceSet, console: Console) -> tuple[Embedder | None, NDArray[np.float32] | None]:
    """The teacher, if there is one, and its embeddings of the training images, where the plan wants them."""
    if plan.teacher is None:
        return None, None
    teacher = open_teacher(plan.teacher, data_root(plan))
    if not plan.wants_targets:
        return teacher, None
    from mobileface.training.teaching import labels_told_apart, teacher_targets

    console.print(f"teacher: {teacher.path.name} embeds the training images, unless the cache has it", highlight=False)
    with console.status("teacher") as status:
        total = f"{len(faces):,}"
        targets = teacher_targets(
            teacher,
            faces,
            cache_folder(),
            lambda done: status.update(f"teacher: {done:,} of {total} images"),
            threads=(os.cpu_count() or 1) if _batch_a_thread(plan.teacher) else 1,
        )
    if (auc := labels_told_apart(targets, faces.labels)) is not None:
        console.print(f"teacher: tells the people of the training images apart with AUC {auc:.4f}", highlight=False)
        if auc < POOR_TEACHER:
            log.warning("a teacher of faces reaches an AUC of 0.95 and more; is its contract right?")
    if not plan.teacher.online and isinstance(teacher, NetworkEmbedder):
        teacher.network.cpu()  # a GPU's memory is for the training
    return teacher, targets


def open_teacher(teacher: Teacher, root: Path) -> Embedder:
    """The plan's teacher as an embedder."""
    given = teacher.contract
    contract = None if given is None else InputContract.from_dict(given.model_dump())
    path = _model("teacher.model", teacher.model, root, "an ONNX file or a run folder")
    return open_embedder(path, contract, threads=_threads(teacher))


def _batch_a_thread(teacher: Teacher) -> bool:
    """ONNX Runtime embeds several batches on a thread each faster than one on all of them; torch does not. In a
    training step there is but one batch."""
    return Path(teacher.model).suffix == ".onnx" and not teacher.online


def _threads(teacher: Teacher) -> int | None:
    """Threads of the teacher's runtime for one batch; None, all there are. Ranks on one machine share its cores."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if _batch_a_thread(teacher):
        return 1
    shared = Path(teacher.model).suffix == ".onnx" and ranks > 1  # torchrun sees to torch's own threads
    return max(1, (os.cpu_count() or 1) // ranks) if shared else None
