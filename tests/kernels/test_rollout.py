import itertools

import pytest
import torch

from hypercrl_kernels import rollout


def random_layers(sizes, robots=None, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    lead = () if robots is None else (robots,)
    return [
        (
            torch.randn(*lead, o, i, generator=g, dtype=dtype) / i**0.5,
            torch.randn(*lead, o, generator=g, dtype=dtype) / 10,
        )
        for i, o in itertools.pairwise(sizes)
    ]


def step_by_step(layers, state, controls):
    """The definition, one robot, one particle, one step at a time."""
    robots, particles, horizon, _ = controls.shape
    out = torch.empty(robots, particles, horizon + 1, state.shape[1], dtype=state.dtype)
    for b in range(robots):
        for k in range(particles):
            s = state[b]
            out[b, k, 0] = s
            for t in range(horizon):
                x = torch.cat([s, controls[b, k, t]])
                for i, (w, c) in enumerate(layers):
                    w, c = (w[b], c[b]) if w.dim() == 3 else (w, c)
                    x = w @ x + c
                    if i < len(layers) - 1:
                        x = x.clamp_min(0)
                s = s + x
                out[b, k, t + 1] = s
    return out


@pytest.mark.parametrize("robots", [1, 3])
@pytest.mark.parametrize("own_weights", [False, True])
def test_equals_the_definition(robots, own_weights):
    layers = random_layers([6, 16, 16, 4], robots if own_weights else None)
    g = torch.Generator().manual_seed(1)
    state = torch.randn(robots, 4, generator=g, dtype=torch.float64)
    controls = torch.randn(robots, 5, 7, 2, generator=g, dtype=torch.float64)
    got = rollout(layers, state, controls)
    assert got.shape == (robots, 5, 8, 4)
    torch.testing.assert_close(got, step_by_step(layers, state, controls), rtol=1e-12, atol=1e-12)


def test_one_robot_does_not_depend_on_another():
    layers = random_layers([5, 8, 3], dtype=torch.float32)
    state, controls = torch.randn(2, 3), torch.randn(2, 4, 6, 2)
    both = rollout(layers, state, controls)
    state[1], controls[1] = 7.0, -3.0
    torch.testing.assert_close(rollout(layers, state, controls)[0], both[0], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("state", "controls"),
    [((2, 3), (1, 4, 6, 2)), ((2, 3), (2, 6, 2)), ((2, 4), (2, 4, 6, 2)), ((2, 3), (2, 4, 6, 3))],
)
def test_shapes_that_do_not_fit_are_refused(state, controls):
    layers = random_layers([5, 8, 3], dtype=torch.float32)
    with pytest.raises(ValueError, match="rollout needs"):
        rollout(layers, torch.zeros(state), torch.zeros(controls))
