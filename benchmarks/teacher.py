"""The teacher on real faces, as a user judges any ONNX file: `python -m benchmarks.teacher DATA`. Some minutes.

DATA holds `teacher/mobilefacenet.onnx`, `lfw/` and `cfp/`. Runs `mobileface evaluate` on LFW, CFP-FP and CFP-FF with
the teacher's input contract and writes results/teacher.json. Wanted: 99.2 % +- 0.2 on LFW, 10-fold.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import typer

from benchmarks.environment import installed, write_result

MODEL = "teacher/mobilefacenet.onnx"
SETS = ("lfw", "cfp-fp", "cfp-ff")
CONTRACT = ("--scale", "255", "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")
TARGET, TOLERANCE = 0.992, 0.002  # accuracy on LFW


def judge(data: Path, sets: tuple[str, ...] = SETS) -> list[dict[str, Any]]:
    """What `mobileface evaluate --json` prints of each set."""
    on = [part for name in sets for part in ("--on", name)]
    command = ["evaluate", str(data / MODEL), *on, "--data", str(data), *CONTRACT, "--json"]
    done = subprocess.run([sys.executable, "-m", "mobileface", *command], check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout)
    results: list[dict[str, Any]] = found["results"] if len(sets) > 1 else [found]
    return results


def main(data: Path) -> None:
    """Judge, hold against the target, write."""
    keys = ("model", "model_sha256", "set", "protocol", "pairs", "accuracy", "std", "tar", "eer", "auc", "threshold")
    rows = [{key: row[key] for key in (*keys, "flip", "data_sha256", "seconds")} for row in judge(data)]
    reached = next(row["accuracy"] for row in rows if row["set"] == "lfw")
    result = {
        "command": f"mobileface evaluate {MODEL} --on {' --on '.join(SETS)} --data DATA {' '.join(CONTRACT)} --json",
        "onnxruntime": installed("onnxruntime"),
        "results": rows,
        "target": {"set": "lfw", "accuracy": TARGET, "tolerance": TOLERANCE},
        "within_target": abs(reached - TARGET) <= TOLERANCE,
    }
    print(json.dumps(result, indent=2))
    print(write_result("teacher", result))
    if not result["within_target"]:
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
