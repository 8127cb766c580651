"""The smallest plan, and one with every key, as plain data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

SMALL: dict[str, Any] = {"name": "a", "arch": "micro", "data": {"train": [{"folder": "faces"}]}}
FULL: dict[str, Any] = {
    "name": "all-keys",
    "arch": "tiny",
    "seed": 7,
    "budget": {"name": "mine", "rule": "macs", "max_flops": 2e8, "max_size_mib": 4.5, "max_dim": 128},
    "data": {
        "train": [
            {"folder": "faces", "include": "some.txt", "exclude": "others.txt", "scores": "s.tsv", "labelled": True},
            {"rec": "train.rec"},
        ],
        "validate": {"identities": 0.05, "sides": [7, 112]},
        "min_images": 3,
        "root": ".",
        "synthetic": {"identities": 20, "images": 4, "held_out": 30, "pairs": 40, "seed": 1},
        "max_corrupt": 3,
        "licence": "CC0",
    },
    "teacher": {
        "model": "teacher.onnx",
        "contract": {
            "scale": 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "layout": "nhwc",
            "color": "bgr", "flip": "none",
        },
        "online": True,
        "blends": 50,
    },
    "phases": [
        {
            "name": "first",
            "images": 1000,
            "batch": 16,
            "accumulate": 2,
            "patience": 4,
            "optimizer": {"kind": "adamw", "lr": 1e-3, "weight_decay": 0.01, "momentum": 0.8},
            "schedule": {"kind": "step", "warmup": 10, "milestones": [100, 500], "factor": 0.2, "power": 2.0},
            "sampler": {"kind": "pk", "images": 2},
            "views": {
                "clean": [
                    {"kind": "flip", "p": 0.4},
                    {"kind": "affine", "p": 0.3, "degrees": 5, "shift": 2, "zoom": 0.1},
                    {"kind": "brightness", "p": 0.2, "strength": 0.1},
                    {"kind": "saturation", "p": 0.1, "strength": 0.2},
                    {"kind": "low_resolution", "p": 0.6, "least": 0.5, "most": 0.9, "interpolations": ["cubic"]},
                    {"kind": "photometric", "p": 0.9, "brightness": 0.4, "contrast": 0.3, "saturation": 0.2},
                    {"kind": "crop_paste", "p": 0.8, "least": 0.3, "ratio": 1.5},
                    {"kind": "cutout", "p": 0.7, "most": 0.3},
                ],
                "degraded": [
                    {"kind": "resolution", "p": 0.9, "sides": [8, 16], "per": "image"},
                    {"kind": "jpeg", "p": 0.8, "least": 30, "most": 90},
                    {"kind": "motion_blur", "p": 0.7, "least": 1, "most": 5},
                    {"kind": "resized_crop", "p": 0.6, "least": 0.7, "ratio": 1.2},
                ],
            },
            "quantise": "off",
            "terms": [
                {
                    "kind": "classification", "weight": 0.5, "scale": 32,
                    "sample": 0.5, "views": ["clean", "degraded"], "threshold": 0.3,
                    "margin": {
                        "kind": "combined", "factor": 1.1, "radians": 0.2, "cosine": 0.1,
                        "gradient": "straight_through",
                    },
                    "negatives": {"kind": "support_vector", "t": 1.1},
                    "balance": {"beta": 0.99},
                },
                {"kind": "intra", "weight": 0.1, "view": "degraded"},
                {"kind": "inter", "weight": 0.2, "over": "all"},
                {"kind": "centre", "weight": 0.3, "view": "degraded"},
                {
                    "kind": "triplet", "weight": 0.4, "mining": "batch_hard", "distance": "cosine", "margin": 0.1,
                    "normalised": False, "view": "degraded",
                },
                {
                    "kind": "octuplet", "weight": 0.7, "distance": "squared", "margin": 2, "relative": True,
                    "normalised": False, "terms": ["hll", "lhh"],
                },
                {
                    "kind": "contrastive", "weight": 0.8, "scale": 32, "threshold": 0.1, "queue": "momentum",
                    "size": 100, "momentum": 0.9,
                },
                {"kind": "distillation", "weight": 2, "view": "degraded"},
                {"kind": "relational_distillation", "weight": 3, "view": "degraded"},
                {"kind": "logit_distillation", "weight": 0.6, "scale": 48, "temperature": 2, "view": "degraded"},
            ],
        }
    ],
    "evaluate": ["lfw", "held_out.bin"],
    "export": {"formats": ["onnx"], "precisions": ["fp32"]},
    "precision": "bf16",
    "compile": "on",
    "activation_checkpointing": False,
    "watch": 32,
    "checkpoint": {"every_images": 500},
}  # fmt: skip


def write(path: Path, data: Any) -> Path:
    path.write_text(yaml.safe_dump(data))
    return path
