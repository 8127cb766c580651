"""What QGFace's partition calls low and high quality (Song and Wang 2023, III-A and Fig. 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mobileface.losses.quality_gate import QualityGate

SHOWN = 6  # pairs at each place: a row of a wide page
PLACES = ("lowest", "around b", "highest")


def partition(
    gates: dict[str, QualityGate], norms: dict[str, NDArray[np.float64]], read: Sequence[str]
) -> dict[str, Any]:
    """The numbers of the partition of N images, by their norms (N,) in each view.

    gates: of the terms with a threshold, at least one. Pairs go by that of the contrastive term (equations 2, 4),
    samples, of the views `read` by the classification, by that of the classification (equation 3); each by the other
    one where it has none. Shares of both that are low; for the pairs at each place their indicators, 0..1, by view, and
    `index`, which image it is. A single view is a pair of its own. mean and std: what the gate holds norms
    against, drawn_mean and drawn_std: of these images.
    """
    by = next(kind for kind in ("contrastive", "classification") if kind in gates)
    samples = next(kind for kind in ("classification", "contrastive") if kind in gates)
    found = indicators(gates[by], norms)
    lower = torch.stack(list(found.values())).amin(0)
    low = gates[by].low(lower, lower)
    threshold = gates[by].threshold
    assert threshold is not None
    norms_here = np.concatenate(list(norms.values()))
    single = {view: values for view, values in indicators(gates[samples], norms).items() if view in read}
    shown = {
        place: [
            {"index": i, "low": bool(low[i]), **{view: float(values[i]) for view, values in found.items()}}
            for i in chosen
        ]
        for place, chosen in picks(lower.double().numpy(), threshold, SHOWN).items()
    }
    return {
        "views": list(norms),
        "by": by,
        "threshold": threshold,
        "mean": float(gates[by].statistics.mean),
        "std": float(gates[by].statistics.std),
        "drawn_mean": float(norms_here.mean()),
        "drawn_std": float(norms_here.std()),
        "pairs_low": float(low.double().mean()),
        "samples_by": samples,
        "samples_threshold": gates[samples].threshold,
        "samples_low": {view: float((~gates[samples].high(values)).double().mean()) for view, values in single.items()},
        "shown": shown,
    }


def indicators(gate: QualityGate, norms: dict[str, NDArray[np.float64]]) -> dict[str, Tensor]:
    """(N,) in 0..1 by view; the gate is in eval mode, so its statistics stay."""
    return {view: gate.indicators(torch.from_numpy(values)) for view, values in norms.items()}


def picks(lower: NDArray[np.float64], threshold: float, shown: int) -> dict[str, list[int]]:
    """Indices of the lowest, of those around the threshold and of the highest of (N,), at most `shown` each, in rising
    order; around: half of them at most at it, half above, as far as there are such. From three on none stands twice."""
    order = np.argsort(lower, kind="stable")
    count = min(shown, len(order) // len(PLACES)) or 1
    last = len(order) - count
    at = int(np.searchsorted(lower[order], threshold, side="right")) - (count + 1) // 2
    around = min(max(at, count), max(last - count, 0))
    return {
        place: order[start : start + count].tolist() for place, start in zip(PLACES, (0, around, last), strict=True)
    }
