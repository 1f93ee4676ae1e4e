"""DeltaNet: a memory that is corrected by what it got wrong.

Yang et al., "Parallelizing linear transformers with the delta rule over sequence length", NeurIPS
2024; the rule is that of Schlag et al. 2021.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypercrl.base.settings import setting
from hypercrl.memory.base import MemoryConfig, State
from hypercrl.memory.blocks import HeadOutput, ShortConvolution, heads, linear, split_unit
from hypercrl.memory.stack import MemoryLayer, MemoryStack
from hypercrl_kernels import chunk_memory, memory_step


@dataclass
class DeltaNetConfig(MemoryConfig):
    """Negative eigenvalues are those of Grazzi et al. 2025."""

    name: str = "deltanet"
    negative_eigenvalues: bool = setting(
        False, help="double β, so that a write can turn what it finds"
    )


class DeltaNetLayer(MemoryLayer):
    """S ← S + β k (v − Sᵀk)ᵀ, o = Sᵀq (Yang et al. 2024, eq. 3).

    q, k, v: a projection, a causal convolution over 4 steps, SiLU; q and k of unit length;
    β = σ(W x), one a head.
    """

    gated = False

    def __init__(self, config: DeltaNetConfig, generator: torch.Generator) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.head_width = width // self.heads
        self.most = 2.0 if config.negative_eigenvalues else 1.0
        self.project = linear(width, 3 * width, generator, bias=False)
        self.convolution = ShortConvolution(3 * width, generator)
        self.strength = linear(width, self.heads, generator)
        self.out = HeadOutput(width, self.heads, generator, gated=self.gated)

    def initial(self, batch: int) -> State:
        memory = self.project.weight.new_zeros(batch, self.heads, self.head_width, self.head_width)
        return {"memory": memory, "convolution": self.convolution.initial(batch)}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        mixed, before = self.convolution(self.project(x), state["convolution"])
        o, memory = chunk_memory(
            *self._split(mixed),
            log_decay=self._log_decay(x),
            beta=self._beta(x),
            error="after_decay",
            initial_state=state["memory"],
        )
        return self.out(o, x), {"memory": memory, "convolution": before}

    def step(self, x: Tensor, state: State) -> Tensor:
        mixed = self.convolution.step(self.project(x), state["convolution"])
        o = memory_step(
            *heads(mixed, 3 * self.heads).chunk(3, -2),
            log_decay=self._log_decay(x),
            beta=self._beta(x),
            error="after_decay",
            unit_keys=True,
            state=state["memory"],
        )
        return self.out.step(o, x)

    def _split(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return split_unit(mixed, self.heads)

    def _beta(self, x: Tensor) -> Tensor:
        return self.most * self.strength(x).sigmoid()

    def _log_decay(self, x: Tensor) -> Tensor | None:  # noqa: ARG002
        return None


class DeltaNet(MemoryStack):
    """DeltaNet layers."""

    layer = DeltaNetLayer
