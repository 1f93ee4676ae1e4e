"""From a `World` to bodies in a PyBullet client.

Bullet damps a joint with the velocity at the start of a step, v ← v (1 - h d / I), which turns a
light knob round at every step (h d > I) or makes it diverge (h d > 2 I). The hinges of a world are
integrated implicitly instead, as in MuJoCo. The linearly implicit step of a spring k and a damper d
(Baraff and Witkin, 1998, equation 6),
    (I + h d + h² k) (v' - v) = h (-k q - (d + h k) v + torques of contacts, motors, weights),
is an explicit one of a joint with the inertia h d + h² k more and the damping h k more. So a hinge
gets a flywheel and that damper here, and `-k q` at every step; whatever else acts on the joint,
Bullet's solver weighs against the same inertia.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from hypercrl_envs.bullet_client import BulletClient
from hypercrl_envs.damping import check_explicit_damper
from hypercrl_envs.panda import (
    BASE_POSITION,
    FINGER_LINKS,
    HAND_LINK,
    panda_urdf,
    write_origin,
)
from hypercrl_envs.world import (
    OBJECT_CONTACT,
    ROBOT_CONTACT,
    TABLE_COLOUR,
    TABLE_HALF_EXTENTS,
    TABLE_POSITION,
    Body,
    Hinge,
    Marker,
    Shape,
    Slider,
    mass_properties,
)

_QUARTER = math.pi / 2
_FROM_Z_TO = ((0.0, _QUARTER, 0.0), (-_QUARTER, 0.0, 0.0), (0.0, 0.0, 0.0))
_WHITE = (0.93, 0.94, 0.95, 1.0)
_DARK = (0.22, 0.24, 0.27, 1.0)


def load_robot(client: BulletClient) -> int:
    """The arm on its base, with our inertias; returns its body number."""
    flags = client.URDF_USE_INERTIA_FROM_FILE
    robot = _load(client, panda_urdf(visuals=True), flags, BASE_POSITION, fixed=True)
    dark = (HAND_LINK, *FINGER_LINKS)
    for index, name in enumerate(link_names(client, robot), start=-1):
        colour = _DARK if name in dark else _WHITE
        client.changeVisualShape(robot, index, rgbaColor=colour)
        _set_contact(client, robot, index, ROBOT_CONTACT, friction=1.0)
        # The controller is the only damping that the arm has.
        client.changeDynamics(robot, index, linearDamping=0.0, angularDamping=0.0, jointDamping=0.0)
    return robot


def load_body(client: BulletClient, body: Body, timestep: float) -> int:
    """A root body of a world, at rest; returns its body number.

    Args:
        timestep: physics step, s, that its hinges are damped for.

    Raises:
        ValueError: a hinge whose damper would be unstable in Bullet; the message names it.
    """
    flags = client.URDF_USE_INERTIA_FROM_FILE | client.URDF_USE_IMPLICIT_CYLINDER
    fixed = body.hinge is not None
    number = _load(client, body_urdf(body, timestep), flags, body.position, fixed=fixed)
    frictions = {part.name: part.shapes[0].friction for part in body.tree()}
    for index, name in enumerate(link_names(client, number), start=-1):
        if name in frictions:
            _set_contact(client, number, index, OBJECT_CONTACT, frictions[name])
        client.changeDynamics(number, index, linearDamping=0.0, angularDamping=0.0)
    check_dampers(client, number, timestep)
    return number


def check_dampers(client: BulletClient, body: int, timestep: float) -> None:
    """Check that Bullet damps every joint stably with the inertias and dampings that it has read.

    Raises:
        ValueError: a joint whose velocity its damper would reverse; the message names it.
    """
    joints = [client.getJointInfo(body, index) for index in range(client.getNumJoints(body))]
    if not joints:
        return
    mass = np.array(client.calculateMassMatrix(body, [0.0] * len(joints)))
    for joint, mobility in zip(joints, np.linalg.inv(mass).diagonal(), strict=True):
        check_explicit_damper(f"joint {joint[1].decode()!r}", joint[6], 1.0 / mobility, timestep)


def load_table(client: BulletClient) -> None:
    """A plane that objects rest on, seen as a table top."""
    plane = client.createCollisionShape(client.GEOM_PLANE)
    top = client.createVisualShape(
        client.GEOM_BOX,
        halfExtents=TABLE_HALF_EXTENTS,
        rgbaColor=TABLE_COLOUR,
        visualFramePosition=TABLE_POSITION,
    )
    table = client.createMultiBody(0.0, plane, top)
    _set_contact(client, table, -1, OBJECT_CONTACT, friction=1.0)


def load_marker(client: BulletClient, marker: Marker) -> int:
    """A box that touches nothing; returns its body number."""
    shape = client.createVisualShape(
        client.GEOM_BOX, halfExtents=marker.half_extents, rgbaColor=marker.colour
    )
    return client.createMultiBody(0.0, -1, shape, marker.position)


def link_names(client: BulletClient, body: int) -> list[str]:
    """Names of the base and then of all links."""
    base = client.getBodyInfo(body)[0].decode()
    links = (client.getJointInfo(body, i)[12].decode() for i in range(client.getNumJoints(body)))
    return [base, *links]


def joint_index(client: BulletClient, body: int, name: str) -> int:
    """Number of a joint, which is that of the link it moves."""
    joints = range(client.getNumJoints(body))
    return next(i for i in joints if client.getJointInfo(body, i)[1].decode() == name)


def body_urdf(body: Body, timestep: float) -> str:
    """A root body with all that hangs from it, as URDF text; `timestep` as in `load_body`."""
    robot = ElementTree.Element("robot", name=body.name)
    if body.hinge is not None:
        frame = ElementTree.SubElement(robot, "link", name="frame")
        _write_inertial(frame, 1.0, np.zeros(3), np.eye(3))
        _write_hinge(robot, "frame", body, (0.0, 0.0, 0.0), timestep)
    for part in body.tree():
        _write_link(robot, part, timestep)
        for child in part.children:
            _write_hinge(robot, part.name, child, child.position, timestep)
    return ElementTree.tostring(robot, encoding="unicode")


def _write_link(robot: ElementTree.Element, body: Body, timestep: float) -> None:
    link = ElementTree.SubElement(robot, "link", name=body.name)
    mass, centre, inertia = mass_properties(body.shapes)
    if body.hinge is not None:
        inertia = inertia + _flywheel(body.hinge, timestep)
    _write_inertial(link, mass, centre, inertia)
    for shape in body.shapes:
        collision = ElementTree.SubElement(link, "collision", name=shape.name)
        _write_shape(collision, shape)
        visual = ElementTree.SubElement(link, "visual", name=shape.name)
        _write_shape(visual, shape)
        material = ElementTree.SubElement(visual, "material", name=f"{shape.name}_colour")
        ElementTree.SubElement(material, "color", rgba=_numbers(shape.colour))


def _flywheel(hinge: Hinge, timestep: float) -> np.ndarray:
    """Inertia [3, 3], kg·m², that makes explicit steps of a hinge implicit ones.

    Half of it is across the axis, as in any thin disc: Bullet refuses the inertia of no real body.
    """
    about_axis = timestep * hinge.damping + timestep**2 * hinge.stiffness
    return about_axis / 2.0 * (np.eye(3) + np.outer(hinge.axis, hinge.axis))


def _write_inertial(
    link: ElementTree.Element, mass: float, centre: np.ndarray, inertia: np.ndarray
) -> None:
    inertial = ElementTree.SubElement(link, "inertial")
    write_origin(inertial, centre.tolist(), (0.0, 0.0, 0.0))
    ElementTree.SubElement(inertial, "mass", value=repr(mass))
    axes = {"ixx": (0, 0), "iyy": (1, 1), "izz": (2, 2), "ixy": (0, 1), "ixz": (0, 2)}
    moments = {name: repr(float(inertia[at])) for name, at in {**axes, "iyz": (1, 2)}.items()}
    ElementTree.SubElement(inertial, "inertia", moments)


def _write_shape(element: ElementTree.Element, shape: Shape) -> None:
    write_origin(element, shape.position, _FROM_Z_TO[shape.axis])
    geometry = ElementTree.SubElement(element, "geometry")
    if shape.kind == "box":
        ElementTree.SubElement(geometry, "box", size=_numbers(2.0 * np.array(shape.size)))
    else:
        radius, half = shape.size
        ElementTree.SubElement(geometry, shape.kind, radius=repr(radius), length=repr(2.0 * half))


def _write_hinge(
    robot: ElementTree.Element,
    parent: str,
    body: Body,
    position: Iterable[float],
    timestep: float,
) -> None:
    hinge = body.hinge
    assert hinge is not None
    if isinstance(hinge, Slider):
        raise ValueError(f"joint {hinge.name!r}: a world in PyBullet has no sliders")
    joint = ElementTree.SubElement(robot, "joint", name=hinge.name, type="revolute")
    ElementTree.SubElement(joint, "parent", link=parent)
    ElementTree.SubElement(joint, "child", link=body.name)
    write_origin(joint, position, (0.0, 0.0, 0.0))
    ElementTree.SubElement(joint, "axis", xyz=_numbers(hinge.axis))
    limits = {"lower": repr(hinge.low), "upper": repr(hinge.high), "effort": "1000"}
    ElementTree.SubElement(joint, "limit", {**limits, "velocity": "1000"})
    damping = hinge.damping + timestep * hinge.stiffness
    ElementTree.SubElement(joint, "dynamics", damping=repr(damping))


def _numbers(values: Iterable[float]) -> str:
    return " ".join(repr(float(value)) for value in values)


def _load(
    client: BulletClient, urdf: str, flags: int, position: Iterable[float], fixed: bool
) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "body.urdf"
        path.write_text(urdf)
        return client.loadURDF(
            str(path), basePosition=tuple(position), useFixedBase=fixed, flags=flags
        )


def _set_contact(
    client: BulletClient, body: int, link: int, contact: tuple[int, int], friction: float
) -> None:
    client.setCollisionFilterGroupMask(body, link, *contact)
    client.changeDynamics(
        body, link, lateralFriction=friction, spinningFriction=0.0, rollingFriction=0.0
    )
