"""Continual model-based reinforcement learning on robots with hypernetworks.

The doors for a program of your own, each imported when it is first used (see docs/api.md):
`load` a trained agent and act with it, `train` one.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypercrl.api.agent import PlanReport, Prediction, TrainedAgent, load
    from hypercrl.api.train import TrainingResult, train
    from hypercrl.base.errors import UserError

__version__ = "0.1.0"

__all__ = [
    "PlanReport",
    "Prediction",
    "TrainedAgent",
    "TrainingResult",
    "UserError",
    "__version__",
    "load",
    "train",
]

_MODULES = {
    "PlanReport": "hypercrl.api.agent",
    "Prediction": "hypercrl.api.agent",
    "TrainedAgent": "hypercrl.api.agent",
    "TrainingResult": "hypercrl.api.train",
    "UserError": "hypercrl.base.errors",
    "load": "hypercrl.api.agent",
    "train": "hypercrl.api.train",
}


if not TYPE_CHECKING:  # or no name would be a mistake to a type checker

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_MODULES[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
