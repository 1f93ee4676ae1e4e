"""HGRN: a gated linear recurrence of one number a channel, with lower bounds on what is kept.

Qin, Yang, Zhong, "Hierarchically gated recurrent neural network for sequence modeling", NeurIPS
2023.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypercrl.base.settings import unused
from hypercrl.memory.base import MemoryConfig, State
from hypercrl.memory.blocks import HeadOutput, linear
from hypercrl.memory.stack import MemoryLayer, MemoryStack
from hypercrl_kernels import scan, scan_step


@dataclass
class HGRNConfig(MemoryConfig):
    """`heads` does not matter."""

    name: str = "hgrn"
    heads: int = unused(2)


class ForgetBounds(nn.Module):
    """Lower bounds that rise with the layer: the cumulative sum of softmax(Γ) over layers.

    The first is subtracted, so that the first layer's is 0 (Qin et al. 2023, section 3.3).
    """

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(layers, width))

    def log_gate(self, layer: int, x: Tensor) -> Tensor:
        """log f, f = b + (1 − b) σ(x) with the bound b of that layer; x [..., D]."""
        if layer == 0:
            return F.logsigmoid(x)
        shares = self.gamma.softmax(0)
        bound = shares[1 : layer + 1].sum(0).clamp(max=1)  # a rounding above 1 would be a growth
        return (bound + (1 - bound) * x.sigmoid()).log()


def bounded_layers(
    layer: type[MemoryLayer], config: MemoryConfig, generator: torch.Generator
) -> list[MemoryLayer]:
    """Layers that share their bounds; the last one owns the parameter."""
    bounds = ForgetBounds(config.layers, config.width)
    layers = [layer(config, generator, i, bounds) for i in range(config.layers)]  # pyright: ignore
    if config.layers > 1:
        layers[-1].add_module("owned_bounds", bounds)
    return layers


class HGRNLayer(MemoryLayer):
    """h ← f ∘ h + (1 − f) ∘ silu(W_i x), o = h (Qin et al. 2023, eqs. 1 to 3, real numbers).

    f has the layer's lower bound; o is normalised and gated with silu(W_g x).
    """

    def __init__(
        self, config: HGRNConfig, generator: torch.Generator, index: int, bounds: ForgetBounds
    ) -> None:
        super().__init__()
        self.index = index
        self.bounds = (bounds,)  # a tuple is no child: one layer of the stack owns it
        self.project = linear(config.width, 2 * config.width, generator)
        self.out = HeadOutput(config.width, 1, generator, gated=True)

    def initial(self, batch: int) -> State:
        return {"memory": self.out.norm.weight.new_zeros(batch, 1, len(self.out.norm.weight))}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        entry, log_decay = self._split(x)
        o, memory = scan(entry, log_decay=log_decay, initial_state=state["memory"])
        return self.out(o, x), {"memory": memory}

    def step(self, x: Tensor, state: State) -> Tensor:
        entry, log_decay = self._split(x)
        return self.out.step(scan_step(entry, log_decay=log_decay, state=state["memory"]), x)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What enters and the log of what is kept, [..., 1, D]."""
        entry, gate = self.project(x)[..., None, :].chunk(2, -1)
        log_decay = self.bounds[0].log_gate(self.index, gate)
        return F.silu(entry) * -torch.expm1(log_decay), log_decay


class HGRN(MemoryStack):
    """HGRN layers under bounds that rise."""

    @classmethod
    def make_layers(cls, config: HGRNConfig, generator: torch.Generator) -> list[MemoryLayer]:
        return bounded_layers(HGRNLayer, config, generator)
