"""What a task asks of a physics engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from hypercrl_envs.world import World

CONTROL_PERIOD = 0.1
PHYSICS_STEP = 0.004
"""s. Runs 1.4 times as many control steps per second as 2 ms; the scripted solutions, the contacts
of the fingers and the turning of the box are the same."""

SUBSTEPS = round(CONTROL_PERIOD / PHYSICS_STEP)
LATCH_PERIOD = 5
"""Physics steps between two looks at a latch."""


class Simulator(ABC):
    """One simulated world with its state and its pictures."""

    @abstractmethod
    def get_state(self) -> np.ndarray:
        """Everything that the future depends on: float64 [N]."""

    @abstractmethod
    def set_state(self, state: np.ndarray) -> None:
        """Restore what `get_state` returned; raise ValueError if it is of another world."""

    def fault(self) -> str | None:
        """What went wrong in the engine since the last start, if it says so itself."""
        return None

    @abstractmethod
    def render(self) -> np.ndarray:
        """A picture: uint8 [height, width, 3].

        Raises:
            RenderingUnavailable: this machine cannot draw; the message says what to install.
        """

    @abstractmethod
    def close(self) -> None:
        """Free what pictures need; the simulator stays usable."""


class ArmSimulator(Simulator):
    """The arm in a world, moved by tip poses at 10 Hz.

    Turns are rotation vectors (axis times angle, rad) of the hand in the frame of `World.hand`.

    Attributes:
        world: its description.
    """

    world: World

    @abstractmethod
    def place(
        self,
        tip: np.ndarray,
        turn: np.ndarray,
        opening: float,
        poses: Mapping[str, tuple[np.ndarray, float]],
    ) -> None:
        """Start anew, at rest, every hinge at zero.

        Args:
            tip: [3] position, m, world frame.
            turn: [3] of the hand.
            opening: of each finger, m.
            poses: position [3] and yaw of each free body.

        Raises:
            ValueError: the tip cannot reach that pose.
        """

    @abstractmethod
    def advance(self, tip: np.ndarray, turn: np.ndarray, opening: float) -> None:
        """One control step toward a tip position [3], a turn [3] and an opening of the fingers."""

    @property
    @abstractmethod
    def tip(self) -> np.ndarray:
        """Position [3] of the tip, m, world frame."""

    @property
    @abstractmethod
    def tip_velocity(self) -> np.ndarray:
        """Linear velocity [3] of the tip, m/s, world frame."""

    @property
    @abstractmethod
    def turn(self) -> np.ndarray:
        """How far the hand is turned [3], rad."""

    @property
    @abstractmethod
    def opening(self) -> float:
        """Mean opening of the fingers, m; 0 is closed, 0.04 open."""

    @abstractmethod
    def body_pose(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Position [3] of a body's origin and its rotation matrix [3, 3], world frame."""

    @abstractmethod
    def body_velocity(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Linear (of the origin, m/s) and angular (rad/s) velocity of a free body, world frame."""

    @abstractmethod
    def hinge(self, name: str) -> tuple[float, float]:
        """Angle (rad) and velocity (rad/s); of a slider way (m) and velocity (m/s)."""

    @abstractmethod
    def show_success(self, solved: bool) -> None:
        """Give the markers that show success the colour of it, or their own."""
