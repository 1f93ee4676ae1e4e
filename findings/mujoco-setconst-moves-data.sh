#!/usr/bin/env bash
# mujoco 4.0.0, mj_setConst, which the manual asks for after a change of body_mass, body_inertia, body_ipos or a geom's size
#
# Guess: `mj_setConst(model, data)` brings the model's derived numbers up to date, and borrows `data` to reckon in: the simulation goes on where it was.
# Seen: it leaves qpos at qpos0, while the time, velocities, activations, controls and the warm start stay. A puck that is made twice as heavy under
# way is back where it began, at the speed that it had and at the time that it was, and so it is where nothing of the model had been changed at all.
# Nothing is said. With an MjData of its own to borrow the model's numbers are the same and the puck goes on; so it does with the two other ways of
# the same package, Batch.set_const and MjSpec.recompile. Whoever changes masses at a change of task, or in the midst of an episode, makes
# one transition that no physics explains, which a model then learns from.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet mujoco==4.0.0
venv/bin/python - <<'PY'
import mujoco
import numpy as np
from mujoco.batch import Batch

PUCK = """<mujoco><option gravity="0 0 0"/><worldbody><body name="puck"><joint name="slide" type="slide" axis="1 0 0"/>
<geom size=".1" mass="1"/></body></worldbody>
<actuator><general joint="slide" dyntype="filter" dynprm="1" gainprm="0"/></actuator></mujoco>"""
PARTS = ("TIME", "QPOS", "QVEL", "ACT", "CTRL", "WARMSTART")


def moving(model):
    """A puck that has gone 0.5 m, at 1 m/s in 0.5 s."""
    data = mujoco.MjData(model)
    data.qvel[0] = data.ctrl[0] = 1
    mujoco.mj_step(model, data, nstep=250)
    assert abs(data.qpos[0] - 0.5) < 1e-9
    return data


def state(model, data):
    found = {}
    for name in PARTS:
        part = getattr(mujoco.mjtState, f"mjSTATE_{name}")
        found[name] = np.zeros(mujoco.mj_stateSize(model, part))
        mujoco.mj_getState(model, data, found[name], part)
    return found


def weighed(heavier, borrow):
    """The place at once and 0.5 s later, the parts of the state that mj_setConst changed, and the inverse weight that it reckoned."""
    model = mujoco.MjModel.from_xml_string(PUCK)
    data = moving(model)
    before = state(model, data)
    model.body_mass[1] *= heavier
    model.body_inertia[1] *= heavier
    mujoco.mj_setConst(model, mujoco.MjData(model) if borrow else data)
    at_once, after = float(data.qpos[0]), state(model, data)
    mujoco.mj_step(model, data, nstep=250)
    changed = [name for name in PARTS if not np.array_equal(before[name], after[name])]
    return at_once, float(data.qpos[0]), changed, float(model.dof_invweight0[0])


def by_batch():
    batch = Batch(mujoco.MjModel.from_xml_string(PUCK), 1, 1)
    batch.qvel = 1
    batch.step(nstep=250)
    batch.body("puck").mass = 2
    batch.set_const()
    return float(batch.qpos[0, 0])


def by_recompiling():
    spec = mujoco.MjSpec.from_string(PUCK)
    model = spec.compile()
    data = moving(model)
    spec.body("puck").geoms[0].mass = 2
    model, data = spec.recompile(model, data)
    assert model.body_mass[1] == 2
    return float(data.qpos[0])


for heavier in (1, 2):
    for borrow in (False, True):
        at_once, later, changed, weight = weighed(heavier, borrow)
        print(f"mass times {heavier}, {'another' if borrow else 'its own'} MjData: {at_once:.2f} m at once, {later:.2f} m later;"
              f" changed {changed}, dof_invweight0 {weight}")
        assert changed == ([] if borrow else ["QPOS"]), "it behaves otherwise now"
        assert abs(at_once - 0.5 * borrow) < 1e-9 and abs(later - 0.5 - 0.5 * borrow) < 1e-9, "it behaves otherwise now"
        assert weight == 1 / heavier, "it behaves otherwise now"
places = by_batch(), by_recompiling()
print(f"mass times 2, at once: Batch.set_const {places[0]:.2f} m, recompile {places[1]:.2f} m")
assert all(abs(place - 0.5) < 1e-9 for place in places), "it behaves otherwise now"
PY
echo "as described"
