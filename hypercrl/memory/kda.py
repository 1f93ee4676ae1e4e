"""Kimi Delta Attention: the delta rule in a memory whose keys each forget at a rate of their own.

Kimi Team, "Kimi Linear: an expressive, efficient attention architecture", 2025.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypercrl.base.settings import number
from hypercrl.memory.blocks import LowRank, heads
from hypercrl.memory.deltanet import DeltaNetConfig, DeltaNetLayer
from hypercrl.memory.stack import MemoryStack


@dataclass
class KDAConfig(DeltaNetConfig):
    """As DeltaNet's, and that of its decay."""

    name: str = "kda"
    rank: int = number(16, least=1, allocated=True, help="of the decay's projection")


class KeyDecayGate(nn.Module):
    """log α = −exp(A) softplus(W₂ W₁ x + b): one a key, A one a head.

    exp(A) starts uniform in (1, 16); b so that softplus(b) is log-uniform in [0.001, 0.1].

    Args:
        width: of x, and of the keys of all heads.
        count: heads.
        rank: of the projection.
    """

    def __init__(self, width: int, count: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.project = LowRank(width, width, rank, generator)
        rate = 1 + 15 * torch.rand(count, generator=generator)
        self.log_rate = nn.Parameter(rate.log())
        low, high = torch.tensor([0.001, 0.1]).log()
        step = (low + (high - low) * torch.rand(width, generator=generator)).exp()
        with torch.no_grad():
            self.project.second.bias.copy_(step + (-torch.expm1(-step)).log())

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] → [..., H, D/H], ≤ 0."""
        rate = F.softplus(heads(self.project(x), len(self.log_rate)))
        return -self.log_rate.exp()[:, None] * rate


class KDALayer(DeltaNetLayer):
    """S ← diag(α) S; S ← S + β k (v − Sᵀk)ᵀ, o = Sᵀq (Kimi Team 2025, section 3).

    As DeltaNet, with a decay of each key and an output gate.
    """

    gated = True

    def __init__(self, config: KDAConfig, generator: torch.Generator) -> None:
        super().__init__(config, generator)
        self.decay = KeyDecayGate(config.width, config.heads, config.rank, generator)

    def _log_decay(self, x: Tensor) -> Tensor:
        return self.decay(x)


class KDA(MemoryStack):
    """Layers of Kimi Delta Attention."""

    layer = KDALayer
