"""Adam and the error of scaled changes against torch's Adam and autograd in float64."""

import pytest
import torch

from hypercrl_kernels.training import (
    AdamMoments,
    AdamSettings,
    adam_ahead,
    adam_step,
    scaled_error,
)
from hypercrl_kernels.training.scaled_error import ScaledError

SETTINGS = AdamSettings(rate=3e-3)


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def torch_adam(value, gradient, steps):
    """torch's own Adam, after `steps` steps with the sine of the gradient; its state too."""
    parameter = torch.nn.Parameter(value.clone())
    adam = torch.optim.Adam([parameter], lr=SETTINGS.rate)
    for i in range(steps):
        parameter.grad = torch.sin(gradient * (i + 1))
        adam.step()
    state = adam.state[parameter]
    moments = AdamMoments(
        state.get("step", torch.zeros(())).clone(),
        state.get("exp_avg", torch.zeros_like(value)).clone(),
        state.get("exp_avg_sq", torch.zeros_like(value)).clone(),
    )
    return parameter, adam, moments


def to(device, dtype, *tensors):
    return [t.detach().clone().to(device, dtype) for t in tensors]


@pytest.fixture(params=["torch", "triton"])
def path(request, device, monkeypatch):
    """(device, dtype, tolerance): the reference in float64, and the kernel in float32."""
    if request.param == "torch":
        return "cpu", torch.float64, 1e-10
    if device == "cpu":
        from hypercrl_kernels.training.adam_launch import launch_adam

        def ahead(parameter, gradient, moments, settings):
            out = torch.empty_like(parameter)
            launch_adam(parameter, gradient, moments, settings, out)
            return out

        def step(parameter, gradient, moments, settings, norm, limit):
            launch_adam(parameter, gradient, moments, settings, parameter, norm, limit)
            moments.step.add_(1)

        monkeypatch.setitem(globals(), "adam_ahead", ahead)
        monkeypatch.setitem(globals(), "adam_step", step)
        monkeypatch.setitem(globals(), "scaled_error", ScaledError.apply)
    return device, torch.float32, 1e-5


@pytest.mark.parametrize(
    ("shape", "steps"), [((1500,), 0), ((1500,), 1), ((1500,), 7), ((5, 10), 7)]
)
def test_a_step_ahead_is_the_step_that_adam_takes(path, shape, steps):
    device, dtype, tolerance = path
    value, gradient = 1e-3 * normal(*shape, seed=0), normal(*shape, seed=1)
    parameter, adam, moments = torch_adam(value, gradient, steps)
    start, slope = to(device, dtype, parameter, gradient)
    ours = AdamMoments(moments.step.to(device), *to(device, dtype, *moments[1:]))
    ahead = adam_ahead(start, slope, ours, SETTINGS)
    parameter.grad = gradient.clone()
    before = parameter.detach().clone()
    adam.step()
    moved = parameter.detach() - before
    got = (ahead - start).double().cpu()
    torch.testing.assert_close(got, moved, rtol=0, atol=max(1e-12, 1e-3 * tolerance))
    assert torch.equal(ours.step.cpu(), moments.step)

    norm = torch.tensor(6.0, dtype=dtype, device=device)  # clipped to a half: the same step
    adam_step(start, 2 * slope, ours, SETTINGS, norm, 3.0)
    torch.testing.assert_close(start, ahead, rtol=0, atol=4e-9)  # two units in the last place
    state = adam.state[parameter]
    assert float(ours.step) == float(state["step"])
    for mine, theirs in ((ours.mean, "exp_avg"), (ours.square, "exp_avg_sq")):
        torch.testing.assert_close(mine.double().cpu(), state[theirs], rtol=1e-5, atol=1e-7)
    before = start.clone()
    adam_step(start, slope, ours, SETTINGS, norm, 10.0)  # a small one is not enlarged
    parameter.grad = gradient.clone()
    moved = parameter.detach().clone()
    adam.step()
    moved = parameter.detach() - moved
    torch.testing.assert_close((start - before).double().cpu(), moved, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(("rows", "size"), [(100, 10), (1, 3), (300, 26)])
def test_the_error_of_scaled_changes_and_its_gradient(path, rows, size):
    device, dtype, tolerance = path
    outputs, obs, next_obs = (normal(rows, size, seed=i) for i in range(3))
    mean, scale = normal(size, seed=3), normal(size, seed=4).abs() + 0.1
    wanted = sum(
        (outputs[b, o] - (next_obs[b, o] - obs[b, o] - mean[o]) / scale[o]) ** 2 / size
        for b in range(min(rows, 20))
        for o in range(size)
    )
    few = [t[:20] for t in (outputs, obs, next_obs)]
    got = scaled_error(*to(device, dtype, *few, mean, scale))
    assert float(got) == pytest.approx(float(wanted), rel=tolerance)

    given = to(device, dtype, outputs, obs, next_obs, mean, scale)
    (3 * scaled_error(given[0].requires_grad_(), *given[1:])).backward()
    slope = 6 / size * (outputs - (next_obs - obs - mean) / scale)
    error = (given[0].grad.double().cpu() - slope).norm() / slope.norm()
    assert error < tolerance


def test_strides_do_not_matter(path):
    """Inputs and incoming gradients lie in memory in every other place."""
    device, dtype, tolerance = path

    def strided(x):
        return torch.stack([x, x], -1)[..., 0]

    outputs, obs, next_obs = (normal(6, 3, seed=i) for i in range(2, 5))
    mean, scale = normal(3, seed=5), normal(3, seed=6).abs() + 0.1
    found = []
    for layout in (lambda x: x, strided):
        (given,) = (t.requires_grad_() for t in to(device, dtype, outputs))
        rest = [layout(t) for t in to(device, dtype, obs, next_obs, mean, scale)]
        loss = scaled_error(layout(given), *rest)
        found.append([loss, *torch.autograd.grad(loss, given)])
    torch.testing.assert_close(found[1], found[0], rtol=tolerance, atol=tolerance)


def test_second_derivatives_of_kernels_are_refused(path):
    device, dtype, _ = path
    if dtype == torch.float64:
        pytest.skip("torch operations have them")
    (x,) = (t.requires_grad_() for t in to(device, dtype, normal(3, 10, seed=1)))
    outputs = (2 * x).clone()
    loss = scaled_error(outputs, x.detach(), x.detach(), x.detach()[0], torch.ones_like(x[0]))
    (slope,) = torch.autograd.grad(loss, outputs, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        torch.autograd.grad(slope.sum(), x)
