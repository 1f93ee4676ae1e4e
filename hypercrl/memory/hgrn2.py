"""HGRN2: HGRN with a matrix for a state, which costs no further parameters.

Qin et al., "HGRN2: gated linear RNNs with state expansion", COLM 2024.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hypercrl.memory.base import MemoryConfig
from hypercrl.memory.blocks import linear
from hypercrl.memory.gla import VectorDecayLayer
from hypercrl.memory.hgrn import ForgetBounds, bounded_layers
from hypercrl.memory.stack import MemoryLayer, MemoryStack


@dataclass
class HGRN2Config(MemoryConfig):
    """Nothing of its own."""

    name: str = "hgrn2"


class HGRN2Layer(VectorDecayLayer):
    """S ← diag(f) S + (1 − f) vᵀ, o = Sᵀ silu(W_q x) (Qin et al. 2024, section 3)."""

    gated = False

    def __init__(
        self, config: HGRN2Config, generator: torch.Generator, index: int, bounds: ForgetBounds
    ) -> None:
        super().__init__(config, generator)
        self.index = index
        self.bounds = (bounds,)  # a tuple is no child: one layer of the stack owns it
        self.project = linear(config.width, 3 * config.width, generator, bias=False)

    def _sequences(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        q, gate, v = self.project(x).chunk(3, -1)
        log_decay = self.bounds[0].log_gate(self.index, gate)
        return F.silu(q), -torch.expm1(log_decay), v, log_decay


class HGRN2(MemoryStack):
    """HGRN2 layers under bounds that rise."""

    @classmethod
    def make_layers(cls, config: HGRN2Config, generator: torch.Generator) -> list[MemoryLayer]:
        return bounded_layers(HGRN2Layer, config, generator)
