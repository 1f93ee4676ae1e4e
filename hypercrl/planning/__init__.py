"""Planners: pure functions of (rollout, reward, where to start, generator)."""

from torch import Tensor

from hypercrl.base.errors import UserError
from hypercrl.base.plugins import Table
from hypercrl.planning.cem import CEM, CEMConfig
from hypercrl.planning.icem import ICEM, ICEMConfig
from hypercrl.planning.mppi import MPPI, MPPIConfig
from hypercrl.planning.planner import Follow, Planner, PlannerConfig, Rollout
from hypercrl.planning.policy_search import PolicySearch, PolicySearchConfig
from hypercrl.planning.returns import Returns, Reward, Termination, trajectory_returns
from hypercrl.planning.risk import expected_returns
from hypercrl.planning.search import Iteration, Search, Stop, Watch
from hypercrl.planning.trial import try_out

_OWN: dict[str, tuple[type[Planner], type[PlannerConfig]]] = {
    "cem": (CEM, CEMConfig),
    "icem": (ICEM, ICEMConfig),
    "mppi": (MPPI, MPPIConfig),
    "policy": (PolicySearch, PolicySearchConfig),
}

PLANNERS = Table("planners", "planner", Planner, PlannerConfig, _OWN)
"""Per name the planner's class and the dataclass of its settings."""


def make_planner(config: PlannerConfig, low: Tensor, high: Tensor) -> Planner:
    """The planner that the config names, for actions between low and high, [A].

    Raises:
        ValueError: settings that do not fit together; or a planner of somebody else's that samples
            or fits what cannot be.
    """
    kind = PLANNERS[config.name][0]
    if config.name in PLANNERS:
        return kind(config, low, high)
    from hypercrl_envs.checked import retold  # loads simulators, which only who plugs in waits for

    with retold(
        ValueError, f"planner={config.name}: making it", but=(UserError, ValueError), end=""
    ):
        planner = kind(config, low, high)
    # What policies are searched through is known later.
    if not planner.follows:
        try_out(planner, config.name)
    return planner


__all__ = [
    "CEM",
    "ICEM",
    "MPPI",
    "PLANNERS",
    "CEMConfig",
    "Follow",
    "ICEMConfig",
    "Iteration",
    "MPPIConfig",
    "Planner",
    "PlannerConfig",
    "PolicySearch",
    "PolicySearchConfig",
    "Returns",
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
