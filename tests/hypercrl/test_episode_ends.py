"""Episodes that end: Gymnasium's contract is kept, and plans know of the end."""

from __future__ import annotations

import json
import warnings
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from hypercrl.agent.belief import Told
from hypercrl.agent.exploration import ExplorationConfig, random_episode
from hypercrl.cli import main
from hypercrl.dynamics import DynamicsModel
from hypercrl.methods import Batch, MethodConfig, make_method
from hypercrl.planning import PLANNERS, CEMConfig, make_planner, trajectory_returns
from hypercrl.runs.run_folder import RunFolder
from hypercrl.training.episodes import Episodes
from hypercrl.training.evaluation import Evaluator
from hypercrl_envs import LocalFleet, SimulatedRollout, TaskSequence, gym_task, make_task
from hypercrl_envs.cheetah import CheetahTask
from hypercrl_envs.gym_task import GymTask

OF_SEQUENCES = [name for name, (kind, _) in PLANNERS.items() if not kind.follows]

# Who steps on after an end is warned and gets nothing; in this file that is a failure.
pytestmark = pytest.mark.filterwarnings("error:an episode of")


class Ledge(gymnasium.Env[np.ndarray, np.ndarray]):
    """A point on a ledge of 1 m each way: the nearer to its right end the better paid, and who
    falls off ends the episode. It may not be stepped on then, and counts by itself what it paid."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": [], "render_fps": 10}
    episodes: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, render_mode: str | None = None, width: float = 1.0, cut: int = 0) -> None:
        self.render_mode, self.width, self.cut = render_mode, width, cut
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,), np.float32)
        self.over = True

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.v, self.over = self.np_random.uniform(-0.5, 0.5), 0.0, False
        self.episodes.append({"return": 0.0, "length": 0, "terminated": False})
        return np.array([self.x, self.v], np.float32), {}

    def step(self, action):
        assert not self.over, "an episode was stepped on after its end"
        self.v = 0.8 * self.v + 0.1 * float(action[0])
        self.x += self.v
        paid, fell = 1.0 + self.x, abs(self.x) > self.width
        now = self.episodes[-1]
        now.update({"return": now["return"] + paid, "length": now["length"] + 1})
        now["terminated"] = fell
        cut = now["length"] == self.cut
        self.over = fell or cut
        return np.array([self.x, self.v], np.float32), paid, fell, cut, {}


gymnasium.register("Ledge-v0", Ledge, max_episode_steps=40)
LAYERS = [(torch.tensor([[0.0, 0.8, 0.2], [0.0, -0.2, 0.2]]), torch.zeros(2))]
"""What a step changes, from position, velocity and the action in [-1, 1]."""


def paid(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    return 1.0 + next_obs[..., 0]


def fell(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    return next_obs[..., 0].abs() > 1


def distance(obs: Tensor) -> Tensor:
    return 1.0 - obs[..., 0]


TOLD = {
    "task": "gym",
    "id": "Ledge-v0",
    "reward": f"{__name__}:paid",
    "termination": f"{__name__}:fell",
    "distance": f"{__name__}:distance",
    "solved_within": 0.05,
}


# --- the task ---


def to_the_end(task: Any, action: np.ndarray) -> tuple[Any, ...]:
    task.reset(seed=0)
    while True:
        obs, reward, terminated, truncated, info = task.step(action)
        if terminated or truncated:
            return obs, reward, terminated, truncated, info


@pytest.mark.parametrize("pad", [False, True])
def test_an_episode_that_is_over_stands_still_and_pays_nothing(pad):
    other = [{"task": "gym", "id": "Reacher-v5", "reward": "hypercrl_envs.gym_rewards:reacher"}]
    task = TaskSequence([TOLD, *(other if pad else [])], "ledge", pad=pad).make(0)
    push = np.ones(task.action_space.shape, np.float32)
    obs, reward, terminated, truncated, info = to_the_end(task, push)
    assert (terminated, truncated) == (True, False)
    assert obs[0] > 1
    assert reward == pytest.approx(1 + obs[0])
    assert info["success"]
    with pytest.warns(UserWarning, match=r"'Ledge-v0' is over .* call reset"):
        again, nothing, *_ = task.step(-push)
    np.testing.assert_array_equal(again, obs)
    assert nothing == 0
    assert task.ends
    assert task.reset()[0][0] < 1
    assert task.step(push)[2] is False


def test_a_car_at_the_flag_is_paid_once():
    task, own = make_task("gym", id="MountainCarContinuous-v0"), None
    task.reset(seed=0)
    own = gymnasium.make("MountainCarContinuous-v0")
    obs, _ = own.reset(seed=task._seed)
    ours = theirs = 0.0
    over = truncated = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while not truncated:
            push = np.array([np.sign(obs[1]) or 1.0], np.float32)
            if not over:
                obs, reward, over, _, _ = own.step(push)
                theirs += float(reward)
            _, reward, terminated, truncated, _ = task.step(push)
            assert terminated == over
            ours += float(reward)
    assert 80 < theirs < 100
    assert ours == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize("id", ["Hopper-v5", "Walker2d-v5", "Humanoid-v5"])
def test_returns_and_lengths_are_those_of_a_plain_gymnasium_loop(id):
    task, own = make_task("gym", id=id), gymnasium.make(id)
    rng = np.random.default_rng(0)
    half = own.action_space.high
    for seed in range(4):
        task.reset(seed=seed)
        own.reset(seed=task._seed)
        ours, theirs, over, length = 0.0, 0.0, False, 0
        while not over:
            action = rng.uniform(-1, 1, half.shape).astype(np.float32)
            _, reward, terminated, truncated, _ = own.step(action * half)
            theirs, over, length = theirs + float(reward), terminated or truncated, length + 1
            _, reward, *ends, _ = task.step(action)
            ours += float(reward)
            assert ends == [terminated, truncated]
        assert length < 200
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_an_environment_that_cuts_its_own_episodes_is_reset_too():
    task = make_task("gym", id="Ledge-v0", reward=TOLD["reward"], options={"cut": 3})
    task.reset(seed=0)
    nothing = np.zeros(1, np.float32)
    assert [task.step(nothing)[2:4] for _ in range(3)] == [(False, False)] * 2 + [(False, True)]


def test_a_state_remembers_the_end():
    task, fresh = make_task(**TOLD), make_task(**TOLD)
    obs, *_ = to_the_end(task, np.ones(1, np.float32))
    fresh.set_state(json.loads(json.dumps(task.get_state(), default=np.ndarray.tolist)))
    with pytest.warns(UserWarning, match="over"):
        after, reward, terminated, *_ = fresh.step(np.zeros(1, np.float32))
    np.testing.assert_array_equal(after, obs)
    assert (reward, terminated) == (0.0, True)


def test_termination_gets_the_units_of_the_environment_and_no_reward():
    seen = []

    def function(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        seen.append((obs.shape[-1], action, next_obs.shape[-1]))
        return next_obs[..., 0] > 0

    task = GymTask("Ledge-v0", termination=TOLD["termination"])
    task._termination = function
    assert task.observation_space.shape == (3,), "the reward is learned, the end is not"
    task.terminated(torch.zeros(5, 3), torch.full((5, 1), 0.5), torch.zeros(5, 3))
    ((size, action, next_size),) = seen
    assert (size, next_size) == (2, 2)
    assert torch.equal(action, torch.ones(5, 1))


def test_an_unknown_end_is_said_once():
    gym_task._notice_unplanned_end.cache_clear()
    unknown = make_task("gym", id="Ledge-v0", reward=TOLD["reward"])
    with pytest.warns(UserWarning, match="hypercrl_envs.terminations") as caught:
        to_the_end(unknown, np.ones(1))
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_the_end(unknown, np.ones(1))
        to_the_end(make_task(**TOLD), np.ones(1))


class Short(CheetahTask):
    """A half-cheetah that is over as soon as its torso is low."""

    def terminated(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        return next_obs[..., 0] < -0.165


def test_a_simulated_rollout_stops_where_the_episode_ends():
    robot = Short()
    obs, _ = robot.reset(seed=0)
    actions = torch.rand(1, 6, 15, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    states = SimulatedRollout([robot], Short, 2)(torch.from_numpy(obs)[None], actions)
    ended = robot.terminated(states[0, :, :-1], actions[0], states[0, :, 1:])
    assert ended.any(1).sum() >= 2
    assert not ended.any(1).all()
    start = robot._get_physics()
    for k in range(6):
        robot._set_physics(start)
        alive = True
        for t in range(15):
            if alive:
                robot._advance(actions[0, k, t].numpy())
            np.testing.assert_array_equal(states[0, k, t + 1], robot._observe())
            alive = alive and not ended[k, t]


# --- the planner ---


def test_nothing_is_paid_after_the_step_that_ends():
    states = torch.tensor([0.0, 1, 2, 4, 8]).view(1, 1, 5, 1).repeat(1, 4, 1, 1)
    states[0, 2, 3] = torch.nan  # after the end of the third, before any end of the fourth
    states[0, 3, 3] = torch.nan
    limit = torch.tensor([100.0, 1.5, 1.5, 100.0]).view(4, 1)
    actions = torch.zeros(1, 4, 4, 1)

    def reward(obs, action, next_obs):
        return next_obs[..., 0]

    def ends(obs, action, next_obs):
        return next_obs[..., 0] > limit

    got = trajectory_returns(states, actions, reward, ends)
    assert got.tolist() == [[15.0, 3.0, 3.0, -torch.inf]]
    endless = trajectory_returns(states, actions, reward, lambda o, a, n: n[..., 0] > torch.inf)
    assert torch.equal(endless, trajectory_returns(states, actions, reward))


@pytest.mark.parametrize("name", OF_SEQUENCES)
@pytest.mark.parametrize("sign", [None, 1.0, -1.0])
def test_a_plan_stops_before_the_edge_that_would_end_it(name, sign):
    """From 0.5, with steps up to 1 and paid by x: 1, four times, is the most; to step beyond 1 pays
    up to 1.5, once. With two hypotheses about the sign of an action, it is the likely one's."""
    suited = {"mppi": {"temperature": 0.05}, "icem": {"noise_beta": 0.0}}.get(name, {})
    settings: dict[str, Any] = {"samples": 500, "horizon": 4, "iterations": 8, "min_std": 0.01}
    config = PLANNERS[name][1](**settings, **suited, execute="best")
    planner = make_planner(config, -torch.ones(1), torch.ones(1))

    def rollout(obs, actions):
        signs = torch.ones(len(obs)) if sign is None else torch.tensor([1.0, -1.0])
        path = obs[:, None, None] + (signs[:, None, None, None] * actions).cumsum(2)
        return torch.cat([obs[:, None, None].expand(-1, actions.shape[1], -1, -1), path], 2)

    def beyond(obs, action, next_obs):
        return next_obs[..., 0] > 1

    def x(obs, action, next_obs):
        return next_obs[..., 0]

    probabilities = None if sign is None else torch.tensor([[float(sign > 0), float(sign < 0)]])
    search = (torch.tensor([[0.5]]), planner.initial(1), torch.Generator().manual_seed(0))
    action, _ = planner.plan(rollout, x, *search, probabilities, beyond)
    assert 0.1 < action.item() * (sign or 1.0) <= 0.5
    search = (torch.tensor([[0.5]]), planner.initial(1), torch.Generator().manual_seed(0))
    careless, _ = planner.plan(rollout, x, *search, probabilities)
    assert careless.item() * (sign or 1.0) > 0.55


# --- evaluation ---


def evaluator(horizon=5, heldout_from=0, spec=TOLD, heldout=6, noise=0.8) -> Evaluator:
    planner = make_planner(
        CEMConfig(samples=30, elites=5, horizon=6, iterations=2), -torch.ones(1), torch.ones(1)
    )
    exploration = ExplorationConfig(random_std=noise)
    fleet = LocalFleet(TaskSequence([spec], "ledge"))
    return Evaluator(fleet, planner, 0, exploration, horizon, heldout, heldout_from)


def perfect(robots: int) -> Told:
    return Told(LAYERS)


def clumsy(robots: int) -> Told:
    """Believes that every action pushes the other way, and so falls, sooner or later."""
    return Told([(LAYERS[0][0] * torch.tensor([1.0, 1.0, -1.0]), LAYERS[0][1])])


def test_scores_are_what_the_environment_counts_although_episodes_end_at_different_steps():
    measured = evaluator()
    measured._heldout_episodes(0)
    for belief, falls in [(perfect, False), (clumsy, True)]:
        Ledge.episodes.clear()
        (score,) = measured.evaluate({0: belief}, 7, key=1)
        assert len(Ledge.episodes) == 7
        # Robots are reset in turn and then stepped in turn, so each counts in the last entry.
        assert any(e["terminated"] for e in Ledge.episodes) == falls
        counted = sum(e["return"] for e in Ledge.episodes) / 7
        assert score.episode_return == pytest.approx(counted, rel=1e-5)
        # Planned for with the true end, nobody falls; who falls does so on either side.
        if not falls:
            assert sum(e["length"] for e in Ledge.episodes) == 7 * 40


def test_figures_are_of_the_second_half_of_each_episode_however_long_it_was():
    measured = evaluator()
    agent, robots = measured._agent(0, 7), measured._of(0, 7)
    agent.believe(clumsy(7))
    episodes = Episodes(agent, measured.fleet, robots, range(7), lambda obs: {"place": obs[:, 0]})
    places: list[list[float]] = [[] for _ in robots]
    episodes.plan()
    while going := list(episodes.going):
        episodes.move()
        episodes.plan()
        for episode in going:
            places[episode].append(float(episodes._obs[episode, 0]))
    assert len({len(own) for own in places}) > 1
    wanted = np.mean([np.mean(own[len(own) // 2 :]) for own in places])
    assert episodes.figures() == {"place": pytest.approx(wanted, rel=1e-5)}


@pytest.mark.parametrize("heldout_from", [0, 2])
def test_heldout_windows_lie_inside_episodes(heldout_from):
    """A perfect model makes no error, unless a window reaches into what comes after an end."""
    measured = evaluator(horizon=5, heldout_from=heldout_from)
    obs, _, inside = measured._heldout_episodes(0)
    assert len(obs) == 6
    assert inside.any(1).all()
    assert not inside.all(), "some episode is shorter than another"
    assert measured.prediction_error(0, perfect(6)) < 1e-5
    assert measured.prediction_error(0, clumsy(6)) > 0.1


def test_episodes_too_short_for_a_window_give_way_to_longer_ones():
    short = evaluator(horizon=5, heldout=3)
    needed = max(len(actions) for _, actions in short._draw_heldout(0)) + 1
    obs, _, inside = evaluator(horizon=needed, heldout=3)._heldout_episodes(0)
    assert obs.shape[1] > needed
    assert inside.any(1).all()


def test_without_an_episode_long_enough_no_error_is_measured_and_that_is_said_once():
    strict = evaluator(horizon=39, noise=50.0)
    with pytest.warns(UserWarning, match=r"none of 120 random episodes has .* = 39 steps") as said:
        errors = [strict.prediction_error(0, perfect(6)) for _ in range(2)]
    assert np.isnan(errors).all()
    assert len(said) == 1


def test_a_random_episode_ends_where_it_ends():
    obs, actions = random_episode(make_task(**TOLD), ExplorationConfig(random_std=3.0), seed=0)
    assert len(obs) == len(actions) + 1 < 41
    assert (obs[:-1, 0].abs() <= 1).all()
    assert obs[-1, 0].abs() > 1


# --- the learned head ---


@pytest.mark.slow
@torch.no_grad()
def test_the_end_is_learned_beside_the_reward():
    task = make_task("gym", id="Ledge-v0")
    assert task.observation_space.shape == (4,)
    rng, rows = np.random.default_rng(0), []
    obs, _ = task.reset(seed=0)
    for _ in range(4000):
        action = rng.uniform(-1, 1, 1).astype(np.float32)
        next_obs, reward, terminated, truncated, _ = task.step(action)
        assert (next_obs[2], next_obs[3]) == (reward, terminated)
        rows.append((obs, action, next_obs))
        obs = task.reset()[0] if terminated or truncated else next_obs
    data = Batch(*(torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)))
    assert not data.obs[:, 3].any(), "nobody steps on from an end"
    model = DynamicsModel(4, 1, [64, 64], probabilistic=False)
    held = slice(3000, None)
    seen = Batch(data.obs[:3000], data.action[:3000], data.next_obs[:3000])
    model.fit_normalisers(seen)
    generator = torch.Generator().manual_seed(0)
    config = MethodConfig("single", learning_rate=1e-3, clip_norm=5.0)
    method = make_method(model, config, generator, generator)
    method.begin_task()
    with torch.enable_grad():
        for _ in range(1500):
            index = torch.randint(3000, (100,), generator=generator)
            method.training_step(Batch(seen.obs[index], seen.action[index], seen.next_obs[index]))
    mean, _ = model.predict(method.weights(0), data.obs[held], data.action[held])
    obs, action = data.obs[held], data.action[held]
    said = task.terminated(obs, action, obs + mean)
    truth = fell(obs, action, data.next_obs[held])
    assert truth.sum() > 30
    assert (said & truth).sum() > 0.8 * truth.sum()
    assert (said & ~truth).sum() < 0.2 * truth.sum()


# --- whole runs ---

SMALL = (
    "preset=smoke",
    "device=cpu",
    "method=finetune",
    "dynamics.hidden=[16]",
    "protocol.num_tasks=1",
    "planner={samples: 8, elites: 2, horizon: 3, iterations: 1}",
)
LEARNED = "env.tasks=[{task: gym, id: Ledge-v0}]"


def episodes_of(path):
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [r for r in map(json.loads, lines) if r["kind"] == "episode"]


@pytest.fixture(scope="module", params=["none", "gru"])
def run(request, tmp_path_factory):
    """Trained with a learned reward and a learned end, with and without a memory."""
    path = tmp_path_factory.mktemp("runs") / "ledge"
    memory = ("memory=gru", "memory.width=8", "context.burn_in=2", "context.horizon=2")
    settings = memory if request.param == "gru" else ()
    wide = ("exploration.random_std=1.5", "exploration.planned_std=1.0")
    main(["train", *SMALL, *wide, LEARNED, *settings, f"run_dir={path}"])
    return path


def test_a_run_resets_at_every_end_and_logs_it(run):
    ended = episodes_of(run)
    assert any(e["terminated"] for e in ended)
    assert all(e["terminated"] or e["length"] == 40 for e in ended)
    # The environment paid 1 + x a step, |x| up to 1 before the last.
    assert all(0 <= e["return"] <= 2 * e["length"] + 1 for e in ended)
    steps = [e["env_steps"] for e in ended]
    assert [e["length"] for e in ended] == np.diff([0, *steps]).tolist()


def test_windows_of_the_replay_do_not_cross_an_end(run):
    replay = RunFolder.open(run).load_checkpoint("latest")["learner"]["replay"]
    follows = (replay["next_obs"][:-1] == replay["obs"][1:]).all(1)
    assert torch.equal(follows, ~replay["begins"][1:])
    assert replay["begins"].sum() > 2
    assert not replay["obs"][:, 3].any()


def test_a_played_episode_ends(run, capsys):
    capsys.readouterr()
    main(["play", f"run={run}", "episodes=4"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all(line.endswith(" steps") for line in lines)


def test_windows_longer_than_any_episode_are_refused(tmp_path, capsys):
    narrow = "env.tasks=[{task: gym, id: Ledge-v0, options: {width: 0.01}}]"
    words = ["memory=gru", "memory.width=8", "context.burn_in=10", "context.horizon=5"]
    with pytest.raises(SystemExit) as exit_:
        main(["train", *SMALL, narrow, *words, f"run_dir={tmp_path / 'r'}"])
    assert exit_.value.code == 2
    assert "context.burn_in" in capsys.readouterr().err
