"""The physics engines that the arm can be simulated in."""

from __future__ import annotations

from collections.abc import Callable

from hypercrl_envs.bullet_simulator import BulletArm
from hypercrl_envs.mujoco_simulator import MujocoArm
from hypercrl_envs.simulator import ArmSimulator
from hypercrl_envs.world import World

ENGINES: dict[str, Callable[[World, str, int, int], ArmSimulator]] = {
    "mujoco": MujocoArm,
    "bullet": BulletArm,
}
"""Name → simulator of a world with a camera of `CAMERAS` and pictures of width × height."""
