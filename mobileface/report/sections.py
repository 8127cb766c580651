"""What each section of the report says: plain data for the template, every number already as text.

A section whose files are not there is None or empty, and the template says "not run".
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

from mobileface.report import text
from mobileface.report.read import Json, RunFiles, dig, number, objects, string

IMAGE_LIMIT = 1 << 20  # bytes of one embedded image
PAIRS_LIMIT = 16  # shown of each kind
COSTLY = 10  # layers of an int8 file
SAME_ACCURACY, SAME_IN_INT8 = 0.001, 0.002  # an exported file's accuracy may differ from the network's by this much
MAGIC = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png"}
# name in a sentence, label, key of the value, key of the limit (those of `python -m search.budget --json`)
LIMITS = (
    ("FLOPs", "FLOPs", "flops_lfrc", "max_flops"),
    ("size", "Size in fp32", "size_mib", "max_size_mib"),
    ("width", "Embedding width", "embedding_dim", "max_dim"),
)
# key, sign of the score in the order of badness, title, meaning
WORST = (
    (
        "false_matches",
        -1,
        "Worst false matches",
        "Two different people whom the network took for one. A high similarity is bad here.",
    ),
    (
        "false_non_matches",
        1,
        "Worst false non-matches",
        "One person whom the network took for two. A low similarity is bad here.",
    ),
)


def mapping(value: object) -> Json:
    """`value` if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def budget(card: Json) -> Json | None:
    """The budget table: limits used, and the network stage by stage."""
    found = dig(card, "budget")
    if not isinstance(found, dict) or not found:
        return None
    rule = string(found, "rule") or "lfrc"
    fits = dig(found, "fits")
    return {
        "arch": string(found, "arch"),
        "name": string(found, "budget", "name"),
        "fits": fits if isinstance(fits, bool) else None,
        "rule": rule,
        "limits": limits(found, rule),
        "macs": text.millions(number(found, "macs")),
        "flops": text.millions(number(found, "flops_lfrc")),
        "params": text.short_count(number(found, "params")),
        "size": amount("size_mib", number(found, "size_mib")),
        "exported": [
            f"{name} {text.size(value)}"
            for name in ("fp32", "fp16", "int8")
            if (value := number(found, "bytes", name)) is not None
        ],
        "width": text.count(number(found, "embedding_dim")),
        "stages": stages(objects(found, "per_stage")),
    }


def limits(found: Json, rule: str) -> list[Json]:
    """What is used and what is allowed, limit by limit; `share` is used / allowed."""
    rows = []
    for name, label, key, limit in LIMITS:
        if name == "FLOPs":
            label, key = ("MACs", "macs") if rule == "macs" else (f"FLOPs by the rule “{rule}”", key)
        used = number(found, key)
        allowed = number(found, "budget", limit)
        rows.append(
            {
                "name": name,
                "label": label,
                "used": amount(key, used),
                "allowed": amount(key, allowed) if allowed is not None else "no limit",
                "share": used / allowed if used is not None and allowed else None,
                "over": used is not None and allowed is not None and used > allowed,
            }
        )
    return rows


def amount(key: str, value: float | None) -> str:
    """A budget's number with its unit."""
    if key == "size_mib":
        return text.size(None if value is None else value * 2**20)
    return text.count(value) if key == "embedding_dim" else text.millions(value)


def stages(rows: list[Json]) -> list[Json]:
    """The stage-by-stage rows and their total; `share` is the stage's part of the FLOPs, 0..1."""
    columns = ("macs", "flops_lfrc", "params", "bytes")
    sums = {c: sum(number(row, c) or 0.0 for row in rows) for c in columns}
    whole = {"stage": "total", **sums}
    return [
        {
            "stage": string(row, "stage") or text.NONE,
            "grid": grid(dig(row, "grid")),
            "blocks": string(row, "blocks") or "",
            "macs": text.millions(number(row, "macs")),
            "flops": text.millions(number(row, "flops_lfrc")),
            "share": (number(row, "flops_lfrc") or 0.0) / sums["flops_lfrc"] if sums["flops_lfrc"] else 0.0,
            "params": text.count(number(row, "params")),
            "bytes": text.size(number(row, "bytes")),
            "total": row is whole,
        }
        for row in ([*rows, whole] if rows else [])
    ]


def grid(value: object) -> str:
    """A feature map's size: 56, [56, 56] or "56x56" as "56 × 56"."""
    if isinstance(value, list) and len(value) == 2:
        return f"{string(value[0])} × {string(value[1])}"
    if (side := number(value)) is not None:
        return f"{side:.0f} × {side:.0f}"
    return string(value) or ""


def worst_pairs(found: Json | None) -> list[Json]:
    """Two groups of image pairs, worst first; each image is checked, or left out. Empty without a file."""
    groups: list[Json] = []
    for key, sign, title, meaning in WORST if found is not None else ():
        ranked = sorted(objects(found, key), key=lambda pair: sign * (number(pair, "score") or 0.0))
        pairs = [
            {
                "a": string(pair, "a") or "no name",
                "b": string(pair, "b") or "no name",
                "score": text.NONE if (score := number(pair, "score")) is None else f"{score:.3f}",
                "image_a": data_uri(dig(pair, "image_a")),
                "image_b": data_uri(dig(pair, "image_b")),
            }
            for pair in ranked[:PAIRS_LIMIT]
        ]
        groups.append({"title": title, "meaning": meaning, "pairs": pairs})
    return groups


def data_uri(value: object) -> str | None:
    """base64 text as a data: address, if it is valid and holds a JPEG or a PNG; else None."""
    if not isinstance(value, str) or len(value) > 4 * IMAGE_LIMIT // 3 + 4:
        return None
    try:
        content = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    kind = next((kind for magic, kind in MAGIC.items() if content.startswith(magic)), None)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}" if kind else None


def exports(files: RunFiles) -> list[Json]:
    """Each exported file: what it is, and how near its answers are to the network's."""
    rows = []
    for name, found in files.exports.items():
        parity = mapping(dig(found, "parity"))
        passed = dig(parity, "passed")
        batches = dig(parity, "batches")
        rows.append(
            {
                "file": string(found, "file") or name,
                "format": text.format_name(string(found, "format") or name),
                "precision": string(found, "precision") or text.NONE,
                "size": text.size(number(found, "bytes")),
                "passed": passed if isinstance(passed, bool) else None,
                "cosine": text.NONE if (c := number(parity, "min_cosine")) is None else f"{c:.7g}",
                "mean_cosine": text.NONE if (c := number(parity, "mean_cosine")) is None else f"{c:.7g}",
                "max_abs": text.significant(number(parity, "max_abs"), 2),
                "tolerance": tolerance(dig(parity, "tolerance")),
                "batches": ", ".join(filter(None, map(string, batches))) if isinstance(batches, list) else "",
                "images": text.count(number(parity, "images")),
                "sha256": string(found, "sha256") or text.NONE,
                "int8": int8(mapping(dig(found, "int8"))),
            }
        )
    return rows


def int8(found: Json) -> Json | None:
    """What int8 costs: the layers that cost most, and what stays float for it. None for other files."""
    layers = [row for row in objects(found, "layers") if number(row, "mean") is not None]
    if not layers:
        return None
    ends = [dig(found, key) for key in ("all_int8", "found")]
    before, after = (number(end[0]) if isinstance(end, list) and end else None for end in ends)
    costly = sorted(layers, key=lambda row: -(number(row, "mean") or 0))[:COSTLY]
    return {
        "before": text.significant(before, 5),
        "after": text.significant(after, 5),
        "crops": text.count(number(found, "crops")),
        "kept": [
            {"name": string(row, "name") or text.NONE, "work": text.percent(number(row, "work"), 1)}
            for row in objects(found, "kept")
        ],
        "layers": [
            {
                "name": string(row, "name") or text.NONE,
                "kind": string(row, "kind") or text.NONE,
                "weights": text.count(number(row, "weights")),
                "mean": text.significant(number(row, "mean"), 2),
                "worst": text.significant(number(row, "worst"), 2),
            }
            for row in costly
        ],
    }


def tolerance(value: object) -> str:
    """One number, or an object of several by name."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {string(value, name)}" for name in list(value)[:8])
    return text.significant(number(value), 2)


def set_names(files: RunFiles) -> list[str]:
    """The judged sets (names of their files) in the order of the card's results, then by name."""
    order = [string(row, "set") for row in objects(files.card, "results")]

    def place(name: str) -> tuple[int, str]:
        called = set_title(name, files.evaluations[name])
        return (order.index(called) if called in order else len(order), name)

    return sorted(files.evaluations, key=place)


def set_title(name: str, results: dict[str, Json]) -> str:
    """What a set calls itself (cfp-fp:9-10, whose file is cfp-fp_9-10.json), else its file's name."""
    return next((title for result in results.values() if (title := string(result, "set"))), name)


def compared(files: RunFiles) -> list[Json]:
    """Accuracy of each exported file beside the network's, set by set."""
    rows = []
    for name in set_names(files):
        results = files.evaluations[name]
        network = number(results, "network", "accuracy")
        for kind in (kind for kind in results if kind != "network"):
            file = number(results, kind, "accuracy")
            apart = None if network is None or file is None else file - network
            allowed = SAME_IN_INT8 if kind.endswith("-int8") else SAME_ACCURACY
            rows.append(
                {
                    "set": set_title(name, results),
                    "kind": text.format_name(kind),
                    "network": text.percent(network),
                    "file": text.percent(file),
                    "difference": text.NONE if apart is None else f"{100 * apart:+.2f} points",
                    "same": None if apart is None else abs(apart) <= allowed + 1e-9,
                }
            )
    return rows


def data(card: Json) -> Json | None:
    """What it was trained on: sources, counts, skipped images, hash and licence."""
    found = dig(card, "data")
    if not isinstance(found, dict) or not found:
        return None
    skipped = dig(found, "skipped")
    names: Sequence[Any] = skipped if isinstance(skipped, list) else []
    return {
        "images": text.count(number(found, "images")),
        "identities": text.count(number(found, "identities")),
        "sha256": string(found, "sha256") or text.NONE,
        "licence": string(found, "licence"),
        "sources": [
            {
                "name": string(row, "name") or text.NONE,
                "images": text.count(number(row, "images")),
                "identities": text.count(number(row, "identities")),
                "sha256": string(row, "sha256") or text.NONE,
            }
            for row in objects(found, "sources")
        ],
        "skipped": len(names),
        "skipped_names": [name for name in map(string, names[:20]) if name],
    }
