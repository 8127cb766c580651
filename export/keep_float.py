"""What int8 costs a network layer by layer, and the fewest parts that must stay float.

Nothing is privileged: squeeze-and-excitation, the global depthwise convolution and the last layer are kept where
measuring says so, as any other. Ranges are taken from every second crop, and what they cost is measured on the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.int8 import Int8
from export.keep_float_report import Kept, LayerDamage, Report
from mobileface.models.quantised import WEIGHTED, Int8Network

BORDER = 0.01  # ours: what a float part costs beside its work, as a share of the network's: values change their type
RANKED_ON = 16  # judged crops that candidates are ranked on; what is taken is measured on all


def choose(network: nn.Module, crops: NDArray[np.uint8], wanted_mean_cosine: float) -> tuple[frozenset[str], Report]:
    """What must stay float for the wanted mean cosine to the float network (names of `int8_points`), and why.

    Each layer with its activation, each SE and each block is a candidate. All are put back to float in turn; those
    that give most for their work are taken in that order, each measured anew beside those before it and left out if it
    gives nothing, until it is enough; what turns out needless is taken back. Where it never is enough,
    `Report.reached` is False.
    """
    probe = _Probe(network, crops)
    layers = tuple(_damage(probe))
    whole = probe.cosines(frozenset())
    kept, mean = list[_Part](), _mean(whole)
    candidates = _ranked(probe) if mean < wanted_mean_cosine else []
    for part in [*candidates, *candidates]:  # some gain only beside others
        if mean >= wanted_mean_cosine:
            break
        if not part.points <= _points(kept) and (after := _mean(probe.cosines(_points([*kept, part])))) > mean:
            kept, mean = [*kept, part], after
    for part in kept[:-1] if mean >= wanted_mean_cosine else ():
        if _mean(probe.cosines(_points(kept, part))) >= wanted_mean_cosine:
            kept.remove(part)
    keep = _points(kept)
    found = probe.cosines(keep)
    rows = tuple(Kept(part.name, part.work, _mean(probe.cosines(_points(kept, part)))) for part in kept)
    ends = [(_mean(cosines), float(cosines.min())) for cosines in (whole, found)]
    return keep, Report(wanted_mean_cosine, len(found), ends[0], ends[1], rows, layers)


@dataclass(frozen=True)
class _Part:
    """A candidate: points that go back to float together, and their share of the network's multiplications."""

    name: str
    points: frozenset[str]
    work: float


def _points(parts: list[_Part], but: _Part | None = None) -> frozenset[str]:
    return frozenset[str]().union(*(part.points for part in parts if part is not but))


class _Probe:
    """The embeddings of the judged crops with any points in float; computed from the first part that differs on."""

    def __init__(self, network: nn.Module, crops: NDArray[np.uint8]) -> None:
        pixels = torch.from_numpy(np.ascontiguousarray(Int8(crops).crops)).permute(0, 3, 1, 2).float()
        self.int8 = Int8Network(network).eval()
        self.all = frozenset(self.int8.points)
        self.trunk = list(_trunk(self.int8.fused))
        self.judged = pixels[1::2]
        with torch.inference_mode():
            for batch in pixels[::2].split(32):
                self.int8.observe(batch)
        self.outputs: dict[str, dict[str, Tensor]] = {}
        self.work: dict[str, int] = {}
        with self._recorded("float"):
            self.reference = self._embeddings(self.all)
        with self._recorded("int8"):
            self._embeddings(frozenset())

    def cosines(self, keep: frozenset[str], start: str | None = None, like: str = "int8", most: int = 0) -> Tensor:
        """(N,) float64: of each judged crop's embedding to that of the float network.

        start: the first point that differs from the recorded pass `like`; most: of the first crops alone.
        """
        count = most or len(self.judged)
        with self._resumed(self._place(start), self.outputs[like], count):
            found = self._embeddings(keep, count)
        return torch.cosine_similarity(found.double(), self.reference[:count].double())

    @torch.inference_mode()
    def _embeddings(self, keep: frozenset[str], count: int | None = None) -> Tensor:
        self.int8.keep = keep
        found: Tensor = self.int8(self.judged[:count])
        return found

    def _place(self, point: str | None) -> int:
        """The number of the trunk's part that a point lies in."""
        return next((i for i, name in enumerate(self.trunk) if point and f"{point}.".startswith(f"{name}.")), 0)

    @contextmanager
    def _recorded(self, like: str) -> Iterator[None]:
        """Note what each part of the trunk gives, and each layer's multiplications for an image."""
        outputs = self.outputs.setdefault(like, {})

        def note(name: str, module: nn.Module, args: Any, output: Tensor) -> None:
            if name in self.trunk:
                outputs[name] = output
            if isinstance(module, WEIGHTED):
                self.work[name] = output[0].numel() * module.weight[0].numel()

        noting = [*self.trunk, *(name for name in self.all if name not in self.trunk)]
        hooks = [self.int8.fused.get_submodule(n).register_forward_hook(partial(note, n)) for n in noting]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def _resumed(self, start: int, outputs: dict[str, Tensor], count: int) -> Iterator[None]:
        """The parts of the trunk before `start` give what they gave."""
        skipped = [(self.int8.fused.get_submodule(name), outputs[name]) for name in self.trunk[:start]]
        for module, output in skipped:
            known = output[:count]
            known.__dict__.update(output.__dict__)
            module.forward = lambda *_, known=known: known
        try:
            yield
        finally:
            for module, _ in skipped:
                del module.forward


def _damage(probe: _Probe) -> list[LayerDamage]:
    layers = {name: probe.int8.fused.get_submodule(name) for name in probe.int8.points}
    layers = {name: layer for name, layer in layers.items() if isinstance(layer, WEIGHTED)}
    rows = []
    for name, layer in layers.items():
        lost = 1 - probe.cosines(probe.all - {name}, name, "float")
        kind = "first conv" if name == next(iter(layers)) else "last linear" if name == list(layers)[-1] else None
        rows.append(
            LayerDamage(
                name, kind or _kind(name, layer), layer.get_parameter("weight").numel(), _mean(lost), float(lost.max())
            )
        )
    return rows


def _kind(name: str, layer: nn.Module) -> str:
    if ".se." in name:
        return "SE"
    if isinstance(layer, nn.Conv2d) and layer.groups > 1:
        return "GDC" if layer.padding == (0, 0) else "depthwise"
    return "other"


def _ranked(probe: _Probe) -> list[_Part]:
    """The candidates by what they gain for their work, the best first."""
    most = min(RANKED_ON, len(probe.judged))
    whole = _mean(probe.cosines(frozenset(), most=most))
    worth = []
    for part in _parts(probe):
        first = min(part.points, key=list(probe.int8.points).index)
        gain = _mean(probe.cosines(part.points, first, most=most)) - whole
        worth.append((gain / (part.work + BORDER), part))
    return [part for _, part in sorted(worth, key=lambda pair: -pair[0])]


def _parts(probe: _Probe) -> Iterator[_Part]:
    """Each layer with the activation behind it, each SE as a whole, each block as a whole but for its sum."""
    names, total = list(probe.int8.points), sum(probe.work.values())

    def part(name: str, points: Iterable[str]) -> _Part:
        chosen = frozenset(points)
        return _Part(name, chosen, sum(probe.work.get(point, 0) for point in chosen) / total)

    for name in names:
        if name.endswith(".se"):
            yield part(name, [point for point in names if f"{point}.".startswith(f"{name}.")])
        elif name in probe.work and ".se." not in name:
            act = f"{name.rpartition('.')[0]}.act"
            yield part(name, [name, act] if act in names else [name])
    for block in probe.trunk:
        if len(inside := [point for point in names if point.startswith(f"{block}.")]) > 1:
            yield part(block, inside)


def _trunk(network: nn.Module, path: str = "") -> Iterator[str]:
    """Names of the parts that run one after another: plain sequences are taken apart, blocks are not."""
    for name, child in network.named_children():
        if type(child) is nn.Sequential:
            yield from _trunk(child, f"{path}{name}.")
        else:
            yield f"{path}{name}"


def _mean(values: Tensor) -> float:
    return float(values.mean())
