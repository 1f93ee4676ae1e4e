"""Registry and sequences: what they make, and what their messages say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import yaml

from hypercrl_envs import TASKS, TaskSequence, make_task
from hypercrl_envs.push import PushTask
from hypercrl_envs.sequence import told_apart

SPECS: list[dict[str, Any]] = [
    {"task": "push", "densities": [500, 500]},
    {"task": "push", "densities": [100, 500]},
    {"task": "push", "frame": 180, "flip_y": True},
]


class WidePush(PushTask):
    """A push task with one more observation."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        self.observation_space = gymnasium.spaces.Box(-2.0, 2.0, (11,), np.float32)


def test_make_task_passes_parameters_on():
    task = make_task("push", engine="mujoco", densities=[100, 500], frame=90)
    assert isinstance(task, PushTask)
    assert task.densities == (100.0, 500.0)
    assert task.caption == "push 100 | 500 kg/m³, frame 90°"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "psh"}, r"unknown task: 'psh'; did you mean 'push'\?"),
        ({"task": 3}, r"unknown task: 3; valid: .*push"),
        ({"task": "push", "engine": "mujco"}, r"unknown engine .*'mujco'; did you mean 'mujoco'\?"),
        (
            {"task": "push", "density": [1, 2]},
            r"unknown parameter of task 'push': 'density'; did you mean 'densities'\?",
        ),
        ({"task": "slide", "camra": "top"}, r"parameter of task 'slide': 'camra'; did you mean"),
        ({"task": "push", "densities": [1, 2]}, r"densities must be two numbers from 100 to 1000"),
        ({"task": "push", "width": "a"}, r"'push' cannot be made with width='a'"),
        (
            {"task": "workbench", "goal": "block", "at": 3},
            r"the block can be brought to places from",
        ),
        ({"task": "complex_ode", "coefficients": ["a"]}, r"coefficients must be numbers within"),
        ({"task": "complex_ode", "coefficients": {"a": 1}}, r"coefficients must be numbers within"),
        ({"task": "complex_ode", "coefficients": [True, 5]}, r"coefficients must be numbers"),
        ({"task": "push", "frame": True}, r"frame must be an angle"),
        ({"task": "push", "frame": ["0", "90"]}, r"frame must be an angle"),
        ({"task": "push", "friction": True}, r"friction must be from 0.3 to 1.5, not True"),
        ({"task": "push", "start_yaw": False}, r"start_yaw must be from 0 to 0.7 rad, not False"),
        ({"task": "double_integrator", "mass": True}, r"mass must be 0.1 to 2 .* not True"),
        ({"task": "cartpole", "half_length": True}, r"half_length must be 0.1 to 1 m, not True"),
    ],
)
def test_make_task_names_the_nearest(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_task(**arguments)


def test_a_task_takes_what_it_hands_on(monkeypatch):
    class HalfPush(PushTask):
        def __init__(self, heavy: bool, **simulation):
            densities = (1000.0, 500.0) if heavy else (500.0, 500.0)
            super().__init__(densities, told=False, **simulation)

    monkeypatch.setitem(TASKS, "half", HalfPush)
    task = make_task("half", heavy=True, width=64, start_yaw=0.2)
    assert isinstance(task, PushTask)
    assert (task.densities, task.width, task.start_yaw) == ((1000.0, 500.0), 64, 0.2)
    with pytest.raises(ValueError, match="needs the parameter 'heavy'"):
        make_task("half")


def test_sequence_makes_its_tasks_in_order():
    sequence = TaskSequence(SPECS, "three")
    assert len(sequence) == 3
    assert (sequence.observation_size, sequence.action_size) == (10, 2)
    assert sequence.captions == (
        "push 500 | 500 kg/m³",
        "push 100 | 500 kg/m³",
        "push 500 | 500 kg/m³, frame 180°, y flipped",
    )
    first, again = sequence.make(1), sequence.make(1)
    assert first is not again
    assert first.caption == sequence.captions[1]
    assert sequence.make(0, render_mode="rgb_array").render_mode == "rgb_array"
    with pytest.raises(IndexError, match="tasks 0 to 2, not 3"):
        sequence.make(3)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([], "sequence 'wrong' has no tasks"),
        ([SPECS[0], {"densities": [500, 500]}], "task 2: no key 'task'"),
        ([SPECS[0], {"task": "pusch"}], "sequence 'wrong', task 2: unknown task: 'pusch'"),
        ([{"task": "push", "frames": 90}], "task 1: .*did you mean 'frame'"),
        ([{"task": "push", "render_mode": "rgb_array"}], "task 1: .*render_mode"),
    ],
)
def test_wrong_sequences_say_where(specs, message):
    with pytest.raises(ValueError, match=message):
        TaskSequence(specs, "wrong")


def test_sequence_refuses_mixed_sizes(monkeypatch):
    monkeypatch.setitem(TASKS, "wide", WidePush)
    with pytest.raises(ValueError, match=r"task 2 .* has 11 observations and 2 actions, task 1"):
        TaskSequence([{"task": "push"}, {"task": "wide"}], "mixed")


MIXED: list[dict[str, Any]] = [
    {"task": "push", "densities": [100, 500]},
    {"task": "door", "handle": "lever"},
    {"task": "slide", "friction": 0.1},
]


def test_padded_sequences_bring_all_tasks_to_the_largest():
    sequence = TaskSequence(MIXED, "mixed", pad=True)
    assert (sequence.observation_size, sequence.action_size) == (15, 7)
    for index, spec in enumerate(MIXED):
        task, plain = sequence.make(index), make_task(**spec)
        assert task.observation_space.shape == (15,)
        assert task.action_space.shape == (7,)
        assert task.caption == plain.caption
        assert task.max_episode_steps == plain.max_episode_steps
        obs, _ = task.reset(seed=1)
        expected, _ = plain.reset(seed=1)
        size, actions = len(expected), plain.action_space.shape[0]
        generator = np.random.default_rng(0)
        for _ in range(10):
            np.testing.assert_array_equal(obs[:size], expected)
            assert not obs[size:].any()
            action = generator.uniform(-1, 1, 7).astype(np.float32)
            obs, reward, *_, info = task.step(action)
            expected, paid, *_, expected_info = plain.step(action[:actions])
            assert reward == paid
            assert info == expected_info
        assert task.scripted_action(obs).shape == (7,)
        task.close()
        plain.close()


def test_padding_does_not_touch_tasks_of_the_largest_size():
    sequence = TaskSequence([MIXED[2], MIXED[2]], "equal", pad=True)
    assert type(sequence.make(0)) is type(make_task("slide"))


def test_padded_tasks_save_restore_and_draw():
    sequence = TaskSequence(MIXED, "mixed", pad=True)
    task = sequence.make(0, render_mode="rgb_array", width=64, height=48)
    task.reset(seed=0)
    push = np.ones(7, np.float32)
    task.step(push)
    state = task.get_state()
    expected = [task.step(push)[0], task.reset()[0]]
    fresh = sequence.make(0)
    fresh.set_state(state)
    np.testing.assert_array_equal([fresh.step(push)[0], fresh.reset()[0]], expected)
    assert task.render().shape == (48, 64, 3)
    task.close()


@pytest.mark.bullet
def test_engines_mix_in_one_sequence():
    specs = [{"task": "push"}, {"task": "push", "engine": "bullet"}]
    sequence = TaskSequence(specs, "engines")
    starts = [sequence.make(index).reset(seed=0)[0] for index in range(2)]
    np.testing.assert_allclose(starts[0], starts[1], atol=1e-5)


SHIPPED = sorted((Path(__file__).parents[2] / "configs" / "env").glob("*.yaml"))
NEEDS = {path: [pytest.mark.bullet] if "bullet" in path.read_text() else [] for path in SHIPPED}


def test_sequences_are_shipped():
    assert len(SHIPPED) >= 9


@pytest.mark.parametrize("path", [pytest.param(p, marks=NEEDS[p], id=p.stem) for p in SHIPPED])
def test_a_shipped_sequence_can_be_made(path: Path):
    config = yaml.safe_load(path.read_text())
    sequence = TaskSequence(config["tasks"], config["name"], config.get("pad", False))
    assert config["name"] == path.stem
    different = [spec for i, spec in enumerate(sequence.specs) if spec not in sequence.specs[:i]]
    assert len(set(sequence.captions)) == len(different)  # what comes again has its caption again


def test_tasks_are_the_same_however_they_are_written():
    specs = [
        {"task": "push"},
        {"task": "push", "densities": [100, 500], "camera": "top"},
        {"task": "push", "densities": (500.0, 500), "frame": 0, "engine": "mujoco"},
        {"task": "push", "densities": [[100, 500], 500]},
        {"task": "push", "width": 64, "densities": (100, 500.0)},
        {"task": "push", "densities": [[100.0, 500.0], 500]},
    ]
    assert TaskSequence(specs, "again").identities == [0, 1, 0, 3, 1, 3]


def test_captions_tell_tasks_of_one_environment_apart():
    reacher = {"task": "gym", "id": "Reacher-v5", "reward": "hypercrl_envs.gym_rewards:reacher"}
    specs = [
        reacher | {"options": {"max_episode_steps": 50, "reward_control_weight": 1}},
        reacher | {"options": {"max_episode_steps": 50, "reward_control_weight": 0.1}},
        reacher | {"reward": "hypercrl_envs.gym_rewards:goal_distance"},
        {"task": "push"},
        {"task": "push"},
    ]
    sequence = TaskSequence(specs[:2], "options")
    assert sequence.captions == (
        "Reacher-v5, reward_control_weight 1",
        "Reacher-v5, reward_control_weight 0.1",
    )
    task = sequence.make(1)
    assert task.caption == sequence.captions[1]
    captions = ["Reacher-v5"] * 3 + ["push 500 | 500 kg/m³"] * 2
    *_, other, push, same = told_apart(captions, specs)
    assert other == "Reacher-v5, reward hypercrl_envs.gym_rewards:goal_distance"
    assert push == same == "push 500 | 500 kg/m³"


@pytest.mark.parametrize("count", [20, 100])
def test_a_long_sequence_is_what_its_script_draws(count):
    root = Path(__file__).parents[2]
    words = [sys.executable, root / "scripts/make_sequence.py", str(count)]
    drawn = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert drawn == (root / f"configs/env/push{count}.yaml").read_text()
    tasks = yaml.safe_load(drawn)["tasks"]
    assert len({str(task) for task in tasks}) == count


def test_pictures_are_those_that_are_asked_for_and_else_those_of_the_sequence():
    sequence = TaskSequence([{"task": "push", "camera": "side", "width": 64}], "from the side")
    task = sequence.make(0, "rgb_array", width=48, height=32)
    assert (task.camera, task.width, task.height) == ("side", 48, 32)
    task.close()
    assert sequence.make(0, camera="top").camera == "top"
