"""A pole on a cart, whose motor may be connected the wrong way round.

The cart-pole balance of the Actuator Inversion Benchmark (Benad et al. 2026, arXiv:2602.06550),
which is that of dm_control (Tunyasuvunakool et al. 2020): its masses, motor, limits, start states
and reward. An action is held for four of its steps of 0.01 s, and an episode takes 4 s of its 10.
"""

# MuJoCo's compiled modules come without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import math
from typing import Unpack

import gymnasium
import mujoco
import numpy as np
import torch
from torch import Tensor

from hypercrl_envs.arm_task import SimulatedTask, SimulationOptions
from hypercrl_envs.checked import is_number
from hypercrl_envs.mujoco_simulator import MujocoSimulator
from hypercrl_envs.mujoco_world import add_camera, check_dampers
from hypercrl_envs.task import Exploration
from hypercrl_envs.world import SUCCESS_COLOUR, Camera

PHYSICS_STEP = 0.01
HELD = 4
CART_MASS, POLE_MASS, POLE_RADIUS = 1.0, 0.1, 0.045
GEAR = 10.0
"""N at an action of 1."""
TRACK = 1.8
SLIDER_DAMPING, HINGE_DAMPING = 5e-4, 2e-6
START_POSITION, START_ANGLE, START_SPEED = 0.1, 0.034, 0.01
UPRIGHT, CENTRED = 0.995, 0.25
"""Least cosine of the pole's angle and largest |x| that count as balanced."""

# Of the linear-quadratic regulator of the default pole, for (x, θ, ẋ, θ̇).
_GAINS = np.array([0.6, 5.2, 0.9, 1.5])

_POLE_COLOUR = (0.85, 0.72, 0.35)
_CAMERAS = {
    "front": Camera((0.0, -4.2, 1.6), (0.0, 0.0, 1.3)),
    "side": Camera((3.2, -2.6, 1.6), (0.0, 0.0, 1.3)),
    "top": Camera((0.0, -2.0, 3.6), (0.0, 0.0, 1.2)),
}


class CartpoleTask(SimulatedTask):
    """Keep the pole upright and the cart in the middle.

    Observation (5): x of the cart (m), cosine and sine of the pole's angle θ from upright, their
    velocities ẋ (m/s) and θ̇ (rad/s).

    Action (1): force on the cart, ±10 N, turned round where the motor is reversed.

    Reward: (1 + cos θ)/2 · (1 + 0.1^(x/2)²)/2 · (5 − a²)/5 · (1 + 0.1^(θ̇/5)²)/2. Success:
    cos θ ≥ 0.995 and |x| ≤ 0.25 m; the goal distance is |θ|.
    """

    engines = ("mujoco",)
    max_episode_steps = 100
    control_rate = 1 / (HELD * PHYSICS_STEP)
    goal_unit = "rad"

    def __init__(
        self,
        reversed_motor: bool = False,
        half_length: float = 0.5,
        **simulation: Unpack[SimulationOptions],
    ) -> None:
        """
        Args:
            reversed_motor: it pushes the other way; hidden.
            half_length: of the pole, 0.1 to 1 m, hidden.
            simulation: engine and picture, see `SimulatedTask`.

        Raises:
            ValueError: a `reversed_motor` that is no truth value, a length out of its range.
        """
        if not isinstance(reversed_motor, bool):
            raise ValueError(f"reversed_motor must be true or false, not {reversed_motor!r}")
        if not (is_number(half_length) and 0.1 <= half_length <= 1.0):
            raise ValueError(f"half_length must be 0.1 to 1 m, not {half_length!r}")
        self.caption = f"cart-pole {2 * half_length:g} m"
        if reversed_motor:
            self.caption += ", reversed motor"
        self._turn = -1.0 if reversed_motor else 1.0
        self.observation_space = gymnasium.spaces.Box(-1e3, 1e3, (5,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.exploration = Exploration((0.0,), (0.0,))
        super().__init__(**simulation)
        model = _model(half_length, self.width, self.height)
        self._mujoco = MujocoSimulator(model, self.camera, self.width, self.height)

    @property
    def simulator(self) -> MujocoSimulator:
        """MuJoCo with the cart in it."""
        return self._mujoco

    def _reset_simulation(self) -> None:
        model, data = self._mujoco.model, self._mujoco.data
        mujoco.mj_resetData(model, data)
        spread = START_POSITION, START_ANGLE
        data.qpos[:] = self.np_random.uniform(-1.0, 1.0, size=2) * spread
        data.qvel[:] = START_SPEED * self.np_random.standard_normal(2)
        mujoco.mj_forward(model, data)

    def _advance(self, action: np.ndarray) -> None:
        self._mujoco.data.ctrl[:] = self._turn * action
        mujoco.mj_step(self._mujoco.model, self._mujoco.data, nstep=HELD)

    def _observe(self) -> np.ndarray:
        (x, angle), velocity = self._mujoco.data.qpos, self._mujoco.data.qvel
        return np.array([x, math.cos(angle), math.sin(angle), *velocity], dtype=np.float32)

    def reward(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:  # noqa: ARG002
        x, cosine, speed = next_obs[..., 0], next_obs[..., 1], next_obs[..., 4]
        upright = (1 + cosine) / 2
        centred = (1 + _tolerance(x / 2)) / 2
        gentle = (5 - action[..., 0].square()) / 5
        slow = (1 + _tolerance(speed / 5)) / 2
        return upright * centred * gentle * slow

    def goal_distance(self, obs: Tensor) -> Tensor:
        return torch.atan2(obs[..., 2], obs[..., 1]).abs()

    def success(self, obs: Tensor) -> Tensor:
        return (obs[..., 1] >= UPRIGHT) & (obs[..., 0].abs() <= CENTRED)

    def render(self) -> np.ndarray | None:
        """See `SimulatedTask.render`; the pole is green while it is balanced."""
        solved = bool(self.success(torch.from_numpy(self._observe())))
        colour = SUCCESS_COLOUR if solved else _POLE_COLOUR
        self._mujoco.model.geom("pole").rgba[:3] = colour
        return super().render()

    def scripted_action(self, obs: np.ndarray) -> np.ndarray:
        """Linear in position, angle and their velocities."""
        state = np.array([obs[0], math.atan2(obs[2], obs[1]), obs[3], obs[4]])
        return np.array([np.clip(self._turn * (_GAINS @ state), -1.0, 1.0)], dtype=np.float32)


def _tolerance(distance: Tensor) -> Tensor:
    """1 at 0, 0.1 at ±1: exp(ln 0.1 d²)."""
    return torch.exp(math.log(0.1) * distance.square())


def _model(half_length: float, width: int, height: int) -> mujoco.MjModel:
    spec = mujoco.MjSpec()
    spec.option.timestep = PHYSICS_STEP
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_RK4
    spec.option.disableflags = int(mujoco.mjtDisableBit.mjDSBL_CONTACT)
    world = spec.worldbody
    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT,
        rgb1=(0.95, 0.95, 0.93),
        width=8,
        height=48,
    )
    world.add_light(pos=(0.0, -1.0, 6.0), dir=(0.0, 0.2, -1.0))
    world.add_geom(
        name="rail",
        type=mujoco.mjtGeom.mjGEOM_CAPSULE,
        fromto=(-TRACK - 0.2, 0.0, 1.0, TRACK + 0.2, 0.0, 1.0),
        size=(0.02, 0.0, 0.0),
        rgba=(0.6, 0.6, 0.62, 1.0),
    )
    for name, camera in _CAMERAS.items():
        add_camera(world, name, camera)
    cart = world.add_body(name="cart", pos=(0.0, 0.0, 1.0))
    slider = cart.add_joint(
        name="slider",
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=(1.0, 0.0, 0.0),
        limited=True,
        range=(-TRACK, TRACK),
    )
    slider.solref_limit[:] = 0.08, 1.0
    cart.add_geom(
        name="cart",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=(0.2, 0.15, 0.1),
        mass=CART_MASS,
        rgba=(0.16, 0.35, 0.62, 1.0),
    )
    pole = cart.add_body(name="pole")
    pole.add_joint(name="hinge", type=mujoco.mjtJoint.mjJNT_HINGE, axis=(0.0, 1.0, 0.0))
    pole.add_geom(
        name="pole",
        type=mujoco.mjtGeom.mjGEOM_CAPSULE,
        fromto=(0.0, 0.0, 0.0, 0.0, 0.0, 2 * half_length),
        size=(POLE_RADIUS, 0.0, 0.0),
        mass=POLE_MASS,
    )
    motor = spec.add_actuator(name="motor", target="slider", trntype=mujoco.mjtTrn.mjTRN_JOINT)
    motor.gear[0] = GEAR
    spec.visual.global_.offwidth, spec.visual.global_.offheight = width, height
    spec.visual.quality.shadowsize = 0  # a shadow map takes four times as long as the picture
    model = spec.compile()
    model.dof_damping[:] = SLIDER_DAMPING, HINGE_DAMPING
    check_dampers(model)
    return model
