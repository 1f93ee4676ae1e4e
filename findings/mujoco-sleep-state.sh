#!/usr/bin/env bash
# mujoco 4.0.0, <flag sleep="enable"/>: what a saved state and a changed model know of sleep
#
# Guess: mjSTATE_INTEGRATION is all that a simulation goes on from, so that a restored one equals the
# one it was saved from, bit for bit, as it does without sleep; and a body falls the way that gravity points.
# Seen: no part of mjtState holds who is asleep, nor for how long a body has been still. Two boxes at rest on a
# plane are asleep; restored into a new MjData both are awake, and from the first step on move where the others do not
# (2e-6 m and 3e-4 m/s within five). mj_copyData keeps sleep. And gravity in MjModel wakes nobody: tilted by 15 m/s^2
# or turned upwards it leaves a sleeping box where it is, where one that is awake slides or rises.
# Written qpos and qvel do wake it. So with sleep on, states are not enough to resume
# from, and a task that differs by its model's numbers is only felt after mj_resetData.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet mujoco==4.0.0
venv/bin/python - <<'PY'
import mujoco
import numpy as np

ALL = mujoco.mjtState.mjSTATE_INTEGRATION


def world(sleep):
    box = '<freejoint/><geom type="box" size=".1 .1 .1"/>'
    model = mujoco.MjModel.from_xml_string(
        f"""<mujoco><option timestep="0.002"><flag sleep="{sleep}"/></option><worldbody>
        <geom type="plane" size="5 5 .1"/><body pos="0 0 .1">{box}</body>
        <body pos="1 0 .1">{box}</body></worldbody></mujoco>"""
    )
    data = mujoco.MjData(model)
    for _ in range(2000):
        mujoco.mj_step(model, data)
    return model, data


def restored(model, data):
    state = np.zeros(mujoco.mj_stateSize(model, ALL))
    mujoco.mj_getState(model, data, state, ALL)
    other = mujoco.MjData(model)
    mujoco.mj_setState(model, other, state, ALL)
    return other


def copied(model, data):
    other = mujoco.MjData(model)
    mujoco.mj_copyData(other, model, data)
    return other


def later(model, data, steps):
    for _ in range(steps):
        mujoco.mj_step(model, data)
    return data.qpos.copy()


for sleep in ("enable", "disable"):
    model, data = world(sleep)
    other, twin = restored(model, data), copied(model, data)
    asleep = [(d.tree_asleep >= 0).tolist() for d in (data, other, twin)]
    ends = [later(model, d, 5) for d in (data, other, twin)]
    apart = [float(np.abs(end - ends[0]).max()) for end in ends[1:]]
    print(f"sleep {sleep}: asleep {asleep[0]}, restored {asleep[1]}, copied {asleep[2]}; apart {apart[0]:.1e}, {apart[1]:.1e} m")
    if sleep == "enable":
        assert asleep == [[True, True], [False, False], [True, True]], "it behaves otherwise now"
        assert apart[0] > 0 and apart[1] == 0, "it behaves otherwise now"
    else:
        assert apart == [0, 0], "it behaves otherwise now"

for sleep in ("enable", "disable"):
    model, data = world(sleep)
    before = data.qpos.copy()
    tilted, lifted = copied(model, data), copied(model, data)
    model.opt.gravity[:] = 15, 0, -9.81
    slid = later(model, tilted, 200)[0] - before[0]
    model.opt.gravity[:] = 0, 0, 9.81
    rose = later(model, lifted, 200)[2] - before[2]
    print(f"sleep {sleep}: slid {slid:.3f} m, rose {rose:.3f} m in 0.4 s")
    assert (abs(slid) < 1e-9 and abs(rose) < 1e-9) == (sleep == "enable"), "it behaves otherwise now"
PY
