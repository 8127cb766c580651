"""Does a phase fit the images and the ranks that there are?"""

from __future__ import annotations

from mobileface.data.faceset import Split
from mobileface.distributed import world_size
from mobileface.errors import InputError
from mobileface.training.plan_phases import Phase


def micro_batch(phase: Phase) -> tuple[int, int]:
    """(images that a rank embeds at a time, how often it does so in a step).

    A batch is cut into `accumulate` micro-batches, or as many as there are ranks if these are more; the ranks share
    them. So a plan trains the same weights on any number of ranks that divides them, as far as its losses are means
    over samples: triplets, inter and class weights see the images of one turn at a time.
    """
    ranks = world_size()
    pieces = max(phase.accumulate, ranks)
    if pieces % ranks or phase.batch % pieces or phase.batch // pieces < 2:
        raise InputError(
            f"phase {phase.name}: batch {phase.batch} in {phase.accumulate} parts (accumulate) over {ranks} ranks; "
            "wanted equal parts of two images or more, as many for each rank"
        )
    return phase.batch // pieces, pieces // ranks


def embedded_at_once(phase: Phase) -> int:
    """Images that go through the network in one pass: a micro-batch in all its views."""
    return micro_batch(phase)[0] * (1 if phase.views.degraded is None else 2)


def check_classes(phase: Phase, split: Split) -> None:
    """InputError for a phase that wants more images, identities or labels than the training set has."""
    if len(split.train) < phase.batch:
        raise InputError(
            f"phase {phase.name}: {len(split.train)} training images are fewer than one batch of {phase.batch}; wanted "
            f"{f'batch: {len(split.train)} or less' if len(split.train) > 1 else 'two images or more'}"
        )
    kinds = {term.kind for term in phase.terms}
    over = kinds & {"classification", "centre", "logit_distillation"}
    if over and split.num_classes < 2:
        raise InputError(
            f"phase {phase.name}: {min(over)} needs two identities or more to train on, found {split.num_classes}; "
            "wanted images with labels, or, to learn from a teacher alone, terms: [distillation] and "
            "teacher: {model: FILE}"
        )
    if kinds := kinds & {"classification", "centre"}:
        unlabelled = int((split.classes[split.train] < 0).sum())
        if unlabelled and phase.sampler.kind == "plain":
            raise InputError(
                f"phase {phase.name}: {unlabelled} training images have no label (labelled: false, or blends), and "
                f"{min(kinds)} needs one for each; wanted sampler: class_uniform or pk, which leave such images out"
            )
