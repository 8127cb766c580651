"""Tables of what trainings reached."""

from __future__ import annotations

from benchmarks.table_rows.common import Results, Rows, percent

_LOSSES = {"arcface": "ArcFace", "curricular": "CurricularFace", "adaface": "AdaFace"}
_TEACHING = {"scratch": "classification, no teacher", "mixed": "the recipe's own mix"}
_WAYS = {"arcface": "ArcFace alone", "all": "all losses from the start", "ladder": "the ladder"}
_OCTUPLETS = {
    "recipe": "the recipe: lhh, 48,000 images",
    "octuplet": "all four terms, 12,000 images",
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


def accuracy(results: Results) -> Rows:
    """What was judged on real faces."""
    rows = [["model", "set", "accuracy", "TAR at FAR 1e-3", "EER"]]
    for name in ("teacher", "distill_real"):
        for r in (results(name) or {"results": []})["results"]:
            tar = r["tar"].get("1e-3")
            percent = f"{100 * r['accuracy']:.2f} ± {100 * r['std']:.2f} %"
            shown = "–" if tar is None else f"{100 * tar:.1f} %"
            rows.append([f"{_MODELS[name]} ({r['model']})", r["set"], percent, shown, f"{100 * r['eer']:.2f} %"])
    return rows


def ladder(results: Results) -> Rows:
    """Ways to spend the same images, and the ladder's phases: LFW, mean and deviation over seeds."""
    rows = [["what", "LFW", "runs"]]
    for name, found in (results("progressive") or {"summary": {}})["summary"].items():
        rows.append([_WAYS.get(name, name), percent(found["lfw_mean"], found["lfw_std"]), str(found["runs"])])
    return rows


def distillation(results: Results) -> Rows:
    """Ways to teach a student at equal images: mean and deviation over seeds."""
    rows = [["terms", "LFW", "CFP-FP, folds 9-10", "runs"]]
    for way, found in (results("distill") or {"summary": {}})["summary"].items():
        shown = [percent(found[f"{name}_mean"], found[f"{name}_std"]) for name in ("lfw", "cfp_fp_9_10")]
        rows.append([_TEACHING.get(way, f"{way} distillation alone"), *shown, str(found["runs"])])
    return rows


def adaface(results: Results) -> Rows:
    """Losses under more and more augmentation, and AdaFace's own parts: mean and deviation over seeds."""
    rows = [["loss", "augmentation p", "LFW", "LFW at 28 px", "runs"]]
    for found in (results("adaface") or {"summary": []})["summary"]:
        shown = [percent(found[f"{name}_mean"], found[f"{name}_std"]) for name in ("lfw", "lfw_shrunk")]
        rows.append([_LOSSES.get(found["loss"], found["loss"]), f"{found['p']:g}", *shown, str(found["runs"])])
    return rows


def cross_resolution(results: Results) -> Rows:
    """LFW with the second image shrunk: the student before, and fine-tuned in each way."""
    sides = (7, 14, 28, 56, 112)
    rows = [["what", *(f"{side} px" for side in sides), "mean", "runs"]]
    if found := results("cross_resolution"):
        before = found["before"]
        each = [f"{100 * before['cross'][str(side)]:.2f} %" for side in sides]
        rows.append(["the student before", *each, f"{100 * before['mean_cross']:.2f} %", "1"])
        for way, reached in found["summary"].items():
            each = [f"{100 * reached[f'cross_{side}']:.2f} %" for side in sides]
            mean = percent(reached["mean_cross_mean"], reached["mean_cross_std"])
            rows.append([_OCTUPLETS.get(way, way), *each, mean, str(reached["runs"])])
    return rows


def qgface(results: Results) -> Rows:
    """QGFace's settings: mean and deviation over seeds, images as they are and poor."""
    names = [f"{name}_{kind}" for name in ("lfw", "cfp_fp") for kind in ("clean", "same", "cross")]
    rows = [["setting", "LFW", "both poor", "one poor", "CFP-FP, folds 9-10", "both poor", "one poor", "runs"]]
    for setting, found in (results("qgface") or {"summary": {}})["summary"].items():
        shown = [percent(found[f"{name}_mean"], found[f"{name}_std"]) for name in names]
        rows.append([_SETTINGS.get(setting, setting), *shown, str(found["runs"])])
    return rows
