"""The tasks as `gymnasium.make` gives them: ids, vector environments, a window."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from hypercrl_envs import RenderingUnavailable, make_task
from hypercrl_envs.gymnasium_ids import IDS

PARAMETERS: dict[str, dict[str, Any]] = {
    "Push": {"densities": [100, 500], "told": True},
    "Slide": {"friction": 0.2},
    "Door": {"handle": "lever", "turn": -1, "mirrored": True},
    "Workbench": {"goal": "block", "at": [0.0, 0.12]},
    "Cheetah": {"body": "leg", "reversed_joints": ["bfoot"]},
    "DoubleIntegrator": {"reversed_axes": ["x"]},
    "ComplexOde": {"coefficients": [5, -5]},
    "Cartpole": {"reversed_motor": True},
}
CASES = list(PARAMETERS.items())
TASK_OF = {id: task for task, id in IDS.items()}


@pytest.mark.parametrize(("name", "options"), CASES)
def test_ids_pass_gymnasiums_checker(name, options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = {"render_mode": "rgb_array", "width": 32, "height": 32}
        env = gymnasium.make(f"hypercrl/{name}-v0", **options, **picture)
        check_env(env.unwrapped)
        env.reset(seed=0)
        assert np.asarray(env.render()).shape == (32, 32, 3)
        env.close()


@pytest.mark.parametrize(("name", "options"), CASES)
def test_ids_make_the_tasks(name, options):
    env, task = (
        gymnasium.make(f"hypercrl/{name}-v0", **options),
        make_task(TASK_OF[f"hypercrl/{name}-v0"], **options),
    )
    np.testing.assert_array_equal(env.reset(seed=3)[0], task.reset(seed=3)[0])
    env.action_space.seed(0)
    truncated, steps = False, 0
    while not truncated:
        action = env.action_space.sample()
        (obs, *rest), (expected, *other) = env.step(action), task.step(action)
        np.testing.assert_array_equal(obs, expected)
        assert rest == other
        truncated, steps = rest[2], steps + 1
    assert steps == task.max_episode_steps == env.spec.max_episode_steps


@pytest.mark.parametrize(("limit", "steps"), [(5, 5), (70, 70)])
def test_the_limit_of_an_episode_is_gymnasiums(limit, steps):
    env = gymnasium.make("hypercrl/Push-v0", max_episode_steps=limit)
    env.reset(seed=0)
    ends = [env.step(np.zeros(2, np.float32))[3] for _ in range(steps)]
    assert ends == [False] * (steps - 1) + [True]


def test_an_id_imports_by_itself():
    program = (
        "import gymnasium\n"
        "env = gymnasium.make('hypercrl_envs:hypercrl/Push-v0', densities=[100, 500])\n"
        "print(env.unwrapped.caption)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout == "push 100 | 500 kg/m³\n", run.stderr


def test_parameters_are_checked_as_by_make_task():
    with pytest.raises(ValueError, match="'density'; did you mean 'densities'"):
        gymnasium.make("hypercrl/Push-v0", density=[100, 500])


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_vector_environments_step_as_single_ones(mode):
    id, drawn = "hypercrl/Push-v0", {"densities": [[100, 1000], [100, 1000]]}
    envs = gymnasium.make_vec(id, 2, mode, **drawn)
    singles = [gymnasium.make(id, **drawn) for _ in range(2)]
    obs, _ = envs.reset(seed=[4, 5])
    expected = [env.reset(seed=seed)[0] for env, seed in zip(singles, (4, 5), strict=True)]
    np.testing.assert_array_equal(obs, expected)
    for _ in range(60):
        actions = np.array(
            [single.unwrapped.scripted_action(o) for single, o in zip(singles, obs, strict=True)]
        )
        obs, rewards, _, truncated, info = envs.step(actions)
        steps = [env.step(action) for env, action in zip(singles, actions, strict=True)]
        np.testing.assert_array_equal(obs, [step[0] for step in steps])
        np.testing.assert_array_equal(rewards, [step[1] for step in steps])
        assert info["goal_distance"].tolist() == [step[4]["goal_distance"] for step in steps]
    assert truncated.all()
    assert not np.array_equal(envs.step(actions)[0], obs), "a new episode begins"
    envs.close()


@pytest.mark.parametrize("display", [None, ":7654"])
def test_a_window_without_a_display_is_one_message(monkeypatch, display):
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    if display is not None:
        monkeypatch.setenv("DISPLAY", display)
    with pytest.raises(RenderingUnavailable, match=r"display.*rgb_array"):
        gymnasium.make("hypercrl/Push-v0", render_mode="human")


def test_a_window_is_mujocos():
    with pytest.raises(ValueError, match="'human' needs engine 'mujoco', not 'bullet'"):
        make_task("push", engine="bullet", render_mode="human")


IN_A_WINDOW = """
import sys, time
import gymnasium, numpy as np, hypercrl_envs
shown = gymnasium.make("hypercrl/Cheetah-v0", render_mode="human", becomes=["leg"])
hidden = gymnasium.make("hypercrl/Cheetah-v0", becomes=["leg"])
assert "human" in shown.unwrapped.metadata["render_modes"]
begin = time.perf_counter()
for seed in range(2):
    envs = [shown, hidden]
    obs = [env.reset(seed=seed)[0] for env in envs]
    hidden.unwrapped._steps_to_change = shown.unwrapped._steps_to_change = 20
    for _ in range(30):
        assert np.array_equal(*obs)
        obs = [env.step(env.unwrapped.scripted_action(o))[0] for env, o in zip(envs, obs)]
assert shown.render() is None
assert time.perf_counter() - begin > 58 / 20, "faster than real time"
open(sys.argv[1], "w").close()
sys.stdin.read()
shown.close()
"""


@pytest.mark.skipif(shutil.which("Xvfb") is None, reason="no virtual display (apt: xvfb)")
def test_a_window_shows_the_episode_and_changes_nothing(tmp_path: Path, monkeypatch):
    """Bit for bit the same states as without, and a picture of many colours on the screen."""
    display, ready = f":{90 + time.time_ns() % 1000}", tmp_path / "ready"
    screen = ["-screen", "0", "640x480x24", "-fbdir", str(tmp_path)]
    server = subprocess.Popen(["Xvfb", display, *screen], stderr=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("DISPLAY", display)
        socket = Path(f"/tmp/.X11-unix/X{display[1:]}")
        _wait(socket.exists)
        program = subprocess.Popen(
            [sys.executable, "-c", IN_A_WINDOW, str(ready)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        _wait(lambda: ready.exists() or program.poll() is not None)
        pixels = np.fromfile(tmp_path / "Xvfb_screen0", np.uint32)
        _, error = program.communicate("", timeout=60)
        assert program.returncode == 0, error
        assert len(np.unique(pixels)) > 100
    finally:
        server.terminate()
        server.wait()


def _wait(happened: Any) -> None:
    until = time.perf_counter() + 60
    while not happened():
        assert time.perf_counter() < until
        time.sleep(0.05)
