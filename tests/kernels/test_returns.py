"""Rewards as programs, and the kernel that runs them, against the reward itself in float64."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from hypercrl_kernels.planning.reward_tracer import trace

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
GOAL = torch.tensor([[0.1, -0.2], [0.3, 0.0], [0.2, 0.1]], device=DEVICE)
B, K, H = 2, 7, 5


def pushed(obs, action, next_obs):
    """Corners to their goals, a price on motion: with a tensor of the task's own."""
    corners = next_obs[..., 2:8].unflatten(-1, (3, 2)) - GOAL.to(next_obs)
    distance = torch.linalg.vector_norm(corners, dim=-1)
    closeness = (1.0 - torch.tanh(distance / 0.2)).sum(dim=-1)
    return (closeness - 0.25 * torch.linalg.vector_norm(action, dim=-1)) / 4.0


def pulled(obs, action, next_obs):
    square = next_obs[..., 3:6].square().sum(dim=-1)
    near = -torch.sqrt(square + 1e-12) - torch.log(square + 5e-3) - 5.0
    return 50.0 * next_obs[..., 1] + 20.0 * next_obs[..., 0].abs().clamp(max=0.3) + near


def run(obs, action, next_obs):
    upright = (
        (next_obs[..., 0] > -1.0) & (next_obs[..., 1].abs() < 2.0) & next_obs.isfinite().all(-1)
    )
    return (next_obs[..., 0] - obs[..., 0]) / 0.1 - 0.1 * action.square().sum(-1) + upright


def many_operations(obs, action, next_obs):
    x, y = torch.cat([obs, next_obs], -1).chunk(2, -1)
    z = torch.where(x > y, torch.sin(x), torch.cos(y).exp()) * torch.sigmoid(x)
    z = torch.stack([z, torch.maximum(x, -y), x.clamp(-0.5, 0.5)], -1).amax(-1)
    largest = torch.linalg.vector_norm(action, ord=torch.inf, dim=-1)
    far = (z.flip(-1)[..., 1:4] ** 2).mean(-1, keepdim=True).sqrt().squeeze(-1)
    some = (x[..., [0, 2]] >= 0).any(-1) | ~(y[..., 0] <= 1)
    return torch.relu(far - 0.1) + largest.masked_fill(some, 0.5) - z.amin(-1) / 3 + some.float()


REWARDS = {f.__name__: f for f in (pushed, pulled, run, many_operations)}


def ends(obs, action, next_obs):
    return (next_obs[..., 0] > 1.0) | (obs[..., 1].abs() > 2.5)


def imagined(seed=0):
    g = torch.Generator().manual_seed(seed)
    states = torch.randn(H + 1, B, K, 8, generator=g).permute(1, 2, 0, 3)
    return states, torch.randn(B, K, H, 3, generator=g)


def exact(states, actions, reward, termination=None):
    """One step after the other."""
    returns = torch.zeros(B, K, dtype=torch.float64)
    alive = torch.ones(B, K, dtype=torch.bool)
    for t in range(H):
        step = states[:, :, t].double(), actions[:, :, t].double(), states[:, :, t + 1].double()
        returns = torch.where(alive, returns + reward(*step), returns)
        if termination is not None:
            alive &= ~termination(*step)
    return torch.where(returns.isnan(), -torch.inf, returns)


def by_kernel(states, actions, reward, termination, device):
    from hypercrl_kernels.planning.update_launch import launch_returns

    paid = trace(reward, 8, 3, torch.device(device))
    over = termination and trace(termination, 8, 3, torch.device(device))
    return launch_returns(states.to(device), actions.to(device), paid, over).cpu()


@pytest.mark.parametrize("name", REWARDS)
def test_the_program_is_the_function(name):
    program = trace(REWARDS[name], 8, 3, torch.device(DEVICE))
    states, actions = (x.to(DEVICE) for x in imagined(1))
    step = states[:, :, 0], actions[:, :, 0], states[:, :, 1]
    torch.testing.assert_close(program(*step), REWARDS[name](*step), rtol=1e-6, atol=1e-6)


def test_constants_may_be_made_at_the_first_call():
    held = {}

    def near(obs, action, next_obs):
        if obs.device not in held:
            held[obs.device] = torch.tensor(ARRAY, device=obs.device)
        return -(next_obs[..., :2] - held[obs.device]).abs().sum(-1)

    program = trace(near, 8, 3, torch.device(DEVICE))
    assert program is not None
    assert program.constants[0] is held[program.constants[0].device]


def test_tracing_imports_no_compiler():
    """torch._dynamo takes a second."""
    code = """
        import sys, torch
        from hypercrl_kernels.planning.reward_tracer import trace
        assert trace(lambda obs, action, next_obs: obs.sum(-1), 2, 1, torch.device("cpu"))
        assert "torch._dynamo" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


@pytest.mark.parametrize("termination", [None, ends])
@pytest.mark.parametrize("name", REWARDS)
def test_kernel_against_the_sum_of_rewards(device, name, termination):
    states, actions = imagined()
    got = by_kernel(states, actions, REWARDS[name], termination, device)
    wanted = exact(states, actions, REWARDS[name], termination)
    assert wanted.abs().min() > 0.0
    torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-5)


def test_what_is_not_a_number_never_wins(device):
    states, actions = imagined()
    states[0, 1, 2] = torch.nan
    states[1, 3, 4] = torch.inf
    states[0, 0, 3:] = torch.nan
    states[0, 0, 2, 0] = 2.0  # it has ended before
    for termination in (None, ends):
        got = by_kernel(states, actions, pulled, termination, device)
        wanted = exact(states, actions, pulled, termination).float()
        assert got[0, 1] == -torch.inf
        assert torch.equal(got == -torch.inf, wanted == -torch.inf)
    assert got[0, 0].isfinite()


def test_states_of_any_layout(device):
    states, actions = imagined()
    wanted = by_kernel(states, actions, pushed, None, device)
    wide = torch.cat([states, states], -1)[..., :8]
    for other in (states.contiguous(), wide, states.double()):
        assert torch.equal(by_kernel(other, actions, pushed, None, device), wanted)


def test_a_tensor_of_the_function_may_change(device):
    goal = torch.tensor([0.3, 0.1, -0.2]).to(device)[::2]

    def near(obs, action, next_obs):
        return -(next_obs[..., :2] - goal).abs().sum(-1)

    from hypercrl_kernels.planning.update_launch import launch_returns

    program = trace(near, 8, 3, torch.device(device))
    states, actions = (x.to(device) for x in imagined())
    for shift in (0.0, 1.0):
        goal += shift
        wanted = near(states[:, :, :-1], actions, states[:, :, 1:]).sum(-1)
        torch.testing.assert_close(launch_returns(states, actions, program, None), wanted)


ARRAY = np.array([1.0, 2.0], dtype=np.float32)
INDEX = torch.tensor([0, 2], device=DEVICE)


def of_a_batch(obs, action, next_obs):
    return next_obs[..., 0] - next_obs[..., 0].mean()


def of_another_robot(obs, action, next_obs):
    return next_obs[..., 0] + obs[:1, :1, :1, 0]


def of_chance(obs, action, next_obs):
    return next_obs[..., 0] + torch.rand_like(next_obs[..., 0])


def of_a_branch(obs, action, next_obs):
    return next_obs[..., 0] if bool(obs[0, 0, 0, 0] > 0) else next_obs[..., 1]


def of_a_value(obs, action, next_obs):
    return next_obs[..., 0] * obs[0, 0, 0, 0].item()


def of_an_array(obs, action, next_obs):
    """Whose numbers may be others at the next call."""
    return next_obs[..., 0] * torch.as_tensor(ARRAY, device=obs.device)[1]


def of_an_index(obs, action, next_obs):
    return next_obs[..., INDEX].sum(-1)


def in_place(obs, action, next_obs):
    reward = next_obs[..., 0].clone()
    return reward.mul_(2.0)


def of_double_precision(obs, action, next_obs):
    return next_obs[..., 0].double().float()


def of_a_sort(obs, action, next_obs):
    return next_obs.sort(-1).values[..., 0]


def of_every_pair(obs, action, next_obs):
    return (next_obs[..., :, None] * obs[..., None, :] * action[..., :1, None]).tanh().sum((-1, -2))


def of_wrong_shape(obs, action, next_obs):
    return next_obs


def that_raises(obs, action, next_obs):
    return next_obs[..., 0] + obs[..., :5].sum(-1, keepdim=True).view(3)


@pytest.mark.parametrize(
    "function",
    [
        of_a_batch, of_another_robot, of_chance, of_a_branch, of_a_value, of_an_array,
        of_an_index, in_place, of_double_precision, of_a_sort, of_wrong_shape, that_raises,
    ],
)  # fmt: skip
def test_what_is_no_program(function):
    assert trace(function, 8, 3, torch.device(DEVICE)) is None


def test_a_long_one_is_none():
    assert trace(of_every_pair, 8, 3, torch.device(DEVICE)) is not None
    assert trace(of_every_pair, 20, 3, torch.device(DEVICE)) is None
