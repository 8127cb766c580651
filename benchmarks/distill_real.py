"""The main job on real faces: wall time and accuracy of `mobileface make recipes/distill-real.yaml`.

    python -m benchmarks.distill_real DATA [--out DIR]

Runs the command with an empty cache (the teacher's embeddings are computed anew), times it as a user would, and
writes benchmarks/results/distill_real.json. A run that was stopped goes on; its time so far is kept in DIR.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import typer

from benchmarks.environment import write_result


def main(data: Path, out: Path = Path("runs/distill-real")) -> None:
    """Run, time, collect."""
    clock = out.with_suffix(".seconds")
    before = float(clock.read_text()) if clock.exists() else 0.0
    command = ["make", "recipes/distill-real.yaml", "--data", str(data), "--out", str(out), "--debug"]
    environment = {**os.environ, "MOBILEFACE_CACHE": str(out.with_suffix(".cache"))}
    began = time.monotonic()
    try:
        subprocess.run([sys.executable, "-m", "mobileface", *command], check=True, env=environment)
    finally:
        seconds = before + time.monotonic() - began
        out.parent.mkdir(parents=True, exist_ok=True)
        clock.write_text(str(seconds))
    card = json.loads((out / "card.json").read_text())
    results = [json.loads(p.read_text()) for p in sorted((out / "evaluation").glob("*.json")) if "worst" not in p.name]
    keys = ("set", "model", "pairs", "accuracy", "std", "tar", "eer", "auc", "flip", "data_sha256", "seconds")
    write_result(
        "distill_real",
        {
            "command": "mobileface make recipes/distill-real.yaml --data DATA",
            "wall_seconds": round(seconds, 1),
            "flops_lfrc": card["budget"]["flops_lfrc"],
            "size_mib": card["budget"]["size_mib"],
            "data": {key: card["data"][key] for key in ("images", "identities", "sha256")},
            "training": card["training"],
            "results": [{key: result[key] for key in keys} for result in results],
        },
    )


if __name__ == "__main__":
    typer.run(main)
