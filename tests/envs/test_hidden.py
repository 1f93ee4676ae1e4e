"""Parameters drawn anew for every episode: hidden, physically real, and part of a saved state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from hypercrl_envs import TaskSequence, make_task
from hypercrl_envs.cheetah import CHANGE_STEPS, CheetahTask
from hypercrl_envs.door import DoorTask
from hypercrl_envs.push import PushTask

RANGES = ((100, 1000), (100, 1000))
FORWARD = np.array([1.0, 0.0], np.float32)
CONFIGS = Path(__file__).parents[2] / "configs/env"


def push(task: PushTask, steps: int = 25) -> list[np.ndarray]:
    return [task.step(FORWARD)[0] for _ in range(steps)]


def yaw(obs: np.ndarray) -> float:
    corners = obs[2:10].reshape(4, 2)
    x, y = (corners[2:] - corners[:2]).sum(axis=0)
    return float(np.arctan2(y, x))


def test_drawn_densities_are_those_of_a_box_built_with_them():
    """Bit for bit what a task with these fixed densities does from the same state."""
    task = PushTask(densities=RANGES)
    for seed in range(4):
        task.reset(seed=seed)
        fixed = PushTask(densities=task.densities)
        fixed.reset(seed=0)
        fixed.simulator.set_state(task.simulator.get_state())
        np.testing.assert_array_equal(push(task), push(fixed))
        ratio = task.densities[0] / task.densities[1]
        if not 0.8 < ratio < 1.25:  # the box turns toward its heavy side
            assert (yaw(task._observe()) > 0) == (ratio > 1)


def test_densities_are_log_uniform_and_of_every_episode():
    task = PushTask(densities=((100, 1000), (200, 200)))
    drawn = [task.densities for seed in range(300) if task.reset(seed=seed)]
    left, right = np.transpose(drawn)
    assert set(right) == {200.0}
    quarters = np.histogram(np.log10(left), bins=4, range=(2, 3))[0]
    assert quarters.sum() == 300
    assert quarters.min() > 50
    task.reset(seed=5)
    first = task.densities
    task.reset()
    assert task.densities != first


def test_what_is_told_is_the_draw_and_nothing_else_differs():
    hidden, told = PushTask(densities=RANGES), PushTask(densities=RANGES, told=True)
    assert hidden.observation_space.shape == (10,)
    for seed in range(3):
        hidden.reset(seed=seed)
        told.reset(seed=seed)
        for seen, with_densities in zip(push(hidden), push(told), strict=True):
            np.testing.assert_array_equal(seen, with_densities[:10])
            scaled = 2 * (np.log10(told.densities) - 2) - 1
            np.testing.assert_allclose(with_densities[10:], scaled, rtol=1e-5)


def test_a_saved_state_brings_its_densities_along():
    task, other = PushTask(densities=RANGES), PushTask(densities=RANGES)
    task.reset(seed=1)
    other.reset(seed=2)
    push(task, 8)
    other.set_state(task.get_state())
    assert other.densities == task.densities
    np.testing.assert_array_equal(push(task), push(other))


def test_a_drawn_frame_turns_the_actions_and_is_told():
    task = PushTask(frame=(-90, 90), told=True)
    assert task.observation_space.shape == (14,)
    angles = []
    for seed in range(30):
        start, _ = task.reset(seed=seed)
        tip = task.simulator.tip
        for _ in range(2):
            obs, *_ = task.step(0.5 * FORWARD)
        x, y = (task.simulator.tip - tip)[:2]
        moved = np.degrees(np.arctan2(y, x))
        assert abs(moved - task.frame) < 8
        cosine, sine = np.cos(np.radians(task.frame)), np.sin(np.radians(task.frame))
        np.testing.assert_allclose(obs[12:], (cosine, sine), rtol=1e-5)
        np.testing.assert_array_equal(obs[10:], start[10:])
        angles.append(task.frame)
    assert min(angles) < -50
    assert max(angles) > 50
    other = PushTask(frame=(-90, 90), told=True)
    other.reset(seed=99)
    other.set_state(task.get_state())
    assert other.frame == task.frame
    np.testing.assert_array_equal(push(task, 5), push(other, 5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"densities": [[1000, 100], 500]}, "densities must be"),
        ({"densities": [[50, 100], 500]}, "densities must be"),
        ({"densities": [[100, 200, 300], 500]}, "densities must be"),
        pytest.param(
            {"densities": RANGES, "engine": "bullet"},
            "need engine 'mujoco'",
            marks=pytest.mark.bullet,
        ),
        ({"told": 1}, "told must be true or false"),
        ({"frame": [90, -90]}, "frame must be an angle"),
        ({"frame": "90"}, "frame must be an angle"),
    ],
)
def test_impossible_ranges_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_task("push", **arguments)


def test_a_door_draws_its_handle_and_the_reward_does_not_tell():
    task = DoorTask(handle=("pull", "lever"), turn=(1, -1))
    seen = []
    for seed in range(40):
        task.reset(seed=seed)
        seen.append((task.handle, task.turn))
    assert set(seen) == {("pull", 1), ("lever", 1), ("lever", -1)}
    # A planner asks the reward of one robot for all: it may not depend on the episode's door.
    obs, action = torch.randn(20, 14), torch.zeros(20, 7)
    paid = []
    for seed in range(10):
        task.reset(seed=seed)
        paid.append(task.reward(obs, action, obs))
    assert all(torch.equal(first, paid[0]) for first in paid)


@pytest.mark.parametrize("turn", [1, -1])
def test_the_reward_of_a_drawn_door_is_that_of_the_door(turn):
    """On what can happen: the knob turns its own way."""
    drawn, fixed = DoorTask("lever", (1, -1)), DoorTask("lever", turn)
    obs = torch.randn(50, 14)
    obs[:, 10] = turn * obs[:, 10].abs()
    action = torch.zeros(50, 7)
    assert torch.equal(drawn.reward(obs, action, obs), fixed.reward(obs, action, obs))


def test_every_drawn_door_is_opened_by_its_script():
    task = DoorTask(handle=("pull", "lever"), turn=(1, -1))
    opened = {}
    for seed in range(6):
        obs, _ = task.reset(seed=seed)
        for _ in range(100):
            obs, *_ = task.step(task.scripted_action(obs))
        opened[task.handle, task.turn] = bool(task.success(torch.from_numpy(obs)))
    assert len(opened) > 1
    assert all(opened.values())


def test_a_cheetah_changes_once_and_in_time():
    task = CheetahTask(becomes=("leg", "foot"))
    became = set()
    for seed in range(8):
        task.reset(seed=seed)
        bodies = []
        for _ in range(task.max_episode_steps):
            obs, *_ = task.step(np.zeros(6, np.float32))
            bodies.append(task.body)
            assert np.abs(obs).max() < 30  # the change throws nobody into the air
        changed = bodies.index(bodies[-1])
        assert bodies[:changed] == ["base"] * changed
        assert set(bodies[changed:]) == {bodies[-1]}
        assert CHANGE_STEPS[0] <= changed + 1 < CHANGE_STEPS[1]
        became.add(bodies[-1])
    assert became == {"leg", "foot"}


def test_a_changed_cheetah_moves_as_one_that_was_built_so():
    task, built = CheetahTask(becomes=("thigh",)), CheetahTask(body="thigh")
    task.reset(seed=0)
    built.reset(seed=0)
    while task.body == "base":
        task.step(np.zeros(6, np.float32))
    built.set_state({**task.get_state(), "physics": task.get_state()["physics"][:-2]})
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 6)).astype(np.float32)
    for action in actions:
        np.testing.assert_array_equal(task.step(action)[0], built.step(action)[0])


def test_a_told_door_observes_which_it_is_and_nothing_else_differs():
    arguments = {"handle": ("pull", "lever"), "turn": (1, -1)}
    hidden, told = DoorTask(**arguments), DoorTask(**arguments, told=True)
    seen = set()
    for seed in range(12):
        hidden.reset(seed=seed)
        obs, _ = told.reset(seed=seed)
        action = np.linspace(-0.5, 0.5, 7, dtype=np.float32)
        for _ in range(3):
            obs = told.step(action)[0]
            np.testing.assert_array_equal(hidden.step(action)[0], obs[:14])
        bar = told.handle == "pull"
        assert obs[14:].tolist() == [bar, not bar, 0, 0 if bar else told.turn]
        seen.add((told.handle, told.turn))
    assert len(seen) == 3


def test_a_told_cheetah_observes_the_body_that_it_has_now():
    hidden, told = (CheetahTask(becomes=("leg", "foot"), told=tell) for tell in (False, True))
    hidden.reset(seed=3)
    obs, _ = told.reset(seed=3)
    still, bodies = np.zeros(6, np.float32), []
    for _ in range(CHANGE_STEPS[1]):
        assert ("base", "leg", "foot")[int(obs[20:].argmax())] == told.body
        assert obs[20:].sum() == 1
        obs = told.step(still)[0]
        np.testing.assert_array_equal(hidden.step(still)[0], obs[:20])
        bodies.append(told.body)
    assert len(set(bodies)) == 2


@pytest.mark.parametrize(
    "name",
    [
        "push_hidden",
        "push_hidden_told",
        "frame_hidden",
        "frame_hidden_told",
        "door_hidden",
        "door_hidden_told",
        "cheetah_hidden",
        "cheetah_hidden_told",
        "five_hidden",
        "five_hidden_told",
    ],
)
def test_the_sequences_can_be_made(name):
    spec = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    assert len(TaskSequence(spec["tasks"], spec["name"])) >= 2
