"""A door with a handle in front of the arm: its geometry, hinges and latch.

The door hangs on a vertical hinge and opens toward the robot. Seen from the robot the hinge is on
the left; a mirrored door has it on the right, and its lever points the other way.
"""

from __future__ import annotations

import math
from typing import Literal

from hypercrl_envs.world import (
    Body,
    Camera,
    Colour,
    Hinge,
    Latch,
    Marker,
    Quaternion,
    Shape,
    Vector3,
    World,
)

HOME = (0.0, 0.0, 0.80)
"""Where the tip grips the handle of a closed door, m."""

HAND_FORWARD: Quaternion = (0.5, -0.5, 0.5, -0.5)
"""(w, x, y, z): the hand points along world x and its fingers open up and down."""

# With the elbow out to the side, all turns and the whole arc of the door are in reach.
POSTURE = (-1.033, -0.594, 0.798, -1.853, 1.499, 2.841, 1.294)

HINGE, KNOB = "hinge", "knob"
RADIUS = 0.55
UNLATCH_ANGLE = 0.6
OPEN_ANGLE = 0.3
LEVER_GRIP = 0.075

_PANEL = (0.012, 0.32, 0.6)
_PANEL_MASS = 3.0
_STANDOFF = 0.06
_PLANE = _STANDOFF + _PANEL[0]
_LEVER_LENGTH = 0.11
_BAR_RADIUS = 0.009
_RIDGES = 0.022
_DEPTH = 0.022

_METAL_DENSITY = 2700.0
_WOOD: Colour = (0.62, 0.45, 0.30, 1.0)
_METAL: Colour = (0.75, 0.77, 0.80, 1.0)
_FRAME: Colour = (0.86, 0.85, 0.82, 1.0)
_PEG: Colour = (0.98, 0.55, 0.08, 1.0)


def door_world(handle: str, turn: int, mirrored: bool) -> World:
    """The world of a door.

    Args:
        handle: "pull", "lever" or "round".
        turn: way in which the handle can be turned: 1 or -1 about world x; a pull bar is fixed.
        mirrored: hinged on the right instead of the left.
    """
    side = -1.0 if mirrored else 1.0
    parts = {"pull": _pull_bar, "lever": _lever, "round": _round_knob}[handle](side)
    shapes, children = parts, ()
    if handle != "pull":
        shapes = ()
        children = (_knob(handle, parts, turn, side),)
    volume = 8.0 * math.prod(_PANEL)
    panel = Shape(
        "panel",
        "box",
        _PANEL,
        _PANEL_MASS / volume,
        _WOOD,
        position=(0.0, -side * _PANEL[1], 0.0),
    )
    door = Body(
        "door",
        (HOME[0] - _DEPTH + _PLANE, side * RADIUS, HOME[2]),
        (panel, *shapes),
        Hinge(HINGE, (0.0, 0.0, -side), 0.0, math.pi / 2, damping=1.5, friction=0.2),
        children,
    )
    return World(
        bodies=(door,),
        markers=_frame(side),
        cameras=_cameras(side),
        home=HOME,
        hand=HAND_FORWARD,
        posture=POSTURE,
        latch=None if handle == "pull" else Latch(HINGE, KNOB, UNLATCH_ANGLE),
    )


def _cameras(side: float) -> dict[str, Camera]:
    """The whole arm and the whole door, seen past the edge that opens: in front the handle too."""
    return {
        "front": Camera((-1.35, -1.5 * side, 1.4), (-0.25, 0.12 * side, 0.68)),
        "side": Camera((-0.3, -2.1 * side, 1.0), (-0.25, 0.0, 0.68)),
        "top": Camera((-0.35, 0.15 * side, 2.75), (-0.25, 0.15 * side, 0.7)),
    }


def grip_point(handle: str, mirrored: bool) -> tuple[str, Vector3]:
    """The point that the tip should hold: a body and a place in its frame, m.

    It is a little behind the bar, so that the fingers reach around it, and it moves with a lever.
    """
    side = -1.0 if mirrored else 1.0
    if handle == "pull":
        return "door", (-_PLANE + _DEPTH, -side * RADIUS, 0.0)
    if handle == "lever":
        return KNOB, (-_STANDOFF + _DEPTH, side * LEVER_GRIP, 0.0)
    return KNOB, (-_STANDOFF + _DEPTH, 0.0, 0.0)


def _knob(handle: str, shapes: tuple[Shape, ...], turn: int, side: float) -> Body:
    """The turning part; its frame is on the face of the panel."""
    low, high = (0.0, math.pi / 2) if turn > 0 else (-math.pi / 2, 0.0)
    hinge = Hinge(KNOB, (1.0, 0.0, 0.0), low, high, damping=0.1, friction=0.02, stiffness=0.3)
    beyond = LEVER_GRIP if handle == "lever" else 0.0
    return Body(KNOB, (-_PANEL[0], -side * (RADIUS + beyond), 0.0), shapes, hinge)


def _pull_bar(side: float) -> tuple[Shape, ...]:
    """A bar across, on two stems; in the frame of the door."""
    y, half = -side * RADIUS, 0.05
    stem = (0.007, _STANDOFF / 2)
    middle = -_PANEL[0] - _STANDOFF / 2
    return (
        _metal("bar", "capsule", (_BAR_RADIUS, half), (-_PLANE, y, 0.0), 1),
        _metal("stem_0", "cylinder", stem, (middle, y - half, 0.0), 0),
        _metal("stem_1", "cylinder", stem, (middle, y + half, 0.0), 0),
    )


def _lever(side: float) -> tuple[Shape, ...]:
    half = _LEVER_LENGTH / 2
    return (
        _spindle(),
        _metal("lever", "capsule", (_BAR_RADIUS, half), (-_STANDOFF, side * half, 0.0), 1),
    )


def _round_knob(side: float) -> tuple[Shape, ...]:  # noqa: ARG001
    """A knob with six ridges: from a smooth one, fingers of round section slip off sideways."""
    ridges = []
    for index in range(6):
        angle = index * math.pi / 3
        place = (-_STANDOFF, _RIDGES * math.cos(angle), _RIDGES * math.sin(angle))
        ridges.append(_metal(f"ridge_{index}", "capsule", (0.007, 0.008), place, 0))
    core = _metal("round", "cylinder", (0.018, 0.012), (-_STANDOFF, 0.0, 0.0), 0)
    return (_spindle(), core, *ridges)


def _spindle() -> Shape:
    return _metal("spindle", "cylinder", (0.01, _STANDOFF / 2), (-_STANDOFF / 2, 0.0, 0.0), 0)


def _metal(
    name: str,
    kind: Literal["cylinder", "capsule"],
    size: tuple[float, float],
    place: Vector3,
    axis: int,
) -> Shape:
    return Shape(name, kind, size, _METAL_DENSITY, _METAL, position=place, axis=axis)


def _frame(side: float) -> tuple[Marker, ...]:
    """Posts and lintel, green on success, and a peg under where the open door's edge shall be."""
    x, y, z = HOME[0] - _DEPTH + _PLANE, side * (RADIUS - _PANEL[1]), HOME[2]
    reach = _PANEL[1] + 0.025
    top = z + _PANEL[2] + 0.025
    width = 2.0 * _PANEL[1]
    edge = (x - width * math.sin(OPEN_ANGLE), side * (RADIUS - width * math.cos(OPEN_ANGLE)))
    post = (0.02, 0.02, top / 2)
    return (
        Marker("post_left", post, (x, y + reach, top / 2), _FRAME, shows_success=True),
        Marker("post_right", post, (x, y - reach, top / 2), _FRAME, shows_success=True),
        Marker("lintel", (0.02, reach + 0.02, 0.02), (x, y, top), _FRAME, shows_success=True),
        Marker("goal", (0.015, 0.015, 0.08), (*edge, 0.08), _PEG, shows_success=True),
    )
