import pytest
import torch

from hypercrl.planning import CEM, CEMConfig, trajectory_returns

LOW, HIGH = torch.tensor([-1.0, -1.0]), torch.tensor([1.0, 1.0])


def integrator(obs, actions):
    """s' = s + a, exactly."""
    path = obs[:, None, None] + actions.cumsum(2)
    start = obs[:, None, None].expand(-1, actions.shape[1], -1, -1)
    return torch.cat([start, path], 2)


def reach(target):
    return lambda obs, action, next_obs: -(next_obs - target).square().sum(-1)


def planner(**settings):
    return CEM(CEMConfig(**({"samples": 300, "horizon": 4, "iterations": 8} | settings)), LOW, HIGH)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("execute", ["mean", "best"])
def test_finds_the_optimum_of_a_linear_system_for_every_robot(execute):
    cem = planner(execute=execute, min_std=0.01)
    obs = torch.tensor([[0.5, -0.3], [-0.2, 0.4], [0.0, 0.0]])
    action, _ = cem.plan(integrator, reach(0.0), obs, cem.initial_mean(3), generator())
    torch.testing.assert_close(action, -obs, atol=0.06, rtol=0)


def test_actions_respect_the_bounds_and_saturate_far_from_the_target():
    cem = planner(min_std=0.01)
    seen = []

    def rollout(obs, actions):
        seen.append(actions)
        return integrator(obs, actions)

    obs = torch.tensor([[30.0, -30.0]])
    action, mean = cem.plan(rollout, reach(0.0), obs, cem.initial_mean(1), generator())
    assert all((a >= LOW).all() and (a <= HIGH).all() for a in seen)
    torch.testing.assert_close(action, torch.tensor([[-1.0, 1.0]]), atol=0.05, rtol=0)
    assert mean.abs().max() <= 1


def test_the_reward_is_asked_once_per_iteration_over_the_whole_rollout():
    cem = planner(iterations=3)
    shapes = []

    def reward(obs, action, next_obs):
        shapes.append((obs.shape, action.shape, next_obs.shape))
        return -next_obs.square().sum(-1)

    cem.plan(integrator, reward, torch.zeros(2, 2), cem.initial_mean(2), generator())
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
    _, kept = warm.plan(integrator, reach(0.0), obs, warm.initial_mean(1), generator())
    _, dropped = cold.plan(integrator, reach(0.0), obs, cold.initial_mean(1), generator())
    assert not dropped.any()
    # From 3 the best plan moves -1 three times and then rests; one step on, it moves twice.
    torch.testing.assert_close(kept[0, :, 0], torch.tensor([-1.0, -1, 0, 0]), atol=0.25, rtol=0)
    torch.testing.assert_close(kept[0, 2], kept[0, 3])


def test_same_generator_same_plan_and_global_seed_without_effect():
    cem, obs = planner(iterations=2), torch.randn(2, 2)
    first, _ = cem.plan(integrator, reach(0.0), obs, cem.initial_mean(2), generator(5))
    torch.manual_seed(99)
    again, _ = cem.plan(integrator, reach(0.0), obs, cem.initial_mean(2), generator(5))
    assert torch.equal(first, again)


@pytest.mark.parametrize(
    "settings",
    [
        {"elites": 0},
        {"elites": 301},
        {"execute": "worst"},
        {"horizon": 0},
        {"precision": "fp16"},
    ],
)
def test_settings_that_cannot_work_are_refused(settings):
    with pytest.raises(ValueError, match="planner"):
        planner(**settings)
