"""What an agent remembers of its own transitions: the interface of every memory encoder."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from hypercrl.base.settings import number, setting
from hypercrl.base.sizes import FLOAT
from hypercrl.replay.transitions import tensor_bytes

State = dict[str, Tensor]
"""What is remembered: every tensor has the robots' axis first. "context" [B, C] is always there."""


@dataclass
class MemoryConfig:
    """Fields that every encoder has; an encoder's own dataclass adds to them."""

    name: str = setting(help="set by memory=NAME")
    width: int = number(64, least=1, help="of each layer, divided among the heads")
    layers: int = number(2, least=1, most=100, help="how many there are, one after another")
    heads: int = number(2, least=1, help="memories of a layer, side by side; not of gru and hgrn")
    context: int = number(
        32, least=1, allocated=True, help="width of what is handed on to the dynamics"
    )

    def least_bytes(self, prefix: str = "memory") -> dict[str, int]:
        """Bytes of what is allocated so and so many times, each as wide as a layer at least.

        Args:
            prefix: of the settings' names, which it goes by.
        """
        return {
            f"{prefix}.{f.name}": FLOAT * self.width * getattr(self, f.name)
            for f in fields(self)
            if f.metadata.get("allocated")
        }


class MemoryEncoder(nn.Module, ABC):
    """Summarises a history of transitions in a state of fixed size.

    A token is one transition: [normalised observation, action, normalised change]. As its end is
    the present observation, the context after the latest token needs no further query.

    Args:
        input_size: X, width of a token.
        context_size: C, width of the context.
    """

    def __init__(self, input_size: int, context_size: int) -> None:
        super().__init__()
        self.input_size = input_size
        self.context_size = context_size
        self.origin: Tensor
        self.register_buffer("origin", torch.zeros(()), persistent=False)

    def initial(self, batch: int) -> State:
        """The state of `batch` robots that have seen nothing; their context is zero."""
        state = {
            "context": self.origin.new_zeros(batch, self.context_size),
            **self._initial(batch),
        }
        return {name: x.contiguous() for name, x in state.items()}  # as kernels take it

    def encode(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Read a sequence of transitions at once, with gradients recorded: for training.

        Args:
            tokens: [B, T, X], T ≥ 1.
            state: where to go on from, left as it is. None: from nothing.

        Returns:
            The context after each transition, [B, T, C], and the last state, whose tensors share
            no memory with anything else.

        Raises:
            ValueError: tokens of another shape.
        """
        if tokens.dim() != 3 or tokens.shape[1] < 1 or tokens.shape[2] != self.input_size:
            wanted = f"[B, T ≥ 1, X={self.input_size}]"
            raise ValueError(f"encode needs tokens {wanted}; got {tuple(tokens.shape)}")
        contexts, after = self._encode(tokens, state)
        after = {"context": contexts[:, -1], **after}
        kept = {k: x.clone(memory_format=torch.contiguous_format) for k, x in after.items()}
        return contexts, kept

    @torch.no_grad()
    def step(self, state: State, token: Tensor) -> State:
        """Take in one transition: what `encode` computes, without gradients.

        The state's tensors are written in place and keep their addresses; there is no waiting for
        the device, so that a CUDA graph can hold it.

        Args:
            state: of B robots, as `initial` or `encode` returned it.
            token: [B, X].

        Returns:
            The same state.
        """
        state["context"].copy_(self._step(token, state))
        return state

    def read(self, state: State) -> Tensor:
        """[B, C]: the context now."""
        return state["context"]

    def auxiliary_loss(self) -> Tensor:
        """Loss of the routing in the latest `encode`, weighted; 0 where nothing is routed."""
        return self.origin

    def state_bytes(self) -> int:
        """Bytes that one robot's state takes."""
        return tensor_bytes(self.initial(1).values())

    @abstractmethod
    def _initial(self, batch: int) -> State:
        """The state but for the context."""

    @abstractmethod
    def _encode(self, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Contexts [B, T, C], and the state after the last but for the context."""

    @abstractmethod
    def _step(self, token: Tensor, state: State) -> Tensor:
        """The context [B, C]; all else in the state is brought up to date in place."""
