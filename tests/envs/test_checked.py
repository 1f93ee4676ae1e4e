"""Faulty simulators and functions: one message that names the task, the step and the value."""

from __future__ import annotations

import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from hypercrl_envs import SimulatedRollout, TaskFault, TaskSequence, make_task
from hypercrl_envs.gym_task import GymTask
from hypercrl_envs.padded import PaddedTask

LATE = 3
"""The step of an episode in which a fault shows."""


class Faulty(gymnasium.Env):
    """A point that does what `fault` says from step 3 on, or in what the fault is named after."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    observation_space = spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = spaces.Box(-2, 2, (2,), np.float32)

    def __init__(self, fault="none", render_mode=None):
        if fault == "made":
            raise KeyError("no licence")
        if fault == "exit_made":
            raise SystemExit(0)
        self.fault, self.render_mode = fault, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.normal(size=4).astype(np.float32)
        self.steps = 0
        if self.fault == "reset_raises":
            raise OSError(5, "Input/output error")
        if self.fault == "reset_nan":
            self.x[0] = np.nan
        return self.x if self.fault == "reset_no_info" else (self.x.copy(), {})

    def step(self, action):
        self.steps += 1
        self.x = 0.9 * self.x + np.float32(0.1) * np.tile(action, 2)
        returned = [self.x.copy(), -1.0, False, False, {}]
        if self.steps >= LATE and self.fault in FAULTS:
            place, value = FAULTS[self.fault][0]
            if isinstance(value, BaseException):
                raise value
            if place == "size":
                return tuple(returned[:value])
            if place == "entry":
                returned[0][1] = value
            else:
                returned[place] = value
        return tuple(returned)

    def render(self):
        raise RuntimeError("no display")

    def close(self):
        if self.fault == "close":
            raise RuntimeError("no hand")


FAULTS = {
    "nan": (("entry", np.nan), r"observation\[1\] is nan"),
    "infinite": (("entry", np.inf), r"observation\[1\] is inf"),
    "huge": (("entry", 1e30), r"observation\[1\] is 1e\+30, which is too large"),
    "overflow": ((0, np.full(4, 1e300)), r"observation\[0\] is 1e\+300, which is too large"),
    "shape": ((0, np.zeros(6, np.float32)), r"shape \(6,\) where its space says \(4,\)"),
    "column": ((0, np.zeros((4, 1), np.float32)), r"shape \(4, 1\)"),
    "text": ((0, np.array(["a"] * 4)), "dtype <U1"),
    "objects": ((0, np.array([None] * 4)), "dtype object"),
    "none": ((0, None), "no numpy array, but None"),
    "list": ((0, [0.0] * 4), r"no numpy array, but \[0.0, 0.0"),
    "tensor": ((0, torch.zeros(4)), "no numpy array, but tensor"),
    "reward_nan": ((1, float("nan")), "reward is nan"),
    "reward_infinite": ((1, np.float64(-np.inf)), "reward is -inf"),
    "reward_none": ((1, None), "reward is no number, but None"),
    "reward_text": ((1, "1.0"), "reward is no number, but '1.0'"),
    "reward_vector": ((1, np.zeros(1)), r"reward is no number, but array.*reward\[0\]"),
    "reward_aims": ((1, np.zeros(3)), r"of shape \(3,\)\. Make one number of it: .* with weights"),
    "ended_none": ((2, None), "terminated=None, not True or False"),
    "short": (("size", 3), "not \\(observation, reward, terminated, truncated, info\\)"),
    "old": (("size", 4), "not \\(observation, reward, terminated, truncated, info\\)"),
    "raises": ((0, RuntimeError("lost contact")), "raised RuntimeError: lost contact"),
    "key": ((0, KeyError("joint")), "raised KeyError: 'joint' .test_checked.py, line"),
    "silent": (
        (0, NotImplementedError()),
        r"NotImplementedError \(test_checked.py, line \d+: raise value\)",
    ),
    "exit": ((0, SystemExit(0)), r"called sys.exit\(0\)"),
}

gymnasium.register("TestFaulty-v0", Faulty, max_episode_steps=5)
gymnasium.register("TestEndless-v0", Faulty)


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_step_returns(fault, told, pad):
    reward = f"{__name__}:well" if told else None
    task = GymTask("TestFaulty-v0", reward=reward, options={"fault": fault})
    if pad:
        task = PaddedTask(task, 7, 3)
    task.reset(seed=0)
    action = np.zeros(task.action_space.shape, np.float32)
    for _ in range(LATE - 1):
        task.step(action)
    with pytest.raises(TaskFault, match=FAULTS[fault][1]) as caught:
        task.step(action)
    assert str(caught.value).startswith("TestFaulty-v0, step 3 of an episode")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_first_step_is_tried_before_anything_is_paid_for(fault, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "LATE", 1)
    spec = {"task": "gym", "id": "TestFaulty-v0", "options": {"fault": fault}}
    with pytest.raises(TaskFault, match=FAULTS[fault][1]) as caught:
        TaskSequence([spec], "test")
    assert str(caught.value).startswith("TestFaulty-v0, step 1 of an episode")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("reset_raises", r"TestFaulty-v0, reset raised OSError: \[Errno 5\] Input/output error"),
        ("reset_nan", r"TestFaulty-v0, reset: observation\[0\] is nan"),
        ("reset_no_info", r"TestFaulty-v0, reset returned array\(.*not a pair"),
        ("close", "TestFaulty-v0, close raised RuntimeError: no hand"),
    ],
)
def test_faults_outside_a_step(fault, message):
    """A sequence finds them before anything is paid for."""
    with pytest.raises(TaskFault, match=message):
        TaskSequence([{"task": "gym", "id": "TestFaulty-v0", "options": {"fault": fault}}], "test")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"id": "TestFaulty-v0", "options": {"fault": "made"}}, "KeyError: 'no licence'"),
        ({"id": "TestFaulty-v0", "options": {"fault": "exit_made"}}, r"called sys.exit\(0\)"),
        ({"id": "TestFaulty-v0", "options": {"max_episode_steps": 0}}, "positive"),
        ({"id": "TestEndless-v0"}, r"options: \{max_episode_steps: 200\}"),
        ({"id": "nowhere:Env-v0"}, r"cannot be made.*imported\. \(registration.py, line \d+\)$"),
        ({"id": "maker/Env-v0"}, 'not found.* name that first: "package:maker/Env-v0"'),
        ({"id": "TestUnheardOf-v0"}, 'name that first: "package:TestUnheardOf-v0"'),
    ],
)
def test_environments_that_cannot_be_made(given, message):
    with pytest.raises(ValueError, match=message):
        TaskSequence([{"task": "gym", **given}], "test")


def test_an_episode_of_one_step():
    task = GymTask("TestEndless-v0", options={"max_episode_steps": 1})
    task.reset(seed=0)
    assert task.step(np.zeros(2, np.float32))[3]


def test_a_picture_that_fails():
    task = GymTask("TestFaulty-v0", render_mode="rgb_array")
    task.reset(seed=0)
    with pytest.raises(TaskFault, match="TestFaulty-v0, render raised RuntimeError: no display"):
        task.render()


def test_floats_and_integers_of_any_width_are_numbers():
    task = GymTask("TestFaulty-v0", reward=f"{__name__}:well")
    for dtype in (np.float64, np.float16, np.int64, np.uint8, np.bool_):
        np.testing.assert_array_equal(task._vector(np.ones(4, dtype), "test"), np.ones(4))


# Rewards, each wrong in one way.


def well(obs, action, next_obs):
    return -next_obs.abs().sum(-1)


def nan(obs, action, next_obs):
    return well(obs, action, next_obs) * torch.nan


def infinite(obs, action, next_obs):
    return well(obs, action, next_obs) - torch.inf


def mean(obs, action, next_obs):
    return well(obs, action, next_obs).mean()


def over_batch(obs, action, next_obs):
    values = well(obs, action, next_obs)
    return values - values.mean()


def branching(obs, action, next_obs):
    values = well(obs, action, next_obs)
    return values if float(next_obs.sum()) > 0 else -values


def first_dimension(obs, action, next_obs):
    return next_obs.reshape(-1, next_obs.shape[-1]).sum(1)


def unreduced(obs, action, next_obs):
    return -next_obs.abs()


def keepdim(obs, action, next_obs):
    return -next_obs.abs().sum(-1, keepdim=True)


def as_numpy(obs, action, next_obs):
    return well(obs, action, next_obs).numpy()


def as_float(obs, action, next_obs):
    return 1.0


def as_none(obs, action, next_obs):
    return None


def needs_gradient(obs, action, next_obs):
    x = next_obs.detach().clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(x.square().sum(), x)
    return -gradient.sum(-1)


def returns_gradient(obs, action, next_obs):
    weight = torch.ones(next_obs.shape[-1], requires_grad=True)
    return (next_obs * weight).sum(-1)


def raises(obs, action, next_obs):
    raise LookupError("reward broke")


def exits(obs, action, next_obs):
    raise SystemExit(0)


def writes(obs, action, next_obs):
    obs.clamp_(-0.01, 0.01)
    return well(obs, action, next_obs)


def whole(obs, action, next_obs):
    return well(obs, action, next_obs).long()


def yes_or_no(obs, action, next_obs):
    return well(obs, action, next_obs) > -1


def noisy(obs, action, next_obs):
    values = well(obs, action, next_obs)
    return values + torch.rand_like(values)


def double(obs, action, next_obs):
    return well(obs, action, next_obs).double()


def two(obs, action):
    return obs.sum(-1)


NO_FUNCTION = 3.0

WRONG = {
    "nan": "returned .nan, nan. for states that the environment begins in",
    "infinite": "returned .-inf, -inf. for states that the environment begins in",
    "mean": r"returned shape \(\) for inputs \(8, 4\), and is to return \(8,\)",
    "over_batch": "is not batched",
    "branching": "is not batched",
    "first_dimension": r"returned shape \(8,\) for inputs \(2, 4, 4\)",
    "unreduced": r"returned shape \(8, 4\)",
    "keepdim": r"returned shape \(8, 1\)",
    "as_numpy": "returned no tensor, but array",
    "as_float": "returned no tensor, but 1.0",
    "as_none": "returned no tensor, but None",
    "needs_gradient": "does not require grad",
    "returns_gradient": "requires gradients",
    "raises": "raised LookupError: reward broke",
    "exits": r"called sys.exit\(0\)",
    "writes": "writes into its inputs",
    "whole": "returned torch.int64, and is to return floats",
    "yes_or_no": "returned torch.bool, and is to return floats",
    "noisy": "or draws random numbers",
    "two": "takes 2 positional arguments but 3 were given",
}


@pytest.mark.parametrize("name", WRONG)
def test_rewards_are_tried_before_a_step_is_paid_for(name):
    spec = {"task": "gym", "id": "TestFaulty-v0", "reward": f"{__name__}:{name}"}
    with pytest.raises(TaskFault, match=WRONG[name]) as caught:
        TaskSequence([spec], "test")
    assert "TestFaulty-v0: function" in str(caught.value)


@pytest.mark.parametrize("name", ["well", "double"])
def test_rewards_that_do_what_they_are_to(name):
    task = GymTask("TestFaulty-v0", reward=f"{__name__}:{name}")
    task.try_out()
    obs = torch.ones(5, 4)
    reward = task.reward(obs, torch.zeros(5, 2), obs)
    assert reward.dtype == torch.float32
    torch.testing.assert_close(reward, torch.full((5,), -4.0))


@pytest.mark.parametrize(
    "path", ["nowhere:f", f"{__name__}:f", __name__, f"{__name__}:NO_FUNCTION"]
)
def test_functions_that_are_not_there(path):
    with pytest.raises(ValueError, match="current folder"):
        GymTask("TestFaulty-v0", reward=path)


def test_a_distance_is_tried_too():
    functions = {"reward": f"{__name__}:well", "distance": f"{__name__}:two"}
    task = GymTask("TestFaulty-v0", **functions, solved_within=0.05)
    with pytest.raises(TaskFault, match="missing 1 required positional"):
        task.try_out()


# MuJoCo replaces a state that has gone bad by its reference pose, and goes on.


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("own", [{"task": "push"}, {"task": "cheetah"}], ids=["push", "cheetah"])
def test_a_state_that_mujoco_has_reset_is_no_episode(own, pad, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its log there
    inner = make_task(**own)
    task = PaddedTask(inner, 30, 8) if pad else inner
    task.reset(seed=0)
    good = task.get_state()
    inner.simulator.data.qvel[0] = np.nan
    bad = task.get_state()
    action = np.zeros(task.action_space.shape, np.float32)
    with pytest.raises(TaskFault, match="step 1 of an episode: MuJoCo's state went bad: the "):
        task.step(action)
    rollout = SimulatedRollout([task], lambda: make_task(**own), threads=1)
    if not pad:
        task.set_state(bad)
        with pytest.raises(TaskFault, match="an imagined step: MuJoCo's state went bad"):
            rollout(
                torch.zeros(1, *task.observation_space.shape), torch.zeros(1, 3, 2, len(action))
            )
    task.set_state(good)
    task.step(action)
    task.reset(seed=1)
    task.step(action)


def test_the_same_in_environments_of_gymnasium(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = GymTask("Reacher-v5")
    task.reset(seed=0)
    task.step(np.zeros(2, np.float32))
    task._env.unwrapped.data.qvel[1] = 1e12
    with pytest.raises(
        TaskFault, match=r"Reacher-v5, step 2 .* the velocity of degree of freedom 1"
    ):
        task.step(np.zeros(2, np.float32))
