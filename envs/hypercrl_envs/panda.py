"""One description of the Franka Emika Panda, written as a URDF that every engine reads.

Kinematics are the modified Denavit-Hartenberg (Craig) parameters that the maker publishes.
Inertials of the seven links are the physically consistent set of Gaz et al., "Dynamic
Identification of the Franka Emika Panda Robot With Retrieval of Feasible Parameters Using
Penalty-Based Optimization", IEEE RA-L 4(4), 2019; base, hand and fingers are the maker's.
Collision shapes are capsules, which are cheap, smooth, and known to MuJoCo and to PyBullet.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree import ElementTree

Vector3 = tuple[float, float, float]

ARM_JOINTS = tuple(f"panda_joint{i}" for i in range(1, 8))
FINGER_JOINTS = ("panda_finger_joint1", "panda_finger_joint2")
HAND_LINK = "panda_hand"
FINGER_LINKS = ("panda_leftfinger", "panda_rightfinger")

BASE_POSITION = (-0.56, 0.0, 0.0)
"""Where the root link stands in the world, m."""

TIP_OFFSET = 0.1034
"""Distance in metres from the origin of the hand to the point between the finger tips."""

READY_JOINTS = (0.0, -math.pi / 4, 0.0, -3 * math.pi / 4, 0.0, math.pi / 2, math.pi / 4)
"""A bent-elbow pose (rad) with the hand pointing straight down: the seed of inverse kinematics."""


@dataclass(frozen=True)
class Capsule:
    """The points within `radius` of the segment from `start` to `end`, metres, link frame."""

    start: Vector3
    end: Vector3
    radius: float


@dataclass(frozen=True)
class Link:
    """Inertia and shape of one rigid body.

    Attributes:
        mass: kg.
        centre: centre of mass in the link frame, m.
        inertia: (xx, yy, zz, xy, xz, yz) about the centre of mass, kg·m².
        capsules: collision shape.
    """

    name: str
    mass: float
    centre: Vector3
    inertia: tuple[float, float, float, float, float, float]
    capsules: tuple[Capsule, ...]


@dataclass(frozen=True)
class Joint:
    """A joint from one link to the next.

    Attributes:
        kind: URDF joint type.
        xyz, rpy: pose of the child frame in the parent frame at zero position, m and rad.
        axis: in the child frame.
        lower, upper: limits in rad (revolute) or m (prismatic).
        effort, velocity: limits in N·m and rad/s, or N and m/s.
    """

    name: str
    kind: str
    parent: str
    child: str
    xyz: Vector3
    rpy: Vector3
    axis: Vector3 = (0.0, 0.0, 1.0)
    lower: float = 0.0
    upper: float = 0.0
    effort: float = 0.0
    velocity: float = 0.0


def _revolute(index: int, a: float, d: float, alpha: float, lower: float, upper: float) -> Joint:
    """Joint `index` from its modified Denavit-Hartenberg row (a and alpha of the link before)."""
    large = index <= 4
    return Joint(
        name=f"panda_joint{index}",
        kind="revolute",
        parent=f"panda_link{index - 1}",
        child=f"panda_link{index}",
        xyz=(a, -d * math.sin(alpha), d * math.cos(alpha)),
        rpy=(alpha, 0.0, 0.0),
        lower=lower,
        upper=upper,
        effort=87.0 if large else 12.0,
        velocity=2.175 if large else 2.61,
    )


def _finger(index: int, link: str, yaw: float) -> Joint:
    return Joint(
        name=FINGER_JOINTS[index],
        kind="prismatic",
        parent=HAND_LINK,
        child=link,
        xyz=(0.0, 0.0, 0.0584),
        rpy=(0.0, 0.0, yaw),
        axis=(0.0, 1.0, 0.0),
        lower=0.0,
        upper=0.04,
        effort=70.0,
        velocity=0.2,
    )


_QUARTER = math.pi / 2

JOINTS: tuple[Joint, ...] = (
    _revolute(1, 0.0, 0.333, 0.0, -2.8973, 2.8973),
    _revolute(2, 0.0, 0.0, -_QUARTER, -1.7628, 1.7628),
    _revolute(3, 0.0, 0.316, _QUARTER, -2.8973, 2.8973),
    _revolute(4, 0.0825, 0.0, _QUARTER, -3.0718, -0.0698),
    _revolute(5, -0.0825, 0.384, -_QUARTER, -2.8973, 2.8973),
    _revolute(6, 0.0, 0.0, _QUARTER, -0.0175, 3.7525),
    _revolute(7, 0.088, 0.0, _QUARTER, -2.8973, 2.8973),
    Joint(
        "panda_hand_joint",
        "fixed",
        "panda_link7",
        HAND_LINK,
        xyz=(0.0, 0.0, 0.107),
        rpy=(0.0, 0.0, -math.pi / 4),
    ),
    _finger(0, FINGER_LINKS[0], 0.0),
    _finger(1, FINGER_LINKS[1], math.pi),
)

# A finger ends exactly at the tip: 0.0584 + 0.036 + 0.009 = 0.1034.
_FINGER_SHAPE = (Capsule((0.0, 0.0105, 0.0), (0.0, 0.0105, 0.036), 0.009),)
_FINGER_INERTIA = (2.375e-6, 2.375e-6, 7.5e-7, 0.0, 0.0, 0.0)

LINKS: tuple[Link, ...] = (
    Link(
        "panda_link0",
        0.629769,
        (-0.041018, -0.00014, 0.049974),
        (0.00315, 0.00388, 0.004285, 8.2904e-7, 0.00015, 8.2299e-6),
        (
            Capsule((-0.08, 0.0, 0.06), (0.0, 0.0, 0.06), 0.06),
            Capsule((0.0, 0.0, 0.06), (0.0, 0.0, 0.13), 0.07),
        ),
    ),
    Link(
        "panda_link1",
        4.970684,
        (0.003875, 0.002081, -0.04762),
        (0.70337, 0.70661, 0.0091170, -0.00013900, 0.0067720, 0.019169),
        (Capsule((0.0, 0.0, -0.18), (0.0, 0.0, -0.03), 0.062),),
    ),
    Link(
        "panda_link2",
        0.646926,
        (-0.003141, -0.02872, 0.003495),
        (0.0079620, 0.028110, 0.025995, -0.003925, 0.010254, 0.000704),
        (
            Capsule((0.0, 0.0, -0.06), (0.0, 0.0, 0.06), 0.062),
            Capsule((0.0, -0.05, 0.0), (0.0, -0.13, 0.0), 0.06),
        ),
    ),
    Link(
        "panda_link3",
        3.228604,
        (0.027518, 0.039252, -0.066502),
        (0.037242, 0.036155, 0.01083, -0.004761, -0.011396, -0.012805),
        (
            Capsule((0.0, 0.0, -0.18), (0.0, 0.0, -0.09), 0.058),
            Capsule((0.0, 0.0, -0.09), (0.07, 0.0, -0.01), 0.052),
        ),
    ),
    Link(
        "panda_link4",
        3.587895,
        (-0.05317, 0.104419, 0.027454),
        (0.025853, 0.019552, 0.028323, 0.007796, -0.001332, 0.008641),
        (
            Capsule((0.0, 0.0, -0.06), (0.0, 0.0, 0.06), 0.058),
            Capsule((0.0, 0.0, 0.0), (-0.0825, 0.1, 0.0), 0.052),
        ),
    ),
    Link(
        "panda_link5",
        1.225946,
        (-0.011953, 0.041065, -0.038437),
        (0.035549, 0.029474, 0.008627, -0.002117, -0.004037, 0.000229),
        (
            Capsule((0.0, 0.0, -0.27), (0.0, 0.0, -0.2), 0.055),
            Capsule((0.0, 0.01, -0.2), (0.0, 0.06, -0.06), 0.045),
            Capsule((0.0, 0.06, -0.06), (0.0, 0.05, 0.0), 0.045),
        ),
    ),
    Link(
        "panda_link6",
        1.666555,
        (0.060149, -0.014117, -0.010517),
        (0.001964, 0.004354, 0.005433, 0.000109, -0.001158, 0.000341),
        (
            Capsule((0.0, 0.0, -0.05), (0.0, 0.0, 0.05), 0.05),
            Capsule((0.0, 0.0, 0.0), (0.088, 0.0, 0.0), 0.046),
        ),
    ),
    Link(
        "panda_link7",
        0.735522,
        (0.010517, -0.004252, 0.061597),
        (0.012516, 0.010027, 0.004815, -0.000428, -0.001196, -0.000741),
        (Capsule((0.0, 0.0, -0.01), (0.0, 0.0, 0.07), 0.045),),
    ),
    Link(
        HAND_LINK,
        0.73,
        (-0.01, 0.0, 0.03),
        (0.001, 0.0025, 0.0017, 0.0, 0.0, 0.0),
        # 20 cm from end to end: the palm, and the reason why the height of the tip matters.
        (Capsule((0.0, -0.0684, 0.033), (0.0, 0.0684, 0.033), 0.0316),),
    ),
    Link(FINGER_LINKS[0], 0.015, (0.0, 0.0, 0.0), _FINGER_INERTIA, _FINGER_SHAPE),
    Link(FINGER_LINKS[1], 0.015, (0.0, 0.0, 0.0), _FINGER_INERTIA, _FINGER_SHAPE),
)


def panda_urdf(visuals: bool = False) -> str:
    """The robot as URDF text: links with inertials and capsules, joints with limits.

    Args:
        visuals: write the capsules as visual shapes too, for engines that draw nothing else.

    Lengths in m, angles in rad, masses in kg. The root link is `panda_link0` with its origin at
    the centre of the mounting face; `panda_hand` carries the two prismatic fingers.
    """
    robot = ElementTree.Element("robot", name="panda")
    for link in LINKS:
        _write_link(robot, link, visuals)
    for joint in JOINTS:
        _write_joint(robot, joint)
    ElementTree.indent(robot)
    return ElementTree.tostring(robot, encoding="unicode")


def _write_link(robot: ElementTree.Element, link: Link, visuals: bool) -> None:
    element = ElementTree.SubElement(robot, "link", name=link.name)
    inertial = ElementTree.SubElement(element, "inertial")
    write_origin(inertial, link.centre, (0.0, 0.0, 0.0))
    ElementTree.SubElement(inertial, "mass", value=repr(link.mass))
    axes = ("ixx", "iyy", "izz", "ixy", "ixz", "iyz")
    moments = {axis: repr(value) for axis, value in zip(axes, link.inertia, strict=True)}
    ElementTree.SubElement(inertial, "inertia", moments)
    for index, capsule in enumerate(link.capsules):
        name = f"{link.name}_capsule{index}"
        for use in ("collision", "visual") if visuals else ("collision",):
            _write_capsule(ElementTree.SubElement(element, use, name=name), capsule)


def _write_capsule(collision: ElementTree.Element, capsule: Capsule) -> None:
    (x0, y0, z0), (x1, y1, z1) = capsule.start, capsule.end
    dx, dy, dz = x1 - x0, y1 - y0, z1 - z0
    length = math.sqrt(dx * dx + dy * dy + dz * dz)
    # A URDF capsule lies along z: turn z to the direction of the segment by pitch, then yaw.
    pitch, yaw = math.acos(dz / length), math.atan2(dy, dx)
    centre = ((x0 + x1) / 2, (y0 + y1) / 2, (z0 + z1) / 2)
    write_origin(collision, centre, (0.0, pitch, yaw))
    geometry = ElementTree.SubElement(collision, "geometry")
    size = {"radius": repr(capsule.radius), "length": repr(length)}
    ElementTree.SubElement(geometry, "capsule", size)


def _write_joint(robot: ElementTree.Element, joint: Joint) -> None:
    element = ElementTree.SubElement(robot, "joint", name=joint.name, type=joint.kind)
    ElementTree.SubElement(element, "parent", link=joint.parent)
    ElementTree.SubElement(element, "child", link=joint.child)
    write_origin(element, joint.xyz, joint.rpy)
    if joint.kind == "fixed":
        return
    ElementTree.SubElement(element, "axis", xyz=_numbers(joint.axis))
    limits = {
        "lower": repr(joint.lower),
        "upper": repr(joint.upper),
        "effort": repr(joint.effort),
        "velocity": repr(joint.velocity),
    }
    ElementTree.SubElement(element, "limit", limits)


def write_origin(element: ElementTree.Element, xyz: Iterable[float], rpy: Iterable[float]) -> None:
    """Add a URDF origin, m and rad."""
    ElementTree.SubElement(element, "origin", xyz=_numbers(xyz), rpy=_numbers(rpy))


def _numbers(vector: Iterable[float]) -> str:
    return " ".join(repr(value) for value in vector)
