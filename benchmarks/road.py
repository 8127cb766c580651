"""The paper's own road, step by step: what each step of recipes/prune-and-deepen.yaml costs and reaches on LFW.

    python -m benchmarks.road DATA [--out DIR]

`python -m search.road` trains a wide network, halves its FLOPs in two prunings, and adds four blocks. The control is
the architecture at the road's end, trained from scratch by the road's own plan on as many images as all steps saw.
About an hour on one core. What is in DIR is not made again, and what was stopped goes on.
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


def main(data: Path, out: Path = Path("runs/road-benchmark")) -> None:
    """Go the road, train the control, judge each network, write."""
    road = out / "road"
    run("search.road", str(RECIPE), "--data", str(data), "--out", str(road))
    steps = {step: run_row(road / step) for step in STEPS}

    plan = yaml.safe_load((road / STEPS[0] / "plan.yaml").read_text(encoding="utf-8"))
    images = sum(step["images_seen"] for step in steps.values())
    changes = {"arch": json.loads((road / STEPS[-1] / "arch.json").read_text(encoding="utf-8")), "name": "scratch"}
    changes |= {"phases": [{**plan["phases"][0], "images": images}], "evaluate": [], "export": {"formats": []}}
    make_run({**plan, **changes}, data, out / "scratch")

    folders = {step: road / step for step in STEPS} | {"scratch": out / "scratch"}
    rows = {**steps, "scratch": run_row(out / "scratch")}
    for name, folder in folders.items():
        rows[name]["lfw"] = lfw(folder, data, out / "lfw" / name)
    write_result("road", {"recipe": RECIPE.name, "arch": changes["arch"], "rows": rows})
    print(json.dumps(rows))


if __name__ == "__main__":
    typer.run(main)
