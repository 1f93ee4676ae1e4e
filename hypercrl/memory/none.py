"""No memory: the context is empty."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypercrl.base.settings import unused
from hypercrl.memory.base import MemoryConfig, MemoryEncoder, State


@dataclass
class NoMemoryConfig(MemoryConfig):
    """Nothing to set; widths do not matter."""

    name: str = "none"
    width: int = unused(64)
    layers: int = unused(2)
    heads: int = unused(2)
    context: int = unused(32)


class NoMemory(MemoryEncoder):
    """Remembers nothing; its context has width 0."""

    def __init__(
        self,
        input_size: int,
        config: NoMemoryConfig,  # noqa: ARG002
        generator: torch.Generator,  # noqa: ARG002
    ) -> None:
        super().__init__(input_size, context_size=0)

    def _initial(self, batch: int) -> State:  # noqa: ARG002
        return {}

    def _encode(
        self,
        tokens: Tensor,
        state: State | None,  # noqa: ARG002
    ) -> tuple[Tensor, State]:
        return tokens[..., :0], {}

    def _step(self, token: Tensor, state: State) -> Tensor:  # noqa: ARG002
        return token[:, :0]
