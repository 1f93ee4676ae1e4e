"""RetNet: a memory that forgets at a fixed rate.

Sun et al., "Retentive network: a successor to Transformer for large language models", 2023.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypercrl.memory.base import MemoryConfig, State
from hypercrl.memory.blocks import HeadOutput, Rotation, linear
from hypercrl.memory.stack import MemoryLayer, MemoryStack
from hypercrl_kernels import chunk_memory, memory_step


@dataclass
class RetNetConfig(MemoryConfig):
    """Nothing of its own."""

    name: str = "retnet"


class RetNetLayer(MemoryLayer):
    """S ← γ S + k vᵀ, o = Sᵀq with γ = 1 − 2^(−5−h) for head h (Sun et al. 2023, eqs. 6 and 8).

    q and k turn with the position; what is read is normalised by head and gated with SiLU.
    """

    def __init__(self, config: RetNetConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = config.heads
        self.head_width = config.width // config.heads
        self.project = linear(config.width, 3 * config.width, generator, bias=False)
        self.rotation = Rotation(self.head_width)
        self.out = HeadOutput(config.width, config.heads, generator, gated=True)
        self.log_decay: Tensor
        rates = torch.log1p(-(2.0 ** (-5.0 - torch.arange(config.heads))))
        self.register_buffer("log_decay", rates, persistent=False)

    def initial(self, batch: int) -> State:
        memory = self.log_decay.new_zeros(batch, self.heads, self.head_width, self.head_width)
        position = torch.zeros(batch, dtype=torch.long, device=memory.device)
        return {"memory": memory, "position": position}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        steps = torch.arange(x.shape[1], device=x.device)
        parts = self._split(x, state["position"][:, None] + steps)
        o, memory = chunk_memory(*parts, log_decay=self.log_decay, initial_state=state["memory"])
        return self.out(o, x), {"memory": memory, "position": state["position"] + x.shape[1]}

    def step(self, x: Tensor, state: State) -> Tensor:
        parts = self._split(x, state["position"])
        state["position"].add_(1)
        o = memory_step(*parts, log_decay=self.log_decay, state=state["memory"])
        return self.out.step(o, x)

    def _split(self, x: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.rotation.split(self.project(x), self.heads, position)


class RetNet(MemoryStack):
    """RetNet layers."""

    layer = RetNetLayer
