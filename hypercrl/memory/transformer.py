"""Full softmax attention: everything in the window is kept as it was."""

from dataclasses import dataclass

import torch

from hypercrl.base.settings import number
from hypercrl.memory.attention import WindowAttention
from hypercrl.memory.base import MemoryConfig
from hypercrl.memory.stack import MemoryLayer, MemoryStack


@dataclass
class TransformerConfig(MemoryConfig):
    """What is kept."""

    name: str = "transformer"
    window: int = number(256, least=1, allocated=True, help="transitions that are kept")


class Transformer(MemoryStack):
    """Vaswani et al., "Attention is all you need", 2017, with RoPE, RMSNorm and SwiGLU."""

    @classmethod
    def make_layers(
        cls, config: TransformerConfig, generator: torch.Generator
    ) -> list[MemoryLayer]:
        sizes = (config.width, config.heads, config.window)
        return [WindowAttention(*sizes, generator) for _ in range(config.layers)]
