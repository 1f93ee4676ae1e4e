import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rollout_cases import (
    random_gaussian_layers,
    random_layers,
    random_start,
    relative_error,
    step_by_step,
)

from hypercrl_kernels import prepare_layers, rollout

KERNELS = str(Path(__file__).parents[2] / "kernels")


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


@pytest.mark.parametrize("robots", [1, 3])
@pytest.mark.parametrize("own_weights", [False, True])
def test_sampled_states_equal_the_definition(robots, own_weights):
    layers = random_gaussian_layers([6, 16, 16, 4], robots if own_weights else None)
    g = torch.Generator().manual_seed(1)
    state = torch.randn(robots, 4, generator=g, dtype=torch.float64)
    controls = torch.randn(robots, 5, 7, 2, generator=g, dtype=torch.float64)
    noise = torch.randn(robots, 5, 7, 4, generator=g, dtype=torch.float64)
    got = rollout(layers, state, controls, noise=noise)
    wanted = step_by_step(layers, state, controls, noise)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    assert torch.equal(rollout(layers, state, controls), rollout(layers.mean, state, controls))
    prepared = prepare_layers(layers)
    assert torch.equal(rollout(prepared, state, controls, noise=noise), got)
    rounded = rollout(
        prepare_layers(layers, "bf16"), state.float(), controls.float(), noise=noise.float()
    )
    assert relative_error(rounded, wanted) < 0.03


def test_noise_needs_a_log_variance_and_its_shape():
    layers = random_gaussian_layers([5, 8, 3], dtype=torch.float32)
    state, controls = torch.randn(2, 3), torch.randn(2, 4, 6, 2)
    with pytest.raises(ValueError, match=r"noise \[B, K, H, O\], here \(2, 4, 6, 3\); got"):
        rollout(layers, state, controls, noise=torch.zeros(2, 4, 6, 2))
    with pytest.raises(ValueError, match="only from layers with a log-variance"):
        rollout(layers.mean, state, controls, noise=torch.zeros(2, 4, 6, 3))


@pytest.mark.parametrize("own_weights", [False, True])
def test_bf16_on_a_cpu_keeps_three_digits_of_the_way_moved(own_weights):
    sizes = [5, 32, 32, 3]
    layers = random_layers(sizes, 2 if own_weights else None, torch.float32)
    state, controls = random_start(2, 9, 4, sizes)
    exact = step_by_step(layers, state, controls)
    rounded = rollout(layers, state, controls, "bf16")
    assert rounded.dtype == torch.float32
    assert 1e-4 < relative_error(rounded, exact) < 0.03
    assert relative_error(rollout(layers, state, controls), exact) < 1e-5
    assert torch.equal(rollout(prepare_layers(layers, "bf16"), state, controls), rounded)


def test_bf16_on_a_cpu_is_the_plain_product_and_relu_of_each_layer_to_the_bit():
    sizes = [5, 32, 32, 32, 3]
    state, controls = random_start(2, 9, 4, sizes)
    layers = prepare_layers(random_layers(sizes, None, torch.float32), "bf16")
    assert isinstance(layers, list)
    *hidden, (last, offset) = layers
    now, wanted = state.repeat_interleave(9, 0), []
    for control in controls.flatten(0, 1).unbind(1):
        x = torch.cat([now, control], 1)
        for weight, bias in hidden:
            x = torch.addmm(bias, x.to(weight.dtype), weight.mT).relu()
        now = now + torch.addmm(offset[:, None], last, x.to(last.dtype).mT).mT
        wanted.append(now)
    got = rollout(layers, state, controls).flatten(0, 1)
    assert torch.equal(got[:, 1:], torch.stack(wanted, 1))
    assert last.dtype == hidden[1][0].dtype == torch.bfloat16


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


def test_prepared_layers_are_copies_that_are_written_in_place():
    layers = random_layers([5, 8, 3], dtype=torch.float32)
    state, controls = torch.randn(2, 3), torch.randn(2, 4, 6, 2)
    prepared = prepare_layers(layers)
    places = [tensor.data_ptr() for pair in prepared for tensor in pair]
    fresh = [(2 * w, b - 1) for w, b in layers]
    assert prepare_layers(fresh, out=prepared) is prepared
    assert places == [tensor.data_ptr() for pair in prepared for tensor in pair]
    fresh_result = rollout(fresh, state, controls)
    for w, b in fresh:  # the copies do not follow
        w.zero_()
        b.zero_()
    assert torch.equal(rollout(prepared, state, controls), fresh_result)


def test_layers_of_other_shapes_are_not_written():
    prepared = prepare_layers(random_layers([5, 8, 3], dtype=torch.float32))
    with pytest.raises(ValueError, match=r"\(8, 5\)"):
        prepare_layers(random_layers([5, 1, 3], dtype=torch.float32), out=prepared)


def test_the_cpu_does_without_triton():
    code = """
import sys, torch
from hypercrl_kernels import elite_statistics, prepare_layers, rollout, sample_actions
layers = prepare_layers([(torch.ones(8, 5), torch.ones(8)), (torch.ones(3, 8), torch.ones(3))])
low, high = torch.zeros(2), torch.ones(2)
mean, noise = torch.zeros(1, 6, 2), torch.randn(1, 4, 6, 2)
actions = sample_actions(mean, mean + 1, noise, low, high)
rollout(layers, torch.zeros(1, 3), actions)
elite_statistics(torch.randn(1, 4), actions, 2, torch.zeros(2))
assert "triton" not in sys.modules
"""
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": KERNELS}
    )
