"""Residual stacks of memory layers: what all encoders but the GRU are built as."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hypercrl.memory.base import MemoryConfig, MemoryEncoder, State
from hypercrl.memory.blocks import SwiGLU, linear


class MemoryLayer(nn.Module, ABC):
    """Mixes along time, and keeps in its state what it needs of the past."""

    routing_loss: Tensor | None = None
    """Of the latest `forward`, weighted; None where nothing is routed."""

    @abstractmethod
    def initial(self, batch: int) -> State:
        """The state before the first step."""

    @abstractmethod
    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x [B, T, D] and the state before it → [B, T, D] and the state after it."""

    @abstractmethod
    def step(self, x: Tensor, state: State) -> Tensor:
        """x [B, D] → [B, D], as `forward`, without gradients; the state is written in place."""


class MemoryStack(MemoryEncoder):
    """x ← x + layer(norm x), x ← x + SwiGLU(norm x), layer after layer, between two affine maps.

    Args:
        input_size: X, width of a token.
        config: the settings of the family.
        generator: CPU generator of all initial parameters.

    Raises:
        ValueError: a width that the heads do not divide into equal, even parts.
    """

    layer: ClassVar[type[Any]]
    """The family's MemoryLayer, made from the config and the generator."""

    def __init__(self, input_size: int, config: MemoryConfig, generator: torch.Generator) -> None:
        super().__init__(input_size, config.context)
        width = config.width
        if width % (2 * config.heads):
            raise ValueError(
                f"memory.width must be a multiple of 2 · memory.heads = {2 * config.heads}, "
                f"not {width}"
            )
        self.enter = linear(input_size, width, generator)
        layers = self.make_layers(config, generator)
        self.layers = nn.ModuleList(layers)
        self.feeds = nn.ModuleList(SwiGLU(width, generator) for _ in layers)
        self.layer_norms = nn.ModuleList(nn.RMSNorm(width) for _ in layers)
        self.feed_norms = nn.ModuleList(nn.RMSNorm(width) for _ in layers)
        self.norm = nn.RMSNorm(width)
        self.leave = linear(width, config.context, generator)

    @classmethod
    def make_layers(cls, config: Any, generator: torch.Generator) -> list[MemoryLayer]:
        """`config.layers` layers, the first to come first."""
        return [cls.layer(config, generator) for _ in range(config.layers)]

    def _blocks(self) -> list[tuple[str, MemoryLayer, nn.Module, nn.Module, nn.Module]]:
        parts = (self.layers, self.layer_norms, self.feeds, self.feed_norms)
        return [(f"{i}.", *part) for i, part in enumerate(zip(*parts, strict=True))]  # pyright: ignore

    def _initial(self, batch: int) -> State:
        state: State = {}
        for prefix, layer, *_ in self._blocks():
            state |= {prefix + name: x for name, x in layer.initial(batch).items()}
        return state

    def _encode(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        x = self.enter(tokens)
        after: State = {}
        for prefix, layer, layer_norm, feed, feed_norm in self._blocks():
            mixed, own = layer(layer_norm(x), _part(state, prefix))
            x = x + mixed
            x = x + feed(feed_norm(x))
            after |= {prefix + name: value for name, value in own.items()}
        return self.leave(self.norm(x)), after

    def _step(self, token: Tensor, state: State) -> Tensor:
        x = self.enter(token)
        for prefix, layer, layer_norm, feed, feed_norm in self._blocks():
            x = x + layer.step(layer_norm(x), _part(state, prefix))
            x = x + feed(feed_norm(x))
        return self.leave(self.norm(x))

    def auxiliary_loss(self) -> Tensor:
        losses = [layer.routing_loss for _, layer, *_ in self._blocks()]
        return sum((loss for loss in losses if loss is not None), start=self.origin)


def _part(state: State, prefix: str) -> State:
    return {k.removeprefix(prefix): x for k, x in state.items() if k.startswith(prefix)}
