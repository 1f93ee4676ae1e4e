"""Linear memories with a layer of full attention now and then.

Wang et al., "A systematic analysis of hybrid linear attention", 2025: gated memories at 3:1 to 6:1
come near full attention.
"""

from dataclasses import dataclass

import torch

from hypercrl.base.settings import choice, number
from hypercrl.memory.attention import WindowAttention
from hypercrl.memory.base import MemoryConfig
from hypercrl.memory.deltanet import DeltaNet, DeltaNetConfig
from hypercrl.memory.gated_deltanet import GatedDeltaNet, GatedDeltaNetConfig
from hypercrl.memory.gla import GLA, GLAConfig
from hypercrl.memory.hgrn import HGRN, HGRNConfig
from hypercrl.memory.hgrn2 import HGRN2, HGRN2Config
from hypercrl.memory.kda import KDA, KDAConfig
from hypercrl.memory.retnet import RetNet, RetNetConfig
from hypercrl.memory.stack import MemoryLayer, MemoryStack

LINEAR: dict[str, tuple[type[MemoryStack], type[MemoryConfig]]] = {
    "retnet": (RetNet, RetNetConfig),
    "hgrn": (HGRN, HGRNConfig),
    "gla": (GLA, GLAConfig),
    "hgrn2": (HGRN2, HGRN2Config),
    "deltanet": (DeltaNet, DeltaNetConfig),
    "gated_deltanet": (GatedDeltaNet, GatedDeltaNetConfig),
    "kda": (KDA, KDAConfig),
}
"""Families that a hybrid takes its linear layers from."""


@dataclass
class HybridConfig(MemoryConfig):
    """Which layers, and how many of each."""

    name: str = "hybrid"
    layers: int = number(4, least=1)
    linear: str = choice("gated_deltanet", *LINEAR, help="family of the linear layers")
    ratio: int = number(3, least=1, help="linear layers before each layer of attention")
    window: int = number(256, least=1, help="transitions that attention keeps")


class Hybrid(MemoryStack):
    """Every (ratio + 1)-th layer is attention, the others are linear."""

    @classmethod
    def make_layers(cls, config: HybridConfig, generator: torch.Generator) -> list[MemoryLayer]:
        """The layers in order.

        Raises:
            ValueError: too few layers for any attention.
        """
        full = config.layers // (config.ratio + 1)
        if full == 0:
            raise ValueError(
                f"memory.layers must be at least memory.ratio + 1 = {config.ratio + 1}, "
                f"not {config.layers}"
            )
        family, schema = LINEAR[config.linear]
        sizes = {"width": config.width, "heads": config.heads}
        linear = schema(name=config.linear, layers=config.layers - full, **sizes)
        layers = family.make_layers(linear, generator)
        for i in range(full):
            attention = WindowAttention(config.width, config.heads, config.window, generator)
            layers.insert((i + 1) * (config.ratio + 1) - 1, attention)
        return layers
