"""Spaces of other people's environments: bounds to the last bit, dicts in a stated order."""

from __future__ import annotations

import importlib.util

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from hypercrl_envs import RenderingUnavailable, TaskFault
from hypercrl_envs.gym_spaces import ActionRange, VectorObservation
from hypercrl_envs.gym_task import GymTask

ENDS = np.array([-1.0, 1.0], np.float32)


def random_floats(generator: np.random.Generator, dtype: str, count: int) -> np.ndarray:
    """Any finite numbers of that type, by their bits: denormal, huge, and a few special ones."""
    bits = generator.integers(0, 256, (count, np.dtype(dtype).itemsize), dtype=np.uint8)
    numbers = bits.view(dtype)[:, 0]
    info = np.finfo(dtype)
    special = [0.0, -0.0, info.max, -info.max, info.smallest_subnormal, info.tiny, 1.0, 0.7, -3.0]
    numbers[: len(special)] = special
    generator.shuffle(numbers)
    return np.where(np.isfinite(numbers), numbers, dtype_zero := numbers.dtype.type(0)) + dtype_zero


def test_types_that_torch_has_not_or_reads_otherwise():
    """Any number but 0 is true to torch; of yes and no the nearer one is executed."""
    to_own = ActionRange(spaces.Box(0, 1, (3,), np.bool_), "test")
    action = np.array([-0.98, 0.02, 1.0], np.float32)
    np.testing.assert_array_equal(to_own.for_environment(action), [False, True, True])
    assert to_own(torch.from_numpy(action)).tolist() == [0.0, 1.0, 1.0]
    space = spaces.Box(-2, 6, (3,), np.longdouble)
    own = ActionRange(space, "test").for_environment(action)
    assert space.contains(own)
    np.testing.assert_allclose(own, 2 + 4 * action.astype(np.longdouble))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_no_action_leaves_the_bounds(dtype):
    """Every pair of bounds, in the environment's own type; the ends are the bounds themselves."""
    generator = np.random.default_rng(0)
    first, second = (random_floats(generator, dtype, 4000) for _ in range(2))
    first[:50], second[:50] = -second[:50], second[:50]
    second[50:60] = first[50:60]
    second[60:100] = np.nextafter(first[60:100], np.dtype(dtype).type(np.inf))
    both = np.stack([first, second])
    both = both[:, np.isfinite(both).all(0)]
    low, high = both.min(0), both.max(0)
    space = spaces.Box(low, high, dtype=np.dtype(dtype))
    to_own = ActionRange(space, "test")
    inside = generator.uniform(-1, 1, (40, len(low))).astype(np.float32)
    near_ends = np.nextafter(ENDS, np.float32(0))
    for action in [*inside, *(np.full(len(low), end, np.float32) for end in (*ENDS, *near_ends))]:
        own = to_own.for_environment(action)
        assert own.dtype == space.dtype
        assert space.contains(own)
    np.testing.assert_array_equal(to_own.for_environment(np.full(len(low), -1, np.float32)), low)
    np.testing.assert_array_equal(to_own.for_environment(np.full(len(low), 1, np.float32)), high)
    middle = to_own.for_environment(np.zeros(len(low), np.float32))
    exact = low.astype(np.longdouble) / 2 + high.astype(np.longdouble) / 2
    np.testing.assert_allclose(middle, exact.astype(dtype), rtol=1e-3 if dtype == "float16" else 0)


def test_what_a_reward_sees_is_what_is_executed():
    space = spaces.Box(np.float32([-3.0, -1e-3, 0.1]), np.float32([0.7, 5.0, 0.3]))
    to_own = ActionRange(space, "test")
    generator = torch.Generator().manual_seed(0)
    actions = 2 * torch.rand(2, 50, 3, generator=generator) - 1
    own = to_own(actions)
    assert own.dtype == torch.float32
    for action, seen in zip(actions.flatten(0, 1), own.flatten(0, 1), strict=True):
        np.testing.assert_array_equal(to_own.for_environment(action.numpy()), seen.numpy())


def test_whole_numbers_are_executed_as_whole_numbers():
    space = spaces.Box(0, 5, (1,), np.int64)
    to_own = ActionRange(space, "test")
    executed = {
        int(to_own.for_environment(np.array([a], np.float32))[0]) for a in np.linspace(-1, 1, 101)
    }
    assert executed == set(range(6))
    assert float(to_own(torch.tensor([0.3]))) == 3.0


@pytest.mark.parametrize("dtype", ["int64", "uint64", "int32", "uint8"])
def test_the_ends_of_a_type_are_executed_as_they_are(dtype):
    """Of 64 bits no float holds them: the largest became the smallest."""
    info = np.iinfo(dtype)
    space = spaces.Box(info.min, info.max, (3,), np.dtype(dtype).type)
    own = ActionRange(space, "test").for_environment(np.array([-1.0, 0.0, 1.0], np.float32))
    assert own.dtype == space.dtype
    assert space.contains(own)
    assert [int(own[0]), int(own[2])] == [info.min, info.max]
    assert abs(int(own[1]) - (info.min + info.max) / 2) <= 1


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_ends_near_those_of_a_type_are_not_overstepped(dtype):
    low, high = np.iinfo(dtype).min + 2**62 + 5, np.iinfo(dtype).max - 5
    space = spaces.Box(low, high, (2,), dtype)
    own = ActionRange(space, "test").for_environment(np.array([-1.0, 1.0], np.float32))
    assert [int(own[0]), int(own[1])] == [low, high]


BOX = spaces.Box(-1, 1, (2,), np.float32)
NESTED = spaces.Dict(
    {
        "observation": spaces.Box(-np.inf, np.inf, (3,), np.float64),
        "desired_goal": BOX,
        "achieved_goal": BOX,
        "z": spaces.Tuple((spaces.Box(0, 9, (1,), np.uint8), spaces.Dict({"b": BOX}))),
    }
)
VALUE = {
    "observation": np.array([5.0, 6.0, 7.0]),
    "desired_goal": np.float32([3, 4]),
    "achieved_goal": np.float32([1, 2]),
    "z": (np.uint8([8]), {"b": np.float32([9, 10])}),
}


def test_parts_of_a_dict_are_in_the_order_of_their_names():
    vector = VectorObservation(NESTED, "test")
    np.testing.assert_array_equal(vector(VALUE, "test"), np.arange(1, 11))
    np.testing.assert_array_equal(vector(VALUE, "test"), spaces.flatten(NESTED, VALUE))
    assert list(vector.parts) == ["achieved_goal", "desired_goal", "observation", "z.0", "z.1.b"]
    assert vector.parts["desired_goal"] == slice(2, 4)
    assert vector.size == len(vector.low) == len(vector.high) == 10


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({**VALUE, "desired_goal": np.float32([3, np.nan])}, r"desired_goal\[1\] is nan"),
        ({k: v for k, v in VALUE.items() if k != "desired_goal"}, "no 'desired_goal'"),
        ({**VALUE, "z": (np.uint8([8]),)}, "no 'z.1.b'"),
        ({**VALUE, "z": (np.uint8([8]), {"b": np.float32([9])})}, "z.1.b has shape"),
        (None, "no 'achieved_goal'"),
        (np.zeros(10), "no 'achieved_goal'"),
    ],
)
def test_a_part_that_is_wrong_is_named(wrong, message):
    with pytest.raises(TaskFault, match=message):
        VectorObservation(NESTED, "test")(wrong, "Test-v0, step 3")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Discrete(4), "FlattenObservation"),
        (spaces.MultiBinary(4), "FlattenObservation"),
        (spaces.Box(0, 255, (8, 8, 3), np.uint8), "not pictures"),
        (spaces.Dict({"image": spaces.Box(0, 1, (8, 8))}), "image is an array of shape"),
        (spaces.Dict({"a": BOX, "b": spaces.Text(4)}), "b is Text"),
        (spaces.Dict({}), "no observation"),
    ],
)
def test_observations_that_are_no_vectors_are_refused(space, message):
    with pytest.raises(ValueError, match=message):
        VectorObservation(space, "Test-v0")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Discrete(4), "ActionWrapper"),
        (spaces.MultiBinary(2), "ActionWrapper"),
        (spaces.Box(-1, 1, (2, 2)), "one-dimensional"),
        (spaces.Box(-1, 1, (0,)), "takes no actions"),
        (spaces.Box(-np.inf, 1, (2,)), "no bounds"),
        (spaces.Box(-np.inf, np.inf, (2,), np.int32), "no bounds"),
        (spaces.Box(1, 1, (2,)), "nothing to choose"),
    ],
)
def test_actions_that_cannot_be_searched_are_refused(space, message):
    with pytest.raises(ValueError, match=message):
        ActionRange(space, "Test-v0")


class Goals(gymnasium.Env):
    """A goal environment that takes no render_mode; it is where the last action said."""

    metadata = {"render_modes": []}  # noqa: RUF012
    action_space = spaces.Box(-2.0, 2.0, (2,), np.float32)
    observation_space = spaces.Dict(
        {"observation": spaces.Box(-9, 9, (1,)), "desired_goal": BOX, "achieved_goal": BOX}
    )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.goal = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self._obs(np.zeros(2, np.float32)), {}

    def step(self, action):
        assert self.action_space.contains(action)
        return self._obs(action / 2), 0.0, False, False, {}

    def _obs(self, at):
        return {
            "observation": np.ones(1, np.float32),
            "desired_goal": self.goal,
            "achieved_goal": at,
        }


gymnasium.register("TestGoals-v0", Goals, max_episode_steps=10)


def toward_goal(obs, action, next_obs):
    return -torch.linalg.vector_norm(next_obs[..., 0:2] - next_obs[..., 2:4], dim=-1)


def test_a_goal_environment_pays_by_slices_of_its_observation():
    task = GymTask("TestGoals-v0", reward=f"{__name__}:toward_goal")
    task.try_out()
    obs, _ = task.reset(seed=0)
    goal = obs[task.observation_parts["desired_goal"]]
    obs, reward, *_ = task.step(goal)
    np.testing.assert_array_equal(obs, [*goal, *goal, 1.0])
    assert reward == 0.0


def test_whoever_wants_pictures_says_so_when_the_task_is_made():
    with pytest.raises(ValueError, match="render_mode is no option"):
        GymTask("TestGoals-v0", options={"render_mode": "human"})
    with pytest.raises(RenderingUnavailable, match="'rgb_array': it raised TypeError"):
        GymTask("TestGoals-v0", render_mode="rgb_array")


@pytest.mark.skipif(not importlib.util.find_spec("panda_gym"), reason="no panda_gym")
def test_panda_gym_reaches():
    rewards = "hypercrl_envs.gym_rewards"
    task = GymTask(
        "panda_gym:PandaReachDense-v3",
        reward=f"{rewards}:goal",
        distance=f"{rewards}:goal_distance",
        solved_within=0.05,
    )
    task.try_out()
    obs, _ = task.reset(seed=0)
    assert list(task.observation_parts) == ["achieved_goal", "desired_goal", "observation"]
    for _ in range(50):
        way = obs[task.observation_parts["desired_goal"]] - obs[:3]
        obs, reward, terminated, _, info = task.step(np.clip(10 * way, -1, 1))
        assert reward == pytest.approx(task._paid, abs=1e-6)
        if terminated:
            break
    assert terminated, "the environment ends an episode at its goal"
    assert info["success"]
    task.reset(seed=1)
    task.step(np.ones(3))
    again = GymTask("panda_gym:PandaReachDense-v3", reward=f"{rewards}:goal")
    again.set_state(task.get_state())
    np.testing.assert_array_equal(again.step(np.ones(3))[0], task.step(np.ones(3))[0])
    task.close()
    again.close()


class Private(Goals):
    """Its `data` are no simulator's, and not always there; its rate is a word."""

    metadata = {"render_modes": [], "render_fps": "fast"}  # noqa: RUF012

    @property
    def data(self):
        raise RuntimeError("connect first")


gymnasium.register("Private-v0", Private, max_episode_steps=10)


def test_names_that_environments_have_for_something_else_are_left_alone():
    task = GymTask("Private-v0")
    assert task.control_rate == 10.0
    task.reset(seed=0)
    task.step(np.zeros(2, np.float32))
