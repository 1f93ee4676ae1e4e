"""Parameters that are numbers or ranges, alone and in a new task of the arm."""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from torch import Tensor

from hypercrl_envs import Exploration
from hypercrl_envs.arm_task import ArmTask
from hypercrl_envs.control_frame import ControlFrame
from hypercrl_envs.drawn import Angle, Choice, Drawn, LogUniform, Value
from hypercrl_envs.world import Camera, World

HOME = np.array([-0.1, 0.0, 0.1])


class Reach(ArmTask):
    """Bring the tip to a point in front of it, at a distance and in a direction that are drawn.

    Observation: tip → point (2), m, then distance and direction as they are told (3).
    """

    engines = ("mujoco",)
    max_episode_steps = 20

    def __init__(self, distance: Value = 0.1, direction: Value = 0.0) -> None:
        limits = 0.02, 0.2
        self.distance = LogUniform("distance", distance, limits, "0.02 to 0.2 m")
        self.direction = Angle("direction", direction, "an angle in degrees")
        self.drawn = self.distance, self.direction
        self.caption = f"reach {self.distance.text()} m, {self.direction.text('°', ' to ')}"
        self.observation_space = gymnasium.spaces.Box(-50.0, 50.0, (5,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.exploration = Exploration((-0.5, -0.5), (0.5, 0.5))
        self._apply_drawn()
        super().__init__()

    def _world(self) -> World:
        cameras = {"front": Camera((0.88, -0.70, 0.80), (-0.15, 0.02, 0.2))}
        return World((), (), cameras, (HOME[0], HOME[1], HOME[2]))

    def _apply_drawn(self) -> None:
        cosine, sine = self.direction.told()
        self.goal = HOME[:2] + self.distance.value * np.array([cosine, sine])

    def _reset_simulation(self) -> None:
        super()._reset_simulation()
        self.simulator.place(HOME, np.zeros(3), 0.0, {})

    def _advance(self, action: np.ndarray) -> None:
        target = self.simulator.tip + 0.025 * np.array([*action, 0.0])
        self.simulator.advance(target, np.zeros(3), 0.0)

    def _observe(self) -> np.ndarray:
        told = [parameter.told() for parameter in (self.distance, self.direction)]
        parts = [self.goal - self.simulator.tip[:2], *told]
        return np.concatenate(parts).astype(np.float32)

    def reward(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        return -self.goal_distance(next_obs)

    def goal_distance(self, obs: Tensor) -> Tensor:
        return torch.linalg.vector_norm(obs[..., :2], dim=-1)

    def success(self, obs: Tensor) -> Tensor:
        return self.goal_distance(obs) < 0.02

    def scripted_action(self, obs: np.ndarray) -> np.ndarray:
        return np.clip(obs[:2] / 0.05, -1.0, 1.0)


def densities(given: object) -> LogUniform:
    return LogUniform("densities", given, (100.0, 1000.0), "two numbers", count=2)  # type: ignore[reportArgumentType]


def test_a_new_task_of_the_arm_draws_shows_and_restores_its_parameters():
    task = Reach((0.05, 0.15), (-90, 90))
    assert task.caption == "reach 0.05–0.15 m, -90° to 90°"
    for seed in range(3):
        obs, _ = task.reset(seed=seed)
        angle = math.radians(task.direction.value)
        np.testing.assert_allclose(obs[3:], (math.cos(angle), math.sin(angle)), rtol=1e-6)
        distance = 0.02 * 10 ** ((obs[2] + 1) / 2)
        np.testing.assert_allclose(np.hypot(obs[0], obs[1]), distance, rtol=0.05)
        other = Reach((0.05, 0.15), (-90, 90))
        other.set_state(task.get_state())
        for _ in range(10):
            action = task.scripted_action(obs)
            obs, *_ = task.step(action)
            np.testing.assert_array_equal(obs, other.step(action)[0])
        assert bool(task.success(torch.from_numpy(obs)))


@pytest.mark.filterwarnings("ignore:.*(render|spec).*")
def test_gymnasium_finds_nothing_wrong_with_it():
    check_env(Reach((0.05, 0.15), (-90, 90)), skip_render_check=True)


def test_a_state_that_is_refused_changes_nothing():
    task = Reach((0.05, 0.15), (-90, 90))
    task.reset(seed=0)
    before, goal = task.get_state(), task.goal.copy()
    for physics in (
        np.append(before["physics"][:-1], 91.0),
        np.append(before["physics"][:-1], np.nan),
        before["physics"][-3:],
        before["physics"][:0],
    ):
        with pytest.raises(ValueError, match="state"):
            task.set_state({**before, "physics": physics})
        np.testing.assert_array_equal(task.get_state()["physics"], before["physics"])
        np.testing.assert_array_equal(task.goal, goal)


def test_what_is_fixed_takes_nothing_from_the_generator_and_no_room_in_a_state():
    rng = np.random.default_rng(0)
    fixed: list[Drawn] = [densities((200, 500)), Angle("frame", 30, ""), Choice("door", 1)]
    before = rng.bit_generator.state
    for parameter in fixed:
        values = parameter.values
        parameter.draw(rng)
        assert parameter.values is values
        assert parameter.state().size == 0
        rest, same = parameter.split(np.arange(3.0))
        np.testing.assert_array_equal(rest, np.arange(3.0))
        assert same is values
    assert rng.bit_generator.state == before


def test_one_range_draws_for_all_numbers_beside_it():
    """So that the draws after it do not depend on which of them is fixed."""
    one, two = densities(((100, 1000), 500)), densities(((100, 1000), (100, 500)))
    first, second = np.random.default_rng(0), np.random.default_rng(0)
    one.draw(first)
    two.draw(second)
    assert one.values[0] == two.values[0]
    assert one.values[1] == 500.0
    assert first.random() == second.random()


def test_a_choice_begins_with_the_first_and_draws_from_the_least():
    body = Choice("body", 3, least=1)
    assert body.value == 0.0
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(30):
        body.draw(rng)
        seen.add(body.value)
    assert seen == {1.0, 2.0}
    for number in (3.0, -1.0, 0.5, np.nan):
        with pytest.raises(ValueError, match="ends in its body"):
            body.split(np.array([number]))


def test_captions():
    assert densities((500, 500)).text() == "500 | 500"
    assert densities(((100, 1000), 500)).text() == "100–1000 | 500"
    assert ControlFrame((-90, 90), True).caption() == ", frame -90° to 90°, y flipped"
    assert ControlFrame(0.0, False).caption() == ""


@pytest.mark.parametrize(
    "given",
    ["ab", [500], None, [500, "500"], [np.nan, 500], [[1000, 100], 500], [[100, 2000], 500]],
)
def test_what_is_neither_number_nor_range_is_refused(given):
    with pytest.raises(ValueError, match="densities must be two numbers, not"):
        densities(given)
