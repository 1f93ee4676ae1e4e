"""Retrieval from stored transitions by the update rule of modern Hopfield networks.

Ramsauer et al., "Hopfield networks is all you need", ICLR 2021.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hypercrl.base.settings import choice, number
from hypercrl.memory.attention import Window
from hypercrl.memory.base import MemoryConfig, State
from hypercrl.memory.blocks import heads, linear, normal
from hypercrl.memory.stack import MemoryLayer, MemoryStack
from hypercrl_kernels import attention_step, hopfield_retrieval


@dataclass
class HopfieldConfig(MemoryConfig):
    """What is stored, and how it is retrieved.

    Of the forms, hopfield: the present transition is the state pattern; pooling: a learned one is,
    the same at all times; layer: learned patterns are stored instead of transitions, and nothing is
    remembered; both: what was retrieved as in hopfield is the state pattern of a second retrieval,
    from learned ones.
    """

    name: str = "hopfield"
    form: str = choice(
        "hopfield",
        "hopfield",
        "pooling",
        "layer",
        "both",
        help="transitions asked by the present one or a learned one; learned ones alone; both",
    )
    window: int = number(
        256,
        least=1,
        allocated=True,
        only_with=("form=hopfield|pooling|both",),
        help="transitions that are stored",
    )
    updates: int = number(2, least=1, most=100, help="steps of a retrieval")
    beta: float | None = number(
        None, least=0, help="β, inverse temperature; null is (width / heads)^-½"
    )
    patterns: int = number(
        32,
        least=1,
        allocated=True,
        only_with=("form=layer|both",),
        help="learned patterns of form=layer and form=both",
    )


class HopfieldLayer(MemoryLayer):
    """ξ ← softmax(β ξ Kᵀ) K, and values in place of K at the last update.

    Ramsauer et al. 2021, eqs. 3 and 10, and section 3 for their three forms. Stored patterns, state
    patterns and what is projected into values are normalised (LayerNorm) first.
    """

    def __init__(self, config: HopfieldConfig, generator: torch.Generator) -> None:
        super().__init__()
        width, count = config.width, config.heads
        self.heads, self.head_width = count, width // count
        self.window = Window(config.window)
        self.settings: dict[str, Any] = {"updates": config.updates, "beta": config.beta}
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
        if config.form == "both":
            shape = (2, config.patterns, count, self.head_width)
            self.patterns = normal(*shape, generator=generator)
            self.retrieved_norm = nn.LayerNorm(width)

    def initial(self, batch: int) -> State:
        return self.window.initial(batch, self.heads, self.head_width, self.out.weight)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        keys, values, mask, after = self.window.extend(state, *self._stored(x))
        found = hopfield_retrieval(self._query(x), keys, values, mask=mask, **self.settings)
        return self._leave(found), after

    def step(self, x: Tensor, state: State) -> Tensor:
        now = x[:, None]
        found = attention_step(
            self._query(now)[:, 0],
            *self._stored(now),
            keys=state["keys"],
            values=state["values"],
            seen=state["seen"],
            **self.settings,
        )
        return self._leave(found[:, None])[:, 0]

    def _stored(self, x: Tensor) -> tuple[Tensor, Tensor]:
        k, v = self.stored(self.stored_norm(x)).chunk(2, -1)
        return heads(k, self.heads), heads(v, self.heads)

    def _query(self, x: Tensor) -> Tensor:
        """x [B, T, D] → state patterns [B, T, H, K]."""
        if self.pooling:
            return self.query.expand(*x.shape[:2], -1, -1)
        return heads(self.state(self.state_norm(x)), self.heads)

    def _leave(self, found: Tensor) -> Tensor:
        """What was retrieved, [B, T, H, K] → [B, T, D]."""
        found = found.flatten(-2)
        if self.patterns is not None:
            query = heads(self.retrieved_norm(found), self.heads)
            learned = (part.expand(len(found), -1, -1, -1) for part in self.patterns)
            found = found + hopfield_retrieval(query, *learned, **self.settings).flatten(-2)
        return self.out(found)


class LearnedPatternsLayer(HopfieldLayer):
    """The same with learned patterns in place of transitions: it keeps nothing of the past."""

    def __init__(self, config: HopfieldConfig, generator: torch.Generator) -> None:
        super().__init__(config, generator)
        self.learned = normal(config.patterns, config.width, generator=generator)

    def initial(self, batch: int) -> State:  # noqa: ARG002
        return {}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: ARG002
        stored = (part.expand(len(x), -1, -1, -1) for part in self._stored(self.learned))
        return self._leave(hopfield_retrieval(self._query(x), *stored, **self.settings)), {}

    def step(self, x: Tensor, state: State) -> Tensor:
        return self(x[:, None], state)[0][:, 0]


class Hopfield(MemoryStack):
    """Hopfield layers."""

    @classmethod
    def make_layers(cls, config: HopfieldConfig, generator: torch.Generator) -> list[MemoryLayer]:
        layer = LearnedPatternsLayer if config.form == "layer" else HopfieldLayer
        return [layer(config, generator) for _ in range(config.layers)]
