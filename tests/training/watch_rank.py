"""One rank of several that watches: `python -m tests.training.watch_rank RANK WORLD STORE OUT`. Writes log rows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from mobileface.data.synthetic import sample
from mobileface.losses.classifier import Classifier
from mobileface.losses.margins import ArcFace
from mobileface.training.watch import Watched, watch

CLASSES = (2, 5, 40)  # of three ranks, one holds none of two


class Corners(nn.Module):
    """(B, 3, 112, 112) -> (B, 12): the means of four corners."""

    def forward(self, pixels: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(pixels - 128, 2).flatten(1)


def rows() -> list[dict[str, Any]]:
    """What `watch` finds with each number of classes; the same problem on every rank."""
    images = np.stack([sample(7, person, 0)[0] for person in range(6)])
    found = []
    for classes in CLASSES:
        terms = nn.ModuleDict({"classification": Classifier(classes, 12, ArcFace(), scale=16.0, seed=3)})
        watched = Watched(images, torch.arange(6) % classes)
        found.append(watch(Corners(), terms, watched, torch.device("cpu")))
    return found


def main(rank: int, world: int, store: Path, out: Path) -> None:
    dist.init_process_group("gloo", store=dist.FileStore(str(store), world), rank=rank, world_size=world)
    (out / f"{rank}.json").write_text(json.dumps(rows()))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
