"""Continual-learning methods by name."""

import torch

from hypercrl.base.errors import UserError
from hypercrl.base.plugins import Table
from hypercrl.dynamics import DynamicsModel
from hypercrl.dynamics.context_model import ContextModel
from hypercrl.methods.agem import AGEM
from hypercrl.methods.base import Method, MethodConfig, StepReport
from hypercrl.methods.coreset import CoresetConfig, CoresetMethod
from hypercrl.methods.derpp import DERConfig, DERpp
from hypercrl.methods.ewc import EWC, EWCConfig, OnlineEWC
from hypercrl.methods.finetune import Finetune
from hypercrl.methods.ftl import FTL, FTLConfig
from hypercrl.methods.hnet import Hnet, HnetConfig
from hypercrl.methods.hnet_context import HnetContext
from hypercrl.methods.hnet_importance import HnetFisher, HnetFisherConfig, HnetSI, HnetSIConfig
from hypercrl.methods.hnet_replay import HnetReplay, HnetReplayConfig
from hypercrl.methods.lora import Lora, LoraConfig
from hypercrl.methods.packnet import PackNet, PackNetConfig
from hypercrl.methods.pnn import PNN
from hypercrl.methods.reservoir import Reservoir, ReservoirConfig
from hypercrl.methods.si import SI, SIConfig
from hypercrl.methods.single import Single
from hypercrl.methods.trial import try_out
from hypercrl.replay.transitions import Batch

_OWN: dict[str, tuple[type[Method], type[MethodConfig]]] = {
    "hnet": (Hnet, HnetConfig),
    "chunked_hnet": (Hnet, HnetConfig),
    "hnet_replay": (HnetReplay, HnetReplayConfig),
    "hnet_si": (HnetSI, HnetSIConfig),
    "hnet_fisher": (HnetFisher, HnetFisherConfig),
    "single": (Single, MethodConfig),
    "lora": (Lora, LoraConfig),
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

METHODS = Table("methods", "method", Method, MethodConfig, _OWN)
"""Per name the method's class and the dataclass of its settings."""


def make_method(
    model: DynamicsModel,
    config: MethodConfig,
    generator: torch.Generator,
    sampler: torch.Generator,
    *,
    tried: bool = False,
) -> Method:
    """Build the method that the config names, on the device of `sampler`.

    Args:
        model: that the method writes the weights of; config: the method's settings.
        generator: of all initial values (CPU); sampler: of all later draws.
        tried: it has trained already, and needs no trial if it is somebody else's.

    Raises:
        UserError: a model with a memory, whose context the method cannot take, or with a
            log-variance, which it cannot learn; an ensemble, which it cannot train; or a method of
            somebody else's that a run could not go on with, see `try_out`.
    """
    kind = _kind(config.name, model)
    check_members(config)
    if config.members > 1 and isinstance(model, ContextModel):
        raise UserError(
            "method.members > 1 learns from single transitions, without what came before them: use "
            "memory=none and context.always=false, or method.members=1."
        )
    if config.name not in METHODS and not tried:
        try_out(lambda *parts: kind(parts[0], config, *parts[1:]), model, config.name)
    return kind(model, config, generator, sampler).to(sampler.device)


def _kind(name: str, model: DynamicsModel) -> type[Method]:
    """The class of the method of that name, for this model."""
    kind: type[Method] = METHODS[name][0]
    if model.probabilistic and not kind.learns_variance:
        raise UserError(
            f"method={name} predicts no log-variance; use dynamics.probabilistic=false."
        )
    if not isinstance(model, ContextModel):
        return kind
    into = model.context_config.into
    if into == "hypernetwork" and model.distils:
        raise UserError(
            "context.into=hypernetwork writes a network for every window, so that old tasks have "
            "none to distil from, and R holds what is written: use context.protect=freeze or none."
        )
    if kind is Hnet and into == "hypernetwork":
        return HnetContext
    if into not in kind.conditionings:
        raise UserError(_cannot_take(name, into))
    return kind


def check_members(config: MethodConfig) -> None:
    """Raise UserError where a method trains no ensembles and is to."""
    if config.members > 1 and not METHODS[config.name][0].ensembles:
        able = ", ".join(other for other, (kind, _) in METHODS.items() if kind.ensembles)
        raise UserError(
            f"method={config.name} trains one network a task: use method.members=1, or one of "
            f"{able}."
        )


def _cannot_take(name: str, into: str) -> str:
    ways = METHODS[name][0].conditionings
    if ways:
        return f"method={name} takes no context.into={into}; use {' or '.join(ways)}."
    able = ", ".join(other for other, (kind, _) in METHODS.items() if kind.conditionings)
    return (
        f"method={name} takes no memory: it rehearses or weighs single transitions, without what "
        f"came before them. Use memory=none, or one of {able}."
    )


__all__ = [
    "METHODS",
    "Batch",
    "HnetConfig",
    "Method",
    "MethodConfig",
    "StepReport",
    "check_members",
    "make_method",
]
