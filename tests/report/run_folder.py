"""A whole run folder with hostile names wherever a name can stand."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

SCRIPT = "<script>alert(1)</script>_0001.jpg"
MATH = "$x^2$ & \"quoted\" 'name'"
SURROGATE = "caf\udce9/\udcff_0002.jpg"
QUOTE = '" onload="alert(1)" src="https://evil.example/x.png'
HOSTILE = (SCRIPT, MATH, SURROGATE, QUOTE, "\u202egpj.evil\x1b[31m")


def picture(rng: np.random.Generator, kind: str = ".jpg") -> str:
    """A 112 x 112 face-like image, encoded, as base64."""
    image = np.full((112, 112, 3), rng.integers(40, 220, 3), np.uint8)
    skin = [int(v) for v in rng.integers(90, 230, 3)]
    cv2.ellipse(image, (56, 60), (36, 46), 0, 0, 360, skin, -1)
    for x in (41, 71):
        cv2.circle(image, (x, 50), 5, (20, 20, 20), -1)
    cv2.ellipse(image, (56, 84), (14, 5), 0, 0, 180, (30, 30, 120), 2)
    return base64.b64encode(cv2.imencode(kind, image)[1].tobytes()).decode()


def card() -> dict[str, Any]:
    stages = [
        ("stem", 56, 1, 5_620_000, 2_160), ("stage 1", 56, 2, 33_400_000, 21_500),
        ("stage 2", 28, 5, 41_800_000, 143_000), ("stage 3", 14, 7, 17_600_000, 251_000),
        ("stage 4", 7, 3, 4_300_000, 160_000), ("head", 7, 1, 3_200_000, 65_500),
        ("embedding", 1, 1, 65_536, 65_792),
    ]  # fmt: skip
    macs = sum(row[3] for row in stages)
    return {
        "name": "distill-real",
        "created": "2025-03-04 12:30:11 UTC",
        "arch": {"family": "se-mobilefacenet"},
        "budget": {
            "arch": "student-100", "rule": "lfrc", "macs": macs, "flops_lfrc": 2 * macs, "params": 708_952,
            "size_mib": 2.7, "embedding_dim": 128, "fits": True, "over": {},
            "bytes": {"fp32": 2_800_000, "fp16": 1_400_000, "int8": 760_000},
            "budget": {
                "name": "lfrc-light", "rule": "lfrc", "max_flops": 1e9, "max_size_mib": 20, "max_dim": 512,
            },
            "per_stage": [
                dict(zip(("stage", "grid", "blocks", "macs", "flops_lfrc", "params", "bytes"),
                         (s, g, b, m, 2 * m, p, 4 * p), strict=True))
                for s, g, b, m, p in stages
            ],
        },
        "data": {
            "sha256": "5d" * 32, "images": 13_594, "identities": 481, "skipped": [SCRIPT, SURROGATE],
            "licence": "research only; <b>see the sources</b>",
            "sources": [
                {"name": "bolly100", "images": 6_412, "identities": 95, "sha256": "a1" * 32},
                {"name": MATH, "images": 7_182, "identities": 386, "sha256": "b2" * 32},
            ],
        },
        "teacher": {
            "path": "teacher/mobilefacenet.onnx", "sha256": "c3" * 32,
            "contract": {"scale": 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        },
        "training": {
            "images_seen": 1_200_000, "seconds": 3_345.2, "device": "cpu", "precision": "bf16",
            "compile": True, "torch_threads": 2, "identities": 458, "train_images": 13_000, "held_out_images": 594,
        },
        "versions": {"mobileface": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "numpy": "2.4.6"},
        "results": [{"set": "lfw", "accuracy": 0.9523, "std": 0.0086, "model": "network"}],
    }  # fmt: skip


def log_lines(rng: np.random.Generator, steps: int = 3000) -> list[str]:
    rows: list[dict[str, Any]] = [{"event": "start", "images": 0}]
    for i in range(1, steps + 1):
        done = i / steps
        distill = 0.25 + 0.75 * np.exp(-5 * done) + rng.normal(0, 0.02)
        arc = 4 + 14 * np.exp(-3 * done) + rng.normal(0, 0.6)
        rows.append(
            {
                "event": "step", "images": 400 * i, "epoch": 400 * i / 13594, "seconds": 1.1 * i,
                "lr": 2e-3 * np.sin(np.pi * done**0.5), "loss": distill + 0.1 * arc,
                "terms": {"distill": distill, f"arcface {SCRIPT}": arc},
                "images_per_s": 358 + rng.normal(0, 9),
            }
        )  # fmt: skip
        if i % 250 == 0:
            good = 0.97 - 0.3 * np.exp(-4 * done)
            rows.append(
                {
                    "event": "validation",
                    "images": 400 * i,
                    "auc": good + 0.02,
                    "accuracy": good,
                    "pairs": 2000,
                }
            )
    rows.insert(1500, {"event": "resume", "images": 590_000})
    return [json.dumps(row) for row in rows]


def judged(rng: np.random.Generator, model: str, name: str, apart: float) -> dict[str, Any]:
    same, different = rng.normal(apart, 0.13, 3000).clip(-1, 1), rng.normal(0.04, 0.11, 3000).clip(-1, 1)
    edges = np.linspace(-1, 1, 81)
    cuts = np.sort(np.concatenate([same, different]))[::-1][::40]
    return {
        "model": model, "model_sha256": "d4" * 32, "set": name, "protocol": "10-fold verification",
        "pairs": 6000, "images": 7701, "tar_impostors": {"source": "all pairs", "pairs": 29_000_000},
        "versions": {"python": "3.11.9", "onnxruntime": "1.22.0"},
        "accuracy": 0.9523 if apart > 0.5 else 0.8121, "std": 0.0086,
        "tar": {"1e-1": 0.98, "1e-2": 0.913, "1e-3": 0.762, "1e-4": 0.55},
        "eer": 0.047, "auc": 0.98912, "threshold": 0.31, "flip": "sum", "data_sha256": "e5" * 32,
        "contract": {"scale": 127.5, "mean": [1, 1, 1], "std": [1, 1, 1], "layout": "nchw", "color": "rgb"},
        "roc": {"fpr": [float((different >= c).mean()) for c in cuts],
                "tpr": [float((same >= c).mean()) for c in cuts]},
        "histogram": {"edges": edges.tolist(), "same": np.histogram(same, edges)[0].tolist(),
                      "different": np.histogram(different, edges)[0].tolist()},
        "seconds": 31.2, "folds": [{"accuracy": 0.9, "threshold": 0.3}] * (2 if ":" in name else 10),
    }  # fmt: skip


def pairs(rng: np.random.Generator, names: tuple[str, ...], low: float, high: float) -> list[dict[str, Any]]:
    return [
        {
            "a": names[i % len(names)], "b": f"Some_Person/Some_Person_{i:04d}.jpg",
            "score": float(rng.uniform(low, high)),
            "image_a": picture(rng), "image_b": picture(rng, ".png" if i == 1 else ".jpg"),
        }
        for i in range(8)
    ]  # fmt: skip


def write_run(run: Path) -> Path:
    """A whole run folder with hostile names wherever a name can stand."""
    rng = np.random.default_rng(7)
    for folder in ("evaluation", "export", "checkpoints"):
        (run / folder).mkdir(parents=True)
    (run / "card.json").write_text(json.dumps(card()))
    (run / "arch.json").write_text("{}")
    plan = f"name: distill-real\nseed: 1\ndata:\n  train:\n  - folder: bolly100\n    exclude: [{SCRIPT!r}]\n"
    (run / "plan.yaml").write_bytes(plan.encode() + b"# caf\xe9 \x00 in Latin-1\n")
    (run / "log.jsonl").write_text("\n".join(log_lines(rng)) + '\n{"event": "step", "ima')
    for name, apart in (("lfw", 0.56), ("cfp-fp:9-10", 0.35)):
        for suffix, model in (("", "network"), (".onnx", "distill-real.onnx")):
            result = judged(np.random.default_rng(3), model, name, apart)
            (run / "evaluation" / f"{name.replace(':', '_')}{suffix}.json").write_text(json.dumps(result))
    worst = {
        "false_matches": pairs(rng, HOSTILE, 0.4, 0.7),
        "false_non_matches": [
            *pairs(rng, ("Jos\u00e9_0001.jpg",), -0.1, 0.1),
            {
                "a": "no image",
                "b": "not base64",
                "score": 0.1,
                "image_a": "https://evil.example/x.png",
                "image_b": "@@",
            },
            {
                "a": "svg",
                "b": QUOTE,
                "score": 0.1,
                "image_b": QUOTE,
                "image_a": base64.b64encode(b"<svg/>").decode(),
            },
        ],
    }
    (run / "evaluation" / "lfw.worst.json").write_text(json.dumps(worst))
    export = {
        "file": "distill-real.onnx", "format": "onnx", "precision": "fp32", "bytes": 2_871_204,
        "sha256": "f6" * 32, "metadata": {"mobileface.input": "RGB 0..255"},
        "parity": {"batches": [1, 8], "max_abs": 2.1e-6, "min_cosine": 0.9999998, "mean_cosine": 0.9999999,
                   "tolerance": 1e-4, "images": 64, "passed": True},
    }  # fmt: skip
    (run / "export" / "onnx.json").write_text(json.dumps(export))
    cost = {"kind": "depthwise", "weights": 1728, "worst": 0.02}
    int8 = {
        "wanted": 0.995, "crops": 64, "all_int8": [0.97621, 0.96], "found": [0.99677, 0.99], "reached": True,
        "kept": [{"name": "stages.0.0", "work": 0.024, "without": 0.99}],
        "layers": [{"name": f"layer.{i}", **cost, "mean": i / 1000} for i in range(12)] + [{"name": 3}, "?"],
    }  # fmt: skip
    smaller = {**export, "file": "distill-real-int8.onnx", "precision": "int8", "bytes": 900_000, "int8": int8}
    (run / "export" / "onnx-int8.json").write_text(json.dumps(smaller))
    return run
