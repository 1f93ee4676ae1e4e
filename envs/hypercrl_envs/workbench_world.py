"""A bench with five things on it: a button, a drawer, a lever, a block and a puck.

Seen from above, x ahead and y to the left, in cm; the tip begins at T:

        x
     12 |          goal           lever
      6 |  drawer                   |
      0 |            block          +
    -12 |    button    T    puck          goal of the puck
        +-----------------------------------------------
    y      22   14     0    -14  -12       -34

All of it is low enough for the palm to pass above it while the fingers reach to its foot.
"""

from __future__ import annotations

import math

import numpy as np

from hypercrl_envs.world import (
    Body,
    Camera,
    Colour,
    Hinge,
    Marker,
    Shape,
    Slider,
    Vector3,
    World,
)

HOME = (-0.12, 0.0, 0.08)
"""Where the tip is as an episode begins, m."""

LOWEST_TIP = 0.03
"""m. There the palm is 6.9 cm above the table, and nothing is higher than 6.2 cm."""

CONTACT_HEIGHT = 0.035
"""At which the tip moves what stands on the table, m."""

BUTTON, DRAWER, LEVER, BLOCK, PUCK = "button", "drawer", "lever", "block", "puck"

BUTTON_PLACE = (-0.12, 0.14)
BUTTON_TOP = 0.052
BUTTON_TRAVEL = 0.02

DRAWER_PLACE = (0.05, 0.22)
"""Of the handle of the closed drawer (x, y), m."""
DRAWER_TRAVEL = 0.14
HANDLE_GAP = 0.03
"""From the handle to the middle of the gap behind it, m."""

LEVER_PIVOT = (0.12, -0.12)
LEVER_GRIP = 0.105
"""From the pivot, m."""
LEVER_STOP = 1.3
LEVER_HALF_WIDTH = 0.008

BLOCK_PLACE = (0.0, 0.0)
BLOCK_HALF = 0.035
BLOCK_HEIGHT = 0.06

PUCK_PLACE = (-0.12, -0.14)
PUCK_HALF = 0.03
PUCK_HEIGHT = 0.056
PUCK_FRICTION = 0.06

GOAL_COLOUR = (0.98, 0.55, 0.08)

_RED: Colour = (0.85, 0.18, 0.15, 1.0)
_WOOD: Colour = (0.62, 0.45, 0.30, 1.0)
_METAL: Colour = (0.75, 0.77, 0.80, 1.0)
_DARK: Colour = (0.30, 0.32, 0.36, 1.0)
_BLUE: Colour = (0.20, 0.42, 0.75, 1.0)
_ICE: Colour = (0.45, 0.75, 0.80, 1.0)
_CABINET: Colour = (0.86, 0.85, 0.82, 1.0)

_CAMERAS = {
    "front": Camera((0.68, -0.76, 0.72), (-0.12, 0.0, 0.12)),
    "side": Camera((-0.2, -1.45, 0.6), (-0.2, 0.0, 0.27)),
    "top": Camera((0.02, -0.06, 1.05), (-0.04, -0.06, 0.0)),
}


def workbench_world(goal: tuple[Marker, ...]) -> World:
    """The bench, the same for every task but for the markers that show what is wanted."""
    return World(
        bodies=(_button(), _drawer(), _lever(), _block(), _puck()),
        markers=(*_surroundings(), *goal),
        cameras=_CAMERAS,
        home=HOME,
    )


def lever_grip(angle: float) -> np.ndarray:
    """Where the lever is pushed (x, y), m, turned by an angle in rad."""
    return np.array(LEVER_PIVOT) - LEVER_GRIP * np.array([math.cos(angle), math.sin(angle)])


def _button() -> Body:
    """A cap over a spring; it is lighter than its dry friction, so that it does not sink."""
    half = 0.014
    cap = Shape("cap", "cylinder", (0.026, half), 300.0, _RED)
    joint = Slider(BUTTON, (0.0, 0.0, -1.0), 0.0, BUTTON_TRAVEL, 1.0, 0.3, stiffness=150.0)
    return Body(BUTTON, (*BUTTON_PLACE, BUTTON_TOP - half), (cap,), joint)


def _drawer() -> Body:
    """Handle, front and a tray with a load slide toward the robot.

    MuJoCo's dry friction is soft: in what its damper stops within 9 ms it would push forward.
    """
    parts = (
        Shape("handle", "box", (0.005, 0.035, 0.018), 800.0, _METAL, (0.0, 0.0, 0.041)),
        Shape("foot", "box", (0.03, 0.008, 0.006), 800.0, _METAL, (0.03, 0.0, 0.014)),
        Shape("panel", "box", (0.006, 0.075, 0.026), 500.0, _WOOD, (0.062, 0.0, 0.031)),
        Shape("tray", "box", (0.075, 0.068, 0.004), 6000.0, _WOOD, (0.143, 0.0, 0.009)),
    )
    joint = Slider(DRAWER, (-1.0, 0.0, 0.0), 0.0, DRAWER_TRAVEL, damping=20.0, friction=2.0)
    return Body(DRAWER, (*DRAWER_PLACE, 0.0), parts, joint)


def _lever() -> Body:
    """A bar that lies toward the robot and is turned to the right."""
    bar = (0.06, LEVER_HALF_WIDTH, 0.015)
    parts = (
        Shape("bar", "box", bar, 2700.0, _METAL, (-0.065, 0.0, 0.042)),
        Shape("hub", "cylinder", (0.018, 0.028), 800.0, _DARK, (0.0, 0.0, 0.031)),
    )
    joint = Hinge(LEVER, (0.0, 0.0, 1.0), 0.0, LEVER_STOP, damping=0.02, friction=0.1)
    return Body(LEVER, (*LEVER_PIVOT, 0.0), parts, joint)


def _block() -> Body:
    size = (BLOCK_HALF, BLOCK_HALF, BLOCK_HEIGHT / 2)
    shape = Shape("cube", "box", size, 500.0, _BLUE)
    return Body(BLOCK, (*BLOCK_PLACE, BLOCK_HEIGHT / 2), (shape,))


def _puck() -> Body:
    """Square: a finger 1 cm beside the middle would send a round one 15° beside the way."""
    size = (PUCK_HALF, PUCK_HALF, PUCK_HEIGHT / 2)
    shape = Shape("disc", "box", size, 1000.0, _ICE, friction=PUCK_FRICTION)
    return Body(PUCK, (*PUCK_PLACE, PUCK_HEIGHT / 2), (shape,))


def _surroundings() -> tuple[Marker, ...]:
    """The button's box and the drawer's cabinet: what moves nowhere touches nothing."""
    x, y = DRAWER_PLACE[0] + 0.165, DRAWER_PLACE[1]
    parts: tuple[tuple[str, Vector3, Vector3], ...] = (
        ("cabinet_top", (0.09, 0.085, 0.004), (x, y, 0.066)),
        ("cabinet_left", (0.09, 0.004, 0.033), (x, y + 0.081, 0.033)),
        ("cabinet_right", (0.09, 0.004, 0.033), (x, y - 0.081, 0.033)),
    )
    cabinet = tuple(Marker(name, size, place, _CABINET) for name, size, place in parts)
    return (*cabinet, Marker("button_box", (0.036, 0.036, 0.011), (*BUTTON_PLACE, 0.011), _DARK))
