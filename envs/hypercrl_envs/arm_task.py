"""What tasks with a simulator share, and what tasks of the arm share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Unpack

import numpy as np
import torch

from hypercrl_envs.drawn import Drawn
from hypercrl_envs.engines import ENGINES
from hypercrl_envs.mujoco_simulator import MujocoSimulator
from hypercrl_envs.names import known_name
from hypercrl_envs.simulator import ArmSimulator, Simulator
from hypercrl_envs.task import PictureOptions, Task
from hypercrl_envs.window import Window
from hypercrl_envs.world import World


class SimulationOptions(PictureOptions, total=False):
    """What `SimulatedTask` takes, and tasks hand on to it."""

    engine: str


class SimulatedTask(Task):
    """A task whose physics and pictures are those of one `Simulator`.

    Attributes:
        engines: names of the physics engines that it runs in.
        drawn: parameters that an episode may draw, in the order of their draws; subclasses set
            them before `super().__init__`.
    """

    engines: ClassVar[tuple[str, ...]]
    render_modes = ("rgb_array", "human")
    drawn: tuple[Drawn, ...] = ()

    def __init__(self, engine: str = "mujoco", **picture: Unpack[PictureOptions]) -> None:
        """
        Args:
            engine: one of `engines`.
            picture: see `Task`.

        Raises:
            ValueError: unknown engine, render mode or camera, a picture without pixels, or a window
                on another engine than MuJoCo.
            RenderingUnavailable: a window without a display.
        """
        super().__init__(**picture)
        self.engine = known_name(engine, self.engines, f"engine for {self.caption!r}")
        if engine != self.engines[0]:
            self.caption = f"{self.caption}, {engine}"
        self.restores_at_once = engine == "mujoco"
        if self.render_mode == "human" and engine != "mujoco":
            raise ValueError(f"render_mode 'human' needs engine 'mujoco', not {engine!r}")
        human = self.render_mode == "human"
        self._window = Window(self.camera, self.control_rate) if human else None

    @property
    @abstractmethod
    def simulator(self) -> Simulator:
        """The physics engine with this task's world in it."""

    def _reset_simulation(self) -> None:
        """Draw the parameters of the episode; subclasses draw a start state after it."""
        for parameter in self.drawn:
            parameter.draw(self.np_random)
        self._apply_drawn()

    def _apply_drawn(self) -> None:
        """Give the simulator the values of `drawn`, where they are not those that it has."""

    def _get_physics(self) -> np.ndarray:
        values = (parameter.state() for parameter in self.drawn)
        return np.concatenate([self.simulator.get_state(), *values])

    def _set_physics(self, physics: np.ndarray) -> None:
        values = []
        for parameter in reversed(self.drawn):
            physics, own = parameter.split(physics)
            values.insert(0, own)
        before = [parameter.values for parameter in self.drawn]
        self._use_drawn(values)
        try:
            self.simulator.set_state(physics)
        except ValueError:
            self._use_drawn(before)
            raise

    def _use_drawn(self, values: Sequence[np.ndarray]) -> None:
        for parameter, own in zip(self.drawn, values, strict=True):
            parameter.values = own
        self._apply_drawn()

    def _simulation_fault(self) -> str | None:
        return self.simulator.fault()

    def render(self) -> np.ndarray | None:
        """A picture from `camera`, uint8 [height, width, 3]; None where a window shows it.

        Raises:
            RuntimeError: the task was made without a render mode.
            RenderingUnavailable: this machine cannot draw; the message says what to install.
        """
        if self._window is not None:
            assert isinstance(self.simulator, MujocoSimulator)
            self._window.show(self.simulator.model, self.simulator.data)
            return None
        if self.render_mode != "rgb_array":
            raise RuntimeError('make the task with render_mode="rgb_array" to render it')
        return self.simulator.render()

    def close(self) -> None:
        """Close the window and free the renderer, if there are any."""
        if self._window is not None:
            self._window.close()
        self.simulator.close()


class ArmTask(SimulatedTask):
    """A task of the arm: subclasses say in `_world` what stands around it."""

    engines = tuple(ENGINES)

    def __init__(self, **simulation: Unpack[SimulationOptions]) -> None:
        """See `SimulatedTask`."""
        super().__init__(**simulation)
        self._arm = self._make_arm(self._world())

    def _make_arm(self, world: World) -> ArmSimulator:
        return ENGINES[self.engine](world, self.camera, self.width, self.height)

    @property
    def simulator(self) -> ArmSimulator:
        """The arm in this task's world."""
        return self._arm

    @abstractmethod
    def _world(self) -> World:
        """The world of this task; it is asked for once."""

    def render(self) -> np.ndarray | None:
        """See `SimulatedTask.render`; the goal is green while the task is solved."""
        self.simulator.show_success(bool(self.success(torch.from_numpy(self._observe()))))
        return super().render()
