"""Tasks without an engine: a few lines of arithmetic move a vector on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from hypercrl_envs.task import Task
from hypercrl_envs.world import SUCCESS_COLOUR

Disc = tuple[float, float, float, tuple[float, float, float]]
"""Centre (x, y) and radius, where the picture spans -1 to 1, and colour (r, g, b) in 0 to 1."""

GOAL_COLOUR = (0.85, 0.72, 0.35)
BODY_COLOUR = (0.16, 0.35, 0.62)
_GROUND = (0.95, 0.95, 0.93)


class ClosedFormTask(Task):
    """A task whose whole physics is one vector of float64: exact, and restored at once.

    Subclasses draw it in `_reset_simulation` and move it on in `_advance`.
    """

    restores_at_once = True
    cameras = ("front",)
    _state: np.ndarray

    def _get_physics(self) -> np.ndarray:
        return self._state.copy()

    def _set_physics(self, physics: np.ndarray) -> None:
        if physics.shape != self._state.shape:
            raise ValueError(
                f"a state of this task has shape {self._state.shape}, not {physics.shape}"
            )
        self._state = physics.copy()

    @abstractmethod
    def _discs(self) -> Sequence[Disc]:
        """What the picture shows, from the back to the front."""

    def render(self) -> np.ndarray:
        """A picture seen from above, uint8 [height, width, 3].

        Raises:
            RuntimeError: the task was not made with `render_mode="rgb_array"`.
        """
        if self.render_mode != "rgb_array":
            raise RuntimeError('make the task with render_mode="rgb_array" to render it')
        half = min(self.width, self.height) / 2
        x = (np.arange(self.width) + 0.5 - self.width / 2) / half
        y = (self.height / 2 - np.arange(self.height) - 0.5)[:, None] / half
        picture = np.full((self.height, self.width, 3), _GROUND)
        for centre_x, centre_y, radius, colour in self._discs():
            distance = np.hypot(x - centre_x, y - centre_y)
            # An edge one pixel wide is as smooth as it looks.
            covered = np.clip((radius - distance) * half + 0.5, 0.0, 1.0)[..., None]
            picture += covered * (np.array(colour) - picture)
        return np.round(255 * picture).astype(np.uint8)


def goal_colour(solved: bool) -> tuple[float, float, float]:
    """Green while the task is solved."""
    return SUCCESS_COLOUR if solved else GOAL_COLOUR
