# own_encoder.py
"""Running means of the transitions over several time spans, and a linear map of them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hypercrl.base.settings import number, unused
from hypercrl.memory import MemoryConfig, MemoryEncoder, State


@dataclass
class MeansConfig(MemoryConfig):
    """Settings of running means, and those of `MemoryConfig` that have no effect on them."""

    spans: list[int] = number([2, 8, 32], least=1, help="transitions that a mean looks back")
    width: int = unused(64)
    layers: int = unused(2)
    heads: int = unused(2)


class Means(MemoryEncoder):
    """m ← m + (x − m) / span for each token x and span; the context is W m."""

    rates: Tensor

    def __init__(self, input_size: int, config: MeansConfig, generator: torch.Generator) -> None:
        super().__init__(input_size, config.context)
        self.register_buffer("rates", torch.tensor([1 / n for n in config.spans])[:, None])
        scale = (len(config.spans) * input_size) ** -0.5
        initial = torch.randn(len(config.spans) * input_size, config.context, generator=generator)
        self.weight = nn.Parameter(scale * initial)

    def _initial(self, batch: int) -> State:
        """What a robot remembers, but for its context: [B, spans, X]."""
        return {"means": self.weight.new_zeros(batch, len(self.rates), self.input_size)}

    def _encode(self, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        """A window of tokens [B, T, X] at once, with gradients: contexts [B, T, C]."""
        means = self._initial(len(tokens))["means"] if state is None else state["means"]
        seen = []
        for token in tokens.unbind(1):
            means = means + self.rates * (token[:, None] - means)
            seen.append(means)
        return torch.stack(seen, 1).flatten(2) @ self.weight, {"means": means}

    def _step(self, token: Tensor, state: State) -> Tensor:
        """The same for one token [B, X] in control; the state is written in place."""
        state["means"] += self.rates * (token[:, None] - state["means"])
        return state["means"].flatten(1) @ self.weight
