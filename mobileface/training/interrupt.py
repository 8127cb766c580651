"""Ctrl-C during training: finish the step, save, stop; behind the last step too, so that nothing else is begun.

A second one stops at once.

Under torchrun every signal comes twice, once from whoever sent it and once from torchrun: there a second one counts
only after a while.
"""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType

from mobileface.distributed import world_size

AGAIN_S = 5.0  # longer than torchrun takes to hand a signal on


class Interrupt:
    """Context manager; `asked` becomes true on the first SIGINT or SIGTERM."""

    def __init__(self) -> None:
        self.asked = False
        self._since = 0.0
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        alone = world_size() == 1  # other ranks would wait for one that ends behind its last step
        told = isinstance(error, OSError)  # a disk that is full is news, and may be why nothing was saved
        if self.asked and not told and (alone or isinstance(error, RuntimeError)):  # or a loading process died of it
            raise KeyboardInterrupt from None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked and (world_size() == 1 or time.monotonic() - self._since > AGAIN_S):
            raise KeyboardInterrupt
        self.asked, self._since = True, self._since or time.monotonic()
