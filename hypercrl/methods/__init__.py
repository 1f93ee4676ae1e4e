"""Continual-learning methods by name."""

import torch

from hypercrl.dynamics import DynamicsModel
from hypercrl.methods.agem import AGEM
from hypercrl.methods.base import Method, MethodConfig, StepReport
from hypercrl.methods.coreset import CoresetConfig, CoresetMethod
from hypercrl.methods.derpp import DERConfig, DERpp
from hypercrl.methods.ewc import EWC, EWCConfig, OnlineEWC
from hypercrl.methods.finetune import Finetune
from hypercrl.methods.ftl import FTL, FTLConfig
from hypercrl.methods.hnet import Hnet, HnetConfig
from hypercrl.methods.hnet_importance import HnetFisher, HnetFisherConfig, HnetSI, HnetSIConfig
from hypercrl.methods.hnet_replay import HnetReplay, HnetReplayConfig
from hypercrl.methods.packnet import PackNet, PackNetConfig
from hypercrl.methods.pnn import PNN
from hypercrl.methods.reservoir import Reservoir, ReservoirConfig
from hypercrl.methods.si import SI, SIConfig
from hypercrl.methods.single import Single
from hypercrl.transitions import Batch

METHODS: dict[str, tuple[type, type[MethodConfig]]] = {
    "hnet": (Hnet, HnetConfig),
    "chunked_hnet": (Hnet, HnetConfig),
    "hnet_replay": (HnetReplay, HnetReplayConfig),
    "hnet_si": (HnetSI, HnetSIConfig),
    "hnet_fisher": (HnetFisher, HnetFisherConfig),
    "single": (Single, MethodConfig),
    "finetune": (Finetune, MethodConfig),
    "multitask": (CoresetMethod, CoresetConfig),
    "coreset": (CoresetMethod, CoresetConfig),
    "coreset_bytes": (CoresetMethod, CoresetConfig),
    "reservoir": (Reservoir, ReservoirConfig),
    "derpp": (DERpp, DERConfig),
    "agem": (AGEM, CoresetConfig),
    "ewc": (EWC, EWCConfig),
    "online_ewc": (OnlineEWC, EWCConfig),
    "si": (SI, SIConfig),
    "pnn": (PNN, MethodConfig),
    "packnet": (PackNet, PackNetConfig),
    "ftl": (FTL, FTLConfig),
    "ftl_task": (FTL, FTLConfig),
}
"""Per name the method's class and the dataclass of its settings."""


def make_method(
    model: DynamicsModel,
    config: MethodConfig,
    generator: torch.Generator,
    sampler: torch.Generator,
) -> Method:
    """Build the method that the config names, on the device of `sampler`.

    All initial values come from `generator` (CPU), all later draws from `sampler`.
    """
    method = METHODS[config.name][0](model, config, generator, sampler)
    return method.to(sampler.device)


__all__ = ["METHODS", "Batch", "HnetConfig", "Method", "MethodConfig", "StepReport", "make_method"]
