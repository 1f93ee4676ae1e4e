"""Pictures: shape, content, speed, and a clear message where none can be drawn."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
import pytest

from hypercrl_envs import make_task
from hypercrl_envs.rendering import choose_gl_backend, make_renderer
from hypercrl_envs.world import CAMERAS

FORWARD = np.array([1.0, 0.0], np.float32)


@pytest.mark.parametrize("camera", CAMERAS)
def test_picture_shows_and_follows_the_box(camera):
    task = make_task("push", render_mode="rgb_array", camera=camera)
    task.reset(seed=0)
    first = task.render()
    assert isinstance(first, np.ndarray)
    assert first.shape == (480, 480, 3)
    assert first.dtype == np.uint8
    blue = (first[..., 2].astype(int) - first[..., 0] > 60) & (first[..., 2] > 60)
    assert blue.mean() > 0.005
    np.testing.assert_array_equal(task.render(), first)
    for _ in range(8):
        task.step(FORWARD)
    assert (task.render() != first).any(axis=-1).mean() > 0.02
    task.close()


def test_marker_turns_green_on_success():
    task = make_task("push", render_mode="rgb_array")
    obs, info = task.reset(seed=0)

    def green(picture: np.ndarray) -> float:
        red, green_, blue = (picture[..., i].astype(int) for i in range(3))
        return float(((green_ > red + 40) & (green_ > blue + 40)).mean())

    assert green(task.render()) == 0.0
    for _ in range(30):
        obs, *_, info = task.step(task.scripted_action(obs))
    assert info["success"]
    assert green(task.render()) > 0.001
    task.reset(seed=1)
    assert green(task.render()) == 0.0
    task.close()


@pytest.mark.parametrize("camera", CAMERAS)
def test_every_task_draws_from_every_camera(simulated: dict[str, Any], camera):
    task = make_task(**simulated, render_mode="rgb_array", width=96, height=64, camera=camera)
    obs, _ = task.reset(seed=0)
    first = task.render()
    assert first.shape == (64, 96, 3)
    assert first.dtype == np.uint8
    assert first.std() > 10
    for _ in range(8):
        obs, *_ = task.step(task.scripted_action(obs))
    assert (task.render() != first).any(axis=-1).mean() > 0.005
    task.close()


def plain_scene(engine: str) -> Callable[[], object]:
    """What draws a box on a plane, at the size of a task's picture, without a shadow."""
    if engine == "bullet":
        client = importlib.import_module("pybullet_utils.bullet_client").BulletClient()
        for half, height in (([1, 1, 0.1], 0.0), ([0.2] * 3, 0.3)):
            shape = client.createVisualShape(client.GEOM_BOX, halfExtents=half)
            client.createMultiBody(0, -1, shape, [0, 0, height])
        view = client.computeViewMatrix([1.5, 0, 1.2], [0, 0, 0], [0, 0, 1])
        seen = view, client.computeProjectionMatrixFOV(45, 1, 0.1, 10)
        drawn = {"shadow": 0, "renderer": client.ER_TINY_RENDERER}
        drawn["flags"] = client.ER_NO_SEGMENTATION_MASK
        return lambda: client.getCameraImage(480, 480, *seen, **drawn)
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><light pos="0 0 3" castshadow="false"/>'
        '<geom type="plane" size="1 1 .1"/><geom type="box" size=".2 .2 .2" pos="0 0 .2"/>'
        "</worldbody></mujoco>"
    )
    data, renderer = mujoco.MjData(model), make_renderer(model, 480, 480)
    mujoco.mj_forward(model, data)
    return lambda: (renderer.update_scene(data), renderer.render())


def test_every_task_draws_at_the_pace_of_a_plain_scene(simulated: dict[str, Any]):
    """20 pictures a second and more on two cores, 1.3 times a plain scene's time at most; a shadow
    map, which took three times as long, would be seen. By turns, and by processor time: so much of
    a second as there is to be had depends on what else runs."""
    task = make_task(**simulated, render_mode="rgb_array")
    task.reset(seed=0)
    plain = plain_scene(simulated.get("engine", "mujoco"))

    def seconds(draw: Callable[[], object]) -> float:
        start = time.process_time()
        for _ in range(4):
            draw()
        return time.process_time() - start

    seconds(task.render), seconds(plain)
    ratios = [seconds(task.render) / seconds(plain) for _ in range(4)]
    task.close()
    assert min(ratios) < 2.0, ratios


def test_doors_show_success_in_both_engines(engine: str):
    task = make_task("door", handle="pull", engine=engine, render_mode="rgb_array", camera="front")
    obs, info = task.reset(seed=0)

    def green(picture: np.ndarray) -> float:
        red, green_, blue = (picture[..., i].astype(int) for i in range(3))
        return float(((green_ > red + 40) & (green_ > blue + 40)).mean())

    assert green(task.render()) == 0.0
    for _ in range(20):
        obs, *_, info = task.step(task.scripted_action(obs))
    assert info["success"]
    assert green(task.render()) > 0.001
    task.close()


def test_rendering_does_not_disturb_the_physics():
    seen, unseen = make_task("push", render_mode="rgb_array"), make_task("push")
    for task in (seen, unseen):
        task.reset(seed=0)
    for _ in range(10):
        seen.render()
        np.testing.assert_array_equal(seen.step(FORWARD)[0], unseen.step(FORWARD)[0])
    seen.close()


def test_size_speed_and_reopening():
    task = make_task("push", render_mode="rgb_array", width=2000, height=120)
    task.reset(seed=0)
    assert task.render().shape == (120, 2000, 3)
    task.close()
    assert task.render().shape == (120, 2000, 3)
    task.close()
    task.close()
    task = make_task("push", render_mode="rgb_array")
    task.reset(seed=0)
    task.render()
    # The best of three: other programs share the machine.
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(10):
            task.render()
        seconds.append(time.perf_counter() - start)
    task.close()
    assert 10 / min(seconds) > 20.0


def test_render_without_render_mode_is_refused():
    task = make_task("push")
    task.reset(seed=0)
    with pytest.raises(RuntimeError, match="rgb_array"):
        task.render()


def test_backend_choice(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    every = {"libEGL.so.1", "libOpenGL.so.0", "libGL.so.1", "libGLESv2.so.2"}
    for display, given, loadable, expected in [
        (None, None, every, "egl"),
        (None, None, set(), "disable"),
        (None, None, {"libEGL.so.1"}, "disable"),
        (None, None, every - {"libEGL.so.1"}, "disable"),
        (None, None, {"libEGL.so.1", "libGL.so.1"}, "egl"),
        (":0", None, every, None),
        (None, "osmesa", every, "osmesa"),
    ]:
        for name, value in (("DISPLAY", display), ("MUJOCO_GL", given)):
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)

        def load(name: str, found: set[str] = loadable) -> None:
            if name not in found:
                raise OSError(name)

        monkeypatch.setattr(ctypes, "CDLL", load)
        choose_gl_backend()
        assert os.environ.get("MUJOCO_GL") == expected


@pytest.mark.parametrize("missing", [["EGL"], ["OpenGL", "libGL.", "libGLES"]], ids=str)
def test_physics_without_a_gl_library_and_a_clear_message(missing):
    program = f"""
import ctypes
real = ctypes.CDLL
class WithoutGL(real):
    def __init__(self, name, *args, **kwargs):
        if name and any(word in str(name) for word in {missing}):
            raise OSError(f"{{name}}: cannot open shared object file")
        super().__init__(name, *args, **kwargs)
ctypes.CDLL = ctypes.cdll._dlltype = WithoutGL
import hypercrl_envs
task = hypercrl_envs.make_task("push", render_mode="rgb_array")
obs, _ = task.reset(seed=0)
task.step(task.scripted_action(obs))
try:
    task.render()
except hypercrl_envs.RenderingUnavailable as error:
    print(error)
"""
    environment = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "DISPLAY")}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert "libegl1 libopengl0 libgl1-mesa-dri libegl-mesa0" in result.stdout


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_triton_can_be_imported_after_a_picture_was_drawn():
    code = (
        "from hypercrl_envs import make_task\n"
        "task = make_task('push', render_mode='rgb_array')\n"
        "task.reset(seed=0)\n"
        "task.render()\n"
        "import triton\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
