"""What counts behind the end of a plan: its returns, its targets, how it is learned and kept."""

import pytest
import torch

from hypercrl.agent.agent import Agent
from hypercrl.agent.value import Value, ValueConfig
from hypercrl.dynamics import DynamicsModel
from hypercrl.planning import PLANNERS, make_planner


def reward(obs, action, next_obs):
    return -(next_obs[..., :2] - 1).square().sum(-1) - 0.1 * action.square().sum(-1)


def terminated(obs, action, next_obs):
    return next_obs[..., 0] > 1.5


def drawn_value(obs_size, device="cpu", seed=0, hidden=(32, 32)):
    """Networks that say something, as if they had learned it."""
    standards = torch.zeros(obs_size, device=device), torch.ones(obs_size, device=device)
    config = ValueConfig(kind="td", hidden=list(hidden))
    generator = torch.Generator().manual_seed(seed)
    value = Value(config, standards, generator)
    with torch.no_grad():
        for layer in value.parameters():
            layer += 0.3 * torch.randn(layer.shape, generator=generator).to(device)
    return value


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
