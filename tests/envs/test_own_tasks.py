"""A task of somebody's own: what its functions may return, and what is refused before a step."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from hypercrl_envs import Exploration, Task, TaskFault, TaskSequence, make_task

Box = gymnasium.spaces.Box
GOAL = torch.tensor([0.5, 0.0])


class Point(Task):
    """A point in the plane that is moved by its actions."""

    max_episode_steps = 30
    caption = "point"
    action_space = Box(-1.0, 1.0, (2,), np.float32)
    observation_space = Box(-9.0, 9.0, (2,), np.float32)
    exploration = Exploration((0.0, 0.0), (0.0, 0.0))

    def _reset_simulation(self) -> None:
        self.x = self.np_random.uniform(-0.1, 0.1, 2).astype(np.float32)

    def _advance(self, action: np.ndarray) -> None:
        self.x += 0.1 * action

    def _observe(self) -> np.ndarray:
        return self.x.copy()

    def _get_physics(self) -> np.ndarray:
        return self.x.copy()

    def _set_physics(self, physics: np.ndarray) -> None:
        self.x = physics.astype(np.float32)

    def reward(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        return self.goal_distance(obs) - self.goal_distance(next_obs)

    def goal_distance(self, obs: Tensor) -> Tensor:
        return torch.linalg.vector_norm(obs - GOAL, dim=-1)

    def success(self, obs: Tensor) -> Tensor:
        return self.goal_distance(obs) < 0.05

    def scripted_action(self, obs: np.ndarray) -> np.ndarray:
        return np.clip((GOAL.numpy() - obs) / 0.1, -1.0, 1.0)

    def render(self) -> np.ndarray:
        return np.zeros((self.height, self.width, 3), np.uint8)


class InPlace(Point):
    """Its observations are one array, which every step writes into."""

    def _observe(self) -> np.ndarray:
        return self.x


class Wide(Point):
    """It observes numbers of twice the width."""

    def _observe(self) -> np.ndarray:
        return self.x.astype(np.float64)


@pytest.mark.parametrize("kind", [InPlace, Wide])
def test_any_array_that_a_task_observes_is_paid_for_alike(kind):
    task, same = (make_task(f"{__name__}:{name}") for name in ("Point", kind.__name__))
    for each in (task, same):
        each.reset(seed=0)
    for _ in range(3):
        (obs, paid, *_), (seen, got, *_) = (each.step(np.ones(2)) for each in (task, same))
        np.testing.assert_array_equal(obs, seen)
        assert seen.dtype == np.float32
        assert paid == got != 0.0
    same.set_state(same.get_state())
    assert same.step(np.ones(2))[1] == task.step(np.ones(2))[1]


def numbers(obs: Tensor) -> Any:
    return (obs - GOAL).norm(dim=-1).numpy()


WRONG: dict[str, tuple[str, Any, str]] = {
    "whole batch": ("reward", lambda s, a, n: -(n - GOAL).norm(), r"reward returned shape \(\) "),
    "first row": ("reward", lambda s, a, n: n[0] - s[0], r"reward returned shape \(2,\)"),
    "column": ("reward", lambda s, a, n: n[..., :1], r"reward returned shape \(8, 1\)"),
    "array": ("reward", lambda s, a, n: numbers(n), "reward returned no tensor"),
    "yes or no": ("reward", lambda s, a, n: n[..., 0] > 0, "reward returned torch.bool"),
    "random": ("reward", lambda s, a, n: torch.rand(n.shape[:-1]), "reward .*draws random numbers"),
    "writes": ("reward", lambda s, a, n: n.sub_(GOAL).sum(-1), "reward writes into its inputs"),
    "raises": ("reward", lambda s, a, n: n[..., 7], "reward raised IndexError"),
    "distance": ("goal_distance", numbers, "goal_distance returned no tensor"),
    "success": ("success", lambda obs: bool((obs > 0).all()), "success returned no tensor"),
    "ends": ("terminated", lambda s, a, n: (n > 1).any(), r"terminated returned shape \(\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_functions_of_a_task_are_tried_before_any_step(case, monkeypatch):
    name, function, message = WRONG[case]
    function.__name__ = name
    monkeypatch.setattr(Point, name, staticmethod(function))
    monkeypatch.setattr(Point, "ends", name == "terminated")
    with pytest.raises(TaskFault, match=f"^point: {message}"):
        TaskSequence([{"task": f"{__name__}:Point"}], "own")


def fails(*_: Any) -> Any:
    raise KeyError("joint")


@pytest.mark.parametrize("name", ["_reset_simulation", "_advance", "_observe"])
def test_what_a_simulation_raises_is_a_fault(name, monkeypatch):
    task = Point()
    task.reset(seed=0)
    monkeypatch.setattr(Point, name, fails)
    with pytest.raises(TaskFault, match=r"^point, .*raised KeyError: 'joint'"):
        task.reset() if name == "_reset_simulation" else task.step(np.ones(2))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("action_space", Box(-3.0, 3.0, (2,)), "from -1 to 1"),
        ("action_space", gymnasium.spaces.Discrete(3), "action_space is Discrete"),
        ("observation_space", Box(0, 1, (2, 2)), "is to be a Box of one dimension"),
        ("observation_space", gymnasium.spaces.Dict(), "observation_space is Dict"),
        ("exploration", Exploration((0.0,), (0.0,)), "exploration is of 1 actions, of 2"),
        ("max_episode_steps", 0, "from 1 on, not 0"),
        ("caption", None, "does not set caption"),
    ],
)
def test_tasks_that_an_agent_cannot_act_in_are_refused(name, value, message, monkeypatch):
    if value is None:
        monkeypatch.delattr(Point, name)
    else:
        monkeypatch.setattr(Point, name, value)
    with pytest.raises(ValueError, match=f"task 1: task '.*Point': .*{message}"):
        TaskSequence([{"task": f"{__name__}:Point"}], "own")


@pytest.mark.parametrize(
    ("figures", "says"),
    [
        (lambda obs: obs[..., 0], "figures returned no dict"),
        (lambda obs: {"success": obs[..., 0]}, "figures: 'success' is what evaluations log anyway"),
        (lambda obs: {"speed": obs[..., 0].mean()}, r"figures: speed returned shape \(\)"),
        (lambda obs: {"speed": obs[..., 9]}, "figures raised IndexError"),
    ],
)
def test_figures_that_cannot_be_logged_are_refused(figures, says):
    task = Point()
    task.figures = lambda obs: {"x": obs[..., 0]}
    task.try_out()
    task.figures = figures
    with pytest.raises(TaskFault, match=says):
        task.try_out()


def unmade(error: BaseException) -> Any:
    def __init__(self: Point, **_: Any) -> None:
        raise error

    return __init__


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (KeyError("model"), "raised KeyError: 'model'"),
        (FileNotFoundError(2, "no such file", "arm.xml"), "raised FileNotFoundError.*'arm.xml'"),
        (AssertionError("no licence"), "raised AssertionError: no licence"),
        (SystemExit(3), r"called sys.exit\(3\)"),
    ],
)
def test_what_making_a_task_raises_is_one_message(error, told, monkeypatch):
    monkeypatch.setattr(Point, "__init__", unmade(error))
    with pytest.raises(ValueError, match=f"task 1: task '.*' cannot be made: it {told}"):
        TaskSequence([{"task": f"{__name__}:Point"}], "own")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("__init__", lambda self, **_: None, r"let Point.__init__ call super\(\).__init__"),
        ("caption", 7, "caption is a text, not 7"),
        ("control_rate", 0, "control_rate is a number of steps in a second, not 0"),
        ("control_rate", "10", "control_rate is a number of steps in a second, not '10'"),
        ("exploration", Exploration((1.0, 0.0), (-1.0, 0.0)), "low is to be ≤ high"),
        ("exploration", Exploration((np.nan, 0.0), (0.0, 0.0)), "low is to be ≤ high"),
    ],
)
def test_what_would_fail_hours_later_is_refused_at_once(name, value, message, monkeypatch):
    monkeypatch.setattr(Point, name, value)
    with pytest.raises(ValueError, match=f"task 1: task '.*Point': .*{message}"):
        TaskSequence([{"task": f"{__name__}:Point"}], "own")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("_get_physics", fails, "state, taken by _get_physics, raised KeyError"),
        ("_get_physics", lambda self: {"x": 1.0}, "numpy array of numbers, not {'x': 1.0}"),
        ("_get_physics", lambda self: np.array(["x"]), "numpy array of numbers, not array"),
        ("_set_physics", lambda self, physics: None, "state, restored by _set_physics, raised"),
        ("_get_physics", lambda self: np.zeros(3), "restored and gone on with: point, step 4"),
    ],
)
def test_a_state_that_cannot_be_restored_is_refused(name, value, message, monkeypatch):
    monkeypatch.setattr(Point, name, value)
    with pytest.raises(TaskFault, match=message):
        TaskSequence([{"task": f"{__name__}:Point"}], "own")


class Edge(Point):
    """Whoever leaves a strip has lost; nothing but `terminated` says so."""

    def terminated(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        return next_obs[..., 0].abs() > 0.5


class Leaves:
    def terminated(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        return next_obs[..., 0].abs() > 0.5


class Mixed(Leaves, Point):
    pass


class Endless(Edge):
    ends = False


class Unbatched(Point):
    def terminated(self, obs: Tensor) -> bool:  # type: ignore[reportIncompatibleMethodOverride]
        return abs(float(obs[0])) > 0.5


def test_a_task_that_says_what_ends_an_episode_ends_it():
    task = TaskSequence([{"task": f"{__name__}:Edge"}], "own").make(0)
    task.reset(seed=0)
    right = np.array([1.0, 0.0], np.float32)
    steps = next(step for step in range(1, 8) if task.step(right)[2])
    assert 5 <= steps <= 6  # of 0.1, from within 0.1 of 0
    assert task.termination == task.terminated
    with pytest.raises(TaskFault, match="terminated raised TypeError"):
        TaskSequence([{"task": f"{__name__}:Unbatched"}], "own")


def test_who_says_what_ends_an_episode_last_says_whether_it_ends():
    """Be it a class that is no task; and who says that none ends is taken at its word."""
    assert Edge.ends
    assert Mixed.ends
    assert not Point.ends
    assert not Endless.ends


class Noisy(Point):
    """Its steps are drawn from its own generator."""

    def _advance(self, action: np.ndarray) -> None:
        super()._advance(action + self.np_random.normal(size=2).astype(np.float32))


class Coasting(Point):
    """Its speed is not in its state."""

    def __init__(self, **picture: Any) -> None:
        super().__init__(**picture)
        self.v = np.zeros(2, np.float32)

    def _advance(self, action: np.ndarray) -> None:
        self.v += 0.1 * action
        self.x += self.v


class Blurred(Point):
    """It draws what it sees."""

    def _observe(self) -> np.ndarray:
        return self.x + self.np_random.normal(size=2).astype(np.float32)


@pytest.mark.parametrize(("kind", "warned"), [(Noisy, 0), (Coasting, 1), (Blurred, 1)])
def test_a_task_that_goes_on_otherwise_is_warned_of(kind, warned, recwarn):
    TaskSequence([{"task": f"{__name__}:{kind.__name__}"}], "own")
    assert [str(w.message)[:50] for w in recwarn] == warned * [
        "point goes on otherwise where its state is restore"
    ]


class Wider(Point):
    """One observation more."""

    observation_space = Box(-9.0, 9.0, (3,), np.float32)

    def _observe(self) -> np.ndarray:
        return np.append(self.x, np.float32(0))

    def goal_distance(self, obs: Tensor) -> Tensor:
        return super().goal_distance(obs[..., :2])


class Begun(Noisy):
    """It has a `reset` of its own, and looks at its last observation."""

    def reset(self, **how: Any) -> tuple[np.ndarray, dict[str, Any]]:
        self.pace = np.float32(0.5)
        return super().reset(**how)

    def _advance(self, action: np.ndarray) -> None:
        assert self.observation is not None
        super()._advance(getattr(self, "pace", np.float32(0.5)) * action)

    def info(self) -> dict[str, Any]:
        return {**super().info(), "pace": 0.5}


def test_a_padded_task_is_what_it_is_alone():
    specs = [{"task": f"{__name__}:{name}"} for name in ("Begun", "Wider")]
    sequence = TaskSequence(specs, "own", pad=True)
    padded, fresh, alone = sequence.make(0), sequence.make(0), make_task(f"{__name__}:Begun")
    obs, info = padded.reset(seed=3)
    own, own_info = alone.reset(seed=3)
    np.testing.assert_array_equal(obs, [*own, 0])
    assert info == own_info
    push = np.array([0.5, -1.0], np.float32)
    for _ in range(3):
        moves = padded.step(push), alone.step(push)
        np.testing.assert_array_equal(moves[0][0], [*moves[1][0], 0])
        assert moves[0][1:] == moves[1][1:]
    fresh.set_state(padded.get_state())
    np.testing.assert_array_equal(fresh.observation, padded.observation)
    for _ in range(3):  # what it draws in a step is restored too
        np.testing.assert_array_equal(fresh.step(push)[0], padded.step(push)[0])


def test_ends_and_successes_that_fail_later_are_faults(monkeypatch):
    task = Point()
    task.reset(seed=0)
    monkeypatch.setattr(Point, "ends", True)
    monkeypatch.setattr(Point, "terminated", fails)
    with pytest.raises(TaskFault, match=r"step 1 of an episode: terminated raised KeyError"):
        task.step(np.ones(2))
    monkeypatch.setattr(Point, "ends", False)
    monkeypatch.setattr(Point, "success", fails)
    with pytest.raises(TaskFault, match="point: success or goal_distance raised KeyError"):
        task.step(np.ones(2))
