"""Linear memories with a layer of full attention now and then.

Wang et al., "A systematic analysis of hybrid linear attention", 2025: gated memories at 3:1 to 6:1
come near full attention, of ratios from 24:1 to 3:1. SSE-H of Pan et al. 2025 is `linear=sse`.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hypercrl.base.errors import UserError, first_line
from hypercrl.base.settings import check, choice, number, setting
from hypercrl.base.wanted import wrong_kind
from hypercrl.memory.attention import WindowAttention
from hypercrl.memory.base import MemoryConfig
from hypercrl.memory.based import Based, BasedConfig
from hypercrl.memory.deltanet import DeltaNet, DeltaNetConfig
from hypercrl.memory.gated_deltanet import GatedDeltaNet, GatedDeltaNetConfig
from hypercrl.memory.gla import GLA, GLAConfig
from hypercrl.memory.hgrn import HGRN, HGRNConfig
from hypercrl.memory.hgrn2 import HGRN2, HGRN2Config
from hypercrl.memory.kda import KDA, KDAConfig
from hypercrl.memory.mom import MoM, MoMConfig
from hypercrl.memory.retnet import RetNet, RetNetConfig
from hypercrl.memory.sse import SSE, SSEConfig
from hypercrl.memory.stack import MemoryLayer, MemoryStack

LINEAR: dict[str, tuple[type[MemoryStack], type[MemoryConfig]]] = {
    "retnet": (RetNet, RetNetConfig),
    "hgrn": (HGRN, HGRNConfig),
    "gla": (GLA, GLAConfig),
    "hgrn2": (HGRN2, HGRN2Config),
    "deltanet": (DeltaNet, DeltaNetConfig),
    "gated_deltanet": (GatedDeltaNet, GatedDeltaNetConfig),
    "kda": (KDA, KDAConfig),
    "based": (Based, BasedConfig),
    "mom": (MoM, MoMConfig),
    "sse": (SSE, SSEConfig),
}
"""Families that a hybrid takes its linear layers from."""


@dataclass
class HybridConfig(MemoryConfig):
    """Which layers, and how many of each."""

    name: str = "hybrid"
    layers: int = number(4, least=1, most=100)
    linear: str = choice("gated_deltanet", *LINEAR, help="family of the linear layers")
    settings: Any = setting(None, help="of that family, such as {rows: 8} of sse")
    ratio: int = number(3, least=1, help="linear layers before each layer of attention")
    window: int = number(256, least=1, allocated=True, help="transitions that attention keeps")

    def least_bytes(self, prefix: str = "memory") -> dict[str, int]:
        """See `MemoryConfig`; with what the linear layers allocate."""
        needs = super().least_bytes(prefix)
        with suppress(ValueError):  # settings that cannot be, which the memory says itself
            needs |= linear_config(self, 1).least_bytes(f"{prefix}.settings")
        return needs


class Hybrid(MemoryStack):
    """Every (ratio + 1)-th layer is attention, the others are linear."""

    @classmethod
    def make_layers(cls, config: HybridConfig, generator: torch.Generator) -> list[MemoryLayer]:
        """The layers in order.

        Raises:
            ValueError: too few layers for any attention, or settings that the family does not have.
        """
        full = config.layers // (config.ratio + 1)
        if full == 0:
            raise ValueError(
                f"memory.layers must be at least memory.ratio + 1 = {config.ratio + 1}, "
                f"not {config.layers}"
            )
        family, _ = LINEAR[config.linear]
        linear = linear_config(config, config.layers - full)
        try:
            layers = family.make_layers(linear, generator)
        except ValueError as error:
            raise ValueError(_in_settings(str(error), type(linear))) from error
        for i in range(full):
            attention = WindowAttention(config.width, config.heads, config.window, generator)
            layers.insert((i + 1) * (config.ratio + 1) - 1, attention)
        return layers


def linear_config(config: HybridConfig, layers: int) -> MemoryConfig:
    """Settings of the linear layers: the hybrid's sizes, and the family's own.

    Raises:
        ValueError: names what the family does not have, or cannot have.
    """
    _, schema = LINEAR[config.linear]
    settings = {} if config.settings is None else config.settings
    if not isinstance(settings, Mapping):
        raise ValueError(f"memory.settings is {{SETTING: VALUE}}, not {settings!r}")
    own = _own_settings(schema)
    for name in settings:
        if name not in own:
            known = ", ".join(sorted(own)) or "none"
            raise ValueError(f"memory.settings.{name}: {config.linear} has {known}")
    sizes = {"width": config.width, "heads": config.heads, "layers": layers}
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), sizes, settings)
        linear: Any = OmegaConf.to_object(merged)
        check(linear, "memory.settings.")
    except OmegaConfBaseException as error:
        wanted = wrong_kind(error, usual=OmegaConf.structured(schema), above="memory.settings.")
        said = wanted or f"memory.settings.{error.full_key}: {first_line(error)}"
        raise ValueError(said.removesuffix(".")) from error
    except UserError as error:
        raise ValueError(str(error).removesuffix(".")) from error
    return linear


def _own_settings(schema: type[MemoryConfig]) -> set[str]:
    """Names of those that not every memory has."""
    return {f.name for f in fields(schema)} - {f.name for f in fields(MemoryConfig)}


def _in_settings(message: str, schema: type[MemoryConfig]) -> str:
    """What a family says of its own settings, under the names that they have in a hybrid."""
    own = "|".join(sorted(_own_settings(schema)))
    return re.sub(rf"memory\.({own})\b", r"memory.settings.\1", message) if own else message
