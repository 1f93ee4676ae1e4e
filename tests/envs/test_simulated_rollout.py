"""The oracle's rollout against the tasks themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hypercrl_envs import SimulatedRollout, TaskSequence, make_task

SPECS: list[dict[str, Any]] = [
    {"task": "push", "densities": (100, 500)},
    {"task": "slide"},
    {"task": "door", "handle": "lever", "turn": -1},
    {"task": "cheetah", "body": "foot"},
    {"task": "push", "densities": ((100, 1000), (100, 1000))},
    {"task": "door", "handle": "lever", "turn": (1, -1)},
]


@pytest.mark.parametrize("spec_given", SPECS, ids=lambda spec: "-".join(map(str, spec.values())))
def test_equals_stepping_the_task_bit_for_bit(spec_given):
    robots = [make_task(**spec_given) for _ in range(2)]
    imagine = SimulatedRollout(robots, lambda: make_task(**spec_given), threads=3)
    generator = torch.Generator().manual_seed(0)
    obs = []
    for seed, robot in enumerate(robots):
        robot.reset(seed=seed)
        for _ in range(5 + seed):
            last = robot.step(np.full(robot.action_space.shape, 0.7, np.float32))[0]
        obs.append(last)
    size = robots[0].action_space.shape[0]
    actions = 2 * torch.rand(2, 4, 6, size, generator=generator) - 1
    states = imagine(torch.from_numpy(np.stack(obs)), actions)
    assert states.shape == (2, 4, 7, len(obs[0]))
    assert states.dtype == torch.float32
    for b, robot in enumerate(robots):
        start = robot.get_state()
        for k in range(4):
            robot.set_state(start)
            stepped = [obs[b], *(robot.step(action)[0] for action in actions[b, k].numpy())]
            np.testing.assert_array_equal(states[b, k].numpy(), np.stack(stepped))
    # What was rolled out belongs to the state in which the robots are now.
    moved = imagine(states[:, -1, -1], actions)
    assert not torch.equal(moved[:, :, 1:], states[:, :, 1:])


def test_padded_tasks_roll_out():
    specs = [{"task": "push"}, {"task": "door", "handle": "pull"}]
    sequence = TaskSequence(specs, name="two", pad=True)
    robot = sequence.make(0)
    obs, _ = robot.reset(seed=0)
    imagine = SimulatedRollout([robot], lambda: sequence.make(0), threads=1)
    states = imagine(torch.from_numpy(obs)[None], torch.ones(1, 1, 2, 7))
    assert states.shape == (1, 1, 3, 14)
    expected = [robot.step(np.ones(7, np.float32))[0] for _ in range(2)]
    np.testing.assert_array_equal(states[0, 0, 1:].numpy(), np.stack(expected))


def test_tasks_that_would_be_replayed_are_refused():
    reacher = make_task("gym", id="Reacher-v5", reward="hypercrl_envs.gym_rewards:reacher")
    with pytest.raises(ValueError, match=r"Reacher-v5.*only tasks in MuJoCo"):
        SimulatedRollout([reacher], lambda: reacher, threads=1)


@pytest.mark.bullet
def test_bullet_is_refused():
    task = make_task("push", engine="bullet")
    with pytest.raises(ValueError, match=r"bullet.*only tasks in MuJoCo"):
        SimulatedRollout([task], lambda: task, threads=1)
