"""LGAF: local features (MHMS) and the global one (GFE) of an IR-ResNet's last map, fused by their qualities (LGF).

A decision of ours: the map C(x) that both read is the one behind the trunk's last batch norm, for the sum of residuals
before it has no scale of its own. The dropout, where there is one, belongs to the global head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mobileface.arch import LGAF, Block
from mobileface.models.iresnet import ResidualNetwork
from mobileface.models.network import normalised

LOCAL_GAIN = 4 * (2 / (1 + 0.25**2)) ** 0.5  # two gates of one half on the way, and He et al. 2015 for PReLU


class FusionNetwork(ResidualNetwork):
    """LGAF. `mhms` holds the MSNets (equation 14: their features side by side), `head` is the plain network's.

    Without attention both features are added up (Method III of Table 1). As everywhere the embedding is raw: whoever
    compares or classifies it makes it a unit vector, and its norm is left as a quality.
    """

    arch: LGAF
    stem: nn.Module
    stages: nn.Module
    norm: nn.Module
    mhms: nn.Module
    head: nn.Module
    lgf: nn.Module

    def container(self, block: Block) -> nn.Module:
        """The fusion that the architecture names; the rest as in the plain network."""
        if block.prefix == "lgf":
            return FUSIONS[self.arch.fusion]()
        return super().container(block)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, 112, 112) in 0..255 -> (B, D), not normalised."""
        x = self.norm(self.stages(self.stem(normalised(pixels))))
        if not self.arch.local_features:
            return self.head(x)
        if not self.arch.global_features:
            return self.mhms(x)
        local, whole = self.mhms(x), self.head(x)
        return self.lgf(local, whole) if self.arch.attention else local + whole

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """The trunk and the global head as the plain network; what is the paper's own as follows, all ours.

        Gates (SE, LANet: convolutions with a bias) N(0, 0.1), linear layers N(0, 1 / fan in), biases zero: a gate
        starts near one half. The linear layer of an MSNet starts LOCAL_GAIN times as wide, so that a component of the
        local feature has a variance of about one, as the batch norm gives it to those of the global feature.
        """
        super().initialise(generator)
        for name, part in self.named_modules():
            if not name.startswith(("mhms.", "lgf.")):
                continue
            if isinstance(part, nn.Conv2d) and part.bias is not None:
                part.weight.normal_(0, 0.1, generator=generator)
                part.bias.zero_()
            elif isinstance(part, nn.Linear):
                gain = LOCAL_GAIN if name.startswith("mhms.") else 1.0
                part.weight.normal_(0, gain * part.in_features**-0.5, generator=generator)
                part.bias.zero_()


def shares(local: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
    """Equation 9: qualities (B, 1) in 0..2 -> attention weights (B, 1) that add up to one.

    Where both qualities are 0 (in print 0 / 0) each weight is one half.
    """
    both = local + whole
    share = torch.where(both > 0, local / torch.where(both > 0, both, 1), 0.5)
    return share, 1 - share


class WeightedSum(nn.Module):
    """LGF with "add", equation 10: each feature times its attention weight, summed.

    The weight by the local quality goes to the local feature and that by the global one to the global feature; the
    paper's equations 4 to 10 have the two symbols swapped against its own definitions. No gradient flows through the
    weights: ours.
    """

    local_quality: nn.Module
    global_quality: nn.Module

    def forward(self, local: Tensor, whole: Tensor) -> Tensor:
        """Local and global features (B, D) -> (B, D), in float32 also where the features are bf16."""
        to_local, to_whole = shares(self.local_quality(local), self.global_quality(whole))
        return self.joined(to_local * local, to_whole * whole)

    def joined(self, local: Tensor, whole: Tensor) -> Tensor:
        """The weighted features as one."""
        return local + whole


class WeightedConcatenation(WeightedSum):
    """LGF with "concat": the weighted features side by side, and a linear layer back to D (ours)."""

    linear: nn.Module

    def joined(self, local: Tensor, whole: Tensor) -> Tensor:
        """(B, D) twice -> (B, D)."""
        return self.linear(torch.cat([local, whole], 1))


class IterativeFusion(nn.Module):
    """LGF with "iaff", iterative attentional feature fusion (Dai et al. 2021) on vectors.

    gate(local + global) mixes a first sum, the gate of that sum mixes the features again. "Adapted" is all that the
    paper says. Ours: a gate is linear, ReLU, linear, sigmoid, since the local and the global branch of the original
    are the same on vectors; no batch norms.
    """

    first: nn.Module
    second: nn.Module

    def forward(self, local: Tensor, whole: Tensor) -> Tensor:
        """Local and global features (B, D) -> (B, D)."""
        gate = self.first(local + whole)
        gate = self.second(gate * local + (1 - gate) * whole)
        return gate * local + (1 - gate) * whole


FUSIONS: dict[str, type[nn.Module]] = {
    "add": WeightedSum,
    "concat": WeightedConcatenation,
    "iaff": IterativeFusion,
}
