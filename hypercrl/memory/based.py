"""BASED: linear attention close to softmax, sliding windows and short convolutions.

Arora et al., "Simple linear attention language models balance the recall-throughput tradeoff",
ICML 2024.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypercrl.base.settings import number
from hypercrl.memory.attention import WindowAttention
from hypercrl.memory.base import MemoryConfig, State
from hypercrl.memory.blocks import ShortConvolution, heads, linear
from hypercrl.memory.stack import MemoryLayer, MemoryStack
from hypercrl_kernels import based, based_step


@dataclass
class BasedConfig(MemoryConfig):
    """Sizes of its two kinds of layers."""

    name: str = "based"
    features: int = number(16, least=1, most=64, help="d, width of q and k of a head")
    window: int = number(
        16, least=1, allocated=True, help="transitions that sliding attention sees"
    )


class TaylorLayer(MemoryLayer):
    """Attention with 1 + s + s²/2 in place of exp s, s = q·k/√d (Arora et al. 2024, eq. 3).

    Its state is a sum over φ(k) vᵀ of 1 + d + d(d + 1)/2 features, and one over φ(k).
    """

    def __init__(self, config: BasedConfig, generator: torch.Generator) -> None:
        super().__init__()
        width = config.width
        self.heads, self.features = config.heads, config.features
        self.queries = linear(width, 2 * self.heads * self.features, generator, bias=False)
        self.values = linear(width, width, generator, bias=False)
        self.out = linear(width, width, generator, bias=False)

    def initial(self, batch: int) -> State:
        d = self.features
        columns = self.out.in_features // self.heads + 1
        shape = (batch, self.heads, 1 + d + d * (d + 1) // 2, columns)
        return {"memory": self.out.weight.new_zeros(shape)}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        o, memory = based(*self._split(x), initial_state=state["memory"])
        return self.out(o.flatten(-2)), {"memory": memory}

    def step(self, x: Tensor, state: State) -> Tensor:
        return self.out(based_step(*self._split(x), state=state["memory"]).flatten(-2))

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k = (heads(half, self.heads) for half in self.queries(x).chunk(2, -1))
        return q, k, heads(self.values(x), self.heads)


class Convolved(MemoryLayer):
    """A layer behind a short convolution of its input."""

    def __init__(self, width: int, layer: MemoryLayer, generator: torch.Generator) -> None:
        super().__init__()
        self.convolution = ShortConvolution(width, generator)
        self.layer = layer

    def initial(self, batch: int) -> State:
        return {"before": self.convolution.initial(batch), **self.layer.initial(batch)}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        x, before = self.convolution(x, state["before"])
        o, after = self.layer(x, state)
        return o, {"before": before, **after}

    def step(self, x: Tensor, state: State) -> Tensor:
        return self.layer.step(self.convolution.step(x, state["before"]), state)


class Based(MemoryStack):
    """Sliding windows and Taylor layers in turn, Taylor last, each behind a short convolution."""

    @classmethod
    def make_layers(cls, config: BasedConfig, generator: torch.Generator) -> list[MemoryLayer]:
        layers: list[MemoryLayer] = []
        for behind in reversed(range(config.layers)):
            if behind % 2:
                sizes = (config.width, config.heads, config.window)
                layer = WindowAttention(*sizes, generator)
            else:
                layer = TaylorLayer(config, generator)
            layers.append(Convolved(config.width, layer, generator))
        return layers
