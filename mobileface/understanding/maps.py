"""Where a network looks: attention gates and activations of its last map, drawn over crops (LGAF, Fig. 6)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mobileface.data.images import SIZE
from mobileface.embedders.network import NetworkEmbedder
from mobileface.understanding.inside import BRANCHES, Images, has_branches, outputs

SCALES = {"point": "1 place", "near": "3 x 3 places", "far": "5 x 5 places"}  # field of an MSNet's scale
GATE = ".lanet.gate"
OPACITY = 0.55  # of the colours over the crop


@dataclass(frozen=True, eq=False)
class Map:
    """One kind of map of some crops: values (B, H, W), and what they are in words."""

    label: str
    values: NDArray[np.float64]


def maps_of(embedder: NetworkEmbedder, crops: Images) -> list[Map]:
    """The maps of crops (B, 112, 112, 3): for any network the mean activation of the last map; for an LGAF also what
    each place adds to the global feature's norm, and the LANet gates of each head and scale."""
    network = embedder.network
    last = "norm" if hasattr(network, "norm") else "stages"
    gates = [name for name, _ in network.named_modules() if name.endswith(GATE)]
    with outputs(network, [last, *gates]) as found:
        embedder(crops)
    maps = [Map("last map, mean over channels of the absolute values", _values(found[last].abs().mean(1)))]
    if has_branches(network):
        head = network.get_submodule(BRANCHES["global"])
        maps.append(Map("global feature: what a place adds to its norm", _values(contributions(head, found[last]))))
    return maps + [Map(_gate_label(name), _values(found[name][:, 0])) for name in gates]


def contributions(head: nn.Module, features: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W): gradient of the norm of head(features) times the features, summed over channels.

    Where the head is linear these add up to the norm, less the part of its bias.
    """
    inputs = features.clone().requires_grad_()
    norms = torch.linalg.vector_norm(head(inputs).float(), dim=1)
    (gradient,) = torch.autograd.grad(norms.sum(), inputs)
    return (gradient * inputs).sum(1).detach()


def drawn_over(crops: Images, found: Map) -> Images:
    """The crops (B, 112, 112, 3) in grey under the map's colours: dark its least, yellow its largest value of all."""
    low, high = found.values.min(), found.values.max()
    heat = (255 * (found.values - low) / max(high - low, np.finfo(np.float64).tiny)).astype(np.uint8)
    return np.stack([_blend(crop, small) for crop, small in zip(crops, heat, strict=True)])


def _blend(crop: NDArray[np.uint8], heat: NDArray[np.uint8]) -> NDArray[np.uint8]:
    wide = cv2.resize(heat, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    colours = cv2.cvtColor(cv2.applyColorMap(wide, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    grey = cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(grey, 1 - OPACITY, colours, OPACITY, 0), np.uint8)


def _values(maps: Tensor) -> NDArray[np.float64]:
    return maps.double().cpu().numpy()


def _gate_label(name: str) -> str:
    """mhms.0.scales.near.lanet.gate -> head 1, 3 x 3 places."""
    _, head, _, scale, *_ = name.split(".")
    return f"gate of head {int(head) + 1}, {SCALES[scale]}"
