#!/usr/bin/env bash
# gymnasium 1.4.0 with mujoco 4.0.0, render_mode="rgb_array" of Hopper-v5 and Walker2d-v5
#
# Guess: without a camera given, pictures are those of the model's own camera "track", which moves with the robot: the
# renderer looks that name up, and an environment's default camera says which body to follow (trackbodyid).
# Seen: the renderer finds "track", and then draws by the free camera in its place, which has the distance and height of the
# environment's default but stands still. A robot that has come 12 m is in no picture. With camera_name="track" it is in
# every one, as large as at the start.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet gymnasium==1.4.0 mujoco==4.0.0 numpy==2.4.6 imageio==2.38.1 pyopengl==3.1.10 packaging==26.0
cat > far.py <<'PY'
import gymnasium

for name in ("Hopper-v5", "Walker2d-v5"):
    for camera in (None, "track"):
        given = {} if camera is None else {"camera_name": camera}
        env = gymnasium.make(name, render_mode="rgb_array", width=160, height=160, **given)
        env.reset(seed=0)
        robot = env.unwrapped
        seen = []
        for far in (0.0, 12.0):
            position = robot.data.qpos.copy()
            position[0] = far
            robot.set_state(position, robot.data.qvel)
            picture = env.render().astype(int)
            seen.append(int((picture[..., 0] - picture[..., 2] > 40).sum()))
        env.close()
        print(f"{name}, camera {camera}: pixels of the robot at 0 m and at 12 m: {seen}")
        assert seen[0] > 100
        assert seen[1] == 0 if camera is None else abs(seen[1] - seen[0]) < 0.2 * seen[0]
PY
MUJOCO_GL="${MUJOCO_GL:-egl}" venv/bin/python far.py
echo "as described"
