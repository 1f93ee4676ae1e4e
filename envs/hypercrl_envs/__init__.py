"""Tasks for continual reinforcement learning on a Franka Panda arm."""

# First: MuJoCo reads its choice of GL backend when it is imported.
from hypercrl_envs.rendering import RenderingUnavailable, choose_gl_backend

choose_gl_backend()

from hypercrl_envs import gymnasium_ids  # noqa: E402
from hypercrl_envs.checked import TaskFault  # noqa: E402
from hypercrl_envs.closing import close, closed  # noqa: E402
from hypercrl_envs.fleet import Fleet, LocalFleet, SpreadFleet  # noqa: E402
from hypercrl_envs.registry import TASKS, make_task  # noqa: E402
from hypercrl_envs.sequence import TaskSequence  # noqa: E402
from hypercrl_envs.simulated_rollout import SimulatedRollout  # noqa: E402
from hypercrl_envs.task import Exploration, Task  # noqa: E402

gymnasium_ids.register()

__all__ = [
    "TASKS",
    "Exploration",
    "Fleet",
    "LocalFleet",
    "RenderingUnavailable",
    "SimulatedRollout",
    "SpreadFleet",
    "Task",
    "TaskFault",
    "TaskSequence",
    "close",
    "closed",
    "make_task",
]
