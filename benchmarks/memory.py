"""What this process holds, MiB (Linux)."""

from __future__ import annotations

import resource
from pathlib import Path


def peak_mib() -> float:
    """The most that it has held (getrusage would count what its parent held as well)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def resident_mib() -> float:
    """What it holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
