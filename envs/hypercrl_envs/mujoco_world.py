"""From a `World` to a MuJoCo model."""

# MuJoCo's compiled modules come without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import math

import mujoco
import numpy as np

from hypercrl_envs.damping import check_explicit_damper
from hypercrl_envs.mujoco_scene import arm_scene, compile_scene
from hypercrl_envs.world import (
    OBJECT_CONTACT,
    Body,
    Camera,
    Latch,
    Shape,
    Slider,
    World,
    camera_axes,
)

LATCH = "latch"
_HALF = math.sqrt(0.5)
_FROM_Z_TO = ((_HALF, 0.0, _HALF, 0.0), (_HALF, -_HALF, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0))
_KINDS = {
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
}


def build_model(world: World, timestep: float, width: int, height: int) -> mujoco.MjModel:
    """The arm's scene with everything of `world` in it.

    Args:
        timestep: physics step, s.
        width, height: the largest picture that will be asked for, in pixels.
    """
    spec = arm_scene(timestep, world.hand)
    spec.visual.global_.offwidth, spec.visual.global_.offheight = width, height
    for name, camera in world.cameras.items():
        add_camera(spec.worldbody, name, camera)
    for body in world.bodies:
        _add_body(spec.worldbody, body)
    for marker in world.markers:
        spec.worldbody.add_site(
            name=marker.name,
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=marker.half_extents,
            pos=marker.position,
            rgba=marker.colour,
        )
    if world.latch is not None:
        _add_latch(spec, world, world.latch)
    model = compile_scene(spec)
    for hinge in (body.hinge for root in world.bodies for body in root.tree()):
        if hinge is not None:
            joint = model.joint(hinge.name)
            model.dof_damping[joint.dofadr[0]] = hinge.damping
            model.jnt_stiffness[joint.id] = hinge.stiffness
    return model


def check_dampers(model: mujoco.MjModel) -> None:
    """Check that every damper which MuJoCo integrates explicitly is stable in the springs' pose.

    Dampers of actuators are; those of joints are not while the Euler integrator may damp them.

    Raises:
        ValueError: a joint or actuator whose damper would reverse a velocity; the message names it.
    """
    data = mujoco.MjData(model)
    data.qpos[:] = model.qpos_spring
    mujoco.mj_forward(model, data)
    mobility = np.empty((model.nv, model.nv))
    mujoco.mj_solveM(model, data, mobility, np.eye(model.nv))
    timestep = model.opt.timestep
    euler = model.opt.integrator == int(mujoco.mjtIntegrator.mjINT_EULER)
    if not euler or model.opt.disableflags & int(mujoco.mjtDisableBit.mjDSBL_EULERDAMP):
        for dof, damping in enumerate(model.dof_damping):
            name = f"joint {model.joint(model.dof_jntid[dof]).name!r}"
            check_explicit_damper(name, float(damping), 1.0 / mobility[dof, dof], timestep)
    moments = np.zeros((model.nu, model.nv))
    rows = data.moment_rownnz, data.moment_rowadr, data.moment_colind
    mujoco.mju_sparse2dense(moments, data.actuator_moment, *rows)
    for actuator, moment in enumerate(moments):
        name = f"actuator {model.actuator(actuator).name!r}"
        damping = -float(model.actuator_biasprm[actuator, 2])
        check_explicit_damper(name, damping, 1.0 / float(moment @ mobility @ moment), timestep)


def add_camera(parent: mujoco.MjsBody, name: str, camera: Camera, tracking: bool = False) -> None:
    """Add a camera to a body; a tracking one keeps its distance to the parent's centre of mass."""
    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, camera_axes(camera).ravel())
    added = parent.add_camera(name=name, pos=camera.position, quat=quaternion, fovy=45.0)
    if tracking:
        added.mode = mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM


def _add_body(parent: mujoco.MjsBody, body: Body) -> None:
    added = parent.add_body(name=body.name, pos=body.position)
    if body.hinge is None:
        added.add_freejoint(name=body.name)
    else:
        slides = isinstance(body.hinge, Slider)
        added.add_joint(
            name=body.hinge.name,
            type=mujoco.mjtJoint.mjJNT_SLIDE if slides else mujoco.mjtJoint.mjJNT_HINGE,
            axis=body.hinge.axis,
            limited=True,
            range=(body.hinge.low, body.hinge.high),
            frictionloss=body.hinge.friction,
        )
    for shape in body.shapes:
        _add_shape(added, shape)
    for child in body.children:
        _add_body(added, child)


def _add_shape(body: mujoco.MjsBody, shape: Shape) -> None:
    contype, conaffinity = OBJECT_CONTACT
    body.add_geom(
        name=shape.name,
        type=_KINDS[shape.kind],
        size=(*shape.size, 0.0)[:3],
        pos=shape.position,
        quat=_FROM_Z_TO[shape.axis],
        density=shape.density,
        rgba=shape.colour,
        contype=contype,
        conaffinity=conaffinity,
        friction=(shape.friction, 0.005, 0.0001),
        # MuJoCo takes the larger of two coefficients, unless one geom has priority.
        priority=1,
    )


def _add_latch(spec: mujoco.MjSpec, world: World, latch: Latch) -> None:
    bodies = (body for root in world.bodies for body in root.tree())
    (held,) = (b.name for b in bodies if b.hinge is not None and b.hinge.name == latch.hinge)
    weld = spec.add_equality(
        name=LATCH,
        type=mujoco.mjtEq.mjEQ_WELD,
        objtype=mujoco.mjtObj.mjOBJ_BODY,
        name1=held,
        name2="world",
    )
    # Relative pose of the reference configuration (a quaternion of zeros), torque scale 1.
    weld.data[:] = 0.0
    weld.data[10] = 1.0
