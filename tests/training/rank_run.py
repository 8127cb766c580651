"""Train under torchrun: `rank_run.py PLAN.yaml RUN STOP DIE WORKERS FROZEN`.

Ctrl-C to rank 0 in step STOP, or SIGTERM to the whole group in step -STOP; death of rank 1 in step DIE; 0: none.
FROZEN 1: batch norms use their running statistics, and these stay as they begin.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mobileface import cli
from mobileface.distributed import rank
from mobileface.training import loop


def main(plan: Path, run: Path, stop: int, die: int, workers: int, frozen: int) -> int:
    step, calls = loop.step, 0
    if frozen:
        _BatchNorm.train = lambda self, mode=True: nn.Module.train(self, False)  # type: ignore[method-assign]

    def counted(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == stop and rank() == 0:  # one rank is asked, all stop
            os.kill(os.getpid(), signal.SIGINT)
        if calls == -stop and rank() == 0:
            os.killpg(0, signal.SIGTERM)
        if calls == die and rank() == 1:
            os._exit(9)
        return step(*args)

    loop.step = counted
    loop.default_workers = lambda: workers
    return cli.main(["train", str(plan), "--out", str(run)])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:])))
