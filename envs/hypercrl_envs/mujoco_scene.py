"""The MuJoCo scene that all tasks of the arm share: Panda, table, light, controller.

The controller is a Cartesian impedance in MuJoCo's own actuators. Six position actuators act on
the tip site relative to fixed reference sites, so that `ctrl` is the target pose:
    f = clip(kp (ctrl - x) - kv dx/dt, ±limit),    torque = Jᵀ f.
The arm's weight is compensated, weak springs hold the null space, and joint damping and armature
(the reflected inertia of motors and gears) keep it stable at large time steps.
"""

# MuJoCo's compiled modules come without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import mujoco
import numpy as np

from hypercrl_envs.panda import (
    ARM_JOINTS,
    BASE_POSITION,
    FINGER_JOINTS,
    FINGER_LINKS,
    HAND_LINK,
    TIP_OFFSET,
    panda_urdf,
)
from hypercrl_envs.servo import (
    GRIP,
    JOINT_ARMATURE,
    JOINT_DAMPING,
    NULL_SPACE_STIFFNESS,
    ROTATION,
    TRANSLATION,
    Impedance,
)
from hypercrl_envs.world import (
    OBJECT_CONTACT,
    ROBOT_CONTACT,
    TABLE_COLOUR,
    TABLE_HALF_EXTENTS,
    TABLE_POSITION,
    Quaternion,
)

TIP_SITE = "tip"


FINGER_ARMATURE = 0.5  # kg: 15 g alone would be far too light for the stiffness of the grip

_WHITE = (0.93, 0.94, 0.95, 1.0)
_DARK = (0.22, 0.24, 0.27, 1.0)
_DARK_LINKS = (HAND_LINK, *FINGER_LINKS)


def arm_scene(timestep: float, hand: Quaternion) -> mujoco.MjSpec:
    """A scene with robot, table top at z = 0 and light, to which objects and cameras are added.

    Actuators in order: tip x, y, z (m, world frame), rotation about x, y, z of the hand (rad, in
    the frame of `hand`), opening of each finger (m).

    Args:
        timestep: physics step in seconds.
        hand: (w, x, y, z), the orientation of the hand that rotations are counted from.
    """
    spec = mujoco.MjSpec.from_string(panda_urdf())
    # The defaults for URDF merge a body without joints into its parent and drop shapes that never
    # collide. The hand stays a body of its own, so that contacts can tell hand from arm.
    spec.compiler.fusestatic = False
    spec.compiler.discardvisual = False
    spec.option.timestep = timestep
    _set_visual_quality(spec)
    _mount_robot(spec)
    _add_surroundings(spec)
    _add_controller(spec, hand)
    return spec


def compile_scene(spec: mujoco.MjSpec) -> mujoco.MjModel:
    """Compile `arm_scene` with whatever was added to it.

    Joint damping and stiffness are set on the model: in a spec they are numbers up to MuJoCo 3
    and vectors from 4 on, in the model they are the same arrays in both.
    """
    model = spec.compile()
    for name in ARM_JOINTS:
        joint = model.joint(name)
        model.dof_damping[joint.dofadr[0]] = JOINT_DAMPING
        model.jnt_stiffness[joint.id] = NULL_SPACE_STIFFNESS
    return model


def _set_visual_quality(spec: mujoco.MjSpec) -> None:
    # Shadows and multisampling take nine tenths of the time of a software-rendered picture.
    spec.visual.quality.shadowsize = 0
    spec.visual.quality.offsamples = 0
    spec.visual.headlight.ambient = (0.40, 0.40, 0.40)
    spec.visual.headlight.diffuse = (0.22, 0.22, 0.22)
    spec.visual.headlight.specular = (0.05, 0.05, 0.05)
    spec.visual.map.znear = 0.01
    spec.visual.map.zfar = 20.0
    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=(0.83, 0.88, 0.93),
        rgb2=(0.55, 0.62, 0.70),
        width=64,
        height=384,
    )


def _add_surroundings(spec: mujoco.MjSpec) -> None:
    world = spec.worldbody
    contype, conaffinity = OBJECT_CONTACT
    # A plane is the cheapest collider, infinite to the physics; its size is only what is drawn.
    world.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=(*TABLE_HALF_EXTENTS[:2], 0.1),
        pos=(*TABLE_POSITION[:2], 0.0),
        rgba=TABLE_COLOUR,
        contype=contype,
        conaffinity=conaffinity,
        friction=(1.0, 0.005, 0.0001),
    )
    world.add_geom(
        name="table_body",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=TABLE_HALF_EXTENTS,
        pos=TABLE_POSITION,
        rgba=(0.55, 0.50, 0.44, 1.0),
        contype=0,
        conaffinity=0,
    )
    world.add_light(
        name="lamp",
        pos=(0.4, -0.8, 1.8),
        dir=(-0.3, 0.4, -1.0),
        diffuse=(0.52, 0.52, 0.52),
        specular=(0.1, 0.1, 0.1),
        castshadow=False,
    )


def _mount_robot(spec: mujoco.MjSpec) -> None:
    spec.body("panda_link0").pos = BASE_POSITION
    contype, conaffinity = ROBOT_CONTACT
    for body in spec.bodies[1:]:
        body.gravcomp = 1.0
        for geom in body.geoms:
            geom.contype, geom.conaffinity = contype, conaffinity
            geom.friction = (1.0, 0.005, 0.0001)
            geom.rgba = _DARK if body.name in _DARK_LINKS else _WHITE
    for name in ARM_JOINTS:
        spec.joint(name).armature = JOINT_ARMATURE
    for name in FINGER_JOINTS:
        spec.joint(name).armature = FINGER_ARMATURE
    spec.body(HAND_LINK).add_site(
        name=TIP_SITE, pos=(0.0, 0.0, TIP_OFFSET), size=(0.004, 0.004, 0.004), group=4
    )


def _add_controller(spec: mujoco.MjSpec, hand: Quaternion) -> None:
    spec.worldbody.add_site(name="world_frame", group=4)
    spec.worldbody.add_site(name="hand_frame", quat=hand, group=4)
    for index, axis in enumerate("xyz"):
        gear = np.eye(6)[index]
        _add_servo(spec, f"tip_{axis}", TRANSLATION, reference="world_frame", gear=gear)
    for index, axis in enumerate("xyz"):
        gear = np.eye(6)[3 + index]
        _add_servo(spec, f"turn_{axis}", ROTATION, reference="hand_frame", gear=gear)
    for index, joint in enumerate(FINGER_JOINTS):
        actuator = spec.add_actuator(
            name=f"finger_{index}", trntype=mujoco.mjtTrn.mjTRN_JOINT, target=joint
        )
        _set_impedance(actuator, GRIP)


def _add_servo(
    spec: mujoco.MjSpec, name: str, impedance: Impedance, reference: str, gear: np.ndarray
) -> None:
    actuator = spec.add_actuator(
        name=name,
        trntype=mujoco.mjtTrn.mjTRN_SITE,
        target=TIP_SITE,
        refsite=reference,
        gear=gear,
    )
    _set_impedance(actuator, impedance)


def _set_impedance(actuator: mujoco.MjsActuator, impedance: Impedance) -> None:
    actuator.gaintype = mujoco.mjtGain.mjGAIN_FIXED
    actuator.gainprm[0] = impedance.kp
    actuator.biastype = mujoco.mjtBias.mjBIAS_AFFINE
    actuator.biasprm[1:3] = -impedance.kp, -impedance.kv
    actuator.forcelimited = True
    actuator.forcerange = (-impedance.limit, impedance.limit)
