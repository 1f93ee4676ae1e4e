"""Retrieval from stored transitions by the update rule of modern Hopfield networks.

Ramsauer et al., "Hopfield networks is all you need", ICLR 2021.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hypercrl.memory.attention import Window
from hypercrl.memory.base import MemoryConfig, State
from hypercrl.memory.blocks import heads, linear, normal
from hypercrl.memory.stack import MemoryLayer, MemoryStack
from hypercrl.settings import choice, number
from hypercrl_kernels import hopfield_retrieval


@dataclass
class HopfieldConfig(MemoryConfig):
    """`window` transitions are stored, and retrieved from in `updates` steps.

    `form` hopfield: the present transition is the state pattern; pooling: a learned one is, the
    same at all times; layer: what was retrieved is the state pattern of a second retrieval, from
    `patterns` learned ones. `beta` is the inverse temperature, null for (width / heads)^-½.
    """

    name: str = "hopfield"
    form: str = choice("hopfield", "hopfield", "pooling", "layer")
    window: int = number(256, least=1)
    updates: int = number(2, least=1)
    beta: float | None = number(None, least=0)
    patterns: int = number(32, least=1)


class HopfieldLayer(MemoryLayer):
    """ξ ← softmax(β ξ Kᵀ) K, and values in place of K at the last update.

    Ramsauer et al. 2021, eqs. 3 and 10, and section 3 for the three forms. Stored patterns, state
    patterns and what is projected into values are normalised (LayerNorm) first.
    """

    def __init__(self, config: HopfieldConfig, generator: torch.Generator) -> None:
        super().__init__()
        width, count = config.width, config.heads
        self.heads, self.head_width = count, width // count
        self.window = Window(config.window)
        self.updates, self.beta = config.updates, config.beta
        self.stored_norm = nn.LayerNorm(width)
        self.stored = linear(width, 2 * width, generator, bias=False)
        self.out = linear(width, width, generator, bias=False)
        self.pooling = config.form == "pooling"
        if self.pooling:
            self.query = normal(1, count, self.head_width, generator=generator)
        else:
            self.state_norm = nn.LayerNorm(width)
            self.state = linear(width, width, generator, bias=False)
        self.patterns = None
        if config.form == "layer":
            shape = (2, config.patterns, count, self.head_width)
            self.patterns = normal(*shape, generator=generator)
            self.retrieved_norm = nn.LayerNorm(width)

    def initial(self, batch: int) -> State:
        return self.window.initial(batch, self.heads, self.head_width, self.out.weight)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        keys, values, mask, after = self.window.extend(state, *self._stored(x))
        return self._retrieve(x, keys, values, mask), after

    def step(self, x: Tensor, state: State) -> Tensor:
        mask = self.window.push(state, *self._stored(x))
        now = x[:, None]
        return self._retrieve(now, state["keys"], state["values"], mask[:, None])[:, 0]

    def _stored(self, x: Tensor) -> tuple[Tensor, Tensor]:
        k, v = self.stored(self.stored_norm(x)).chunk(2, -1)
        return heads(k, self.heads), heads(v, self.heads)

    def _retrieve(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """x [B, T, D] from keys and values [B, S, H, K] that mask [B, T, S] shows."""
        if self.pooling:
            query = self.query.expand(*x.shape[:2], -1, -1)
        else:
            query = heads(self.state(self.state_norm(x)), self.heads)
        settings = {"updates": self.updates, "beta": self.beta}
        found = hopfield_retrieval(query, keys, values, mask=mask, **settings).flatten(-2)
        if self.patterns is not None:
            query = heads(self.retrieved_norm(found), self.heads)
            learned = (part.expand(len(x), -1, -1, -1) for part in self.patterns)
            found = found + hopfield_retrieval(query, *learned, **settings).flatten(-2)
        return self.out(found)


class Hopfield(MemoryStack):
    """Hopfield layers."""

    layer = HopfieldLayer
