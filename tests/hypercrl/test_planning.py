import itertools

import numpy as np
import pytest
import torch

from hypercrl.planning import PLANNERS, expected_returns, make_planner, trajectory_returns
from hypercrl.planning.icem import noise_colour

LOW, HIGH = torch.tensor([-1.0, -1.0]), torch.tensor([1.0, 1.0])


def integrator(obs, actions):
    """s' = s + a, exactly."""
    path = obs[:, None, None] + actions.cumsum(2)
    start = obs[:, None, None].expand(-1, actions.shape[1], -1, -1)
    return torch.cat([start, path], 2)


def reach(target):
    return lambda obs, action, next_obs: -(next_obs - target).square().sum(-1)


def planner(name="cem", **settings):
    settings = {"samples": 300, "horizon": 4, "iterations": 8} | settings
    return make_planner(PLANNERS[name][1](**settings), LOW, HIGH)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", PLANNERS)
@pytest.mark.parametrize("execute", ["mean", "best"])
def test_finds_the_optimum_of_a_linear_system_for_every_robot(name, execute):
    # The optimum, one step there and rest, is as white as noise can be.
    suited = {"mppi": {"temperature": 0.5}, "icem": {"noise_beta": 0.0}}.get(name, {})
    cem = planner(name, execute=execute, min_std=0.01, **suited)
    obs = torch.tensor([[0.5, -0.3], [-0.2, 0.4], [0.0, 0.0]])
    action, _ = cem.plan(integrator, reach(0.0), obs, cem.initial(3), generator())
    torch.testing.assert_close(action, -obs, atol=0.06, rtol=0)


def either_way(obs, actions):
    """Hypotheses in turn: s' = s + a, s' = s − a."""
    assert len(obs) % 2 == 0
    signs = torch.tensor([1.0, -1.0]).repeat(len(obs) // 2)[:, None, None, None]
    return integrator(obs, signs * actions)


@pytest.mark.parametrize("name", PLANNERS)
def test_a_plan_for_two_hypotheses_is_the_best_on_average(name):
    """With probability p of s' = s + a, and of s' = s − a else, the expected cost of one step to 0
    is p (s + a)² + (1 − p) (s − a)², which is least at a = (1 − 2 p) s: nothing is done at 1/2."""
    suited = {"mppi": {"temperature": 0.5}, "icem": {"noise_beta": 0.0}}.get(name, {})
    cem = planner(name, horizon=1, min_std=0.01, **suited)
    right = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])
    obs = torch.tensor([[0.8, -0.6]]).expand(5, 2)
    probabilities = torch.stack([right, 1 - right], 1)
    search = (obs, cem.initial(5), generator())
    action, _ = cem.plan(either_way, reach(0.0), *search, probabilities=probabilities)
    torch.testing.assert_close(action, (1 - 2 * right)[:, None] * obs, atol=0.06, rtol=0)


def test_what_is_impossible_does_not_count_even_where_it_diverges():
    returns = torch.tensor([[1.0, 2.0], [-torch.inf, 5.0], [3.0, -torch.inf], [1.0, 1.0]])
    probabilities = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    wanted = torch.tensor([[1.0, 2.0], [1.5, -torch.inf]])
    assert torch.equal(expected_returns(returns, probabilities), wanted)


@pytest.mark.parametrize("name", PLANNERS)
def test_actions_respect_the_bounds_and_saturate_far_from_the_target(name):
    suited = {"temperature": 20.0} if name == "mppi" else {}
    cem = planner(name, min_std=0.01, **suited)
    seen = []

    def rollout(obs, actions):
        seen.append(actions)
        return integrator(obs, actions)

    obs = torch.tensor([[30.0, -30.0]])
    action, start = cem.plan(rollout, reach(0.0), obs, cem.initial(1), generator())
    assert all((a >= LOW).all() and (a <= HIGH).all() for a in seen)
    torch.testing.assert_close(action, torch.tensor([[-1.0, 1.0]]), atol=0.05, rtol=0)
    assert start.abs().max() <= 1


def test_the_reward_is_asked_once_per_iteration_over_the_whole_rollout():
    cem = planner(iterations=3)
    shapes = []

    def reward(obs, action, next_obs):
        shapes.append((obs.shape, action.shape, next_obs.shape))
        return -next_obs.square().sum(-1)

    cem.plan(integrator, reward, torch.zeros(2, 2), cem.initial(2), generator())
    assert shapes == [((2, 300, 4, 2),) * 3] * 3


def test_reward_sees_the_state_before_and_after_each_action():
    actions = torch.randn(1, 5, 3, 2)
    states = integrator(torch.zeros(1, 2), actions)
    difference = trajectory_returns(states, actions, lambda o, a, n: (n - o - a).abs().sum(-1))
    torch.testing.assert_close(difference, torch.zeros(1, 5), atol=1e-5, rtol=0)


def test_a_trajectory_that_is_not_a_number_never_wins():
    states = torch.zeros(1, 3, 2, 2)
    states[0, 0, 1] = torch.nan
    states[0, 1, 1] = -1e9
    states[0, 2, 1] = -1e10
    returns = trajectory_returns(states, torch.zeros(1, 3, 1, 2), lambda o, a, n: n.sum(-1))
    assert returns.argmax() == 1
    assert returns[0, 0] == -torch.inf


def test_warm_start_shifts_the_mean_by_one_step():
    cold, warm = planner(warm_start=False), planner(warm_start=True)
    obs = torch.tensor([[3.0, -2.5]])
    _, kept = warm.plan(integrator, reach(0.0), obs, warm.initial(1), generator())
    _, dropped = cold.plan(integrator, reach(0.0), obs, cold.initial(1), generator())
    assert not dropped.any()
    # From 3 the best plan moves -1 three times and then rests; one step on, it moves twice.
    mean = kept[0, 0]
    torch.testing.assert_close(mean[:, 0], torch.tensor([-1.0, -1, 0, 0]), atol=0.25, rtol=0)
    torch.testing.assert_close(mean[2], mean[3])


@pytest.mark.parametrize("name", PLANNERS)
def test_same_generator_same_plan_and_global_seed_without_effect(name):
    cem, obs = planner(name, iterations=2), torch.randn(2, 2)
    first, _ = cem.plan(integrator, reach(0.0), obs, cem.initial(2), generator(5))
    torch.manual_seed(99)
    again, _ = cem.plan(integrator, reach(0.0), obs, cem.initial(2), generator(5))
    assert torch.equal(first, again)


@pytest.mark.parametrize("name", PLANNERS)
def test_a_robot_whose_model_diverges_leaves_the_others_alone(name):
    cem = planner(name)

    def rollout(obs, actions):
        states = integrator(obs, actions)
        states[1] = torch.nan
        return states

    obs = torch.tensor([[0.5, -0.3], [0.1, 0.1]])
    action, start = cem.plan(rollout, reach(0.0), obs, cem.initial(2), generator())
    assert torch.isfinite(action).all()
    assert torch.isfinite(start).all()
    torch.testing.assert_close(action[0], -obs[0], atol=0.1, rtol=0)


def test_mppi_weighs_samples_by_the_exponential_of_their_return():
    """One iteration over all samples, from the equation of Williams et al. 2017, in NumPy."""
    settings = {"samples": 40, "elites": 40, "iterations": 1, "horizon": 3, "temperature": 2.0}
    mppi = planner("mppi", **settings)
    obs = torch.tensor([[0.4, -0.2]])
    action, start = mppi.plan(integrator, reach(0.0), obs, mppi.initial(1), generator(3))
    noise = torch.randn(1, 1, 40, 3, 2, generator=generator(3)).double().numpy()[0, 0]
    samples = np.clip(0.7 * noise, -1, 1)
    states = obs[0].double().numpy() + np.cumsum(samples, 1)
    returns = -(states**2).sum((1, 2))
    weights = np.exp((returns - returns.max()) / 2.0)
    mean = np.einsum("k,kha->ha", weights / weights.sum(), samples)
    np.testing.assert_allclose(action[0], mean[0], atol=1e-5)
    np.testing.assert_allclose(start[0, 0], mean[[1, 2, 2]], atol=1e-5)


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.5])
def test_coloured_noise_has_unit_variance_and_its_spectrum(beta):
    colour = noise_colour(20, beta)
    covariance = colour @ colour.T
    torch.testing.assert_close(covariance.diagonal(), torch.ones(20, dtype=torch.float64))
    power = torch.fft.rfft(covariance[0]).real
    frequency = torch.arange(1, 11, dtype=torch.float64)
    torch.testing.assert_close(power[1:] / power[1], frequency**-beta, rtol=1e-9, atol=1e-9)
    if beta == 0:
        torch.testing.assert_close(colour, torch.eye(20, dtype=torch.float64))


def test_icem_asks_for_fewer_samples_each_time_and_keeps_its_elites():
    icem = planner("icem", iterations=3, samples=100, elites=10, kept=0.3, decay=2.0)
    seen = []

    def rollout(obs, actions):
        seen.append(actions)
        return integrator(obs, actions)

    obs = torch.tensor([[0.6, 0.2]])
    _, start = icem.plan(rollout, reach(0.0), obs, icem.initial(1), generator())
    # 100, 50 and no less than twice the elites, 25; 3 kept ones; the mean among the last.
    assert [a.shape[1] for a in seen] == [103, 53, 29]

    def best(actions, count):
        returns = trajectory_returns(integrator(obs, actions), actions, reach(0.0))
        return actions[0, returns[0].topk(count).indices]

    for before, after in itertools.pairwise(seen):
        torch.testing.assert_close(
            after[0, -3:] if after is seen[1] else after[0, -4:-1], best(before, 3)
        )
    assert start.shape == (1, 4, 4, 2)
    shifted = best(seen[-1], 3)[:, [1, 2, 3, 3]]
    torch.testing.assert_close(start[0, 1:], shifted)


def test_more_elites_than_samples_are_refused():
    with pytest.raises(ValueError, match=r"planner\.samples=300"):
        planner(elites=301)
