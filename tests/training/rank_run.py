"""Train under torchrun: `rank_run.py PLAN.yaml RUN STOP DIE`.

Ctrl-C in step STOP, death of rank 1 in step DIE; 0: none.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from mobileface import cli
from mobileface.distributed import rank
from mobileface.training import loop


def main(plan: Path, run: Path, stop: int, die: int) -> int:
    step, calls = loop.step, 0

    def counted(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == stop and rank() == 0:  # one rank is asked, all stop
            os.kill(os.getpid(), signal.SIGINT)
        if calls == die and rank() == 1:
            os._exit(9)
        return step(*args)

    loop.step = counted
    loop.default_workers = lambda: 0
    return cli.main(["train", str(plan), "--out", str(run)])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
