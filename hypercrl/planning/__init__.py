"""Planners: pure functions of (rollout, reward, where to start, generator)."""

from torch import Tensor

from hypercrl.planning.cem import CEM, CEMConfig
from hypercrl.planning.icem import ICEM, ICEMConfig
from hypercrl.planning.mppi import MPPI, MPPIConfig
from hypercrl.planning.planner import (
    Planner,
    PlannerConfig,
    Reward,
    Rollout,
    Termination,
    expected_returns,
    trajectory_returns,
)
from hypercrl.planning.search import Iteration, Search, Stop, Watch

PLANNERS: dict[str, tuple[type, type[PlannerConfig]]] = {
    "cem": (CEM, CEMConfig),
    "icem": (ICEM, ICEMConfig),
    "mppi": (MPPI, MPPIConfig),
}
"""Per name the planner's class and the dataclass of its settings."""


def make_planner(config: PlannerConfig, low: Tensor, high: Tensor) -> Planner:
    """The planner that the config names, for actions between low and high, [A]."""
    return PLANNERS[config.name][0](config, low, high)


__all__ = [
    "CEM",
    "ICEM",
    "MPPI",
    "PLANNERS",
    "CEMConfig",
    "ICEMConfig",
    "Iteration",
    "MPPIConfig",
    "Planner",
    "PlannerConfig",
    "Reward",
    "Rollout",
    "Search",
    "Stop",
    "Termination",
    "Watch",
    "expected_returns",
    "make_planner",
    "trajectory_returns",
]
