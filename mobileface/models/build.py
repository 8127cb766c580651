"""An architecture's rows become a network."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mobileface.arch import Arch
from mobileface.models.iresnet import ResidualNetwork
from mobileface.models.lgaf import FusionNetwork
from mobileface.models.mobilefacenet import MobileFaceNet
from mobileface.models.network import Network

# by family; each takes the architectures of its own
NETWORKS: dict[str, Callable[..., Network]] = {
    "se_mobilefacenet": MobileFaceNet,
    "iresnet": ResidualNetwork,
    "lgaf": FusionNetwork,
}


def network(arch: Arch) -> Network:
    """The network of an architecture with torch's own initial values: to load weights into, or to count."""
    return NETWORKS[arch.family](arch)


def build(arch: Arch, seed: int = 0) -> Network:
    """The network of an architecture, initialised from `seed` (see `Network.initialise` of each family)."""
    net = network(arch)
    net.initialise(torch.Generator().manual_seed(seed))
    return net
