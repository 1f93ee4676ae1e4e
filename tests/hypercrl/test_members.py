"""Ensembles: how members are trained, what they say, and how plans weigh what they say."""

import itertools

import numpy as np
import pytest
import torch
from batches import linear_system
from killed_runs import assert_same, learned, outcome, saved_and_killed
from test_command_line import message
from test_methods import make
from tiny_runs import FEW_STEPS

from hypercrl.agent.agent import Agent
from hypercrl.agent.belief import Ensemble
from hypercrl.agent.known_tasks import TaskPosterior, Watched
from hypercrl.cli import main
from hypercrl.methods import Batch
from hypercrl.planning import CEM, CEMConfig
from hypercrl.planning.risk import (
    expected_returns,
    penalised_returns,
    tail_returns,
    worst_returns,
)
from hypercrl.replay.bootstrap import bootstrap_batches, bootstrap_weights
from hypercrl_kernels import GaussianLayers, LinearPolicies, follow, rollout

ENSEMBLES = ["hnet", "chunked_hnet", "single", "lora", "finetune", "multitask"]  # one of each class
SMALL = (*FEW_STEPS, "env=push", "protocol.num_tasks=2", "seed=2")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def double(batch):
    return Batch(batch.obs.double(), batch.action.double(), batch.next_obs.double())


def of_members(*batches):
    """[N, …] of each member → [M, N, …]."""
    parts = zip(*((b.obs, b.action, b.next_obs) for b in batches), strict=True)
    return Batch(*map(torch.stack, parts))


def drawn(task, step, members=3):
    return of_members(*(linear_system(task, seed=100 * m + step) for m in range(members)))


def train(method, task, steps=250):
    method.begin_task()
    for step in range(steps):
        method.training_step(drawn(task, step, method.members))
    method.end_task(linear_system(task, 400, seed=7))


@torch.no_grad()
def errors(method, task):
    """[M] RMS errors of the predicted change."""
    b = linear_system(task, 256, seed=12345)
    x = method.model.inputs(b.obs, b.action).expand(method.members, -1, -1)
    outputs = method.model.layout.apply(method.weights(task), x)
    wanted = method.model.target_normaliser(b.next_obs - b.obs)
    return (outputs - wanted).square().mean((1, 2)).sqrt()


# Training


@pytest.mark.parametrize("name", ENSEMBLES)
def test_all_members_learn_two_conflicting_tasks_and_differ(name):
    steps = {"hnet": 250, "chunked_hnet": 700}.get(name, 500)
    method = make(name, members=3, seed=1)
    train(method, 0, steps)
    assert (errors(method, 0) < 0.25).all()
    train(method, 1, steps)
    assert (errors(method, 1) < 0.25).all()
    assert method.weights(0).shape == (3, method.model.layout.numel)
    if name == "finetune":
        assert errors(method, 0).mean() > 0.25
    else:
        assert (errors(method, 0) < 0.25).all()
    for task in range(2):
        weights = method.weights(task).detach()
        distances = torch.pdist(weights) / weights.norm(dim=1).mean()
        assert (distances > 1e-2).all()


@pytest.mark.parametrize("settings", [{}, {"l1": 1e-3}])
def test_equal_members_are_one(settings):
    """With one embedding and one batch for all of them θ is what one network makes of it."""
    one = make("hnet", clip_norm=1e9, **settings).double()
    many = make("hnet", members=3, clip_norm=1e9, **settings).double()
    many.hypernetwork.load_state_dict(one.hypernetwork.state_dict())
    for task in range(3):
        for method in (one, many):
            method.begin_task()
        many.embeddings[-1].data.copy_(one.embeddings[-1].data.expand(3, -1))
        if task:
            many.targets.copy_(one.targets.repeat_interleave(3, 0))
            many.old.copy_(one.old.repeat_interleave(3, 0))
        for step in range(4):
            batch = double(linear_system(task, seed=step))
            reports = one.training_step(batch), many.training_step(of_members(batch, batch, batch))
            for report, value in reports[0].items():
                torch.testing.assert_close(reports[1][report], value, rtol=1e-5, atol=1e-9)
        theta = one.hypernetwork.theta
        torch.testing.assert_close(many.hypernetwork.theta, theta, rtol=1e-4, atol=1e-6)
        for embedding in many.embeddings[-1]:
            torch.testing.assert_close(embedding, one.embeddings[-1], rtol=1e-4, atol=1e-6)


def test_the_step_of_hnet_is_the_mean_over_members_and_over_the_rows_of_old_ones():
    """The gradient of a first step, by loops: Adam's is then lr · g / (|g| + ε)."""
    method = make("hnet", members=2, clip_norm=1e9, beta=0.7).double()
    for task in range(3):
        method.begin_task()
        if task < 2:
            method.training_step(double(drawn(task, task, 2)))
    method.targets.add_(0.1 * torch.randn(method.targets.shape, generator=generator()).double())
    net, model, config = method.hypernetwork, method.model, method.config
    batch = double(drawn(2, 5, 2))
    theta = net.theta.detach().clone().requires_grad_()
    embeddings = method.embeddings[-1].detach().clone().requires_grad_()
    losses = []
    for m in range(2):
        own = Batch(batch.obs[m], batch.action[m], batch.next_obs[m])
        losses.append(model.loss(net(embeddings[m][None], theta)[0], own))
    gradient, of_embeddings = torch.autograd.grad(sum(losses) / 2, (theta, embeddings))
    ahead = theta - config.learning_rate * gradient / (gradient.abs() + 1e-8)
    ahead = ahead.detach().requires_grad_()
    old = [e for task in (0, 1) for e in method.embeddings[task].detach()]
    distances = [
        (target - net(e[None], ahead)[0]).square().sum()
        for target, e in zip(method.targets, old, strict=True)
    ]
    regulariser = sum(distances) / 4
    (more,) = torch.autograd.grad(config.beta * 64 * regulariser, ahead)
    report = method.training_step(batch)
    torch.testing.assert_close(report["loss"], sum(losses).detach() / 2 / 64)
    torch.testing.assert_close(report["regulariser"], regulariser.detach())
    torch.testing.assert_close(net.theta.grad, gradient + more, rtol=1e-7, atol=1e-10)
    torch.testing.assert_close(method.embeddings[-1].grad, of_embeddings, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("settings", [{}, {"l1": 1e-3}, {"regularised_tasks": 2}])
@pytest.mark.parametrize("probabilistic", [False, True])
def test_the_fused_step_is_that_of_autograd(monkeypatch, settings, probabilistic):
    def prepared():
        method = make("hnet", probabilistic, members=3, beta=0.3, clip_norm=0.5, **settings)
        method.double()
        for task in range(4):
            method.begin_task()
            for step in range(3 if task else 0):
                method.training_step(double(drawn(task, step)))
        noise = torch.randn(method.targets.shape, generator=generator(5))
        method.targets.add_(0.1 * noise)
        return method

    plain, fused = prepared(), prepared()
    monkeypatch.setattr(plain, "why_not_fused", lambda: "it is to be compared with")
    assert fused.why_not_fused() is None
    for step in range(3):
        reports = [method.training_step(double(drawn(3, step))) for method in (plain, fused)]
        for name, value in reports[0].items():
            torch.testing.assert_close(reports[1][name], value, rtol=1e-10, atol=0)
        for mine, theirs in zip(fused.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)
        assert reports[0]["gradient_norm"] > 0.5  # so that it is clipped


def test_kept_targets_are_of_all_members_when_their_task_ended():
    method = make("hnet", members=2, beta=0.0, targets="kept")
    ended = []
    for task in range(3):
        method.begin_task()
        for step in range(10):
            method.training_step(drawn(task % 2, step, method.members))
        ended.append(method.weights(task).detach().clone())
    method.begin_task()
    torch.testing.assert_close(method.targets, torch.cat(ended), rtol=0, atol=1e-6)


def test_a_random_subset_of_old_tasks_is_of_all_their_members():
    method = make("hnet", members=3, regularised_tasks=2)
    for _ in range(5):
        method.begin_task()
    seen = set()
    for _ in range(40):
        rows = method._chosen_tasks().view(2, 3)
        tasks = rows[:, 0] // 3
        assert torch.equal(rows, 3 * tasks[:, None] + torch.arange(3))
        seen |= set(tasks.tolist())
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize("name", ["single", "finetune", "multitask"])
def test_members_are_trained_as_networks_apart_would_be(name):
    """Two tasks, the second with what is rehearsed of the first, each member on its own batches."""
    many, *apart = (make(name, members=m, clip_norm=1e9) for m in (3, 1, 1, 1))
    for task in range(2):
        for method in (many, *apart):
            method.begin_task()
            method.double()
        if not task or name == "single":
            names = [n for n, _ in many.named_parameters() if task == 0 or n == "networks.1"]
        else:
            names = ["network.heads.1"]
        for m, one in enumerate(apart):
            for parameter in names:
                one.get_parameter(parameter).data.copy_(many.get_parameter(parameter).data[m])
        for step in range(20):
            batches = [double(linear_system(task, seed=10 * m + step)) for m in range(3)]
            many.training_step(of_members(*batches))
            for one, batch in zip(apart, batches, strict=True):
                one.training_step(batch)
        for method in (many, *apart):
            method.end_task(double(linear_system(task, 100)))
    for task, (m, one) in itertools.product(range(2), enumerate(apart)):
        torch.testing.assert_close(many.weights(task)[m], one.weights(task), rtol=1e-4, atol=1e-6)


def test_shared_networks_answer_for_every_member_and_task_in_one_pass():
    method = make("multitask", members=3)
    for task in range(2):
        train(method, task, 5)
    x, task = torch.randn(20, 4, generator=generator()), torch.arange(20) % 2
    outputs = method.network.outputs(x, task)
    for row, m in itertools.product(range(20), range(3)):
        wanted = method.model.layout.apply(method.weights(int(task[row]))[m], x[row])
        torch.testing.assert_close(outputs[m, row], wanted)


def test_the_variance_is_learned_by_members_too():
    method = make("hnet", probabilistic=True, members=3)
    train(method, 0, 100)
    whole = drawn(0, 5)
    each = [
        method.model.loss(method.weights(0)[m], Batch(whole.obs[m], whole.action[m], next_obs))
        for m, next_obs in enumerate(whole.next_obs)
    ]
    torch.testing.assert_close(method.model.loss(method.weights(0), whole), sum(each) / 3)


def test_a_member_costs_an_embedding_and_its_targets():
    sizes = {}
    for members in (1, 5):
        method = make("hnet", members=members)
        method.begin_task()
        first = method.memory_bytes()
        method.begin_task()
        sizes[members] = first, method.memory_bytes() - first
    assert sizes[5][0] - sizes[1][0] == 4 * 4 * 4  # four embeddings of four numbers more
    assert sizes[5][1] == 5 * sizes[1][1]


def test_batches_are_drawn_by_the_weights_of_the_bootstrap():
    weights = bootstrap_weights(2, 8, generator(1))
    assert weights.mean() == pytest.approx(1, abs=0.5)
    assert (weights > 0).all()
    slots = bootstrap_batches(weights[:, :5], 400, 50, generator(2))
    assert slots.shape == (400, 2, 50)
    for m in range(2):
        found = torch.bincount(slots[:, m].flatten(), minlength=5) / 20000
        wanted = weights[m, :5] / weights[m, :5].sum()
        torch.testing.assert_close(found, wanted, rtol=0, atol=0.012)
    assert bootstrap_weights(2, 100_000, generator(3)).std() == pytest.approx(1, abs=0.02)


def test_members_disagree_where_there_is_no_data():
    """Trained where the first action is negative; and beyond, where it is positive, not."""
    method = make("hnet", members=5)
    method.begin_task()
    data = linear_system(0, 400, seed=7)
    half = Batch(data.obs, torch.cat([-data.action[:, :1].abs(), data.action[:, 1:]], 1), data.obs)
    half = Batch(half.obs, half.action, half.obs + half.action)
    weights = bootstrap_weights(5, 400, generator())
    for slots in bootstrap_batches(weights, 400, 64, generator(1)):
        method.training_step(half.at(slots))
    belief = Ensemble(method.planner_layers(0)(None), 1)
    obs = torch.randn(500, 2, generator=generator(2))
    action = torch.randn(500, 2, generator=generator(3))
    spread = belief.spread(obs, action[:, None], 1, generator())[:, 1].norm(dim=1)
    error = (belief.predict(obs, action[:, None])[:, 1] - obs - action).norm(dim=1)
    outside = action[:, 0] > 0.5
    inside = action[:, 0] < -0.2
    assert spread[outside].mean() > 2 * spread[inside].mean()
    ranks = torch.stack([spread, error]).argsort(1).argsort(1).double()
    assert torch.corrcoef(ranks)[0, 1] > 0.5


# What members say


def affine(slopes):
    """Members m of s' = s + slope_m · a, one dimension, as ReLU networks."""
    first = torch.tensor([[0.0, 1.0], [0.0, -1.0]]).expand(len(slopes), -1, -1)
    last = torch.tensor([[[slope, -slope]] for slope in slopes])
    return [(first, torch.zeros(len(slopes), 2)), (last, torch.zeros(len(slopes), 1))]


def test_the_belief_in_an_ensemble():
    belief = Ensemble(affine([1.0, 2.0, 4.0]), robots=2)
    weight = belief.layers()[-1][0][:, 0, 0]
    assert weight.tolist() == [1.0, 2.0, 4.0, 1.0, 2.0, 4.0]  # a robot's together
    assert torch.equal(belief.probabilities(), torch.full((2, 3), 1 / 3))
    obs, actions = torch.zeros(5, 1), torch.full((5, 2, 1), 0.5)  # any number of robots
    predicted = belief.predict(obs, actions)
    torch.testing.assert_close(predicted[0, :, 0], torch.tensor([0.0, 7 / 6, 7 / 3]))
    spread = belief.spread(obs, actions, 1, generator())[0, :, 0]
    wanted = np.std([1.0, 2.0, 4.0])
    torch.testing.assert_close(spread, torch.tensor([0.0, wanted / 2, wanted]).float())


def test_inferred_tasks_are_judged_by_the_mean_of_their_members():
    beliefs = [Ensemble(affine([1.0, 2.0]), 2), Ensemble(affine([-1.0, -3.0]), 2)]
    posterior = TaskPosterior(beliefs, torch.tensor([0.5]), 2, torch.full((2, 1, 1), 0.4))
    watched = Watched(beliefs, torch.tensor([0.5]), 2, believed=1)
    assert posterior.layers()[-1][0][:, 0, 0].tolist() == 2 * [1.0, 2.0, -1.0, -3.0]
    assert watched.layers()[-1][0][:, 0, 0].tolist() == 2 * [-1.0, -3.0]
    assert (posterior.hypotheses, watched.hypotheses) == (4, 2)
    obs, action = torch.zeros(2, 1), torch.tensor([[1.0], [0.0]])
    for belief in (posterior, watched):
        belief.observe(obs, action, torch.tensor([[1.5], [0.0]]))
        squares = belief.errors.square().sum(-1)
        torch.testing.assert_close(squares, torch.tensor([[0.0, 49.0], [0.0, 0.0]]))
    first, second = posterior.probabilities()
    assert first[0] == first[1] > 0.49
    assert torch.equal(second, torch.full((4,), 0.25))
    assert torch.equal(watched.probabilities(), torch.full((2, 2), 0.5))


# Risk


def numpy_cvar(returns, probabilities, alpha):
    """Mean of the worst share α, by laying out a million equal parts of probability."""
    order = np.argsort(returns)
    left, total = alpha, 0.0
    for m in order:
        share = min(left, probabilities[m])
        total += share * returns[m] if share else 0.0
        left -= share
    return total / alpha


def test_risk_is_what_numpy_says():
    g = np.random.default_rng(0)
    returns = g.normal(size=(4, 5, 7)).astype(np.float32)
    probabilities = g.dirichlet(np.ones(5), 4).astype(np.float32)
    flat, each = torch.from_numpy(returns).flatten(0, 1), torch.from_numpy(probabilities)
    likely = probabilities >= 0.01 * probabilities.max(1, keepdims=True)
    for b, k in itertools.product(range(4), range(7)):
        r, p = returns[b, :, k].astype(float), probabilities[b].astype(float)
        mean = p @ r
        std = np.sqrt(p @ (r - mean) ** 2)
        assert expected_returns(flat, each)[b, k] == pytest.approx(mean, abs=1e-5)
        assert worst_returns(flat, each)[b, k] == pytest.approx(r[likely[b]].min())
        for beta in (0.0, 0.5, 2.0):
            found = penalised_returns(flat, each, beta)[b, k]
            assert found == pytest.approx(mean - beta * std, abs=1e-4)
        for alpha in (0.05, 0.4, 0.77, 1.0):
            wanted = numpy_cvar(r, p / p.sum(), alpha)
            assert tail_returns(flat, each, alpha)[b, k] == pytest.approx(wanted, abs=1e-4)


def test_cvar_of_equal_members_is_the_mean_of_the_worst():
    returns = torch.randn(5, 9, generator=generator())
    alike = torch.full((1, 5), 0.2)
    worst = returns.sort(0).values
    torch.testing.assert_close(tail_returns(returns, alike, 0.4), worst[:2].mean(0)[None])
    torch.testing.assert_close(tail_returns(returns, alike, 0.2), worst[:1])
    more = (2 * worst[0] + worst[1]) / 3
    torch.testing.assert_close(tail_returns(returns, alike, 0.3), more[None])


@pytest.mark.parametrize(
    "risk",
    [
        expected_returns,
        worst_returns,
        lambda r, p: tail_returns(r, p, 0.9),
        lambda r, p: penalised_returns(r, p, 1.0),
    ],
)
def test_what_diverges_under_one_member_never_wins_and_what_is_impossible_does_not_count(risk):
    returns = torch.tensor([[1.0, -torch.inf], [-torch.inf, 5.0]])
    assert torch.equal(risk(returns, torch.tensor([[0.5, 0.5]])), torch.full((1, 2), -torch.inf))
    certain = risk(returns, torch.tensor([[1.0, 0.0]]))
    assert torch.equal(certain, torch.tensor([[1.0, -torch.inf]]))


@pytest.mark.parametrize(
    ("risk", "factor"),
    [("mean", 0.5), ("worst", 0.0), ("cvar", 0.0), ("penalty", 0.0)],
)
def test_plans_take_the_risk_that_they_are_told_to(risk, factor):
    """An action is right with three of four members, s' = s + a, and wrong with one, s' = s − a.

    The mean cost of one step to 0 is least at a = −s / 2. With σ the standard deviation over
    members, √3/4 · 4 |s a|, whatever is done costs at the worst s² + … or |a| more: nothing is.
    """
    config = CEMConfig(samples=300, horizon=1, iterations=8, min_std=0.01)
    config.risk, config.risk_alpha = risk, 0.25
    ones = torch.ones(1)
    reward = lambda obs, action, next_obs: -next_obs.square().sum(-1)  # noqa: E731
    agent = Agent(CEM(config, -ones, ones), reward, 2, generator())
    agent.believe(Ensemble(affine([1.0, 1.0, 1.0, -1.0]), 2))
    obs = torch.tensor([[0.8], [-0.6]])
    torch.testing.assert_close(agent.act(obs), -factor * obs, rtol=0, atol=0.06)


# Trajectory sampling


def orders(horizon, groups, members, particles, seed=0):
    return torch.rand(horizon, groups, members, particles, generator=generator(seed)).argsort(2)


def test_ts1_is_every_sequence_of_members_alike_and_tsinf_one_member_throughout():
    """Enumerated: of three steps of 1 with slopes 1, 10 there are 2³ ends, as likely each."""
    slopes, particles = [1.0, 10.0], 4000
    layers, controls = affine(slopes), torch.ones(2, particles, 3, 1)
    order = orders(3, 1, 2, particles)
    states = rollout(layers, torch.zeros(2, 1), controls, order=order)
    changes = states.diff(dim=2)[..., 0]
    # At every step one trajectory of a pair follows the one member, the other the other.
    assert torch.equal(changes.sort(0).values[0], torch.full((particles, 3), 1.0))
    assert torch.equal(changes.sort(0).values[1], torch.full((particles, 3), 10.0))
    for m in range(2):
        paths, counts = changes[m].unique(dim=0, return_counts=True)
        assert {tuple(p.tolist()) for p in paths} == set(itertools.product(slopes, repeat=3))
        assert (counts / particles - 1 / 8).abs().max() < 0.025
    fixed = rollout(layers, torch.zeros(2, 1), controls)
    wanted = torch.tensor(slopes)[:, None, None] * torch.arange(4.0)
    assert torch.equal(fixed[..., 0], wanted.expand(-1, particles, -1))


def simulated(slopes, deviations, horizon, particles, switch, rng):
    """Chua et al. 2018, section 5.1, particle by particle, of s' = s + slope_m + σ_m ε."""
    ends = np.zeros(particles)
    for p in range(particles):
        member = rng.integers(len(slopes))
        for _ in range(horizon):
            if switch:
                member = rng.integers(len(slopes))
            ends[p] += slopes[member] + deviations[member] * rng.normal()
    return ends


@pytest.mark.parametrize("switch", [True, False])
def test_sampled_ends_have_the_distribution_of_an_independent_simulation(switch):
    slopes, deviations, horizon, particles = [1.0, 4.0, -2.0], [0.5, 1.0, 2.0], 4, 6000
    mean = affine(slopes)
    bias = torch.tensor(deviations).square().log()[:, None]
    head = torch.zeros(3, 1, 2), bias
    layers = GaussianLayers(mean, head, torch.tensor([[1e-9], [1e-9], [1.0]]))
    shape = (3, particles, horizon, 1)
    noise = torch.randn(shape, generator=generator(1))
    order = orders(horizon, 1, 3, particles, 2) if switch else None
    states = rollout(layers, torch.zeros(3, 1), torch.ones(shape), noise=noise, order=order)
    found = states[:, :, -1, 0].flatten().numpy()
    wanted = simulated(slopes, deviations, horizon, 12_000, switch, np.random.default_rng(3))
    assert found.mean() == pytest.approx(wanted.mean(), abs=0.25)
    assert found.std() == pytest.approx(wanted.std(), rel=0.03)
    quantiles = np.linspace(0.05, 0.95, 10)
    distance = np.quantile(found, quantiles) - np.quantile(wanted, quantiles)
    assert np.abs(distance).max() < 0.05 * wanted.std() + 0.3


def test_policies_are_followed_by_members_in_turn():
    """u = 1 whatever the state, so that the states are those of the rollout."""
    order = orders(3, 2, 2, 50)
    policies = LinearPolicies(
        torch.zeros(4, 50, 1, 1), torch.ones(4, 50, 1), -torch.ones(1), torch.ones(1), 3
    )
    layers = affine([1.0, 10.0, 3.0, 30.0])
    states, controls = follow(layers, torch.zeros(4, 1), policies, order=order)
    assert torch.equal(controls, torch.ones(4, 50, 3, 1))
    assert torch.equal(states, rollout(layers, torch.zeros(4, 1), controls, order=order))


def test_an_order_of_other_shapes_is_refused():
    layers, controls = affine([1.0, 2.0]), torch.ones(2, 5, 3, 1)
    for order in (orders(3, 1, 2, 4), orders(2, 1, 2, 5), orders(3, 2, 2, 5), torch.zeros(3)):
        with pytest.raises(ValueError, match="rollout needs an order"):
            rollout(layers, torch.zeros(2, 1), controls, order=order)
    one = [(w[0], b[0]) for w, b in layers]
    with pytest.raises(ValueError, match="a network each"):
        rollout(one, torch.zeros(2, 1), controls, order=orders(3, 1, 2, 5))


def test_an_agent_switches_between_the_members_of_each_robot():
    config = CEMConfig(samples=400, horizon=3, iterations=1)
    config.propagation = "ts1"
    seen, ones = [], torch.ones(1)

    def reward(obs, action, next_obs):
        seen.append(((next_obs - obs) / action)[..., 0])
        return -action.square().sum(-1)

    agent = Agent(CEM(config, -ones, ones), reward, 2, generator())
    agent.believe(Ensemble(affine([1.0, 10.0, 100.0]), 2))
    agent.act(torch.zeros(2, 1))
    (slopes,) = (s.round().view(2, 3, 400, 3) for s in seen)
    assert torch.equal(slopes.sort(1).values[:, 1], torch.full((2, 400, 3), 10.0))
    switched = (slopes[..., 1:] != slopes[..., :-1]).double().mean()
    assert switched == pytest.approx(2 / 3, abs=0.03)


# Whole runs


@pytest.mark.parametrize(
    "words",
    [
        (
            "method=hnet",
            "method.hidden=[8]",
            "dynamics.probabilistic=true",
            "planner.sampled=true",
            "planner.propagation=ts1",
            "planner.risk=cvar",
        ),
        ("method=multitask", "task_id=inferred", "planner.risk=penalty"),
    ],
    ids=["hnet", "inferred"],
)
def test_saved_at_every_pause_and_resumed_an_ensemble_ends_the_same(
    words, tmp_path, monkeypatch, short_episodes
):
    fewer = ("protocol.planned_steps=8", "protocol.updates=4")
    words = (*SMALL, *fewer, "method.members=3", *words)
    main(["train", *words, f"run_dir={tmp_path / 'straight'}"])
    saved = saved_and_killed(tmp_path / "run", words, (5, 30), monkeypatch)
    assert len(saved) > 30
    assert outcome(tmp_path / "run") == outcome(tmp_path / "straight")
    assert_same(learned(tmp_path / "run"), learned(tmp_path / "straight"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("method=ewc", "method.members=2"), "method=ewc trains one network a task"),
        (
            ("method=hnet", "method.members=2", "memory=gru", "context={burn_in: 2, horizon: 2}"),
            "use memory=none",
        ),
        (("method=hnet", "planner.risk=worst"), "planner.risk=worst needs planner.dynamics=model"),
        (("method=hnet", "planner.propagation=ts1"), "planner.propagation=ts1 needs an ensemble"),
        (
            ("method=hnet", "method.members=2", "task_id=inferred", "planner.propagation=ts1"),
            "task_id=given",
        ),
        (
            ("method=hnet", "method.members=2", "planner.dynamics=simulator", "planner.risk=cvar"),
            "planner.dynamics=model",
        ),
        (("method=hnet", "method.members=0"), "method.members must be at least 1"),
        (("method=single", "method.members=1000000000"), "method.members: this run needs"),
        (("method=hnet", "method.members=1000000000"), "method.members: this run needs"),
    ],
)
def test_what_cannot_be_is_refused_in_one_message(words, said, tmp_path, capsys):
    assert said in message(capsys, "train", *SMALL, *words, f"run_dir={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()
