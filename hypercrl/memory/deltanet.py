"""DeltaNet: a memory that is corrected by what it got wrong.

Yang et al., "Parallelizing linear transformers with the delta rule over sequence length", NeurIPS
2024; the rule is that of Schlag et al. 2021. With several writes a step it is DeltaProduct: Siems
et al., "DeltaProduct: improving state-tracking in linear RNNs via Householder products", NeurIPS
2025.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypercrl.base.settings import number, setting
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
    writes: int = number(
        1, least=1, allocated=True, help="corrections a transition, one after another"
    )


class DeltaNetLayer(MemoryLayer):
    """S ← S + β k (v − Sᵀk)ᵀ, o = Sᵀq (Yang et al. 2024, eq. 3).

    q, k, v: a projection, a causal convolution over 4 steps, SiLU; q and k of unit length;
    β = σ(W x), one a head. With several writes each has k, v and β of its own, and takes in what
    those before it left (Siems et al. 2025, section 3).
    """

    gated = False

    def __init__(self, config: DeltaNetConfig, generator: torch.Generator) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.head_width = width // self.heads
        self.most = 2.0 if config.negative_eigenvalues else 1.0
        self.writes = config.writes
        parts = 1 + 2 * self.writes  # q, and each write's k and v
        self.project = linear(width, parts * width, generator, bias=False)
        self.convolution = ShortConvolution(parts * width, generator)
        self.strength = linear(width, self.writes * self.heads, generator)
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
        count = self.writes * self.heads
        q, k, v = heads(mixed, self.heads + 2 * count).split([self.heads, count, count], -2)
        o = memory_step(
            q,
            self._each_write(k, -2),
            self._each_write(v, -2),
            log_decay=self._log_decay(x),
            beta=self._beta(x),
            error="after_decay",
            unit_keys=True,
            state=state["memory"],
        )
        return self.out.step(o, x)

    def _split(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = split_unit(mixed, self.heads, self.writes)
        return q, self._each_write(k, -2), self._each_write(v, -2)

    def _each_write(self, x: Tensor, axis: int) -> Tensor:
        """[..., n H, …] → [..., n, H, …] with n writes; with one as it is."""
        return x if self.writes == 1 else x.unflatten(axis, (self.writes, self.heads))

    def _beta(self, x: Tensor) -> Tensor:
        return self._each_write(self.most * self.strength(x).sigmoid(), -1)

    def _log_decay(self, x: Tensor) -> Tensor | None:  # noqa: ARG002
        return None


class DeltaNet(MemoryStack):
    """DeltaNet layers."""

    layer = DeltaNetLayer
