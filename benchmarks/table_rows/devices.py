"""Tables of exported files."""

from __future__ import annotations

from benchmarks.table_rows.common import Results, Rows

_FORMATS = {"onnx": "ONNX", "coreml": "Core ML", "tflite": "TFLite"}


def exports(results: Results) -> Rows:
    """Every file of a trained student, and of lfrc-step5: size, parity, accuracy, time."""
    rows = [["network", "file", "MiB", "mean cosine", "least cosine", "LFW", "CFP-FP, folds 9-10", "ms, one thread"]]
    for row in (results("export") or {"rows": []})["rows"]:
        sets = [f"{100 * row[name]:.2f} %" if name in row else "–" for name in ("lfw", "cfp-fp:9-10")]
        if row["format"] == "network":
            rows.append([row["model"], "the network itself", "–", "–", "–", *sets, "–"])
            continue
        cosines = [f"{row[name]:.5f}" if name in row else "–" for name in ("mean_cosine", "min_cosine")]
        time = f"{row['median_ms']:.2f}" if "median_ms" in row else "–"
        name = f"{_FORMATS[row['format']]} {row['precision']}"
        rows.append([row["model"], name, f"{row['bytes'] / (1 << 20):.2f}", *cosines, *sets, time])
    for row in (results("export") or {"plain": []})["plain"]:
        shown = [f"{row['bytes'] / (1 << 20):.2f}", "–", "–", "–", "–", f"{row['median_ms']:.2f}"]
        rows.append([row["model"], "ONNX, a plain export", *shown])
    return rows


def targets(results: Results) -> Rows:
    """What was asked of the exported files: how much of it was reached, and what was not."""
    checks = (results("export") or {"checks": []})["checks"]
    missed = [row for row in checks if not row["passed"]]
    rows = [["network", "what", "measured", "wanted"]]
    rows += [[row["model"], row["check"], *(f"{row[name]:.4g}" for name in ("value", "limit"))] for row in missed]
    others = [["both", "all other figures", f"{len(checks) - len(missed)} of {len(checks)}", "reached"]]
    return [*rows, *(others if checks else [])]


def latency(results: Results) -> Rows:
    """Predicted against measured times of networks that the tables did not see."""
    rows = [["table", "networks", "median error", "worst error", "wanted, median"]]
    for name, row in (found := results("latency_table") or {"tables": {}})["tables"].items():
        errors = [f"{100 * row[f'{which}_error']:.1f} %" for which in ("median", "worst")]
        rows.append([name, str(len(row["networks"])), *errors, f"at most {100 * found['limit']:.0f} %"])
    return rows
