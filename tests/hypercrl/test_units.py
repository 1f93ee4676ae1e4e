"""Units are of no account, and what first moves in the middle of a task is learned in it."""

import pytest
import torch

from hypercrl.dynamics import DynamicsModel
from hypercrl.dynamics.conditioning import make_conditioning
from hypercrl.dynamics.context_model import ContextConfig, ContextModel
from hypercrl.memory import MEMORIES, make_memory
from hypercrl.methods import METHODS, Batch, make_method
from hypercrl_kernels import mean_layers, rollout

UNITS = torch.tensor([1e-6, 1e3, 1.0, 1e6, 1e-3])
POWERS_OF_TWO = torch.tensor([2.0**-20, 2.0**10, 1.0, 2.0**20, 2.0**-10])
HIDDEN = [24, 24]
SETTINGS = {
    "packnet": {"retrain_updates": 4},
    "ftl": {"features": 20},
    "ftl_task": {"features": 20, "embedding_size": 4},
}


def generators(seed=0):
    return (torch.Generator().manual_seed(seed + i) for i in range(2))


def system(task, n, seed, length=1):
    """Four dimensions that move, the second about 5, and one that stands still: [n, length, …]."""
    g = torch.Generator().manual_seed(seed + 1000 * task)
    action = torch.rand(n, length, 2, generator=g) * 2 - 1
    states = [torch.rand(n, 5, generator=g) * 2 - 1 + torch.tensor([0.0, 5.0, 0.0, 0.0, 0.0])]
    states[0][:, 4] = 0.3
    for step in range(length):
        now, a = states[-1], action[:, step]
        pushed = torch.stack([a[:, 0], a[:, 1], now[:, 0] * a[:, 0], now[:, 3].sin()], 1)
        states.append(now.clone())
        states[-1][:, :4] += 0.1 * (-1) ** task * pushed
    states = torch.stack(states, 1)
    parts = states[:, :-1], action, states[:, 1:]
    return Batch(*(part[:, 0] if length == 1 else part for part in parts))


def in_units(batch, units):
    return Batch(batch.obs * units, batch.action, batch.next_obs * units)


def flat(batch):
    return Batch(*(p.flatten(0, -2) for p in (batch.obs, batch.action, batch.next_obs)))


def dynamics(probabilistic=False, memory=False):
    if not memory:
        return DynamicsModel(5, 2, HIDDEN, probabilistic)
    config = ContextConfig(burn_in=4, horizon=3)
    sizes = {"width": 8, "layers": 1, "context": 4}
    encoder = make_memory(MEMORIES["gru"][1](name="gru", **sizes), 12, next(generators(3)))
    conditioning = make_conditioning("input", encoder.context_size, HIDDEN)
    return ContextModel(5, 2, HIDDEN, probabilistic, encoder, conditioning, config)


def make(name, model, **settings):
    config = METHODS[name][1](name, 2e-3, 5.0)
    if "hnet" in name:
        settings = {"hidden": [16, 16], "embedding_size": 4, **settings}
    for key, value in settings.items():
        setattr(config, key, value)
    return make_method(model, config, *generators())


def train(name, units, steps, probabilistic=False, memory=False):
    """Two tasks, as a trainer goes through them."""
    method = make(name, dynamics(probabilistic, memory), **SETTINGS.get(name, {}))
    length = method.model.context_config.length if memory else 1
    for task in range(2):
        method.begin_task()
        held = flat(in_units(system(task, 200, 7, length), units))
        method.model.fit_normalisers(held.obs, held.action, held.next_obs)
        for fresh in (len(held), 0):
            method.follow(held, fresh)
            for step in range(steps):
                method.training_step(in_units(system(task, 32, step, length), units))
            if fresh:
                method.observe(held)
        method.end_task(held)
    return method


@torch.no_grad()
def imagined(method, units):
    """Normalised motion of each task's model over three steps, through the planner's layers."""
    test = system(0, 100, 99)
    here = in_units(test, units)
    controls = here.action[:, None, None].expand(-1, 1, 3, -1)
    context = torch.zeros(1, 4) if isinstance(method.model, ContextModel) else None
    for task in range(2):
        layers = mean_layers(method.planner_layers(task)(context))
        states = rollout(layers, here.obs, controls)[:, 0]
        assert torch.equal(states[..., 4], here.obs[:, None, 4].expand(-1, 4))
        yield ((states - here.obs[:, None]) / method.model.target_normaliser.scale)[..., :4]


@pytest.mark.parametrize("name", METHODS)
def test_units_of_powers_of_two_change_no_bit(name):
    """They scale floats exactly: whatever differs looks at more than one dimension, or at units."""
    one, other = (train(name, units, 4) for units in (torch.ones(5), POWERS_OF_TWO))
    for a, b in zip(imagined(one, torch.ones(5)), imagined(other, POWERS_OF_TWO), strict=True):
        assert a.abs().max() > 0.01
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("name", "probabilistic", "memory"),
    [
        ("hnet", False, False),
        ("single", False, False),
        ("single", True, False),
        ("single", False, True),
        ("hnet", True, True),
    ],
)
def test_a_run_in_other_units_learns_the_same(name, probabilistic, memory):
    ones = torch.ones(5)
    one, other = (train(name, units, 25, probabilistic, memory) for units in (ones, UNITS))
    for a, b in zip(imagined(one, ones), imagined(other, UNITS), strict=True):
        assert a.abs().max() > 0.1
        assert (a - b).abs().max() < 1e-3
