"""Plans that react: the search for linear policies."""

import json

import pytest
import torch
from rollout_cases import random_gaussian_layers

from hypercrl.base.errors import UserError
from hypercrl.cli import main
from hypercrl.config.compose import with_effect
from hypercrl.planning import PolicySearchConfig, make_planner
from hypercrl_kernels import LinearPolicies, follow, rollout

LOW, HIGH = torch.tensor([-1.0]), torch.tensor([3.0])
STEP = 0.1


def planner(low=LOW, high=HIGH, mean=(0.0, 0.0), scale=(1.0, 1.0), **settings):
    found = make_planner(PolicySearchConfig(**settings), low, high)
    found.standardise(torch.tensor(mean), torch.tensor(scale))
    return found


def pole(controls_first=1.0):
    """Layers of an upright pole, linearised: (x, v)' = (v, 9 x + u), one Euler step of 0.1 s."""
    change = STEP * torch.tensor([[0.0, 1.0, 0.0], [9.0, 0.0, controls_first]])
    both_signs = torch.eye(3).repeat(2, 1) * torch.tensor([1.0, 1, 1, -1, -1, -1])[:, None]
    return [(both_signs, torch.zeros(6)), (torch.cat([change, -change], 1), torch.zeros(2))]


def imagined(layers):
    return lambda obs, policies: follow(layers, obs, policies)


def upright(obs, action, next_obs):
    return torch.ones_like(next_obs[..., 0])


def falls(obs, action, next_obs):
    return next_obs[..., 0].abs() > 0.2


def balance(searcher, steps, unit=1.0, seed=0):
    """Positions of the true pole, planned for at every step; the planner sees x and v / unit."""
    scale = torch.tensor([1.0, 1.0 / unit])
    layers = pole()
    layers[0] = (layers[0][0] * torch.cat([1 / scale, torch.ones(1)]), layers[0][1])
    layers[1] = (layers[1][0] * scale[:, None], layers[1][1])
    state, g = torch.tensor([[0.05, 0.0]]), torch.Generator().manual_seed(seed)
    start, seen = searcher.initial(1), []
    for _ in range(steps):
        action, start = searcher.plan(
            imagined(layers), upright, state * scale, start, g, termination=falls
        )
        x, v = state[0]
        state = torch.stack([x + STEP * v, v + STEP * (9 * x + action[0, 0])])[None]
        seen.append(float(state[0, 0]))
    return torch.tensor(seen)


def test_holds_an_unstable_system_for_long():
    """It grows by e in a third of a second: 100 steps are thirty times that."""
    low, high = torch.tensor([-2.0]), torch.tensor([2.0])
    searcher = planner(low, high, scale=(0.1, 0.3), samples=60, horizon=40)
    assert balance(searcher, 100).abs().max() < 0.2


def test_the_unit_of_an_observation_is_of_no_account():
    low, high = torch.tensor([-2.0]), torch.tensor([2.0])
    settings = {"samples": 40, "horizon": 20}
    metres = planner(low, high, scale=(0.1, 0.3), **settings)
    large = planner(low, high, scale=(0.1, 0.3 / 1024), **settings)
    torch.testing.assert_close(balance(metres, 10), balance(large, 10, 1024), rtol=1e-4, atol=1e-6)


def test_policies_are_in_the_units_of_observations_and_actions():
    """u = middle + half range (W (s − mean) / scale + b), by hand."""
    searcher = planner(mean=(1.0, -2.0), scale=(0.5, 4.0))
    policies = searcher.policies(torch.tensor([[[[0.3], [-0.2], [0.1]]]]))
    state = torch.tensor([[[1.25, 2.0]]])
    wanted = 1.0 + 2.0 * (0.3 * (1.25 - 1.0) / 0.5 - 0.2 * (2.0 + 2.0) / 4.0 + 0.1)
    torch.testing.assert_close(policies(state), torch.tensor([[[wanted]]]))
    assert policies(100 * state).item() == 3.0  # clipped
    assert policies(-100 * state).item() == -1.0


def test_what_has_never_moved_has_no_gain_until_it_moves():
    mean, scale = torch.tensor([0.0, 7.0]), torch.tensor([1.0, torch.inf])
    searcher = make_planner(PolicySearchConfig(), LOW, HIGH)
    searcher.standardise(mean, scale)
    weights = torch.tensor([[[[0.0], [0.5], [0.0]]]])
    assert searcher.policies(weights)(torch.tensor([[[0.0, 9.0]]])).item() == 1.0
    scale[1] = 2.0  # in place, as a normaliser does it
    assert searcher.policies(weights)(torch.tensor([[[0.0, 9.0]]])).item() == 2.0


@pytest.mark.parametrize("execute", ["mean", "best"])
def test_the_action_is_that_of_the_policy_found_and_the_policy_is_carried_on(execute):
    searcher = planner(execute=execute, samples=8, horizon=3, elites=1, min_std=0.0)
    obs = torch.tensor([[0.1, 0.0], [-0.3, 0.2]])
    start = searcher.initial(2)
    assert start.shape == (2, 1, 3, 1)
    action, found = searcher.plan(
        imagined(pole()), upright, obs, start, torch.Generator().manual_seed(0)
    )
    # One elite: its mean is the best sample, whatever is executed.
    torch.testing.assert_close(searcher.policies(found)(obs[:, None])[:, 0], action)
    middle = searcher.policies(start)(obs[:, None])
    assert torch.equal(middle, torch.ones(2, 1, 1))


def test_a_policy_for_two_hypotheses_is_the_best_on_average():
    """One step, s' = s ± 0.1 u in the speed: at probability ½ each, doing nothing is best."""
    signs = [pole(1.0), pole(-1.0)]
    both = [
        tuple(torch.stack(pair) for pair in zip(*layer, strict=True))
        for layer in zip(*signs, strict=True)
    ]
    low, high = torch.tensor([-1.0]), torch.tensor([1.0])
    searcher = planner(low, high, samples=300, horizon=1, iterations=8, min_std=0.001)
    obs = torch.tensor([[0.0, 0.5]])

    def slow(obs, action, next_obs):
        return -next_obs[..., 1].square()

    def act(*probabilities):
        search = (obs, searcher.initial(1), torch.Generator().manual_seed(0))
        given = torch.tensor([probabilities])
        return searcher.plan(imagined(both), slow, *search, probabilities=given)[0].item()

    assert abs(act(0.5, 0.5)) < 0.1
    assert act(1.0, 0.0) < -0.95
    assert act(0.0, 1.0) > 0.95


@pytest.mark.parametrize("own_weights", [False, True])
def test_following_equals_rolling_out_its_own_controls(own_weights):
    layers = random_gaussian_layers([6, 16, 16, 4], 3 if own_weights else None)
    g = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    state, noise = draw(3, 4), draw(3, 5, 7, 4)
    low, high = torch.tensor([-0.5, -1.0]), torch.tensor([0.5, 0.25])
    policies = LinearPolicies(draw(3, 5, 2, 4), draw(3, 5, 2), low, high, 7)
    states, controls = follow(layers, state, policies, noise)
    assert states.shape == (3, 5, 8, 4)
    assert controls.shape == (3, 5, 7, 2)
    wanted = torch.einsum("bkao,bkto->bkta", policies.gains, states[:, :, :-1])
    wanted = torch.minimum(torch.maximum(wanted + policies.offsets[:, :, None], low), high)
    torch.testing.assert_close(controls, wanted, rtol=1e-12, atol=1e-12)
    again = rollout(layers, state, controls, noise=noise)
    torch.testing.assert_close(states, again, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match=r"follow needs state \[B, O\]"):
        follow(layers, state[:2], policies)


def test_a_simulator_follows_no_policies(capsys, tmp_path):
    words = ["train", "planner=policy", "planner.dynamics=simulator", "preset=smoke"]
    with pytest.raises(SystemExit) as stopped:
        main([*words, f"run_dir={tmp_path / 'run'}"])
    assert stopped.value.code == 2
    refused = "imagines with the learned model alone"
    assert refused in capsys.readouterr().err
    with pytest.raises(UserError, match=refused):  # with all that needs nothing built, as of a grid
        with_effect("train", words[1:])


@pytest.mark.slow
def test_learns_to_hold_the_inverted_pendulum(tmp_path):
    """Gymnasium pays 1 a step, 1000 steps at most; ten thousand steps of experience."""
    run = tmp_path / "run"
    main(
        [
            *("train", "env=inverted_pendulum", "method=single", "planner=policy", "device=cpu"),
            f"run_dir={run}",
        ]
    )
    evals = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evals = [e for e in evals if e["kind"] == "eval"]
    assert evals[-1]["env_steps"] <= 10_000
    assert evals[-1]["return"] >= 950
