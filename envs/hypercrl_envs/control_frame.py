"""The frame that actions are given in: turned or mirrored, as that of a re-mounted arm."""

from __future__ import annotations

import math

import numpy as np

from hypercrl_envs.drawn import Angle, Value
from hypercrl_envs.task import Exploration


class ControlFrame(Angle):
    """A frame turned about z by an angle that may be drawn, its y axis mirrored before."""

    def __init__(self, given: Value, flip_y: bool) -> None:
        """
        Args:
            given: angle in degrees, or a range of it: an action along x moves along its
                (cos, sin).

        Raises:
            ValueError: an angle that is neither finite nor a range, a `flip_y` that is no truth
                value.
        """
        if not isinstance(flip_y, bool):
            raise ValueError(f"flip_y must be true or false, not {flip_y!r}")
        super().__init__("frame", given, "an angle in degrees, or a range [low, high] of it")
        self.flip_y = flip_y

    @property
    def matrix(self) -> np.ndarray:
        """From actions to the world frame, [2, 2]."""
        angle = math.radians(self.value)
        # Multiples of a right angle are exact: the sine of 180° shall be zero.
        cosine, sine = round(math.cos(angle), 12), round(math.sin(angle), 12)
        turn = np.array([[cosine, -sine], [sine, cosine]])
        return turn @ np.diag([1.0, -1.0 if self.flip_y else 1.0])

    def caption(self) -> str:
        """What a caption adds; nothing for the frame of the world."""
        turned = self.varies or self.value != 0.0
        frame = f", frame {self.text('°', ' to ')}" if turned else ""
        return frame + (", y flipped" if self.flip_y else "")

    def drift(self, ahead: tuple[float, float], aside: float) -> Exploration:
        """A drift along world x, and a little to the sides, in this frame.

        At multiples of 90° its bounds are exact, at other angles they are those of the smallest
        rectangle around it, and of a frame not drawn yet those of the middle of its range.

        Args:
            ahead: least and largest component along x, in actions.
            aside: largest along y, either way.
        """
        ends = np.array([(x, y) for x in ahead for y in (-aside, aside)]) @ self.matrix
        low, high = ends.min(axis=0), ends.max(axis=0)
        return Exploration(tuple(low.tolist()), tuple(high.tolist()))
