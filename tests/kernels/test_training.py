"""Adam and the regularised head against torch's Adam and autograd in float64."""

import itertools

import pytest
import torch

from hypercrl_kernels.training import (
    AdamMoments,
    AdamSettings,
    adam_ahead,
    adam_step,
    narrow_mlp,
    regularised_head,
    scaled_error,
)
from hypercrl_kernels.training.narrow_mlp import NarrowMLP
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
        from hypercrl_kernels.training import launch

        def ahead(parameter, gradient, moments, settings):
            out = torch.empty_like(parameter)
            launch.launch_adam(parameter, gradient, moments, settings, out)
            return out

        def step(parameter, gradient, moments, settings, norm, limit):
            launch.launch_adam(parameter, gradient, moments, settings, parameter, norm, limit)
            moments.step.add_(1)

        monkeypatch.setitem(globals(), "adam_ahead", ahead)
        monkeypatch.setitem(globals(), "adam_step", step)
        monkeypatch.setitem(globals(), "regularised_head", launch.launch_regularised_head)
        monkeypatch.setitem(globals(), "narrow_mlp", NarrowMLP.apply)
        monkeypatch.setitem(globals(), "scaled_error", ScaledError.apply)
    return device, torch.float32, 1e-5


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_a_step_ahead_is_the_step_that_adam_takes(path, steps):
    device, dtype, tolerance = path
    value, gradient = 1e-3 * normal(1500, seed=0), normal(1500, seed=1)
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


@pytest.mark.parametrize(
    ("size", "width", "all_tasks", "tasks"),
    [(150, 50, 19, None), (150, 50, 1, None), (70, 8, 6, [4, 0, 5]), (64, 16, 16, None)],
)
def test_gradients_of_a_head_are_those_of_autograd(path, size, width, all_tasks, tasks):
    device, dtype, tolerance = path
    chosen = torch.tensor(tasks or range(all_tasks))
    head, noise = normal(size * width + size, seed=0), normal(size * width + size, seed=1)
    slope, hidden = normal(size, seed=2), normal(width, seed=3)
    old, targets = normal(len(chosen), width, seed=4), normal(all_tasks, size, seed=5)
    strength = 0.7
    parameter, adam, moments = torch_adam(head, noise, 3)
    head = parameter.detach().clone()

    # By definition: the task loss is linear in what is written, then a copy takes Adam's step.
    task_gradient = torch.cat([torch.outer(slope, hidden).flatten(), slope])
    parameter.grad = task_gradient.clone()
    adam.step()
    ahead = parameter.detach().clone().requires_grad_()
    inputs = old.clone().requires_grad_()
    weight, bias = ahead[: size * width].view(size, width), ahead[size * width :]
    wanted = (inputs @ weight.T + bias - targets[chosen]).square().sum() / len(chosen)
    (strength * wanted).backward()

    given = to(device, dtype, head, slope, hidden, old, targets)
    gradient = torch.full_like(given[0], torch.nan)
    got = regularised_head(
        given[0],
        gradient,
        AdamMoments(moments.step.to(device), *to(device, dtype, *moments[1:])),
        SETTINGS,
        *given[1:],
        chosen.to(device) if tasks else None,
        strength,
    )
    pairs = [
        (got.regulariser, wanted.detach()),
        (got.old, inputs.grad),
        (gradient, task_gradient + ahead.grad),
    ]
    for mine, theirs in pairs:
        assert mine.shape == theirs.shape
        error = (mine.double().cpu() - theirs).norm() / theirs.norm()
        assert error < tolerance


@pytest.mark.parametrize("activation", ["elu", "relu"])
@pytest.mark.parametrize(
    ("sizes", "rows"), [((10, 50, 50), 1), ((10, 50, 50), 19), ((4, 7), 3), ((3, 20, 5, 33), 17)]
)
def test_a_narrow_mlp_and_its_gradients(path, sizes, rows, activation):
    device, dtype, tolerance = path
    numel = sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    flat, x = 0.4 * normal(numel, seed=0), normal(rows, sizes[0], seed=1)
    slope = normal(rows, sizes[-1], seed=2)

    # By definition: torch's own modules, given the same numbers.
    layers = [torch.nn.Linear(a, b).double() for a, b in itertools.pairwise(sizes)]
    torch.nn.utils.vector_to_parameters(flat, [p for layer in layers for p in layer.parameters()])
    inputs = x.clone().requires_grad_()
    wanted = inputs
    for layer in layers:
        wanted = getattr(torch.nn.functional, activation)(layer(wanted))
    wanted.backward(slope)
    gradient = torch.cat([p.grad.flatten() for layer in layers for p in layer.parameters()])

    ours, given, upstream = to(device, dtype, flat, x, slope)
    got = narrow_mlp(ours.requires_grad_(), given.requires_grad_(), sizes, activation)
    got.backward(upstream)
    for mine, theirs in ((got, wanted), (ours.grad, gradient), (given.grad, inputs.grad)):
        assert mine.shape == theirs.shape
        error = (mine.double().cpu() - theirs).norm() / theirs.norm()
        assert error < tolerance


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

    sizes = (10, 20, 7)
    flat, x = 0.4 * normal(220 + 147, seed=0), normal(5, 10, seed=1)
    outputs, obs, next_obs = (normal(6, 3, seed=i) for i in range(2, 5))
    mean, scale = normal(3, seed=5), normal(3, seed=6).abs() + 0.1
    found = []
    for layout in (lambda x: x, strided):
        given = [t.requires_grad_() for t in to(device, dtype, flat, x, outputs)]
        rest = [layout(t) for t in to(device, dtype, obs, next_obs, mean, scale)]
        mlp = narrow_mlp(layout(given[0]), layout(given[1]), sizes, "elu")
        loss = scaled_error(layout(given[2]), *rest)
        slopes = [layout(normal(5, 7, seed=7).to(mlp)), torch.ones_like(loss)]
        found.append([mlp, loss, *torch.autograd.grad([mlp, loss], given, slopes)])
    torch.testing.assert_close(found[1], found[0], rtol=tolerance, atol=tolerance)


def test_second_derivatives_of_kernels_are_refused(path):
    device, dtype, _ = path
    if dtype == torch.float64:
        pytest.skip("torch operations have them")
    flat, x = (
        t.requires_grad_() for t in to(device, dtype, normal(77, seed=0), normal(3, 10, seed=1))
    )
    (slope,) = torch.autograd.grad(narrow_mlp(flat, x, (10, 7), "elu").sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        torch.autograd.grad(slope.sum(), flat)
    outputs = (2 * x).clone()
    loss = scaled_error(outputs, x.detach(), x.detach(), x.detach()[0], torch.ones_like(x[0]))
    (slope,) = torch.autograd.grad(loss, outputs, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        torch.autograd.grad(slope.sum(), x)
