"""The progress bar of a training: images per second, loss by term, time left."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType

from rich import progress
from rich.console import Console

WINDOW = 20  # steps over which the speed is averaged


class Progress:
    """Context manager around a rich progress bar that counts images."""

    def __init__(self, console: Console, total: int, seen: int) -> None:
        self._bar = progress.Progress(
            progress.TextColumn("training"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[speed]:.0f} images/s  {task.fields[loss]}"),
            progress.TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=total, completed=seen, speed=0.0, loss="")
        self._times: deque[tuple[float, int]] = deque([(time.monotonic(), seen)], WINDOW)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, seen: int, terms: dict[str, float]) -> float:
        """Move the bar to `seen` images; returns images per second over the last steps."""
        now = time.monotonic()
        first, from_seen = self._times[0]
        self._times.append((now, seen))
        speed = (seen - from_seen) / max(now - first, 1e-9)
        loss = "  ".join(f"{name} {value:.4f}" for name, value in terms.items())
        self._bar.update(self._task, completed=seen, speed=speed, loss=loss)
        return speed

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._bar.console.print(text, highlight=False)
