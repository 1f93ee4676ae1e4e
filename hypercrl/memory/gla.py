"""Gated linear attention: every key forgets at a rate of its own, chosen at every step.

Yang et al., "Gated linear attention transformers with hardware-efficient training", ICML 2024.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from hypercrl.base.settings import number
from hypercrl.memory.base import MemoryConfig, State
from hypercrl.memory.blocks import HeadOutput, LowRank, heads, linear
from hypercrl.memory.stack import MemoryLayer, MemoryStack
from hypercrl_kernels import chunk_gla, gla_step


@dataclass
class GLAConfig(MemoryConfig):
    """Settings of its decay."""

    name: str = "gla"
    rank: int = number(16, least=1, allocated=True, help="of the decay's projection")


class VectorDecayLayer(MemoryLayer):
    """S ← diag(α) S + k vᵀ, o = Sᵀq, with α a vector of the keys' width."""

    gated: ClassVar[bool]
    """Whether what is read is gated with SiLU, beside its normalisation by head."""

    def __init__(self, config: MemoryConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = config.heads
        self.head_width = config.width // config.heads
        self.out = HeadOutput(config.width, config.heads, generator, gated=self.gated)

    def initial(self, batch: int) -> State:
        memory = self.out.norm.weight.new_zeros(batch, self.heads, self.head_width, self.head_width)
        return {"memory": memory}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        q, k, v, log_decay = (heads(part, self.heads) for part in self._sequences(x))
        o, memory = chunk_gla(q, k, v, log_decay=log_decay, initial_state=state["memory"])
        return self.out(o, x), {"memory": memory}

    def step(self, x: Tensor, state: State) -> Tensor:
        q, k, v, log_decay = (heads(part, self.heads) for part in self._sequences(x))
        return self.out.step(gla_step(q, k, v, log_decay=log_decay, state=state["memory"]), x)

    @abstractmethod
    def _sequences(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q, k, v and log α, each as wide as x."""


class GLALayer(VectorDecayLayer):
    """Decays α = σ(W₂ W₁ x + b)^(1/16) (Yang et al. 2024, eq. 3 and section 4.4)."""

    gated = True

    def __init__(self, config: GLAConfig, generator: torch.Generator) -> None:
        super().__init__(config, generator)
        self.project = linear(config.width, 3 * config.width, generator, bias=False)
        self.decay = LowRank(config.width, config.width, config.rank, generator)

    def _sequences(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        q, k, v = self.project(x).chunk(3, -1)
        return q, k, v, F.logsigmoid(self.decay(x)) / 16


class GLA(MemoryStack):
    """GLA layers."""

    layer = GLALayer
