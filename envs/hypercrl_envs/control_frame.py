"""The frame that actions are given in: turned or mirrored, as that of a re-mounted arm."""

from __future__ import annotations

import math

import numpy as np

from hypercrl_envs.task import Exploration


def control_frame(degrees: float, flip_y: bool) -> np.ndarray:
    """Matrix [2, 2] from actions to the world frame: mirror y, then turn about z."""
    # Multiples of a right angle are exact: the sine of 180° shall be zero.
    cosine, sine = (
        round(value, 12)
        for value in (math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))
    )
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return turn @ np.diag([1.0, -1.0 if flip_y else 1.0])


def drift(ahead: tuple[float, float], aside: float, frame: np.ndarray) -> Exploration:
    """A drift along world x, and a little to the sides, in the control frame `frame` [2, 2].

    At multiples of 90° its bounds are exact, at other angles they are those of the smallest
    rectangle around it.

    Args:
        ahead: least and largest component along x, in actions.
        aside: largest along y, either way.
    """
    ends = np.array([(x, y) for x in ahead for y in (-aside, aside)]) @ frame
    low, high = ends.min(axis=0), ends.max(axis=0)
    return Exploration(tuple(low.tolist()), tuple(high.tolist()))
