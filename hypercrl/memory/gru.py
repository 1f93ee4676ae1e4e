"""A gated recurrent unit, the recurrent network that meta-learning agents began with.

Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014; as the memory of an
agent in Duan et al. 2016 (RL²).
"""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn

from hypercrl.base.settings import unused
from hypercrl.memory.base import MemoryConfig, MemoryEncoder, State
from hypercrl.memory.blocks import linear


@dataclass
class GRUConfig(MemoryConfig):
    """`heads` does not matter."""

    name: str = "gru"
    heads: int = unused(2)


class GRU(MemoryEncoder):
    """z = σ(W_z x + U_z h), r = σ(W_r x + U_r h), h ← z h + (1 − z) tanh(W x + r ∘ (U h)).

    All parameters start uniform in ±width^-½.
    """

    def __init__(self, input_size: int, config: GRUConfig, generator: torch.Generator) -> None:
        super().__init__(input_size, config.context)
        self.layers, self.width = config.layers, config.width
        sizes = (input_size, config.width, config.layers)
        self.cells = nn.GRU(*sizes, batch_first=True, device="meta").to_empty(device="cpu")
        bound = 1 / sqrt(config.width)
        with torch.no_grad():
            for parameter in self.cells.parameters():
                parameter.uniform_(-bound, bound, generator=generator)
        self.out = linear(config.width, config.context, generator)

    def _initial(self, batch: int) -> State:
        return {"hidden": self.origin.new_zeros(batch, self.layers, self.width)}

    def _encode(self, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        first = self._initial(len(tokens)) if state is None else state
        # cuDNN's recurrent networks round to TF32 by default, and a step does not.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            hidden, last = self.cells(tokens, first["hidden"].transpose(0, 1).contiguous())
        return self.out(hidden), {"hidden": last.transpose(0, 1)}

    def _step(self, token: Tensor, state: State) -> Tensor:
        x = token
        for layer, weights in enumerate(self.cells.all_weights):
            x = torch.gru_cell(x, state["hidden"][:, layer], *weights)
            state["hidden"][:, layer] = x
        return self.out(x)
