"""Own environments: gymnasium's Reacher and Pusher, with their rewards given."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import textwrap
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
import yaml
from gymnasium.envs.mujoco import MujocoEnv
from torch import Tensor

from hypercrl_envs import TaskFault, gym_task, make_task
from hypercrl_envs.gym_task import GymTask
from hypercrl_envs.padded import PaddedTask

REWARDS = "hypercrl_envs.gym_rewards"
WALKERS = yaml.safe_load(
    (Path(__file__).parents[2] / "configs/env/walkers.yaml").read_text(encoding="utf-8")
)["tasks"]
CASES = [("Reacher-v5", "reacher"), ("Pusher-v5", "pusher")]


def sum_of_actions(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    return action.sum(dim=-1)


@pytest.mark.parametrize(("id", "name"), CASES)
def test_pays_and_shows_what_gymnasium_does(id, name):
    task = GymTask(
        id, reward=f"{REWARDS}:{name}", distance=f"{REWARDS}:{name}_distance", solved_within=0.05
    )
    task.reset(seed=0)
    original = gymnasium.make(id).unwrapped
    start, _ = original.reset(seed=task._seed)
    np.testing.assert_array_equal(task._raw, start)
    half = original.action_space.high
    generator = np.random.default_rng(0)
    for _ in range(30):
        action = generator.uniform(-1, 1, half.shape).astype(np.float32)
        obs, reward, terminated, _, info = task.step(action)
        expected, paid, *_ = original.step(action * half)
        np.testing.assert_allclose(obs, expected, atol=1e-5)
        assert reward == pytest.approx(paid, abs=1e-5)
        assert info["goal_distance"] > 0
        assert not terminated


class Far(gymnasium.Env):
    """A number far from zero that moves by so much in each step, then by as much again."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, offset: float, steps: list[float]) -> None:
        self.offset, self.moves = offset, steps

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.place = 0, self.offset
        return self.where(), {}

    def where(self) -> np.ndarray:
        return np.array([0.1 * self.steps, self.place])

    def step(self, action):
        self.place += self.moves[self.steps % len(self.moves)]
        self.steps += 1
        return self.where(), 0.0, False, False, {}


gymnasium.register("Far-v0", entry_point=Far, max_episode_steps=4)


def whole_episode(offset: float, steps: list[float]) -> None:
    task = GymTask("Far-v0", options={"offset": offset, "steps": steps})
    task.reset(seed=0)
    for _ in range(4):
        task.step(np.zeros(1, np.float32))


def test_motion_that_float32_does_not_tell_is_warned_of(recwarn):
    """A northing in UTM, and a Unix time; not one that is near, that trembles at rest, or that is
    slow for a while."""
    for offset, steps in ((10.0, [1e-9]), (5e6, [1e-8]), (5e6, [2.0]), (5e6, [0.1, 2.0, 0.0])):
        whole_episode(offset, steps)
    assert not [w for w in recwarn if "float32" in str(w.message)]
    for offset in (5e6, 1.7e9):
        gym_task._notice_lost_motion.cache_clear()
        with pytest.warns(UserWarning, match=r"Far-v0: observation\[1\] moves by less .* float32"):
            whole_episode(offset, [0.1, 0.0])


def test_an_episode_that_is_not_over_is_not_judged_by_its_motion(recwarn):
    """Left, or restored in the midst of it, as its steps are done again."""
    task = GymTask("Far-v0", options={"offset": 5e6, "steps": [0.1, 0.1, 0.1, 2.0]})
    gym_task._notice_lost_motion.cache_clear()
    task.reset(seed=0)
    for _ in range(3):
        task.step(np.zeros(1, np.float32))
    task.set_state(task.get_state())
    task.set_state(task.get_state())
    task.step(np.zeros(1, np.float32))
    task.reset(seed=1)
    task.step(np.zeros(1, np.float32))
    task.reset(seed=2)
    assert not [w for w in recwarn if "float32" in str(w.message)]


class Worn(gymnasium.Env):
    """A bearing that wears as it turns, and that `reset` puts a new one in for, or not."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, worn: list[float]) -> None:
        self.worn = worn  # as its first episode begins, its second and so on, and again
        self.episodes = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.wear = self.worn[self.episodes % len(self.worn)]
        self.episodes += 1
        self.angle = self.np_random.uniform()
        return np.array([self.angle]), {}

    def step(self, action):
        self.wear += 0.01
        self.angle += action[0] / (1 + self.wear)
        return np.array([self.angle]), 0.0, False, False, {}


gymnasium.register("Worn-v0", entry_point=Worn, max_episode_steps=4)


def test_what_is_renewed_by_reset_is_not_warned_of(recwarn):
    GymTask("Worn-v0", options={"worn": [0.0]}).try_out()
    GymTask("Pendulum-v1").try_out()
    assert not recwarn.list


@pytest.mark.parametrize(
    "worn",
    [[k / 10 for k in range(9)], [0.0, *8 * [0.1]], [0.0, 0.1]],
    ids=["ever more", "when new", "by turns"],
)
def test_what_reset_leaves_of_the_episode_before_is_warned_of(worn):
    """A state is a seed and actions: restored, such an environment goes on otherwise."""
    with pytest.warns(UserWarning, match="Worn-v0 goes on otherwise from the same seed"):
        GymTask("Worn-v0", options={"worn": worn}).try_out()


class Slider(MujocoEnv):
    metadata = {"render_modes": ["human", "rgb_array", "depth_array", "rgbd_tuple"]}  # noqa: RUF012

    def __init__(self, model: str, **options) -> None:
        seen = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        super().__init__(model, 1, seen, **options)

    def step(self, action):
        self.do_simulation(action, self.frame_skip)
        return self.data.qpos.copy(), 0.0, False, False, {}

    def reset_model(self):
        return self.data.qpos.copy()


gymnasium.register("Slider-v0", entry_point=Slider, max_episode_steps=4)


@pytest.mark.parametrize("bounds", [("-1 1", None), (None, None), ("-1 1", "0 2")])
def test_a_motor_that_cannot_be_driven_is_told(bounds, tmp_path, recwarn):
    """MuJoCo takes any control where there is no ctrlrange; to Gymnasium its bounds are 0 and 0."""
    ranges = ["" if each is None else f'ctrlrange="{each}"' for each in bounds]
    joints = ('<joint name="a" type="slide"/>', '<joint name="b" type="slide" axis="0 1 0"/>')
    model = tmp_path / "slider.xml"
    model.write_text(
        f'<mujoco><worldbody><body>{"".join(joints)}<geom size="0.1"/></body></worldbody>'
        f'<actuator><motor joint="a" {ranges[0]}/><motor joint="b" {ranges[1]}/></actuator>'
        "</mujoco>"
    )
    if bounds == (None, None):
        with pytest.raises(ValueError, match=r"nothing to choose: .* no ctrlrange"):
            GymTask("Slider-v0", options={"model": str(model)})
        return
    GymTask("Slider-v0", options={"model": str(model)}).try_out()
    said = [str(w.message) for w in recwarn if "nothing to choose" in str(w.message)]
    assert [("bounds of action[1] leave" in each) for each in said] == [True] * bounds.count(None)


class OpensRenderer(gymnasium.Env):
    """As dm_control's environments do when they are made; Triton after Mesa's LLVM is a crash."""

    observation_space = action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self) -> None:
        if importlib.util.find_spec("triton") is not None:
            assert "triton" in sys.modules


def test_triton_is_imported_before_a_renderer_can_be_opened():
    made = f"""
        import gymnasium
        from {__name__} import OpensRenderer
        from hypercrl_envs import make_task
        gymnasium.register("OpensRenderer-v0", entry_point=OpensRenderer, max_episode_steps=4)
        make_task("gym", id="OpensRenderer-v0")
    """
    command = [sys.executable, "-c", textwrap.dedent(made)]
    subprocess.run(command, check=True, cwd=Path(__file__).parent)


def test_episode_length_is_that_of_the_registry():
    task = GymTask("Reacher-v5", reward=f"{REWARDS}:reacher")
    task.reset(seed=0)
    truncations = [task.step(np.zeros(2, np.float32))[3] for _ in range(50)]
    assert task.max_episode_steps == 50
    assert truncations == [False] * 49 + [True]


def test_actions_reach_the_reward_in_the_units_of_the_environment():
    task = GymTask("Pusher-v5", reward=f"{__name__}:sum_of_actions")
    obs = torch.zeros(3, 23)
    action = torch.full((3, 7), 0.5)
    torch.testing.assert_close(task.reward(obs, action, obs), torch.full((3,), 7.0))


def test_without_a_distance_nothing_is_success():
    task = GymTask("Reacher-v5", reward=f"{REWARDS}:reacher")
    _, info = task.reset(seed=0)
    assert np.isnan(info["goal_distance"])
    assert not info["success"]


def until_it_moves(obs: Tensor) -> Tensor:
    return 1.0 + 0.0 * torch.log((obs[..., 6].abs() < 0.01).float())


@pytest.mark.parametrize("pad", [False, True])
def test_a_distance_that_is_no_number_is_a_fault(pad):
    task = GymTask("Reacher-v5", distance=f"{__name__}:until_it_moves", solved_within=0.05)
    if pad:
        task = PaddedTask(task, 20, 3)
    task.reset(seed=0)
    with pytest.raises(TaskFault, match="Reacher-v5, after 1 steps of an episode: distance is nan"):
        task.step(np.ones(task.action_space.shape, np.float32))


@pytest.mark.parametrize(("id", "name"), CASES)
def test_without_functions_the_reward_paid_and_the_end_are_observed(id, name):
    learned = GymTask(id, distance=f"{REWARDS}:{name}_distance", solved_within=0.05)
    told = GymTask(
        id, reward=f"{REWARDS}:{name}", distance=f"{REWARDS}:{name}_distance", solved_within=0.05
    )
    start, info = learned.reset(seed=0)
    expected, expected_info = told.reset(seed=0)
    np.testing.assert_array_equal(start, np.append(expected, [0.0, 0.0]))
    assert info == expected_info
    generator = np.random.default_rng(0)
    for _ in range(10):
        action = generator.uniform(-1, 1, learned.action_space.shape).astype(np.float32)
        obs, reward, *_ = learned.step(action)
        expected, paid, *_ = told.step(action)
        np.testing.assert_array_equal(obs[:-2], expected)
        assert obs[-2] == reward == pytest.approx(float(paid), abs=1e-5)
        assert obs[-1] == 0


def test_options_and_pictures():
    task = make_task(
        "gym",
        id="Reacher-v5",
        reward=f"{REWARDS}:reacher",
        options={"width": 100, "height": 100},
        render_mode="rgb_array",
        width=64,
        height=32,
    )
    task.reset(seed=0)
    assert task.render().shape == (32, 64, 3)
    task.close()


@pytest.mark.parametrize("walker", WALKERS, ids=lambda walker: walker["id"])
def test_walkers_stay_in_the_picture(walker):
    """However far they have come there is as much wood in it."""
    task = make_task(**walker, render_mode="rgb_array", width=160, height=160)
    task.reset(seed=0)
    assert isinstance(task, GymTask)
    robot = task._env.unwrapped
    wood = []
    for far in (0.0, 12.0):
        position = robot.data.qpos.copy()
        position[0] = far
        robot.set_state(position, robot.data.qvel)
        picture = task.render().astype(int)
        wood.append(int((picture[..., 0] - picture[..., 2] > 40).sum()))
    task.close()
    assert wood[0] > 100
    assert wood[1] == pytest.approx(wood[0], rel=0.2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "needs the parameter 'id'"),
        ({"id": "Reachr-v5", "reward": f"{REWARDS}:reacher"}, "Reachr-v5"),
        ({"id": "Reacher-v5", "reward": f"{REWARDS}:none"}, "no function"),
        ({"id": "Reacher-v5", "reward": "reacher"}, "no function"),
        ({"id": "CartPole-v1", "reward": f"{REWARDS}:reacher"}, "one-dimensional boxes"),
        ({"id": "Reacher-v5", "reward": f"{REWARDS}:reacher", "camera": "top"}, "camera"),
        ({"id": "Reacher-v5", "reward": f"{REWARDS}:reacher", "width": 0}, "at least 1 pixel"),
        ({"id": "Reacher-v5", "camra": "front"}, "did you mean 'camera'"),
        (
            {"id": "Reacher-v5", "options": {"reward_dist_wieght": 2}},
            r"'reward_dist_weight'\? ReacherEnv takes: [a-z_, ]* xml_file$",
        ),
        (
            {"id": "Reacher-v5", "solved_within": 0.1},
            "solved_within=0.1 has no effect without a distance",
        ),
        (
            {"id": "Reacher-v5", "distance": f"{REWARDS}:reacher_distance"},
            "Reacher-v5: what counts as success .* give solved_within: ",
        ),
    ],
)
def test_wrong_environments_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        make_task("gym", **wrong)


@pytest.mark.parametrize("padded", [0, 3])
@pytest.mark.parametrize(
    "functions",
    [
        {},
        {"termination": "hypercrl_envs.terminations:inverted_pendulum"},
        {"reward": "hypercrl_envs.gym_rewards:inverted_pendulum"},
    ],
)
def test_what_its_environment_recorded_is_observed_as_it_steps(functions, padded):
    """The truth is the task's own episode, of which a recording has the environment's numbers."""
    task = own = make_task("gym", id="InvertedPendulum-v5", **functions)
    (size,), (actions,) = own.observation_space.shape, own.action_space.shape
    if padded:
        task = PaddedTask(own, size + padded, actions)
    obs, rewards, ends, ended = [task.reset(seed=3)[0]], [], [], False
    while not ended:
        after, reward, ended, *_ = task.step(np.ones(actions, np.float32))
        obs.append(after)
        rewards.append(reward)
        ends.append(ended)
    wanted = torch.from_numpy(np.stack(obs))
    reward, terminated = torch.tensor(rewards, dtype=torch.float32), torch.tensor(ends)
    assert torch.equal(task.observed(wanted[:, :4], reward, terminated), wanted)
    assert torch.equal(task.observed(wanted, reward, terminated), wanted)
