"""What stands around the arm, described once for every engine.

A task writes a `World`; `mujoco_world.py` and `bullet_world.py` build it. Objects meet the robot
and each other, the robot skips itself. The friction of an object is that of its contacts with
anything else: the table and the fingers have 1, and no engine's way of mixing two coefficients
shows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from hypercrl_envs.panda import READY_JOINTS, Vector3

Colour = tuple[float, float, float, float]
Quaternion = tuple[float, float, float, float]

CAMERAS = ("front", "side", "top")
ROBOT_CONTACT = (1, 2)
OBJECT_CONTACT = (2, 3)
"""(group, mask): two shapes collide where the group of one is in the mask of the other."""

TABLE_HALF_EXTENTS: Vector3 = (0.62, 0.5, 0.02)
TABLE_POSITION: Vector3 = (-0.2, 0.0, -0.0205)
TABLE_COLOUR: Colour = (0.80, 0.77, 0.71, 1.0)

SUCCESS_COLOUR = (0.15, 0.80, 0.25)

HAND_DOWN: Quaternion = (0.0, 1.0, 0.0, 0.0)
"""(w, x, y, z): the hand points down and its x axis forward, half a turn about world x."""


@dataclass(frozen=True)
class Shape:
    """A solid that collides and is seen.

    Attributes:
        kind: "box" with half extents (x, y, z), or "cylinder" or "capsule" with (radius, half
            length) along `axis`; all in m. The half length of a capsule is without its caps.
        position: of the centre in the frame of the body, m.
        axis: 0, 1 or 2 for x, y or z of the body.
        density: kg/m³.
        friction: coefficient of sliding.
    """

    name: str
    kind: Literal["box", "cylinder", "capsule"]
    size: tuple[float, ...]
    density: float
    colour: Colour
    position: Vector3 = (0.0, 0.0, 0.0)
    axis: int = 2
    friction: float = 1.0

    def __post_init__(self) -> None:
        if len(self.size) != (3 if self.kind == "box" else 2):
            raise ValueError(f"shape {self.name!r}: a {self.kind} has no size {self.size}")


@dataclass(frozen=True)
class Hinge:
    """A joint that turns a body about an axis through its origin.

    Attributes:
        name: of the joint.
        axis: unit vector in the frame of the parent.
        low, high: limits, rad.
        damping: N·m·s/rad.
        friction: dry friction, N·m.
        stiffness: of a spring toward zero, N·m/rad.
    """

    name: str
    axis: Vector3
    low: float
    high: float
    damping: float
    friction: float
    stiffness: float = 0.0


@dataclass(frozen=True)
class Slider(Hinge):
    """A joint that shifts a body along an axis; what is in rad of a hinge is in m here.

    Attributes:
        low, high: limits, m.
        damping: N·s/m.
        friction: dry friction, N.
        stiffness: of a spring toward zero, N/m.
    """


@dataclass(frozen=True)
class Body:
    """A rigid body with others hanging from it.

    Attributes:
        position: of its origin in the frame of the parent, m.
        hinge: how it moves; without one a root body moves freely.
    """

    name: str
    position: Vector3
    shapes: tuple[Shape, ...]
    hinge: Hinge | None = None
    children: tuple[Body, ...] = ()

    def __post_init__(self) -> None:
        if any(child.hinge is None for child in self.children):
            raise ValueError(f"body {self.name!r}: every child needs a hinge")

    def tree(self) -> list[Body]:
        """This body and all below it, parents first."""
        return [self, *(body for child in self.children for body in child.tree())]


@dataclass(frozen=True)
class Marker:
    """A box that is seen and touches nothing; half extents and position in m, world frame.

    Attributes:
        shows_success: it takes the colour of success while the task is solved.
    """

    name: str
    half_extents: Vector3
    position: Vector3
    colour: Colour
    shows_success: bool = False


@dataclass(frozen=True)
class Latch:
    """Locks one hinge at zero until another is turned by `release` rad, either way.

    It catches again when the hinge is back within `catch` rad of zero and the other one is let go.
    """

    hinge: str
    knob: str
    release: float
    catch: float = 0.005

    def holds(self, hinge: float, knob: float) -> bool:
        """Whether the latch is caught at these angles, rad."""
        return hinge < self.catch and abs(knob) < self.release


@dataclass(frozen=True)
class Camera:
    """A view from `position` to `target`, m, world frame; z is up. 45° from top to bottom."""

    position: Vector3
    target: Vector3


@dataclass(frozen=True)
class World:
    """Everything that a simulator needs to know about a task.

    Attributes:
        bodies: the roots.
        home: tip position, m, whose arm posture the null space keeps to.
        hand: orientation of the hand that turns are counted from.
        posture: joints [7], rad, from which that posture is found.
    """

    bodies: tuple[Body, ...]
    markers: tuple[Marker, ...]
    cameras: dict[str, Camera]
    home: Vector3
    hand: Quaternion = HAND_DOWN
    posture: tuple[float, ...] = READY_JOINTS
    latch: Latch | None = field(default=None)


def camera_axes(camera: Camera) -> np.ndarray:
    """Rotation matrix [3, 3] of a camera: its right, its up, and backward as columns."""
    backward = np.subtract(camera.position, camera.target)
    backward /= np.linalg.norm(backward)
    right = np.cross((0.0, 0.0, 1.0), backward)
    right /= np.linalg.norm(right)
    return np.column_stack((right, np.cross(backward, right), backward))


def mass_properties(shapes: tuple[Shape, ...]) -> tuple[float, np.ndarray, np.ndarray]:
    """Mass (kg), centre of mass [3] (m) and inertia about it [3, 3] (kg·m²) of solid shapes."""
    masses = np.array([shape.density * _volume(shape) for shape in shapes])
    places = np.array([shape.position for shape in shapes])
    mass = float(masses.sum())
    centre = masses @ places / mass
    inertia = np.zeros((3, 3))
    for shape, part, place in zip(shapes, masses, places, strict=True):
        offset = place - centre
        inertia += np.diag(part * _moments(shape))
        inertia += part * (offset @ offset * np.eye(3) - np.outer(offset, offset))
    return mass, centre, inertia


def _volume(shape: Shape) -> float:
    if shape.kind == "box":
        return 8.0 * math.prod(shape.size)
    radius, half = shape.size
    caps = 4.0 / 3.0 * math.pi * radius**3 if shape.kind == "capsule" else 0.0
    return 2.0 * math.pi * radius**2 * half + caps


def _moments(shape: Shape) -> np.ndarray:
    """Moments of inertia [3] about the centre for a mass of one."""
    if shape.kind == "box":
        squares = np.square(shape.size)
        return (squares.sum() - squares) / 3.0
    radius, half = shape.size
    along = radius**2 / 2.0
    across = radius**2 / 4.0 + half**2 / 3.0
    if shape.kind == "capsule":
        # A cylinder and two half balls whose centres of mass are 3/8 radius beyond its ends.
        caps = 4.0 / 3.0 * math.pi * radius**3 / _volume(shape)
        ball = 0.4 * radius**2
        along = (1.0 - caps) * along + caps * ball
        across = (1.0 - caps) * across + caps * (ball + half**2 + 0.75 * half * radius)
    moments = np.full(3, across)
    moments[shape.axis] = along
    return moments
