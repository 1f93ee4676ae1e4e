"""Memory encoders: what an agent infers from its own transitions."""

from typing import Any

import torch

from hypercrl.base.plugins import Table
from hypercrl.memory.base import MemoryConfig, MemoryEncoder, State
from hypercrl.memory.gru import GRU, GRUConfig
from hypercrl.memory.hopfield import Hopfield, HopfieldConfig
from hypercrl.memory.hybrid import LINEAR, Hybrid, HybridConfig
from hypercrl.memory.none import NoMemory, NoMemoryConfig
from hypercrl.memory.titans import (
    TitansMAC,
    TitansMACConfig,
    TitansMAG,
    TitansMAGConfig,
    TitansMAL,
    TitansMALConfig,
)
from hypercrl.memory.transformer import Transformer, TransformerConfig
from hypercrl.memory.trial import tried_out

_OWN: dict[str, tuple[type, type[MemoryConfig]]] = {
    "none": (NoMemory, NoMemoryConfig),
    "gru": (GRU, GRUConfig),
    "transformer": (Transformer, TransformerConfig),
    **LINEAR,
    "titans_mac": (TitansMAC, TitansMACConfig),
    "titans_mag": (TitansMAG, TitansMAGConfig),
    "titans_mal": (TitansMAL, TitansMALConfig),
    "hopfield": (Hopfield, HopfieldConfig),
    "hybrid": (Hybrid, HybridConfig),
}

MEMORIES: Table[Any, MemoryConfig] = Table("memories", "memory", MemoryEncoder, MemoryConfig, _OWN)
"""Per name the encoder's class and the dataclass of its settings."""


def make_memory(config: MemoryConfig, input_size: int, generator: torch.Generator) -> MemoryEncoder:
    """The encoder that the config names.

    Args:
        input_size: width of a token: observation, action and change of one transition.
        generator: CPU generator of all initial parameters.

    Raises:
        ValueError: settings that do not fit together, named; or an encoder of somebody else's that
            does something else in control than in training.
    """
    kind = MEMORIES[config.name][0]
    if config.name in MEMORIES:
        return kind(input_size, config, generator)
    return tried_out(lambda drawn: kind(input_size, config, drawn), config.name, generator)


__all__ = ["MEMORIES", "MemoryConfig", "MemoryEncoder", "State", "make_memory"]
