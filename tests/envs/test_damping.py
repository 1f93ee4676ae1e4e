"""Springs and dampers of handles and doors against their equations of motion, in both engines."""

from __future__ import annotations

import math
from typing import Any

import mujoco
import numpy as np
import pytest

from hypercrl_envs import bullet_world, make_task
from hypercrl_envs.bullet_simulator import BulletArm
from hypercrl_envs.damping import check_explicit_damper
from hypercrl_envs.door import DoorTask
from hypercrl_envs.mujoco_simulator import MujocoArm
from hypercrl_envs.mujoco_world import check_dampers
from hypercrl_envs.simulator import PHYSICS_STEP
from hypercrl_envs.world import Body, Hinge, mass_properties

AWAY = np.array([-0.3, 0.0, 0.8])
TURNED, AJAR, PUSHED = 1.2, 0.05, 0.6  # rad, rad, rad/s
LEVER_WEIGHT = 9.81 * 2700.0 * math.pi * (0.009**2 * 0.11 + 4 / 3 * 0.009**3)  # N
LEVER_ARM = 0.055  # m, from the axis to the centre of mass
KNOBS: list[dict[str, Any]] = [
    {"handle": handle, "turn": turn, "mirrored": mirrored}
    for handle in ("lever", "round")
    for turn in (1, -1)
    for mirrored in (False, True)
]
BARS: list[dict[str, Any]] = [
    {"handle": "pull", "mirrored": mirrored} for mirrored in (False, True)
]


def let_go(task: DoorTask) -> MujocoArm | BulletArm:
    """The hand away, the handle turned, the door ajar and pushed open."""
    arm = task.simulator
    arm.place(AWAY, np.zeros(3), 0.04, {})
    starts = {"hinge": (AJAR, PUSHED)}
    if task.handle != "pull":
        starts["knob"] = (TURNED * task.turn, 0.0)
    if isinstance(arm, BulletArm):
        for name, start in starts.items():
            arm._client.resetJointState(*arm._joints[name], *start)
        arm._move_latch()
        return arm
    assert isinstance(arm, MujocoArm)
    for name, (angle, velocity) in starts.items():
        arm.data.joint(name).qpos[0], arm.data.joint(name).qvel[0] = angle, velocity
    arm.data.eq_active[:] = 0
    return arm


def watch(arm: MujocoArm | BulletArm, name: str, steps: int) -> np.ndarray:
    """Angles [steps], rad, after every 0.1 s."""
    angles = np.empty(steps)
    for step in range(steps):
        arm.advance(AWAY, np.zeros(3), 0.04)
        angles[step] = arm.hinge(name)[0]
    return angles


def expected_motion(
    hinge: Hinge, inertia: float, angle: float, velocity: float, moment: float, steps: int
) -> np.ndarray:
    """Angles [steps], rad, every 0.1 s, of I q'' = -k q - d q' - f sign(q') - moment cos(q).

    With steps of 10 µs, damper and dry friction implicit, between the stops.
    """
    period, angles = 1e-5, np.empty(steps)
    damped = 1.0 + period * hinge.damping / inertia
    friction = period * hinge.friction / inertia
    for step in range(steps):
        for _ in range(10_000):
            torque = -hinge.stiffness * angle - moment * math.cos(angle)
            free = velocity + period * torque / inertia
            velocity = math.copysign(max(abs(free) - friction, 0.0), free) / damped
            angle = min(max(angle + period * velocity, hinge.low), hinge.high)
        angles[step] = angle
    return angles


def inertia_about_hinge(body: Body) -> float:
    """Of a body with all that hangs from it, at zero, kg·m²."""
    assert body.hinge is not None
    total, axis = 0.0, np.array(body.hinge.axis)
    for part in body.tree():
        mass, centre, inertia = mass_properties(part.shapes)
        arm = np.cross(axis, centre if part is body else np.add(part.position, centre))
        total += float(axis @ inertia @ axis + mass * arm @ arm)
    return total


@pytest.mark.parametrize("knob", KNOBS, ids=str)
def test_a_released_handle_returns_as_its_spring_and_damper_say(knob: dict[str, Any], engine: str):
    task = DoorTask(**knob, engine=engine)
    arm = let_go(task)
    (body,) = arm.world.bodies[0].children
    assert body.hinge is not None
    # A lever points to +y of a mirrored... of any door's own side, so its weight turns it down.
    side = -1.0 if task.mirrored else 1.0
    moment = side * LEVER_WEIGHT * LEVER_ARM if task.handle == "lever" else 0.0
    start = TURNED * task.turn
    expected = expected_motion(body.hinge, inertia_about_hinge(body), start, 0.0, moment, 5)
    fastest = (body.hinge.stiffness * TURNED + abs(moment)) / body.hinge.damping
    # Damped in steps, the motion lags by up to one step.
    lag = PHYSICS_STEP * fastest
    np.testing.assert_allclose(watch(arm, "knob", 5), expected, rtol=0.0, atol=lag)


@pytest.mark.parametrize("pushed", [*BARS, *KNOBS[::3]], ids=str)
def test_a_pushed_door_coasts_to_where_damper_and_friction_stop_it(
    pushed: dict[str, Any], engine: str
):
    arm = let_go(DoorTask(**pushed, engine=engine))
    (body,) = arm.world.bodies
    assert body.hinge is not None
    inertia = inertia_about_hinge(body)
    expected = expected_motion(body.hinge, inertia, AJAR, PUSHED, 0.0, 8)
    lag = PHYSICS_STEP * PUSHED
    np.testing.assert_allclose(watch(arm, "hinge", 8), expected, rtol=0.0, atol=lag)


@pytest.mark.parametrize("turn", [1, -1])
def test_a_released_round_knob_settles_where_dry_friction_holds_its_spring(turn: int, engine: str):
    arm = let_go(DoorTask(handle="round", turn=turn, engine=engine))
    watch(arm, "knob", 30)
    angle, velocity = arm.hinge("knob")
    assert abs(angle) < 0.02 / 0.3 + 1e-3
    assert abs(velocity) < 0.01


@pytest.mark.bullet
@pytest.mark.parametrize("handle", ["lever", "round"])
def test_a_hand_that_turns_a_handle_in_bullet_feels_spring_and_damper(handle: str):
    arm = let_go(DoorTask(handle=handle, engine="bullet"))
    assert isinstance(arm, BulletArm)
    # A motor for the hand: it turns the handle upward at 0.5 rad/s, whatever that takes.
    client, joint = arm._client, arm._joints["knob"]
    client.resetJointState(*joint, 0.5)
    client.setJointMotorControl2(*joint, client.VELOCITY_CONTROL, targetVelocity=0.5, force=5.0)
    watch(arm, "knob", 3)
    angle, velocity, _, torque = client.getJointState(*joint)
    assert velocity == pytest.approx(0.5, abs=1e-6)
    moment = LEVER_WEIGHT * LEVER_ARM * math.cos(angle) if handle == "lever" else 0.0
    assert torque == pytest.approx(0.3 * angle + 0.1 * velocity + moment, rel=0.01)


@pytest.mark.bullet
@pytest.mark.parametrize("knob", KNOBS[::2], ids=str)
def test_no_handle_in_bullet_is_faster_than_spring_and_weight_without_a_hand(knob: dict[str, Any]):
    task, generator = DoorTask(**knob, engine="bullet"), np.random.default_rng(0)
    arm = task.simulator
    assert isinstance(arm, BulletArm)
    weight = LEVER_WEIGHT * LEVER_ARM if task.handle == "lever" else 0.0
    let_go_and_back = np.array([-1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    alone = 0
    for seed in range(2):
        obs, _ = task.reset(seed=seed)
        for step in range(task.max_episode_steps):
            action = let_go_and_back if step % 15 >= 10 else task.scripted_action(obs)
            action = np.clip(action + 0.2 * generator.standard_normal(7), -1.0, 1.0)
            obs, *_ = task.step(action.astype(np.float32))
            door, link = arm._joints["knob"]
            if arm._client.getClosestPoints(arm._robot, door, 0.01, linkIndexB=link):
                continue
            alone += abs(obs[10]) > 0.1
            assert abs(obs[13]) <= (0.3 * abs(obs[10]) + weight) / 0.1 + 0.01
    assert alone


def test_an_explicit_damper_is_refused_by_name():
    check_explicit_damper("joint 'hinge'", 1.5, 0.45, 0.004)
    with pytest.raises(ValueError, match=r"joint 'knob': .* takes 8\.84 times the velocity away"):
        check_explicit_damper("joint 'knob'", 0.1, 4.524e-5, 0.004)
    for inertia in (-1.0, math.nan):
        with pytest.raises(ValueError, match="joint 'knob'"):
            check_explicit_damper("joint 'knob'", 0.1, inertia, 0.004)


@pytest.mark.bullet
@pytest.mark.parametrize(("handle", "ratio"), [("lever", r"1\.1"), ("round", r"8\.9")])
def test_bullet_refuses_a_handle_whose_damper_is_left_explicit(
    monkeypatch: pytest.MonkeyPatch, handle: str, ratio: str
):
    monkeypatch.setattr(bullet_world, "_flywheel", lambda *_: np.zeros((3, 3)))
    with pytest.raises(ValueError, match=f"joint 'knob': .* takes {ratio}"):
        make_task("door", handle=handle, engine="bullet")


def test_mujoco_refuses_what_it_would_damp_explicitly():
    arm = DoorTask(handle="round").simulator
    assert isinstance(arm, MujocoArm)
    arm.model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_EULERDAMP)
    with pytest.raises(ValueError, match=r"joint 'knob': .* takes 8\.84"):
        check_dampers(arm.model)
    arm.model.opt.disableflags = 0
    check_dampers(arm.model)
    arm.model.actuator("turn_z").biasprm[2] *= 2.0
    with pytest.raises(ValueError, match="actuator 'turn_z'"):
        check_dampers(arm.model)


@pytest.mark.bullet
def test_the_arms_impedance_in_bullet_is_refused_when_its_steps_are_too_long():
    arm = DoorTask(engine="bullet").simulator
    assert isinstance(arm, BulletArm)
    arm._free_arm.timestep = 2.0 * PHYSICS_STEP
    with pytest.raises(ValueError, match="turn of the tip, z"):
        arm._free_arm.check_dampers()
