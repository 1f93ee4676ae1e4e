"""The planning kernels at the sizes of real plans: run with -m gpu."""

import pytest
import torch
from rollout_cases import (
    random_gaussian_layers,
    random_layers,
    random_start,
    relative_error,
)

from hypercrl.planning import trajectory_returns
from hypercrl_kernels import (
    GaussianLayers,
    elite_statistics,
    pack_layers,
    prepare_layers,
    refit_and_sample,
    rollout,
    sample_actions,
    trace_returns,
)
from hypercrl_kernels.planning.elites_reference import elite_statistics_reference
from hypercrl_kernels.planning.rollout_reference import rollout_reference
from hypercrl_kernels.planning.sampling import sample_actions_reference

pytestmark = pytest.mark.gpu

# sizes, robots, samples, horizon, own weights
PLANS = {
    "push": ([12, 200, 200, 10], 1, 500, 20, False),
    "door": ([33, 200, 200, 200, 200, 26], 1, 2000, 10, False),
    "cheetah": ([24, 200, 200, 200, 200, 18], 1, 500, 30, False),
    "64 pushes": ([12, 200, 200, 10], 64, 500, 20, False),
    "64 pushes, own weights": ([12, 200, 200, 10], 64, 500, 20, True),
    "wide": ([12, 512, 512, 10], 2, 100, 5, False),
    "wide, own weights": ([12, 300, 512, 512, 10], 3, 100, 5, True),
    "narrow": ([12, 10, 10], 1, 500, 20, False),
    "held-out windows": ([12, 200, 200, 10], 777, 1, 10, False),
}


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize(("precision", "limit"), [("bf16", 2e-2), ("tf32x3", 1e-5), ("ieee", 1e-5)])
def test_rollouts_at_real_sizes(name, precision, limit):
    sizes, robots, samples, horizon, own = PLANS[name]
    layers = random_layers(sizes, robots if own else None, torch.float32, device="cuda")
    layers[-1] = (0.1 * layers[-1][0], layers[-1][1])
    state, controls = random_start(robots, samples, horizon, sizes, device="cuda")
    exact = rollout_reference(
        [(w.double(), b.double()) for w, b in layers], state.double(), controls.double()
    )
    prepared = prepare_layers(layers, precision)
    got = rollout(prepared, state, controls)
    assert relative_error(got, exact) < limit
    assert torch.equal(got, rollout(prepared, state, controls))  # no races
    assert torch.equal(got, rollout(layers, state, controls, precision))


@pytest.mark.parametrize("name", ["push", "door", "cheetah", "64 pushes, own weights", "narrow"])
@pytest.mark.parametrize(("precision", "limit"), [("bf16", 2e-2), ("tf32x3", 1e-5)])
def test_sampled_rollouts_at_real_sizes(name, precision, limit):
    sizes, robots, samples, horizon, own = PLANS[name]
    layers = random_gaussian_layers(sizes, robots if own else None, torch.float32, device="cuda")
    layers.mean[-1] = (0.1 * layers.mean[-1][0], layers.mean[-1][1])
    state, controls = random_start(robots, samples, horizon, sizes, device="cuda")
    g = torch.Generator("cuda").manual_seed(2)
    noise = torch.randn(*controls.shape[:3], sizes[-1], generator=g, device="cuda")
    exact = rollout_reference(
        GaussianLayers(
            [(w.double(), b.double()) for w, b in layers.mean],
            (layers.head[0].double(), layers.head[1].double()),
            layers.bounds.double(),
        ),
        state.double(),
        controls.double(),
        noise.double(),
    )
    prepared = prepare_layers(layers, precision)
    got = rollout(prepared, state, controls, noise=noise)
    assert relative_error(got, exact) < limit
    assert torch.equal(got, rollout(prepared, state, controls, noise=noise))  # no races
    mean = rollout(prepared, state, controls)
    assert torch.equal(mean, rollout(layers.mean, state, controls, precision))


# (sizes, samples) and where their hidden matrices are: all that a sweep times must also be right.
LAUNCHES = [
    (sizes, samples, tile, registers, shared, groups, chunks)
    for sizes, samples in (([12, 200, 200, 10], 500), ([24, 200, 200, 200, 200, 18], 500))
    for tile in (8, 16, 32)
    for registers, shared in ((0, 0), (0, 1), (1, 0))
    for groups, chunks in ((0, 1), (0, 2), (1, 2), (4, 2), (8, 1))
]


@pytest.mark.parametrize("case", LAUNCHES, ids=str)
def test_every_launch_at_real_sizes(case):
    from hypercrl_kernels.planning.rollout_launch import Launch, launch_rollout

    sizes, samples, tile, registers, shared, groups, chunks = case
    layers = random_layers(sizes, None, torch.float32, device="cuda")
    layers[-1] = (0.1 * layers[-1][0], layers[-1][1])
    state, controls = random_start(1, samples, 20, sizes, device="cuda")
    exact = rollout_reference(layers, state, controls)
    launch = Launch(tile, 8, registers, shared, True, groups, chunks, 16, 1)
    got = launch_rollout(pack_layers(layers), state, controls, launch=launch)
    assert relative_error(got, exact) < 2e-2


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("hidden", [[10], [200, 200], [100, 70, 128]])
@pytest.mark.parametrize(("robots", "samples"), [(64, 500), (9, 1000)])
def test_particles_as_rows_at_real_sizes(hidden, own, robots, samples):
    from hypercrl_kernels.planning.rows_launch import launch_rows

    sizes = [12, *hidden, 10]
    layers = random_layers(sizes, robots if own else None, torch.float32, device="cuda")
    layers[-1] = (0.1 * layers[-1][0], layers[-1][1])
    state, controls = random_start(robots, samples, 20, sizes, device="cuda")
    got = launch_rows(pack_layers(layers), state, controls)
    assert relative_error(got, rollout_reference(layers, state, controls)) < 2e-2
    assert torch.equal(got, rollout(prepare_layers(layers, "bf16"), state, controls))


def corners(obs, action, next_obs):
    """A reward with tanh, norms and a price on motion, as pushing has."""
    distance = (next_obs[..., [0, 2, 4]] - 0.1).abs() + next_obs[..., 5:8].norm(dim=-1)[..., None]
    return (1.0 - torch.tanh(5 * distance)).sum(-1) - 0.25 * action.norm(dim=-1)


def far(obs, action, next_obs):
    return next_obs[..., 0].abs() > 2.5


@pytest.mark.parametrize("termination", [None, far])
@pytest.mark.parametrize(
    ("robots", "samples", "horizon"), [(1, 500, 20), (1, 2000, 10), (64, 500, 30), (2, 3, 1000)]
)
def test_returns_at_real_sizes(robots, samples, horizon, termination):
    returns = trace_returns(corners, termination, 10, 2, horizon, torch.device("cuda"))
    assert returns is not None
    g = torch.Generator("cuda").manual_seed(0)
    states = torch.randn(horizon + 1, robots, samples, 10, generator=g, device="cuda")
    states = states.permute(1, 2, 0, 3)  # as a rollout gives them
    actions = torch.randn(robots, samples, horizon, 2, generator=g, device="cuda")
    exact = trajectory_returns(states.double(), actions.double(), corners, termination)
    torch.testing.assert_close(returns(states, actions).double(), exact, rtol=1e-5, atol=1e-4)


def test_a_tensor_on_the_cpu_is_no_constant_of_a_kernel():
    goal = torch.tensor([0.1, 0.2])

    def near(obs, action, next_obs):
        return -(next_obs[..., :2] - goal.to(next_obs)).abs().sum(-1)

    device = torch.device("cuda")
    assert trace_returns(near, None, 10, 2, 20, device) is None
    goal = goal.to(device)
    assert trace_returns(near, None, 10, 2, 20, device) is not None
    assert trace_returns(near, None, 10, 2, 1025, device) is None
    assert trace_returns(near, None, 10, 2, 20, torch.device("cpu")) is None


@pytest.mark.parametrize("sizes", [[5, 3], [5, 600, 3]])
def test_other_networks_run_as_torch_operations(sizes):
    layers = random_layers(sizes, None, torch.float32, device="cuda")
    state, controls = random_start(2, 7, 3, sizes, device="cuda")
    wanted = rollout_reference(layers, state, controls)
    assert torch.equal(rollout(prepare_layers(layers), state, controls), wanted)


@pytest.mark.parametrize("robots", [1, 64])
@pytest.mark.parametrize(
    ("samples", "elites", "horizon", "control"),
    [(500, 40, 20, 2), (2000, 40, 10, 7), (500, 50, 30, 6), (16384, 100, 5, 1), (20000, 9, 5, 1)],
)
def test_updates_at_real_sizes(robots, samples, elites, horizon, control):
    g = torch.Generator("cuda").manual_seed(0)
    returns = torch.randn(robots, samples, generator=g, device="cuda").mul_(20).round_()  # ties
    returns[:, ::17] = torch.nan
    mean, std = torch.rand(2, robots, horizon, control, generator=g, device="cuda")
    noise = torch.randn(robots, samples, horizon, control, generator=g, device="cuda")
    bound = torch.ones(control, device="cuda")
    actions = sample_actions(mean, std, noise, -bound, bound)
    torch.testing.assert_close(
        actions, sample_actions_reference(mean, std, noise, -bound, bound), rtol=1e-6, atol=1e-6
    )
    got = elite_statistics(returns, actions, elites, 0.05 * bound)
    wanted = elite_statistics_reference(returns, actions, elites, 0.05 * bound)
    again, drawn = refit_and_sample(
        returns, actions, elites, 0.05 * bound, noise.roll(1, 1), -bound, bound
    )
    for found in (got, again):
        assert torch.equal(found.best, wanted.best)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    following = sample_actions_reference(again.mean, again.std, noise.roll(1, 1), -bound, bound)
    torch.testing.assert_close(drawn, following, rtol=1e-6, atol=1e-6)
