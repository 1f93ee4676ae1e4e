"""Residual stacks of memory layers: what all encoders but the GRU are built as."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hypercrl.memory.base import MemoryConfig, MemoryEncoder, State
from hypercrl.memory.blocks import SwiGLU, linear
from hypercrl_kernels import linear_step


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

    def begin(self, x: Tensor) -> tuple[Tensor, State]:
        """`forward` from the initial state; never waits for the device."""
        return self(x, self.initial(len(x)))

    @abstractmethod
    def step(self, x: Tensor, state: State) -> Tensor:
        """x [B, D] → [B, D], as `forward`, without gradients; the state is written in place."""


class Block(nn.Module):
    """x ← x + layer(norm x), x ← x + SwiGLU(norm x)."""

    def __init__(self, width: int, layer: MemoryLayer, generator: torch.Generator) -> None:
        super().__init__()
        self.layer_norm, self.layer = nn.RMSNorm(width), layer
        self.feed_norm, self.feed = nn.RMSNorm(width), SwiGLU(width, generator)

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        normed = self.layer_norm(x)
        mixed, after = self.layer.begin(normed) if state is None else self.layer(normed, state)
        x = x + mixed
        return x + self.feed(self.feed_norm(x)), after

    def step(self, x: Tensor, state: State) -> Tensor:
        return self.feed.step(x + self.layer.step(self.layer_norm(x), state), self.feed_norm)


class MemoryStack(MemoryEncoder):
    """Blocks of a family's layer, one after another, between two affine maps.

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
        self.blocks: Sequence[Block] = nn.ModuleList(  # pyright: ignore
            Block(width, layer, generator) for layer in self.make_layers(config, generator)
        )
        self.norm = nn.RMSNorm(width)
        self.leave = linear(width, config.context, generator)

    @classmethod
    def make_layers(cls, config: Any, generator: torch.Generator) -> list[MemoryLayer]:
        """`config.layers` layers, the first to come first."""
        return [cls.layer(config, generator) for _ in range(config.layers)]

    def _initial(self, batch: int) -> State:
        return join(block.layer.initial(batch) for block in self.blocks)

    def _encode(self, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        x = self.enter(tokens)
        after = []
        for i, block in enumerate(self.blocks):
            x, own = block(x, None if state is None else part(state, i))
            after.append(own)
        return self.leave(self.norm(x)), join(after)

    def _step(self, token: Tensor, state: State) -> Tensor:
        x = self.enter(token)
        for i, block in enumerate(self.blocks):
            x = block.step(x, part(state, i))
        return linear_step(x, self.leave.weight, self.leave.bias, norm=self.norm.weight)

    def auxiliary_loss(self) -> Tensor:
        losses = [block.layer.routing_loss for block in self.blocks]
        routed = [loss for loss in losses if loss is not None]
        return torch.stack(routed).mean() if routed else self.origin


def join(parts: Iterable[State]) -> State:
    """Several states as one; "i.x" is x of the i-th."""
    return {f"{i}.{name}": x for i, own in enumerate(parts) for name, x in own.items()}


def part(state: State, index: int) -> State:
    """The i-th of the states that `join` made one; the tensors are the same."""
    prefix = f"{index}."
    return {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}
