"""The paper's own road, step by step: what each step of recipes/prune-and-deepen.yaml costs and reaches on LFW.

    python -m benchmarks.road DATA [--out DIR]

`python -m search.road` trains a wide network, halves its FLOPs in two prunings, and adds four blocks. The control is
the architecture at the road's end, trained from scratch by the road's own plan on as many images as all steps saw. One
seed, about half an hour on one core. What is in DIR is not made again, and what was stopped goes on.
"""

from __future__ import annotations

import json
from pathlib import Path

import typer
import yaml

from benchmarks.environment import write_result
from benchmarks.runs import RECIPES, lfw, make_run, run, run_row

RECIPE = RECIPES / "prune-and-deepen.yaml"
STEPS = ("1-train", "2-prune/1", "2-prune/2", "3-deepen")
CONTROL = "from scratch"


def main(data: Path, out: Path = Path("runs/road-benchmark")) -> None:
    """Go the road, train the control, judge each network, write."""
    road = out / "road"
    run("search.road", str(RECIPE), "--data", str(data), "--out", str(road))
    rows = {step: run_row(road / step) for step in STEPS}

    plan = yaml.safe_load((road / STEPS[0] / "plan.yaml").read_text(encoding="utf-8"))
    images = sum(row["images_seen"] for row in rows.values())
    arch = json.loads((road / STEPS[-1] / "arch.json").read_text(encoding="utf-8"))
    changes = {"arch": arch, "name": "scratch", "evaluate": [], "export": {"formats": []}}
    changes["phases"] = [{**plan["phases"][0], "images": images}]
    make_run({**plan, **changes}, data, out / "scratch")
    rows[CONTROL] = run_row(out / "scratch")

    for name, row in rows.items():
        row["lfw"] = lfw(out / "scratch" if name == CONTROL else road / name, data, out / "lfw" / name)
    write_result("road", {"recipe": RECIPE.name, "arch": arch, "rows": rows})
    print(json.dumps(rows))


if __name__ == "__main__":
    typer.run(main)
