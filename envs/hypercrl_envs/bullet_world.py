"""From a `World` to bodies in a PyBullet client."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from hypercrl_envs.bullet_client import BulletClient
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
    Marker,
    Shape,
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


def load_body(client: BulletClient, body: Body) -> int:
    """A root body of a world, at rest; returns its body number."""
    flags = client.URDF_USE_INERTIA_FROM_FILE | client.URDF_USE_IMPLICIT_CYLINDER
    fixed = body.hinge is not None
    number = _load(client, body_urdf(body), flags, body.position, fixed=fixed)
    frictions = {part.name: part.shapes[0].friction for part in body.tree()}
    for index, name in enumerate(link_names(client, number), start=-1):
        if name in frictions:
            _set_contact(client, number, index, OBJECT_CONTACT, frictions[name])
        client.changeDynamics(number, index, linearDamping=0.0, angularDamping=0.0)
    for part in body.tree():
        if part.hinge is not None:
            index = joint_index(client, number, part.hinge.name)
            client.changeDynamics(number, index, jointDamping=part.hinge.damping)
    return number


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


def body_urdf(body: Body) -> str:
    """A root body with everything that hangs from it, as URDF text."""
    robot = ElementTree.Element("robot", name=body.name)
    if body.hinge is not None:
        frame = ElementTree.SubElement(robot, "link", name="frame")
        _write_inertial(frame, 1.0, np.zeros(3), np.eye(3))
        _write_hinge(robot, "frame", body, position=(0.0, 0.0, 0.0))
    for part in body.tree():
        _write_link(robot, part)
        for child in part.children:
            _write_hinge(robot, part.name, child, child.position)
    return ElementTree.tostring(robot, encoding="unicode")


def _write_link(robot: ElementTree.Element, body: Body) -> None:
    link = ElementTree.SubElement(robot, "link", name=body.name)
    _write_inertial(link, *mass_properties(body.shapes))
    for shape in body.shapes:
        collision = ElementTree.SubElement(link, "collision", name=shape.name)
        _write_shape(collision, shape)
        visual = ElementTree.SubElement(link, "visual", name=shape.name)
        _write_shape(visual, shape)
        material = ElementTree.SubElement(visual, "material", name=f"{shape.name}_colour")
        ElementTree.SubElement(material, "color", rgba=_numbers(shape.colour))


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
    robot: ElementTree.Element, parent: str, body: Body, position: Iterable[float]
) -> None:
    hinge = body.hinge
    assert hinge is not None
    joint = ElementTree.SubElement(robot, "joint", name=hinge.name, type="revolute")
    ElementTree.SubElement(joint, "parent", link=parent)
    ElementTree.SubElement(joint, "child", link=body.name)
    write_origin(joint, position, (0.0, 0.0, 0.0))
    ElementTree.SubElement(joint, "axis", xyz=_numbers(hinge.axis))
    limits = {"lower": repr(hinge.low), "upper": repr(hinge.high), "effort": "1000"}
    ElementTree.SubElement(joint, "limit", {**limits, "velocity": "1000"})


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
