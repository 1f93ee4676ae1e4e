"""Exploration by plans for what the members of an ensemble disagree about."""

import numpy as np
import pytest
import torch
from test_command_line import message
from tiny_runs import FEW_STEPS

from hypercrl.agent.agent import Agent
from hypercrl.agent.belief import Ensemble
from hypercrl.cli import main
from hypercrl.dynamics import DynamicsModel
from hypercrl.methods import METHODS, Batch, make_method
from hypercrl.planning import PLANNERS, make_planner
from hypercrl.planning.disagreement import Disagreement
from hypercrl.replay.bootstrap import bootstrap_weights
from hypercrl.training.learner import Learner
from hypercrl_kernels.planning.reward_tracer import trace

MEMBERS = 4
WORLD = 0.1
"""How far an action of 1 leads, about."""


def moved(obs, action):
    """The truth: s' = s + 0.1 a (1 + sin(5 s) / 2)."""
    return obs + WORLD * action * (1 + 0.5 * torch.sin(5 * obs))


def test_it_is_the_variance_that_numpy_says():
    g = np.random.default_rng(0)
    states = g.normal(size=(3, MEMBERS, 5, 7, 6)).astype(np.float32)  # [B, M, K, H, O]
    scale = np.array([0.5, 1.0, 2.0, 3.0, 10.0, np.inf], np.float32)
    paid = Disagreement(torch.from_numpy(scale), MEMBERS)
    each = torch.from_numpy(states).flatten(0, 1)
    found = paid(each, each[..., :2], each).view(3, MEMBERS, 5, 7).mean(1)
    wanted = (states / scale).var(1).mean(-1)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    # What all members say alike, however far they are from the truth, is worth nothing.
    alike = each[:1].expand(MEMBERS, -1, -1, -1)
    assert not paid(alike, alike[..., :2], alike).any()


@pytest.mark.parametrize("members", [2, 3])
def test_it_is_no_reward_of_single_transitions(members):
    """The kernel that sums such rewards would not see the other members."""
    assert trace(Disagreement(torch.ones(3), members), 3, 1, torch.device("cpu")) is None


def agent_of(name, layers, scale, robots, seed):
    """Four members that are given, and a search with this planner for what they disagree about."""
    config = PLANNERS[name][1](name, horizon=5, samples=60, elites=8, execute="best")
    ones = torch.ones(1)
    planner = make_planner(config, -ones, ones)
    planner.standardise(torch.zeros(1), torch.ones(1))
    generator = torch.Generator().manual_seed(seed)
    agent = Agent(planner, Disagreement(scale, MEMBERS), robots, generator)
    agent.believe(Ensemble(layers, robots))
    return agent


@pytest.mark.parametrize("name", PLANNERS)
def test_plans_are_worth_the_spread_of_the_belief(name):
    """Members that go by −0.4, −0.2, 0.2 and 0.4 · a a step: the variance after t steps of a is
    t² a² / 40 in units of 2, and the largest a wins, whatever its sign."""
    slopes = torch.tensor([-0.4, -0.2, 0.2, 0.4])
    layers = [(torch.stack([torch.zeros(4), slopes], -1)[:, None], torch.zeros(4, 1))]
    agent = agent_of(name, layers, torch.tensor([2.0]), 3, 0)
    returns = []
    agent.watch = True
    obs = torch.tensor([[0.5], [-0.5], [2.0]])
    for _ in range(8):
        agent.act(obs)
        returns.append(agent.searches[-1][-1, 1])
    best = 0.1 / 4 * sum(t * t for t in range(1, agent.planner.config.horizon + 1))
    torch.testing.assert_close(returns[-1], torch.full((3,), best), rtol=0.1, atol=0)
    assert torch.stack(returns).max() <= best * (1 + 1e-5)


@pytest.fixture(scope="module", params=[False, True], ids=["left", "right"])
def half_known(request):
    """Members that have seen one half of a line, and the sign of the other."""
    sign = 1 if not request.param else -1
    g = torch.Generator().manual_seed(0)
    obs = -sign * torch.rand(400, 1, generator=g)
    action = 2 * torch.rand(400, 1, generator=g) - 1
    data = Batch(obs, action, moved(obs, action))
    model = DynamicsModel(1, 1, [32, 32], probabilistic=False)
    model.fit_normalisers(data)
    config = METHODS["single"][1]("single", 3e-3, 5.0, members=MEMBERS)
    method = make_method(model, config, *(torch.Generator().manual_seed(i) for i in range(2)))
    method.begin_task()
    weights = bootstrap_weights(MEMBERS, len(obs), g)
    for _ in range(300):
        rows = weights.multinomial(32, replacement=True, generator=g)
        method.training_step(Batch(*(part[rows] for part in vars(data).values())))
    return method, sign


@pytest.mark.parametrize("name", ["cem", "icem", "mppi"])
def test_it_goes_where_there_was_no_data(half_known, name):
    """From the border of the half that is known; random actions lead to either half alike."""
    method, unknown = half_known
    robots, steps = 16, 8
    scale = method.model.target_normaliser.scale
    agent = agent_of(name, method.planner_layers(0)(None), scale, robots, 1)
    g = torch.Generator().manual_seed(2)
    planned = drawn = torch.zeros(robots, 1)
    there, by_chance = [], []
    for _ in range(steps):
        planned = moved(planned, agent.act(planned))
        drawn = moved(drawn, 2 * torch.rand(robots, 1, generator=g) - 1)
        there.append(unknown * planned > 0)
        by_chance.append(unknown * drawn > 0)
    share, chance = (torch.stack(x).double().mean().item() for x in (there, by_chance))
    assert 0.3 < chance < 0.7
    assert share > 0.95
    assert (unknown * planned > 1.5 * WORLD).all()  # and it goes on there


SMALL = (*FEW_STEPS, "env=push", "protocol.num_tasks=1", "seed=2")
BURSTS = ("exploration.kind=disagreement", "exploration.burst_share=0.5")


def test_robots_in_a_burst_do_what_was_planned_for_it(tmp_path, monkeypatch):
    """Of three robots each on its own; all others do something else."""
    act, add = Agent.act, Learner.add
    found, steps = [], []

    def explored(self, obs, end=None):
        action = act(self, obs, end)
        if isinstance(self.reward, Disagreement):
            found.append(action)
        return action

    def kept(self, obs, action, next_obs):
        steps.append((action, found.pop() if found else None))
        return add(self, obs, action, next_obs)

    monkeypatch.setattr(Agent, "act", explored)
    monkeypatch.setattr(Learner, "add", kept)
    words = ("method=hnet", "method.hidden=[8]", "method.members=2", "dynamics.probabilistic=true")
    words += ("planner.sampled=true", "planner.propagation=ts1", "planner.risk=penalty")
    words += ("protocol.robots=3", "protocol.random_steps=15", "protocol.planned_steps=60")
    main(["train", *SMALL, *BURSTS, *words, "exploration.burst_steps=2", f"run_dir={tmp_path}/r"])
    assert all(planned is None for _, planned in steps[:5])
    same = [(a == planned).all(1) for a, planned in steps[5:] if planned is not None]
    assert all(one.any() for one in same)  # nothing is planned for if nobody is in a burst
    alike = sum(int(one.sum()) for one in same)
    assert 0.3 < alike / 60 < 0.7
    assert not torch.stack(same).all()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("method=hnet",), "needs an ensemble, method.members=5 say"),
        (("method=single", "planner.dynamics=simulator"), "planner.dynamics=model"),
        (("method=single", "method.members=2", "task_id=inferred"), "needs task_id=given"),
        (("method=ewc", "method.members=2"), "method=ewc trains one network a task"),
        (
            ("method=single", "method.members=2", "exploration.burst_share=0"),
            "give exploration.burst_share=0.3",
        ),
        (("exploration.kind=curious",), "exploration.kind is one of random, disagreement"),
    ],
)
def test_what_cannot_be_is_refused_in_one_message(words, said, tmp_path, capsys):
    assert said in message(capsys, "train", *SMALL, *BURSTS, *words, f"run_dir={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()
