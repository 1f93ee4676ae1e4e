"""Continual-learning methods by name."""

import torch

from hypercrl.dynamics import DynamicsModel
from hypercrl.methods.base import Batch, Method, MethodConfig, StepReport
from hypercrl.methods.baselines import Finetune, Single
from hypercrl.methods.hnet import Hnet, HnetConfig

METHODS: dict[str, tuple[type, type[MethodConfig]]] = {
    "hnet": (Hnet, HnetConfig),
    "chunked_hnet": (Hnet, HnetConfig),
    "finetune": (Finetune, MethodConfig),
    "single": (Single, MethodConfig),
}
"""Per name the method's class and the dataclass of its settings."""


def make_method(model: DynamicsModel, config: MethodConfig, generator: torch.Generator) -> Method:
    """Build the method that the config names; all initial values come from `generator` (CPU)."""
    return METHODS[config.name][0](model, config, generator)


__all__ = ["METHODS", "Batch", "HnetConfig", "Method", "MethodConfig", "StepReport", "make_method"]
