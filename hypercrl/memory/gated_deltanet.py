"""Gated DeltaNet: the delta rule in a memory that also forgets.

Yang, Kautz, Hatamizadeh, "Gated Delta Networks: improving Mamba2 with delta rule", ICLR 2025. With
several writes a step, gated DeltaProduct.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypercrl.memory.blocks import linear
from hypercrl.memory.deltanet import DeltaNetConfig, DeltaNetLayer
from hypercrl.memory.stack import MemoryStack


@dataclass
class GatedDeltaNetConfig(DeltaNetConfig):
    """As DeltaNet's."""

    name: str = "gated_deltanet"


class DecayGate(nn.Module):
    """log α = −exp(A) softplus(W x + b), one a head (Gu and Dao 2023, as Mamba2 has it).

    exp(A) starts uniform in (0, 16); b so that softplus(b) is log-uniform in [0.001, 0.1]. Neither
    should be decayed by an optimiser.

    Args:
        width: of x.
        count: heads.
    """

    def __init__(self, width: int, count: int, generator: torch.Generator) -> None:
        super().__init__()
        self.project = linear(width, count, generator, bias=False)
        rate = 16 * torch.rand(count, generator=generator)
        self.log_rate = nn.Parameter(rate.clamp_min(1e-3).log())
        low, high = torch.tensor([0.001, 0.1]).log()
        step = (low + (high - low) * torch.rand(count, generator=generator)).exp()
        self.bias = nn.Parameter(step + (-torch.expm1(-step)).log())  # softplus turned round

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] → [..., H], ≤ 0."""
        return -self.log_rate.exp() * F.softplus(self.project(x) + self.bias)


class GatedDeltaNetLayer(DeltaNetLayer):
    """S ← α S; S ← S + β k (v − Sᵀk)ᵀ, o = Sᵀq (Yang et al. 2025, eq. 10).

    As DeltaNet, with a decay of each head and an output gate.
    """

    gated = True

    def __init__(self, config: GatedDeltaNetConfig, generator: torch.Generator) -> None:
        super().__init__(config, generator)
        self.decay = DecayGate(config.width, config.heads, generator)

    def _log_decay(self, x: Tensor) -> Tensor:
        return self.decay(x)


class GatedDeltaNet(MemoryStack):
    """Gated DeltaNet layers."""

    layer = GatedDeltaNetLayer
