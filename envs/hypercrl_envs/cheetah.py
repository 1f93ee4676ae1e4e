"""Half-cheetahs with one part of the body larger than usual, or with motors that turn backward.

The model, the start states and the reward are those of gymnasium's HalfCheetah-v5; with
`body="base"` states and rewards equal it bit for bit. The observation is another one, whose change
a model predicts by plain difference. A body may change in mid-episode.
"""

# MuJoCo's compiled modules come without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import gymnasium
import mujoco
import numpy as np
import torch
from torch import Tensor

from hypercrl_envs.arm_task import SimulatedTask, SimulationOptions
from hypercrl_envs.drawn import Choice
from hypercrl_envs.mujoco_simulator import MujocoSimulator
from hypercrl_envs.mujoco_world import add_camera, check_dampers
from hypercrl_envs.names import known_name
from hypercrl_envs.task import Exploration
from hypercrl_envs.world import SUCCESS_COLOUR, Camera

BODIES = {
    "base": (),
    "torso": ("torso",),
    "thigh": ("bthigh", "fthigh"),
    "leg": ("bshin", "fshin"),
    "foot": ("bfoot", "ffoot"),
}
"""Name of a body → its geoms that are larger."""

JOINTS = ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")
"""In the order of the actions; b is the back leg."""

SCALE = 1.25
FRAME_SKIP = 5
CONTROL_PERIOD = 0.05
EFFORT_WEIGHT = 0.1
START_NOISE = 0.1
CHANGE_STEPS = (50, 150)
"""Steps between which a body changes."""

RUNNING_SPEED = 1.0
"""m/s: faster is success."""

PACE_WEIGHT = 0.05
"""Of the newest step in the running mean of the speed: its memory is 20 steps, one second."""

# Found by random search on the base body (Mania et al., 2018) for speed; it runs on all bodies. Per
# joint: gain on angle, 0.1 × velocity, sine of the pitch, 0.1 × its velocity, and a constant.
_GAIT = np.array(
    [
        [0.1, -0.4, 0.1, 0.3, 1.3],
        [-2.2, 1.8, 1.8, 0.5, 0.0],
        [-0.7, 0.9, -2.3, 2.1, 1.0],
        [-3.3, -1.4, -2.3, -1.4, 2.7],
        [-0.4, -3.9, 0.3, -0.2, 0.3],
        [0.5, 1.2, -0.8, -0.3, 2.2],
    ]
)

_TORSO_COLOUR = (0.8, 0.6, 0.4)
_CAMERAS = {
    "front": Camera((1.2, -2.6, 0.9), (0.0, 0.0, 0.0)),
    "side": Camera((0.0, -3.0, 0.3), (0.0, 0.0, 0.0)),
    "top": Camera((0.0, -0.9, 3.2), (0.0, 0.0, 0.0)),
}


class CheetahTask(SimulatedTask):
    """Run forward.

    Observation (20): height of the torso (m); cosine and sine of its pitch; angles of the back
    thigh, shin, foot and front thigh, shin, foot (rad); velocity of the torso forward and up (m/s)
    and of its pitch (rad/s); velocities of the six joints (rad/s); mean forward speed over the last
    step (m/s); pace: the running mean of that speed over about a second (m/s). A task with `told`
    adds a one in the place of its present body among zeros, for every body that there may be.

    Action (6): torques of the joints, in units of their limits.

    Reward: forward speed over the step - 0.1 ‖a‖². Success: a pace of more than 1 m/s. The goal
    distance is what it is short of that, m/s. Figure: pace, here the mean forward speed of the
    second half of an episode, m/s.

    Attributes:
        body: what it is at present.
    """

    engines = ("mujoco",)
    max_episode_steps = 200
    control_rate = 1.0 / CONTROL_PERIOD
    goal_unit = "m/s"

    def __init__(
        self,
        body: str = "base",
        becomes: Sequence[str] = (),
        reversed_joints: Sequence[str] = (),
        told: bool = False,
        **simulation: Unpack[SimulationOptions],
    ) -> None:
        """
        Args:
            body: one of `BODIES`: which part is 1.25 times as large; hidden from the observation.
            becomes: bodies of which each episode draws one, for its body to change into between
                steps 50 and 150; none: it stays as it is.
            reversed_joints: those of `JOINTS` whose motor turns the other way, as one that was
                connected the wrong way round; hidden from the observation.
            told: add the present body to the observation; not what it will be, nor when.
            simulation: engine and picture, see `SimulatedTask`.

        Raises:
            ValueError: an unknown body or joint, a `told` that is no truth value.
        """
        if not isinstance(told, bool):
            raise ValueError(f"told must be true or false, not {told!r}")
        self.told = told
        self.body = known_name(body, BODIES, "body")
        self._bodies = (body, *(known_name(name, BODIES, "body") for name in becomes))
        # It is drawn for later in the episode, and kept with when: not one of `drawn`.
        self._next = Choice("body", len(self._bodies), least=1)
        self.caption = "cheetah" if body == "base" else f"cheetah, big {body}"
        if becomes:
            self.caption += f", then big {' or '.join(becomes)}"
        backward = [known_name(name, JOINTS, "joint") for name in reversed_joints]
        if backward:
            self.caption += f", reversed {' '.join(backward)}"
        self.caption += ", told" if told else ""
        self._turns = np.where(np.isin(JOINTS, backward), -1.0, 1.0).astype(np.float32)
        size = 20 + (len(self._bodies) if told else 0)
        self.observation_space = gymnasium.spaces.Box(-1e3, 1e3, (size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (6,), np.float32)
        self.exploration = Exploration((0.0,) * 6, (0.0,) * 6)
        super().__init__(**simulation)
        self._simulators = [
            MujocoSimulator(
                _model(name, self.width, self.height), self.camera, self.width, self.height
            )
            for name in self._bodies
        ]
        self._mujoco = self._simulators[0]
        self._start = self._mujoco.model.qpos0.copy()
        self._speed = self._pace = 0.0
        self._steps_to_change = 0

    @property
    def simulator(self) -> MujocoSimulator:
        """MuJoCo with this body in it."""
        return self._mujoco

    def _reset_simulation(self) -> None:
        self._wear(0)
        model, data = self._mujoco.model, self._mujoco.data
        mujoco.mj_resetData(model, data)
        noise = self.np_random.uniform(-START_NOISE, START_NOISE, size=model.nq)
        data.qpos[:] = self._start + noise
        data.qvel[:] = START_NOISE * self.np_random.standard_normal(model.nv)
        mujoco.mj_forward(model, data)
        self._speed = self._pace = 0.0
        if self._next.varies:
            self._next.draw(self.np_random)
            self._steps_to_change = int(self.np_random.integers(*CHANGE_STEPS))

    def _wear(self, body: int) -> None:
        self.body, self._mujoco = self._bodies[body], self._simulators[body]

    def _change(self) -> None:
        state = self._mujoco.get_state()
        self._wear(int(self._next.value))
        self._mujoco.set_state(state)

    def _advance(self, action: np.ndarray) -> None:
        if self._steps_to_change > 0:
            self._steps_to_change -= 1
            if self._steps_to_change == 0:
                self._change()
        data = self._mujoco.data
        before = float(data.qpos[0])
        data.ctrl[:] = self._turns * action
        mujoco.mj_step(self._mujoco.model, data, nstep=FRAME_SKIP)
        self._speed = (float(data.qpos[0]) - before) / CONTROL_PERIOD
        self._pace += PACE_WEIGHT * (self._speed - self._pace)

    def _get_physics(self) -> np.ndarray:
        physics = np.append(super()._get_physics(), (self._speed, self._pace))
        if not self._next.varies:
            return physics
        return np.append(physics, (self._next.value, self._steps_to_change))

    def _set_physics(self, physics: np.ndarray) -> None:
        body, steps = self._next.values, 0
        if self._next.varies:
            steps = int(physics[-1])
            physics, body = self._next.split(physics[:-1])
        present = 0 if steps > 0 else int(body.item())
        self._simulators[present].set_state(physics[:-2])
        self._next.values, self._steps_to_change = body, steps
        self._wear(present)
        self._speed, self._pace = physics[-2:].tolist()

    def _observe(self) -> np.ndarray:
        data = self._mujoco.data
        obs = np.empty(self.observation_space.shape, dtype=np.float32)
        obs[0] = data.qpos[1]
        obs[1:3] = np.cos(data.qpos[2]), np.sin(data.qpos[2])
        obs[3:9] = data.qpos[3:]
        obs[9:18] = data.qvel
        obs[18:20] = self._speed, self._pace
        if self.told:
            obs[20:] = [self._mujoco is simulator for simulator in self._simulators]
        return obs

    def reward(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:  # noqa: ARG002
        return next_obs[..., 18] - EFFORT_WEIGHT * action.square().sum(dim=-1)

    def goal_distance(self, obs: Tensor) -> Tensor:
        """What is missing of the mean speed to be reached, m/s."""
        return (RUNNING_SPEED - obs[..., 19]).clamp(min=0.0)

    def success(self, obs: Tensor) -> Tensor:
        return obs[..., 19] > RUNNING_SPEED

    def figures(self, obs: Tensor) -> dict[str, Tensor]:
        return {"pace": obs[..., 18]}

    def render(self) -> np.ndarray | None:
        """See `SimulatedTask.render`; the torso is green while the task is solved."""
        solved = bool(self.success(torch.from_numpy(self._observe())))
        colour = SUCCESS_COLOUR if solved else _TORSO_COLOUR
        self._mujoco.model.geom("torso").rgba[:3] = colour
        return super().render()

    def close(self) -> None:
        """See `SimulatedTask.close`, for all bodies."""
        super().close()
        for simulator in self._simulators:
            simulator.close()

    def scripted_action(self, obs: np.ndarray) -> np.ndarray:
        """A gait: torques linear in angle and velocity of the joint and of the pitch."""
        own = np.stack((obs[3:9], 0.1 * obs[12:18]), axis=1)
        torso = np.tile((obs[2], 0.1 * obs[11], 1.0), (6, 1))
        torques = (_GAIT * np.hstack((own, torso))).sum(axis=1)
        return self._turns * np.clip(torques, -1.0, 1.0).astype(np.float32)


def _model(body: str, width: int, height: int) -> mujoco.MjModel:
    folder = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
    spec = mujoco.MjSpec.from_file(str(folder / "half_cheetah.xml"))
    for name in BODIES[body]:
        geom = spec.geom(name)
        geom.size = SCALE * geom.size
        geom.fromto = SCALE * geom.fromto
    for name, camera in _CAMERAS.items():
        add_camera(spec.body("torso"), name, camera, tracking=True)
    spec.visual.quality.shadowsize = 0
    spec.visual.quality.offsamples = 0
    spec.visual.global_.offwidth, spec.visual.global_.offheight = width, height
    with warnings.catch_warnings():
        # The file sets the total mass in a way that MuJoCo 4 deprecates.
        warnings.filterwarnings("ignore", message=".*settotalmass")
        model = spec.compile()
    check_dampers(model)
    return model
