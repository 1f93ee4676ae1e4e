#!/usr/bin/env bash
# mujoco 4.0.0, frictionloss of a joint that is damped as well
#
# Guess: dry friction acts against the motion of a joint, so that with it a thing that was pushed
# comes to rest earlier.
# Seen: on a slide joint of 0.158 kg with a damping of 20 N s/m and a frictionloss of 2 N,
# qfrc_constraint is +2 N along a motion at 6 m/s, and the thing coasts 51 mm where damping alone lets it
# go 47 mm and m v' = -c v - f comes to 44 mm. Smaller time steps do not change it. Friction is a soft constraint
# that asks for v' = -b v, b = 2 / (dmax * timeconst) = 105 / s by default; a damper that alone brakes more than
# that, c / m = 127 / s here, is pushed against with all of the friction. With half of the damping, or
# a solreffriction of a smaller time constant, it brakes.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet mujoco==4.0.0
venv/bin/python - <<'PY'
import math

import mujoco

MASS, SPEED = 0.158, 6.0


def coast(damping, friction, step=0.0005, solref="0.02 1"):
    """How far it goes, mm, and the force of the constraint in the first step, N."""
    model = mujoco.MjModel.from_xml_string(
        f"""<mujoco><option gravity="0 0 0" timestep="{step}"/><worldbody><body>
        <joint type="slide" axis="1 0 0" damping="{damping}" frictionloss="{friction}"
         solreffriction="{solref}"/><geom type="sphere" size="0.02" mass="{MASS}"/>
        </body></worldbody></mujoco>"""
    )
    data = mujoco.MjData(model)
    data.qvel[0] = SPEED
    mujoco.mj_step(model, data)
    first = float(data.qfrc_constraint[0])
    for _ in range(round(0.5 / step)):
        mujoco.mj_step(model, data)
    return 1000 * float(data.qpos[0]), first


def exact(c, f):
    """The same by m v' = -c v - f, mm."""
    stop = MASS / c * math.log1p(c * SPEED / f)
    return 1000 * ((SPEED + f / c) * MASS / c * -math.expm1(-c * stop / MASS) - f / c * stop)


alone, both = coast(20, 0)[0], coast(20, 2)
print(f"damping alone {alone:.1f} mm, with friction {both[0]:.1f} mm, force {both[1]:+.1f} N; exact {exact(20, 2):.1f} mm")
half, stiff = coast(10, 2), coast(20, 2, step=0.0005, solref="0.002 1")
print(f"half the damping: {half[0]:.1f} mm, {half[1]:+.1f} N; exact {exact(10, 2):.1f} mm")
print(f"a time constant of 2 ms: {stiff[0]:.1f} mm, {stiff[1]:+.1f} N")
assert both[0] > alone + 2 and both[1] > 1.99, "it behaves otherwise now"
assert half[1] < -1.99 and stiff[1] < -1.99, "it behaves otherwise now"
PY
