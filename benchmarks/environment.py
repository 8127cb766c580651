"""The machine and the versions that a benchmark ran with, and where its result goes."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mobileface.files import write_json

RESULTS = Path(__file__).parent / "results"
PACKAGES = {"torch": "torch", "numpy": "numpy", "cv2": "opencv-python-headless"}


def describe() -> dict[str, Any]:
    """CPU model, cores this process may use, memory in GiB, Python and library versions, date (UTC)."""
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: installed(package) for name, package in PACKAGES.items()},
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def cpu_model() -> str:
    """The model's name as Linux gives it; elsewhere what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def installed(package: str) -> str | None:
    """The version of an installed package; it is not imported for that."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def write_result(name: str, result: dict[str, Any]) -> Path:
    """Write `result` with the machine's description to results/NAME.json, and return that path."""
    path = RESULTS / f"{name}.json"
    write_json(path, {"benchmark": name, "environment": describe(), **result})
    return path
