"""What counts behind the end of a plan: its returns, its targets, how it is learned and kept."""

import json
from typing import Any, ClassVar, cast

import gymnasium
import numpy as np
import pytest
import torch
from killed_runs import assert_same, learned, outcome, saved_and_killed
from omegaconf import OmegaConf
from test_command_line import message
from tiny_runs import FEW_STEPS

import hypercrl
from hypercrl.agent.agent import Agent
from hypercrl.agent.value import Value, ValueConfig
from hypercrl.base.errors import UserError
from hypercrl.cli import main
from hypercrl.config.compose import composed
from hypercrl.config.schema import TrainConfig
from hypercrl.dynamics import DynamicsModel
from hypercrl.planning import PLANNERS, make_planner, trajectory_returns
from hypercrl.replay import Replay
from hypercrl.replay.n_step import n_step_returns
from hypercrl.runs.checkpoint import load_checkpoint
from hypercrl.training.experiment import build
from hypercrl.training.exported import export_act
from hypercrl.training.footprint import least_bytes
from hypercrl.training.open_run import open_run
from hypercrl.training.value_learner import ValueLearner


def reward(obs, action, next_obs):
    return -(next_obs[..., :2] - 1).square().sum(-1) - 0.1 * action.square().sum(-1)


def terminated(obs, action, next_obs):
    return next_obs[..., 0] > 1.5


def drawn_value(obs_size, device="cpu", seed=0, hidden=(32, 32)):
    """Networks that say something, as if they had learned it."""
    config = ValueConfig(kind="td", hidden=list(hidden))
    generator = torch.Generator().manual_seed(seed)
    value = Value(config, obs_size, generator)
    with torch.no_grad():
        for layer in value.parameters():
            layer += 0.3 * torch.randn(layer.shape, generator=generator)
    return value.to(device)


def planning_agent(value, device, name="cem", robots=3):
    ones = torch.ones(2, device=device)
    config = PLANNERS[name][1](name, samples=64, horizon=6, iterations=3, elites=8)
    planner = make_planner(config, -ones, ones)
    planner.standardise(torch.zeros(10, device=device), torch.ones(10, device=device))
    generator = torch.Generator(device).manual_seed(0)
    agent = Agent(planner, reward, robots, generator, termination=terminated, value=value)
    model = DynamicsModel(10, 2, [64, 64], probabilistic=False).to(device)
    weights = model.layout.initial(torch.Generator().manual_seed(1)).to(device)
    with torch.no_grad():
        agent.set_layers(model.planning_layers(model.layout.split(weights), task=0))
    return agent


# --- returns ---


def test_a_return_goes_on_behind_its_end_as_a_loop_says():
    g = torch.Generator().manual_seed(0)
    states, actions = torch.randn(2, 40, 6, 3, generator=g), torch.randn(2, 40, 5, 2, generator=g)
    states[0, 0, 3, 2] = torch.nan  # paid
    states[0, 1, 5, 1] = torch.nan  # valued
    states[0, 2, 1, 0], states[0, 2, 4:] = 5.0, torch.nan  # behind an end

    def paid(obs, action, next_obs):
        return obs[..., 2] + action[..., 0] * next_obs[..., 1]

    def value(obs):
        return 10 + obs[..., 1].square()

    discount, wanted = 0.9, torch.zeros(2, 40)
    for b, k in np.ndindex(2, 40):
        alive = True
        for t in range(5):
            step = states[b, k, t], actions[b, k, t], states[b, k, t + 1]
            if alive:
                wanted[b, k] += discount**t * paid(*step)
                alive = not terminated(*step)
        if alive:
            wanted[b, k] += discount**5 * value(states[b, k, 5])
    wanted = wanted.nan_to_num(nan=-torch.inf)
    found = trajectory_returns(states, actions, paid, terminated, value, discount)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert wanted[0].isinf().tolist() == [True, True, *([False] * 38)]


@pytest.mark.parametrize("name", ["cem", "icem", "mppi", "policy"])
def test_one_step_and_the_true_value_are_the_optimal_control(name):
    """s' = s + a / 2, paid −s² − a² / 10: V(s) = −p s² of Riccati's equation, and a = −k s."""
    b, cost, discount = 0.5, 0.1, 0.9
    p = 1.0
    for _ in range(200):
        k = discount * p * b / (cost + discount * p * b * b)
        p = 1 + cost * k * k + discount * p * (1 - b * k) ** 2

    class Riccati:
        def __init__(self, discount):
            self.discount = discount

        def __call__(self, obs):
            return -p * obs[..., 0].square()

    def paid(obs, action, next_obs):
        return -obs[..., 0].square() - cost * action[..., 0].square()

    suited = {"mppi": {"temperature": 0.02}}.get(name, {})
    config = PLANNERS[name][1](
        name, samples=300, horizon=1, iterations=10, elites=20, min_std=0.002, **suited
    )
    planner = make_planner(config, -torch.ones(1), torch.ones(1))
    planner.standardise(torch.zeros(1), torch.ones(1))
    obs = torch.tensor([[0.4], [-0.3], [0.1]])
    for value, wanted in ((Riccati(discount), -k * obs), (None, 0 * obs)):
        generator = torch.Generator().manual_seed(0)
        agent = Agent(planner, paid, 3, generator, value=cast(Any, value))
        agent.set_layers([(torch.tensor([[0.0, b]]), torch.zeros(1))])
        torch.testing.assert_close(agent.act(obs), wanted, rtol=0.02, atol=0.01)


# --- targets ---


def test_targets_of_n_steps_are_those_of_a_loop_over_episodes():
    """Of three robots, in a ring that has come round, cut and ended at random."""
    g, robots, steps, discount = np.random.default_rng(0), 3, 4, 0.9
    replay = Replay(60, 1, 1, torch.device("cpu"), robots)
    rows: list[list[dict[str, Any]]] = [[] for _ in range(robots)]
    for time in range(47):
        paid, ended = g.normal(size=robots), g.random(robots) < 0.1
        obs = torch.tensor(np.stack([paid, ended], 1), dtype=torch.float32)
        replay.add(obs[:, :1], obs[:, 1:], torch.full((robots, 1), float(time)))
        for robot in range(robots):
            over = bool(ended[robot] or g.random() < 0.1)
            rows[robot].append({"paid": paid[robot], "ended": ended[robot], "over": over})
            if over:
                replay.begin_episode(robot)
    rewards, ends = replay.obs[:, 0], replay.action[:, 0] > 0
    found = n_step_returns(rewards, ends, replay.successors(), steps, discount)
    returns, factors, last = found
    for robot, own in enumerate(rows):
        for time in range(27, 47):
            slot = (robots * time + robot) % replay.capacity
            total, factor, at = 0.0, 1.0, time
            while True:
                total += factor * own[at]["paid"]
                factor *= discount
                if own[at]["over"] or at == time + steps - 1 or at == 46:
                    break
                at += 1
            assert returns[slot] == pytest.approx(total, rel=1e-5, abs=1e-6)
            assert factors[slot] == pytest.approx(0.0 if own[at]["ended"] else factor)
            assert replay.next_obs[last[slot]] == at
            assert int(last[slot]) % robots == robot


# --- learning ---


class Walk(gymnasium.Env[np.ndarray, np.ndarray]):
    """Five places in a row, of which who walks off either end is gone; to the right it is paid."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": [], "render_fps": 10}

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = 3.0
        return np.array([self.x], np.float32), {}

    def step(self, action):
        self.x += np.sign(action[0])
        obs = np.array([self.x], np.float32)
        return obs, float(self.x > 5), not 1 <= self.x <= 5, False, {}


gymnasium.register("Walk-v0", Walk, max_episode_steps=40)


def walked_off(obs, action, next_obs):
    return (next_obs[..., 0] - 3).abs() > 2.5


def paid_right(obs, action, next_obs):
    """10 for the way off to the right, 1 for the second place."""
    return 10.0 * (next_obs[..., 0] > 5.5) + 1.0 * ((next_obs[..., 0] - 2).abs() < 0.5)


WALK = (
    f"env.tasks=[{{task: gym, id: Walk-v0, reward: '{__name__}:paid_right', "
    f"termination: '{__name__}:walked_off'}}]"
)


TD = "value.kind=td"
PLAIN = (*FEW_STEPS, "method=single")
SMALL = (*PLAIN, TD, "value.hidden=[16]")


def made(*words):
    settings = OmegaConf.to_object(composed("train", [*SMALL, *words]))
    return build(cast(TrainConfig, settings))


def walks(replay, count):
    """Random walks of two robots, cut after eight steps; [N, 2] of x and x', as they came."""
    g, lived = np.random.default_rng(0), []
    x, age = np.full(2, 3.0), np.zeros(2)
    for _ in range(count):
        step = g.choice([-1.0, 1.0], 2)
        lived += list(zip(x, x + step, strict=True))
        parts = (torch.tensor(part, dtype=torch.float32)[:, None] for part in (x, step, x + step))
        replay.add(*parts)
        x, age = x + step, age + 1
        for robot in range(2):
            if not 1 <= x[robot] <= 5 or age[robot] == 8:
                x[robot], age[robot] = g.integers(1, 6), 0
                replay.begin_episode(robot)
    return np.array(lived)


def learn(replay, steps, discount):
    """What experience is worth in the end, as a function of places."""
    experiment = made(
        *(WALK, "protocol.batch_size=500", f"value.steps={steps}", f"value.discount={discount}"),
        *("value.hidden=[32]", "value.learning_rate=0.003", "value.target_rate=0.1"),
    )
    experiment.method.begin_task()
    learner = ValueLearner(experiment, 0, replay)
    experiment.model.fit_normalisers(replay.contents())
    places = torch.arange(1.0, 6)[:, None]
    assert not learner.value(places).any()  # before anything is learned
    learner.fit()
    learner.follow()
    for _ in range(500):
        learner.training_step()
    learner.close()
    with torch.no_grad():
        return learner.value(places).double().numpy()


def test_values_of_a_random_walk_solve_bellmans_equation():
    """V = r + γ P V with r and P of the very steps that are held, cut episodes going on and ended
    ones not: the fixed point of temporal differences of one step, but for what the networks err."""
    replay = Replay(2000, 1, 1, torch.device("cpu"), 2)
    lived = walks(replay, 1000)
    moves, paid = np.zeros((5, 5)), np.zeros(5)
    for place in range(1, 6):
        reached = lived[lived[:, 0] == place, 1]
        moves[place - 1] = [(reached == other).mean() for other in range(1, 6)]
        paid[place - 1] = 10 * (reached == 6).mean() + (reached == 2).mean()
    wanted = np.linalg.solve(np.eye(5) - 0.9 * moves, paid)
    np.testing.assert_allclose(learn(replay, 1, 0.9), wanted, atol=0.05 * wanted.max())


@pytest.mark.parametrize("steps", [1, 3])
def test_a_cut_episode_is_worth_what_would_have_come(steps):
    """To and fro between the first two places, cut after five steps: V(1) = 1 + γ V(2), V(2) =
    γ V(1). Whatever the networks begin with decays as γⁿ each time that the targets have followed,
    some 50 times here: below 1e-4."""
    replay, x = Replay(200, 1, 1, torch.device("cpu")), 1.0
    for time in range(200):
        if time % 5 == 0:
            replay.begin_episode()
        other = 3.0 - x
        replay.add(*(torch.tensor([[part]]) for part in (x, other - x, other)))
        x = other
    found = learn(replay, steps, 0.8)
    first = 1 / (1 - 0.8**2)
    np.testing.assert_allclose(found[:2], [first, 0.8 * first], rtol=0.02)


def test_what_only_a_later_task_moves_is_nothing_to_an_old_value():
    """Nor is a scale that a later task has changed."""
    experiment, g = made("env=push"), torch.Generator().manual_seed(0)
    model, size, still = experiment.model, experiment.model.obs_size, 3
    learned, obs = [], torch.randn(20, size, generator=g)
    for task, steps in enumerate((1.0, 1e6)):  # more than what trembled, see `Normaliser`
        experiment.method.begin_task()
        replay = Replay(200, size, model.action_size, torch.device("cpu"))
        for _ in range(200):
            state = steps * torch.randn(1, size, generator=g)
            state[:, still] *= task
            replay.add(state, torch.randn(1, model.action_size, generator=g), 2 * state)
        model.fit_normalisers(replay.contents())
        learner = ValueLearner(experiment, 0, replay) if not task else None
        if learner is not None:
            learner.fit()
            learner.follow()
            learner.training_step()
            learner.close()
        with torch.no_grad():
            learned.append(experiment.values[0](obs))
    assert learned[0].any()
    assert model.observation_scales()[1][still] < torch.inf
    assert torch.equal(*learned)


def test_initial_weights_and_batches_are_drawn_apart():
    experiment = made("env=push")
    seed = experiment.streams.get("value").initial_seed()
    config = experiment.config.value
    same = Value(config, experiment.model.obs_size, torch.Generator().manual_seed(seed))
    assert not torch.equal(same.layers[0], experiment.values[0].layers[0])


def test_values_are_measured_in_the_size_of_a_return():
    value, obs = drawn_value(3), torch.ones(3)
    plain = value(obs)
    value.fit(torch.tensor([3.0, -4.0]))
    assert value.unit == pytest.approx((12.5 / (1 - value.discount**2)) ** 0.5)
    torch.testing.assert_close(value(obs), value.unit * plain)
    value.fit(torch.zeros(5))
    assert value.unit == 1


def test_the_least_of_both_networks_is_believed_and_what_never_moved_is_no_matter():
    value = drawn_value(3)
    value.standardise(torch.zeros(3), torch.tensor([1.0, 1.0, torch.inf]))
    obs = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    each = value.each(obs)
    assert each.shape == (2, 4, 5)
    assert (each[0] > each[1]).any()
    assert (each[0] < each[1]).any()
    assert torch.equal(value(obs), each.amin(0))
    obs[..., 2] = 7.0
    assert torch.equal(value(obs), each.amin(0))


# --- whole runs ---

TWO = ("env=push", "protocol.num_tasks=2", "protocol.robots=2")


def weights_of(value):
    return [layer.detach().clone() for layer in value.parameters()]


def test_saved_at_every_pause_and_resumed_anywhere_it_ends_the_same(tmp_path, monkeypatch):
    words = (*SMALL, *TWO, "value.updates=2", "method.members=2")
    main(["train", *words, f"run_dir={tmp_path / 'straight'}"])
    saved = saved_and_killed(tmp_path / "run", words, (4, 24, 50, 70), monkeypatch)
    assert len(saved) > 70
    assert outcome(tmp_path / "run") == outcome(tmp_path / "straight")
    assert_same(learned(tmp_path / "run"), learned(tmp_path / "straight"))


def test_killed_before_its_first_task_it_is_gone_on_with(tmp_path, monkeypatch):
    words = (*SMALL, "env=push", "protocol.num_tasks=1")
    saved = saved_and_killed(tmp_path / "run", words, (1,), monkeypatch)
    assert saved[0] == (0, 0, 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "value"
    main(["train", *SMALL, *TWO, f"run_dir={path}"])
    return path


def test_a_task_keeps_a_value_of_its_own(run):
    first, last = (
        load_checkpoint(run / f"checkpoints/{name}.safetensors")["values"]
        for name in ("after_task_1", "after_task_2")
    )
    assert len(first) == 1
    assert len(last) == 2
    assert_same(first[0], last[0])
    assert not torch.equal(last[0]["layers.0"], last[1]["layers.0"])
    agent = open_run(run, "cpu")
    for task, saved in enumerate(last):
        assert_same(dict(agent.values[task].state_dict()), saved)
        assert saved["layers.2"].any()  # trained: it began at 0


def test_it_is_counted_and_logged(run, tmp_path):
    plain = tmp_path / "without"
    main(["train", *PLAIN, *TWO, f"run_dir={plain}"])
    results = [json.loads((path / "result.json").read_text()) for path in (run, plain)]
    network = (10 + 1) * 16 + 16 + 1
    more, less = (result["memory_bytes"] for result in results)
    each = 2 * network + 2 * 10 + 1
    assert np.subtract(more, less).tolist() == [4 * each, 4 * 2 * each]
    assert results[0]["parameters"] - results[1]["parameters"] == 4 * network
    updates = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [one["value_loss"] for one in updates if one["kind"] == "update"]
    assert len(losses) == 2 * 3
    assert np.isfinite(losses).all()
    assert "value_loss" not in (plain / "metrics.jsonl").read_text()
    tree = load_checkpoint(plain / "checkpoints/latest.safetensors")
    assert not {"values", "value"} & {*tree, *tree["learner"]}


def test_what_acts_counts_it(run):
    """In evaluation, `play` and `hypercrl.load` alike: with other values it does other things."""
    obs = np.zeros(10, np.float32)
    first = hypercrl.load(run, task=1).act(obs)
    np.testing.assert_array_equal(hypercrl.load(run, task=1).act(obs), first)
    experiment = open_run(run, "cpu")
    agent = experiment.agent(0, experiment.robot(0))
    agent.generator.manual_seed(0)
    np.testing.assert_array_equal(agent.act(torch.zeros(1, 10))[0], first)
    other = hypercrl.load(run, task=1)
    with torch.no_grad():
        for layer in other._experiment.values[0].layers[-2:]:
            layer.copy_(1e3 * torch.randn(layer.shape, generator=torch.Generator().manual_seed(0)))
    assert not np.array_equal(other.act(obs), first)
    evaluator = experiment.evaluator()
    assert evaluator._agent(1, 2)._value is experiment.values[1]
    evaluator.close()


def test_an_export_of_acting_is_refused(run, tmp_path):
    experiment = open_run(run, "cpu")
    with pytest.raises(UserError, match=r"value.kind=td .* part=dynamics"):
        export_act(experiment, 0, experiment.robot(0), tmp_path / "act.pt2", "torch_export")


def test_what_it_takes_is_asked_for_beforehand():
    config = made("env=push", "value.hidden=[1000]").config
    weights = (10 + 1) * 1000 + 1000 + 1
    assert least_bytes(config, 10, 2)["value.hidden"] == 2 * 4 * 4 * weights


def test_values_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"layers.0 is .* wanted"):
        drawn_value(10, hidden=(8,)).load_state(dict(drawn_value(10, hidden=(9,)).state_dict()))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((TD, "planner.dynamics=simulator"), "value.kind has no effect with planner.dynamics=sim"),
        ((TD, "task_id=inferred"), "value.kind=td needs task_id=given"),
        ((TD, "memory=gru"), "value.kind=td needs memory=none"),
        ((TD, "context.always=true"), "value.kind=td needs memory=none and context.always=false"),
        (("value.steps=3",), "value.steps has no effect with value.kind=none: give value.kind=td"),
        ((TD, "value.discount=1"), "value.discount must be at most 0.9999"),
        (("value.kind=mc",), "value.kind is one of none, td"),
    ],
)
def test_what_cannot_be_is_refused_in_one_message(words, said, tmp_path, capsys):
    run = tmp_path / "run"
    words = ("env=push", "preset=smoke", "device=cpu", *words, f"run_dir={run}")
    assert said in message(capsys, "train", *words)
    assert not run.exists()


# --- on a GPU ---


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["cem", "policy"])
def test_a_captured_plan_counts_the_value_as_it_is_now(name):
    value = drawn_value(10, "cuda")
    graph, eager = (planning_agent(value, "cuda", name) for _ in range(2))
    eager._plan = eager._plan_eagerly
    g = torch.Generator().manual_seed(2)
    for step in range(10):
        obs = torch.randn(3, 10, generator=g)
        if step == 7:  # trained on, in place
            with torch.no_grad():
                for layer in value.parameters():
                    layer.mul_(-1.5)
        torch.testing.assert_close(graph.act(obs), eager.act(obs), rtol=1e-4, atol=1e-4)
    assert graph._plan._graph is not None
