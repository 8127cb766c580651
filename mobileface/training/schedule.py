"""Learning rate as a function of images seen."""

from __future__ import annotations

import math

from mobileface.training.plan_phases import Schedule

# One-cycle as torch's OneCycleLR has it: rise from 1/25 over 30 %, fall to 1/25e4, both along a cosine.
RISE, START, END = 0.3, 1 / 25, 1 / 25e4


def learning_rate(schedule: Schedule, peak: float, seen: int, total: int) -> float:
    """The rate for the step that begins after `seen` of `total` images."""
    if seen < schedule.warmup:
        return peak * (seen + 1) / schedule.warmup
    progress = min(1.0, (seen - schedule.warmup) / max(1, total - schedule.warmup))
    return peak * _SHAPES[schedule.kind](schedule, progress, seen)


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def _one_cycle(schedule: Schedule, progress: float, seen: int) -> float:
    if progress < RISE:
        return _cosine(START, 1.0, progress / RISE)
    return _cosine(1.0, END, (progress - RISE) / (1 - RISE))


_SHAPES = {
    "constant": lambda schedule, progress, seen: 1.0,
    "step": lambda schedule, progress, seen: schedule.factor ** sum(seen >= m for m in schedule.milestones),
    "cosine": lambda schedule, progress, seen: _cosine(1.0, 0.0, progress),
    "one_cycle": _one_cycle,
    "polynomial": lambda schedule, progress, seen: (1 - progress) ** schedule.power,
}
