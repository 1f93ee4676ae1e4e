import itertools

import numpy as np
import pytest
import torch

from hypercrl.planning import PLANNERS, expected_returns, make_planner, trajectory_returns
from hypercrl.planning.cem import CEM
from hypercrl.planning.icem import noise_colour
from hypercrl.planning.mppi import path_weights
from hypercrl_kernels import TracedReturns, cores_apart
from hypercrl_kernels.planning.reward_tracer import trace

OF_SEQUENCES = [name for name, (kind, _) in PLANNERS.items() if not kind.follows]

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


@pytest.mark.parametrize("name", OF_SEQUENCES)
@pytest.mark.parametrize("execute", ["mean", "best"])
def test_finds_the_optimum_of_a_linear_system_for_every_robot(name, execute):
    cem = planner(name, execute=execute, min_std=0.01)
    obs = torch.tensor([[0.5, -0.3], [-0.2, 0.4], [0.0, 0.0]])
    action, _ = cem.plan(integrator, reach(0.0), obs, cem.initial(3), generator())
    torch.testing.assert_close(action, -obs, atol=0.06, rtol=0)


@pytest.mark.parametrize("settings", [{}, {"global_share": 0.3}, {"knots": 2}])
def test_samples_drawn_with_the_refit_are_those_that_a_planner_of_ones_own_draws(settings):
    drawn = []

    class Own(CEM):
        def sample(self, search, noise):
            drawn.append(search.iteration)
            return super().sample(search, noise)

    obs = torch.tensor([[0.5, -0.3], [-0.2, 0.4]])
    cem = planner(**settings)
    own = Own(cem.config, LOW, HIGH)
    found = [p.plan(integrator, reach(0.2), obs, p.initial(2), generator()) for p in (cem, own)]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert drawn == list(range(8))


def either_way(obs, actions):
    """Hypotheses in turn: s' = s + a, s' = s − a."""
    assert len(obs) % 2 == 0
    signs = torch.tensor([1.0, -1.0]).repeat(len(obs) // 2)[:, None, None, None]
    return integrator(obs, signs * actions)


@pytest.mark.parametrize("name", OF_SEQUENCES)
def test_a_plan_for_two_hypotheses_is_the_best_on_average(name):
    """With probability p of s' = s + a, and of s' = s − a else, the expected cost of one step to 0
    is p (s + a)² + (1 − p) (s − a)², which is least at a = (1 − 2 p) s: nothing is done at 1/2."""
    cem = planner(name, horizon=1, min_std=0.01)
    right = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])
    obs = torch.tensor([[0.8, -0.6]]).expand(5, 2)
    probabilities = torch.stack([right, 1 - right], 1)
    search = (obs, cem.initial(5), generator())
    action, _ = cem.plan(either_way, reach(0.0), *search, probabilities=probabilities)
    torch.testing.assert_close(action, (1 - 2 * right)[:, None] * obs, atol=0.06, rtol=0)


@pytest.mark.parametrize("hypotheses", [1, 2])
@pytest.mark.parametrize("name", OF_SEQUENCES)
def test_a_reward_that_is_a_kernel_gives_the_plan_of_the_reward(name, hypotheses, device):
    """Traced by the kernels' package; both are told when an episode ends."""
    cem = planner(name, samples=20, horizon=3, iterations=2, elites=4)
    ends = lambda obs, action, next_obs: next_obs[..., 0] > 0.4  # noqa: E731
    programs = [trace(f, 2, 2, torch.device(device)) for f in (reach(0.3), ends)]
    assert None not in programs
    obs = torch.tensor([[0.5, -0.3], [-0.2, 0.4]])
    probabilities = torch.tensor([[0.7, 0.3]] * 2) if hypotheses > 1 else None
    imagine = either_way if hypotheses > 1 else integrator
    traced = TracedReturns(*programs)
    asked = []

    def returns(states, actions):
        asked.append(states.shape)
        return traced(states.to(device), actions.to(device)).to(states.device)

    search = (imagine, reach(0.3), obs, cem.initial(2))
    wanted = cem.plan(*search, generator(), probabilities, ends)
    got = cem.plan(*search, generator(), probabilities, ends, returns=returns)
    assert len(asked) == 2
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_what_is_impossible_does_not_count_even_where_it_diverges():
    returns = torch.tensor([[1.0, 2.0], [-torch.inf, 5.0], [3.0, -torch.inf], [1.0, 1.0]])
    probabilities = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    wanted = torch.tensor([[1.0, 2.0], [1.5, -torch.inf]])
    assert torch.equal(expected_returns(returns, probabilities), wanted)
    # ∞ − ∞ is no number, and never wins.
    both = torch.tensor([[torch.inf, torch.inf], [-torch.inf, 1.0]])
    expected = expected_returns(both, torch.tensor([[0.5, 0.5]]))
    assert torch.equal(expected, torch.tensor([[-torch.inf, torch.inf]]))


@pytest.mark.parametrize("name", OF_SEQUENCES)
def test_actions_respect_the_bounds_and_saturate_far_from_the_target(name):
    cem = planner(name, min_std=0.01)
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


def test_each_core_has_its_share_of_the_trajectories():
    g = generator()
    states, actions = torch.randn(2, 7, 4, 3, generator=g), torch.randn(2, 7, 3, 2, generator=g)
    shares = []

    def reward(obs, action, next_obs):
        shares.append(obs.shape[1])
        return obs.sum(-1) + action.sum(-1) * next_obs.prod(-1)

    def ends(obs, action, next_obs):
        return next_obs[..., 0] > 0.5

    whole = trajectory_returns(states, actions, reward, ends)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with cores_apart():
            in_shares = trajectory_returns(states, actions, reward, ends)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(in_shares, whole)
    assert sorted(shares) == [1, 3, 3, 7]


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


@pytest.mark.parametrize("name", OF_SEQUENCES)
def test_same_generator_same_plan_and_global_seed_without_effect(name):
    cem, obs = planner(name, iterations=2), torch.randn(2, 2)
    first, _ = cem.plan(integrator, reach(0.0), obs, cem.initial(2), generator(5))
    torch.manual_seed(99)
    again, _ = cem.plan(integrator, reach(0.0), obs, cem.initial(2), generator(5))
    assert torch.equal(first, again)


@pytest.mark.parametrize("name", OF_SEQUENCES)
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


INF, NAN = torch.inf, torch.nan


@pytest.mark.parametrize(
    ("returns", "temperature", "logits"),
    [
        ([4.0, 3.0, 2.0], 2.0, [0.0, -0.5, -1.0]),
        ([4.0, 3.0, 2.0], None, [0.0, -1.0, -2.0]),  # they lie 1 below the best on average
        ([4e30, 3e30, 2e30], None, [0.0, -1.0, -2.0]),
        ([4.0, 2.0, -INF], None, [0.0, -2.0, -INF]),
        ([INF, 1.0, INF], None, [0.0, -INF, 0.0]),
        ([INF, 1.0, INF], 1.0, [0.0, -INF, 0.0]),
        ([INF, 1.0, -INF], None, [0.0, -INF, -INF]),
        ([-INF, -INF, -INF], None, [0.0, 0.0, 0.0]),
        ([-INF, -INF, -INF], 1.0, [0.0, 0.0, 0.0]),
        ([7.0, 7.0, 7.0], None, [0.0, 0.0, 0.0]),
        ([3e38, 3e38, -3e38], None, [0.0, 0.0, -INF]),
    ],
)
def test_path_weights_are_a_softmax_and_its_limits(returns, temperature, logits):
    weights = path_weights(torch.tensor([returns]), temperature)
    wanted = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(weights[0], wanted, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_mppi_does_not_depend_on_the_unit_of_the_reward_nor_on_its_zero(scale, shift):
    mppi, obs = planner("mppi", iterations=3), torch.tensor([[0.6, -0.3], [3.0, -2.0]])
    plain, starts = mppi.plan(integrator, reach(0.0), obs, mppi.initial(2), generator())

    def reward(*step):
        return scale * (reach(0.0)(*step) + shift)

    action, start = mppi.plan(integrator, reward, obs, mppi.initial(2), generator())
    torch.testing.assert_close(action, plain, atol=1e-4, rtol=0)
    torch.testing.assert_close(start, starts, atol=1e-4, rtol=0)


@pytest.mark.parametrize("hypotheses", [1, 2])
@pytest.mark.parametrize(
    "values", [[INF], [-INF], [NAN], [0.0], [INF, -INF], [1.0, INF, NAN, -INF]]
)
@pytest.mark.parametrize("name", [*OF_SEQUENCES, "mppi at temperature"])
def test_actions_are_numbers_whatever_the_returns(name, values, hypotheses):
    """Of all samples alike, and of those alone whose first action is above 0.5."""
    name, *fixed = name.split(" at ")
    search = planner(name, samples=40, iterations=2, elites=8, **dict.fromkeys(fixed, 1.0))
    probabilities = torch.full((1, hypotheses), 1 / hypotheses) if hypotheses > 1 else None
    obs = torch.zeros(1, 2)
    for least in (0.5, -2.0):
        g, start = generator(), search.initial(1)
        odd = itertools.cycle(values)

        def reward(obs, action, next_obs, least=least, odd=odd):
            value = torch.tensor([next(odd) for _ in range(action.shape[1])])[:, None]
            return torch.where(action[..., 0] > least, value, action[..., 0])

        for _ in range(3):
            action, start = search.plan(
                lambda obs, a: integrator(obs.expand(len(a), -1), a), reward, obs, start, g,
                probabilities,
            )  # fmt: skip
            assert torch.isfinite(action).all()
            assert torch.isfinite(start).all()
            assert action.abs().max() <= 1


@pytest.mark.parametrize("name", OF_SEQUENCES)
def test_an_infinite_return_wins(name):
    search = planner(name, samples=400, elites=10, iterations=3, horizon=1)

    def reward(obs, action, next_obs):
        return torch.where(action[..., 0] > 0.5, INF, action[..., 1])

    action, _ = search.plan(integrator, reward, torch.zeros(1, 2), search.initial(1), generator())
    assert action[0, 0] > 0.5


@pytest.mark.parametrize("horizon", [15, 20])
@pytest.mark.parametrize("beta", [1.0, 2.5])
def test_coloured_noise_has_its_spectrum_and_unit_variance_about_its_mean(beta, horizon):
    colour = noise_colour(horizon, beta)
    covariance = colour @ colour.T
    power = torch.fft.rfft(covariance[0]).real
    frequency = torch.arange(1, horizon // 2 + 1, dtype=torch.float64)
    torch.testing.assert_close(power[1:] / power[1], frequency**-beta, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(power[0], power[1])
    centred = colour - colour.mean(0)
    variance = (centred @ centred.T).diagonal()
    torch.testing.assert_close(variance, torch.ones(horizon, dtype=torch.float64))


@pytest.mark.parametrize(
    ("beta", "horizon", "variance"),
    [(2.5, 20, 1.380), (2.5, 15, 1.379), (2.5, 30, 1.375), (1.0, 15, 1.191), (3.0, 20, 1.419)],
)
def test_coloured_noise_is_as_large_as_the_papers(beta, horizon, variance):
    """Measured on 100,000 samples of `powerlaw_psd_gaussian` of the package colorednoise 2.2.0.

    Its power at the highest frequency of an even horizon is halved once too often in the scale,
    which is 0.4 % of a variance at β = 1 and nothing at 2.5.
    """
    colour = noise_colour(horizon, beta)
    assert float(colour.square().sum(1)[0]) == pytest.approx(variance, rel=0.005)


@pytest.mark.parametrize(("horizon", "beta"), [(20, 0.0), (1, 2.5)])
def test_noise_without_colour_is_left_as_it_is(horizon, beta):
    assert torch.equal(noise_colour(horizon, beta), torch.eye(horizon, dtype=torch.float64))


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
