"""Render README.md's tables from benchmarks/results/*.json.

    python -m benchmarks.tables            # rewrite the tables in README.md
    python -m benchmarks.tables --check    # exit code 1 if README.md lags behind

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; a result that is missing renders as "not run".
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
Result = dict[str, Any]


def speed(results: Callable[[str], Result | None]) -> list[list[str]]:
    """What is fast, what was asked for."""
    rows = [["what", "measured", "wanted"]]
    if found := results("budget_speed"):
        rows.append(["`python -m search.budget lfrc-step5`, wall", f"{found['wall_s']['median']:.2f} s", "under 0.4 s"])
        rate = f"{found['candidates_per_s']:,.0f} a second"
        rows.append(["architectures costed on one core", rate, "10,000 a second"])
    if found := results("space_speed"):
        seconds = found["median_of_passes"]["draw_s"]["wall"]
        shown = f"{found['distinct']:,} networks of `{found['space']}` drawn within {found['budget']}, one core"
        rows.append([shown, f"{seconds:.2f} s", "under 1 s"])
    if found := results("rec_open"):
        seconds = statistics.median(run["seconds"] for run in found["cached"])
        memory = max(run["rss_growth_once_labels_are_read_mb"] for run in found["cached"])
        shown = f"{seconds:.2f} s, {memory:.0f} MB"
        rows.append(["opening a .rec of 6 M images, index cached", shown, "3 s, 200 MB"])
    if found := results("loading"):
        rows.append(["read, decode, flip, to tensor, one core", f"{found['images_per_s']:,.0f} images/s", "6,000"])
    if found := results("augment_speed"):
        rows.append(["AdaFace's augmentation, one core", f"{found['images_per_s']:,.0f} images/s", "3,000"])
    if found := results("loop_overhead"):
        rows.append(["training loop over bare steps", f"{found['overhead_percent']:.1f} %", "at most 5 %"])
    if found := results("classifier"):
        memory, step, losses = found["memory"], found["step"], found["losses"]
        over = f"{memory['over_mib']:.0f} MiB over centres, gradient, momentum"
        rows.append([f"a step with {memory['classes']:,} classes", over, f"at most {memory['limit_mib']:.0f} MiB"])
        share = f"{step['share']:.2f} of the time"
        rows.append([f"{step['classes']:,} classes, against a full matrix", share, "at most 1"])
        extra = f"+{max(losses['extra_percent_of_it'].values()):.1f} %"
        rows.append(
            ["costliest loss, of ArcFace's step of `lfrc-step5`", extra, f"at most {losses['limit_percent']:.0f} %"]
        )
    if found := results("two_views"):
        shown = f"{max(row['ratio'] for row in found['rows']):.2f} times"
        limit = max(row["limit"] for row in found["rows"])
        rows.append(["a step on two views, over one", shown, f"at most {limit:.1f} times"])
    if found := results("train_speed_cpu"):
        for arch in ("lfrc-step5", "mobilefacenet"):
            ratio = found["against_plain"].get(arch, {}).values()
            shown = f"{max(ratio):.2f} times the images" if ratio else "not run"
            rows.append([f"training `{arch}`, two cores, over plain fp32", shown, "2.0 times"])
    if found := results("onnx_forms"):
        for row in found["rows"]:
            name = f"ONNX `{row['arch']}`, {row['activation']}"
            if row["shipped"]["fp32"] != "plain":
                rows.append([f"{name} rewritten, fp32", f"{row['fp32_over_plain']:.2f} of the time", "at most 0.55"])
            rows.append([f"{name}, int8 over fp32", f"{row['int8_over_fp32']:.2f} of the time", "at most 0.75"])
    return rows


def accuracy(results: Callable[[str], Result | None]) -> list[list[str]]:
    """What was judged on real faces."""
    rows = [["model", "set", "accuracy", "TAR at FAR 1e-3", "EER"]]
    for name in ("teacher", "distill_real"):
        for r in (results(name) or {"results": []})["results"]:
            tar = r["tar"].get("1e-3")
            percent = f"{100 * r['accuracy']:.2f} ± {100 * r['std']:.2f} %"
            shown = "–" if tar is None else f"{100 * tar:.1f} %"
            rows.append([f"{_MODELS[name]} ({r['model']})", r["set"], percent, shown, f"{100 * r['eer']:.2f} %"])
    return rows


def demo(results: Callable[[str], Result | None]) -> list[list[str]]:
    """The demo on synthetic faces."""
    rows = [["what", "measured", "wanted"]]
    if found := results("demo"):
        rows.append(["`make demo`, fresh clone", f"{found['wall_seconds']:.0f} s", "under 480 s"])
        rows.append(["of which the job itself", f"{found['job_seconds']:.0f} s", "under 240 s"])
        rows.append(["held-out people, 10-fold accuracy", f"{found['accuracy']:.3f}", "0.95"])
        rows.append(["the same pairs by raw pixels", f"{found['raw_pixels']:.3f}", "under 0.75"])
    return rows


def ladder(results: Callable[[str], Result | None]) -> list[list[str]]:
    """Ways to spend the same images, and the ladder's phases: LFW, mean and deviation over seeds."""
    rows = [["what", "LFW", "runs"]]
    for name, found in (results("progressive") or {"summary": {}})["summary"].items():
        rows.append([_WAYS.get(name, name), _percent(found["lfw_mean"], found["lfw_std"]), str(found["runs"])])
    return rows


def distillation(results: Callable[[str], Result | None]) -> list[list[str]]:
    """Ways to teach a student at equal images: mean and deviation over seeds."""
    rows = [["terms", "LFW", "CFP-FP, folds 9-10", "runs"]]
    for way, found in (results("distill") or {"summary": {}})["summary"].items():
        shown = [_percent(found[f"{name}_mean"], found[f"{name}_std"]) for name in ("lfw", "cfp_fp_9_10")]
        rows.append([_TEACHING.get(way, f"{way} distillation alone"), *shown, str(found["runs"])])
    return rows


def adaface(results: Callable[[str], Result | None]) -> list[list[str]]:
    """Losses under more and more augmentation, and AdaFace's own parts: mean and deviation over seeds."""
    rows = [["loss", "augmentation p", "LFW", "LFW at 28 px", "runs"]]
    for found in (results("adaface") or {"summary": []})["summary"]:
        shown = [_percent(found[f"{name}_mean"], found[f"{name}_std"]) for name in ("lfw", "lfw_shrunk")]
        rows.append([_LOSSES.get(found["loss"], found["loss"]), f"{found['p']:g}", *shown, str(found["runs"])])
    return rows


def cross_resolution(results: Callable[[str], Result | None]) -> list[list[str]]:
    """LFW with the second image shrunk: the student before, and fine-tuned in each way."""
    sides = (7, 14, 28, 56, 112)
    rows = [["what", *(f"{side} px" for side in sides), "mean", "runs"]]
    if found := results("cross_resolution"):
        before = found["before"]
        each = [f"{100 * before['cross'][str(side)]:.2f} %" for side in sides]
        rows.append(["the student before", *each, f"{100 * before['mean_cross']:.2f} %", "1"])
        for way, reached in found["summary"].items():
            each = [f"{100 * reached[f'cross_{side}']:.2f} %" for side in sides]
            mean = _percent(reached["mean_cross_mean"], reached["mean_cross_std"])
            rows.append([_OCTUPLETS.get(way, way), *each, mean, str(reached["runs"])])
    return rows


def qgface(results: Callable[[str], Result | None]) -> list[list[str]]:
    """QGFace's settings: mean and deviation over seeds, images as they are and poor."""
    names = [f"{name}_{kind}" for name in ("lfw", "cfp_fp") for kind in ("clean", "same", "cross")]
    rows = [["setting", "LFW", "both poor", "one poor", "CFP-FP, folds 9-10", "both poor", "one poor", "runs"]]
    for setting, found in (results("qgface") or {"summary": {}})["summary"].items():
        shown = [_percent(found[f"{name}_mean"], found[f"{name}_std"]) for name in names]
        rows.append([_SETTINGS.get(setting, setting), *shown, str(found["runs"])])
    return rows


def exports(results: Callable[[str], Result | None]) -> list[list[str]]:
    """Every file of a trained student, and of lfrc-step5: size, parity, accuracy, time."""
    rows = [["network", "file", "MiB", "mean cosine", "least cosine", "LFW", "CFP-FP, folds 9-10", "ms, one thread"]]
    for row in (results("export") or {"rows": []})["rows"]:
        sets = [f"{100 * row[name]:.2f} %" if name in row else "–" for name in ("lfw", "cfp-fp:9-10")]
        if row["format"] == "network":
            rows.append([row["model"], "the network itself", "–", "–", "–", *sets, "–"])
            continue
        cosines = [f"{row[name]:.5f}" for name in ("mean_cosine", "min_cosine")]
        time = f"{row['median_ms']:.2f}" if "median_ms" in row else "–"
        name = f"{_FORMATS[row['format']]} {row['precision']}"
        rows.append([row["model"], name, f"{row['bytes'] / (1 << 20):.2f}", *cosines, *sets, time])
    for row in (results("export") or {"plain": []})["plain"]:
        shown = [f"{row['bytes'] / (1 << 20):.2f}", "–", "–", "–", "–", f"{row['median_ms']:.2f}"]
        rows.append([row["model"], "ONNX, a plain export", *shown])
    return rows


def targets(results: Callable[[str], Result | None]) -> list[list[str]]:
    """What was asked of the exported files: how much of it was reached, and what was not."""
    checks = (results("export") or {"checks": []})["checks"]
    missed = [row for row in checks if not row["passed"]]
    rows = [["network", "what", "measured", "wanted"]]
    rows += [[row["model"], row["check"], *(f"{row[name]:.4g}" for name in ("value", "limit"))] for row in missed]
    others = [["both", "all other figures", f"{len(checks) - len(missed)} of {len(checks)}", "reached"]]
    return [*rows, *(others if checks else [])]


def _percent(mean: float, deviation: float | None) -> str:
    return f"{100 * mean:.2f}{'' if deviation is None else f' ± {100 * deviation:.2f}'} %"


_FORMATS = {"onnx": "ONNX", "coreml": "Core ML", "tflite": "TFLite"}
_LOSSES = {"arcface": "ArcFace", "curricular": "CurricularFace", "adaface": "AdaFace"}
_TEACHING = {"scratch": "classification, no teacher", "mixed": "the recipe's own mix"}
_WAYS = {"arcface": "ArcFace alone", "all": "all losses from the start", "ladder": "the ladder"}
_OCTUPLETS = {
    "octuplet": "the recipe",
    "no octuplet": "no octuplets, poor images taught",
    "nothing held": "octuplets alone",
}
_SETTINGS = {
    "baseline": "AdaFace, one view",
    "A": "A: its augmentation",
    "B": "B: A, poor images left out",
    "C": "C: QGFace, A's augmentation",
    "D": "D: AdaFace, two views",
    "E": "E: QGFace",
}
_MODELS = {"teacher": "teacher", "distill_real": "student, 188.5 MFLOPs"}
TABLES: dict[str, Callable[[Callable[[str], Result | None]], list[list[str]]]] = {
    "speed": speed,
    "accuracy": accuracy,
    "demo": demo,
    "ladder": ladder,
    "distillation": distillation,
    "adaface": adaface,
    "exports": exports,
    "targets": targets,
    "cross_resolution": cross_resolution,
    "qgface": qgface,
}


def load(name: str) -> Result | None:
    """A result file, or None where the benchmark was not run."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def render(text: str) -> str:
    """The text with each table made anew."""

    def table(match: re.Match[str]) -> str:
        head, *rows = TABLES[match[2]](load)
        lines = [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]]
        return match[1] + "\n".join(lines if rows else ["not run"]) + "\n" + match[3]

    return BLOCK.sub(table, text)


def main(arguments: list[str]) -> int:
    """Rewrite README.md, or only compare."""
    readme = ROOT / "README.md"
    before = readme.read_text(encoding="utf-8")
    after = render(before)
    if "--check" in arguments:
        return int(before != after)
    readme.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
