"""The operations of a hypernetwork's training step against autograd and torch's Adam in float64."""

import itertools
from importlib import import_module

import pytest
import torch
from torch.nn import functional as F

from hypercrl_kernels import training
from hypercrl_kernels.training import (
    AdamMoments,
    AdamSettings,
    Scales,
    Shares,
    Trained,
    Trunk,
    adam_chunked,
    adam_step,
    regularised_head_chunked,
    trunk_ahead,
)
from hypercrl_kernels.training.adam_reference import adam_reference
from hypercrl_kernels.training.regularised_head_reference import regularised_head_reference

SETTINGS = AdamSettings(rate=3e-3)
OPERATIONS = {
    "written_weights": "written_weights_launch",
    "network_gradient": "network_gradient_launch",
    "written_gradient": "written_weights_launch",
    "trunk_ahead": "trunk_launch",
    "regularised_head": "regularised_head_launch",
    "trunk_back": "trunk_launch",
    "gradient_norms": "clipped_adam_launch",
    "clipped_adam": "clipped_adam_launch",
}
"""Each, and the module that launches its kernel."""
TRUNKS = [((10, 50, 50), 19), ((4, 7), 3), ((3, 20, 5, 33), 17), ((10, 50, 50), 1), ((2, 9), 70)]

WIDTH = 200 if torch.cuda.is_available() else 72
"""Of a layer in tiles, of which the last is not whole; the interpreter takes a while for each."""


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(params=["torch", "triton"])
def step(request, device, monkeypatch):
    """The operations: references in float64, or the kernels in float32."""
    if (request.param, device) == ("triton", "cpu"):
        from tensor_cores import use_tensor_cores

        use_tensor_cores(monkeypatch)
    return Operations(request.param, device)


class Operations:
    """Calls each operation on the device and in the precision of one path."""

    def __init__(self, kind, device):
        self.kernels = kind == "triton"
        self.device = device if self.kernels else "cpu"
        self.dtype = torch.float32 if self.kernels else torch.float64
        self.tolerance = 1e-5 if self.kernels else 1e-10

    def __getattr__(self, name):
        assert name in OPERATIONS
        if not self.kernels:
            return getattr(training, name)
        launches = import_module(f"hypercrl_kernels.training.{OPERATIONS[name]}")
        return getattr(launches, f"launch_{name}")

    def to(self, *tensors):
        moved = [t.detach().clone().to(self.device, self.dtype) for t in tensors]
        return moved[0] if len(moved) == 1 else moved

    def unwritten(self, like):
        return torch.full(like.shape, torch.nan, device=self.device, dtype=self.dtype)

    def moments(self, moments):
        return AdamMoments(moments.step.clone().to(self.device), *self.to(*moments[1:]))

    def assert_close(self, mine, theirs):
        assert mine.shape == theirs.shape
        error = (mine.double().cpu() - theirs).norm() / theirs.norm().clamp_min(1e-300)
        assert error < self.tolerance


def modules(flat, trunk):
    """The trunk as torch's own modules, with these parameters."""
    layers = [torch.nn.Linear(a, b).double() for a, b in itertools.pairwise(trunk.sizes)]
    torch.nn.utils.vector_to_parameters(flat, [p for layer in layers for p in layer.parameters()])
    activation = {"elu": torch.nn.ELU, "relu": torch.nn.ReLU}[trunk.activation]
    return torch.nn.Sequential(*(m for layer in layers for m in (layer, activation())))


def gradient_of(network):
    return torch.cat([p.grad.flatten() for p in network.parameters()])


def all_outputs(network, x):
    found = []
    for layer, activation in zip(network[::2], network[1::2], strict=True):
        x = activation(layer(x))
        found.append(x)
    return found


def trained(value, gradient, steps=3):
    """A parameter after some steps of torch's own Adam, the optimiser, and its state."""
    parameter = torch.nn.Parameter(value.clone())
    adam = torch.optim.Adam([parameter], lr=SETTINGS.rate)
    for i in range(steps):
        parameter.grad = torch.sin(gradient * (i + 1))
        adam.step()
    state = adam.state[parameter]
    moments = AdamMoments(*(state[name].clone() for name in ("step", "exp_avg", "exp_avg_sq")))
    return parameter, adam, moments


@pytest.mark.parametrize("activation", ["elu", "relu"])
@pytest.mark.parametrize(
    ("sizes", "size"), [((10, 50, 50), 300), ((4, 7), 3), ((3, 20, 5, 33), 131)]
)
def test_what_is_written_for_one_embedding(step, sizes, size, activation):
    trunk, width = Trunk(sizes, activation), sizes[-1]
    flat, embedding = 0.4 * normal(trunk.numel, seed=0), normal(sizes[0], seed=1)
    weight, bias = normal(size, width, seed=2), normal(size, seed=3)
    wanted = all_outputs(modules(flat, trunk), embedding)
    theta = torch.cat([flat, weight.flatten(), bias])
    outputs, written = step.written_weights(*step.to(theta, embedding), trunk)
    step.assert_close(outputs, torch.cat(wanted))
    step.assert_close(written, F.linear(wanted[-1], weight, bias))


@pytest.mark.parametrize(("size", "width", "l1"), [(300, 50, 0.0), (131, 7, 0.3), (1, 33, 0.3)])
def test_a_gradient_of_what_is_written(step, size, width, l1):
    weight, bias = normal(size, width, seed=0), normal(size, seed=1)
    hidden = normal(width, seed=2).requires_grad_()
    partials = normal(7, size, seed=3)
    written = F.linear(hidden, weight, bias)
    written.retain_grad()
    ((partials.sum(0) * written).sum() + l1 * written.abs().sum()).backward()
    head = torch.cat([weight.flatten(), bias])
    slope, products = step.written_gradient(*step.to(head, partials, written), width, l1)
    step.assert_close(slope, written.grad)
    step.assert_close(products.sum(0), hidden.grad)


@pytest.mark.parametrize(
    ("rows", "sizes"),
    [(100, (12, WIDTH, WIDTH, 10)), (1, (3, 5, 2)), (33, (9, 40, 17, 64, 6)), (20, (8, 300, 5))],
)
def test_the_gradient_of_a_networks_error(step, rows, sizes):
    inputs, observed = sizes[0], sizes[-1]
    numel = sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    weights = (0.2 * normal(numel, seed=0)).requires_grad_()
    obs, next_obs = normal(rows, observed, seed=1), normal(rows, observed, seed=2)
    action = normal(rows, inputs - observed, seed=3)
    means, scales = normal(inputs + observed, seed=4), normal(inputs + observed, seed=5).abs() + 0.5
    scales[0] = torch.inf  # what never moved is an input of zero
    given = Scales(means[:inputs], scales[:inputs], means[inputs:], scales[inputs:])

    h, rest = (torch.cat([obs, action], -1) - given[0]) / given[1], weights
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        h = torch.relu(h) if i else h
        weight, bias, rest = rest.tensor_split([fan_in * fan_out, (fan_in + 1) * fan_out])
        h = F.linear(h, weight.view(fan_out, fan_in), bias)
    loss = (h - (next_obs - obs - given[2]) / given[3]).square().sum() / observed
    loss.backward()

    apart = [torch.cat([x, x], 1)[:, : x.shape[1]] for x in step.to(obs, action, next_obs)]
    arguments = step.to(weights), sizes, *apart, Scales(*step.to(*given))
    losses, gradients = step.network_gradient(*arguments)
    step.assert_close(losses.sum(0), loss.detach() / rows)
    step.assert_close(gradients.sum(0), weights.grad)
    again = step.network_gradient(*arguments)
    assert torch.equal(again.gradients, gradients)


@pytest.mark.parametrize("activation", ["elu", "relu"])
@pytest.mark.parametrize(("sizes", "tasks"), [*TRUNKS, ((10, 50, 50), 0)])
def test_a_trunk_one_step_ahead(step, sizes, tasks, activation):
    trunk = Trunk(sizes, activation)
    flat, noise = 0.4 * normal(trunk.numel, seed=0), normal(trunk.numel, seed=1)
    embedding, old = normal(sizes[0], seed=2).requires_grad_(), normal(tasks, sizes[0], seed=3)
    products = normal(9, sizes[-1], seed=4)
    parameter, adam, moments = trained(flat, noise)
    flat = parameter.detach().clone()
    network = modules(flat, trunk)
    outputs = all_outputs(network, embedding)
    outputs[-1].backward(products.sum(0))
    parameter.grad = gradient_of(network)
    adam.step()
    wanted = all_outputs(modules(parameter.detach(), trunk), old)

    gradient = step.unwritten(flat)
    ahead = step.trunk_ahead(
        step.to(flat), gradient, step.moments(moments), SETTINGS,
        *step.to(embedding, torch.cat(outputs), products, old), trunk,
    )  # fmt: skip
    step.assert_close(gradient, parameter.grad)
    step.assert_close(ahead.embedding_gradient, embedding.grad)
    step.assert_close(ahead.ahead, parameter.detach())
    step.assert_close(ahead.old_outputs, torch.cat([h.detach().flatten() for h in wanted]))


@pytest.mark.parametrize("activation", ["elu", "relu"])
@pytest.mark.parametrize(("sizes", "tasks"), [*TRUNKS, ((10, 50, 50), 0)])
def test_the_way_back_through_a_trunk(step, sizes, tasks, activation):
    trunk = Trunk(sizes, activation)
    flat, x = 0.4 * normal(trunk.numel, seed=0), normal(tasks, sizes[0], seed=1)
    slopes = normal(11, tasks, sizes[-1], seed=2)
    network = modules(flat, trunk)
    outputs = all_outputs(network, x)
    outputs[-1].backward(slopes.sum(0))
    kept = torch.cat([h.flatten() for h in outputs])
    found = step.trunk_back(*step.to(flat, x, kept, slopes), trunk)
    step.assert_close(found.sum(0), gradient_of(network))


@pytest.mark.parametrize(
    ("size", "width", "all_tasks", "tasks", "members"),
    [
        (150, 50, 19, None, ()),
        (150, 50, 1, None, ()),
        (70, 8, 6, [4, 0, 5], ()),
        (64, 16, 16, None, ()),
        (40, 50, 65, None, ()),
        (40, 100, 100, None, ()),
        (40, 100, 140, [*range(139, 0, -1)], ()),
        (300, 150, 3, None, ()),
        (40, 150, 40, None, ()),
        (90, 50, 0, None, ()),
        (150, 50, 19, None, (5,)),
        (40, 100, 140, [*range(139, 0, -1)], (2,)),
        (90, 50, 0, None, (3,)),
        (40, 50, 130, None, ()),
        (40, 64, 70, None, (2,)),
    ],
)
def test_gradients_of_a_head_are_those_of_autograd(step, size, width, all_tasks, tasks, members):
    chosen = torch.tensor(tasks or range(all_tasks), dtype=torch.int64)
    head, noise = normal(size * width + size, seed=0), normal(size * width + size, seed=1)
    slope, hidden = normal(*members, size, seed=2), normal(*members, width, seed=3)
    old, targets = normal(len(chosen), width, seed=4), normal(all_tasks, size, seed=5)
    strength = 0.7
    parameter, adam, moments = trained(head, noise)
    head = parameter.detach().clone()

    # By definition: the task loss is linear in what is written, then a copy takes Adam's step.
    each = [(slope, hidden)] if not members else list(zip(slope, hidden, strict=True))
    outer = torch.stack([torch.outer(*pair) for pair in each]).sum(0)
    task_gradient = torch.cat([outer.flatten(), slope.view(-1, size).sum(0)])
    parameter.grad = task_gradient.clone()
    adam.step()
    ahead = parameter.detach().clone().requires_grad_()
    inputs = old.clone().requires_grad_()
    weight, bias = ahead[: size * width].view(size, width), ahead[size * width :]
    wanted = (inputs @ weight.T + bias - targets[chosen]).square().sum() / max(len(chosen), 1)
    (strength * wanted).backward()
    assert ahead.grad is not None
    total = task_gradient + ahead.grad

    given = step.to(head, slope, hidden, old, targets)
    gradient = step.unwritten(head)
    arguments = (
        given[0], gradient, step.moments(moments), SETTINGS, *given[1:],
        chosen.to(step.device) if tasks else None, strength,
    )  # fmt: skip
    got = step.regularised_head(*arguments)
    step.assert_close(got.regulariser.sum(0), wanted.detach())
    step.assert_close(got.old.sum(0), inputs.grad)
    step.assert_close(gradient, total)
    step.assert_close(got.squares.sum(0), total.square().sum())
    before = gradient.clone()
    again = step.regularised_head(*arguments)
    assert torch.equal(gradient, before)
    assert torch.equal(again.old, got.old)


def test_a_head_whose_targets_are_near(step):
    """To a thousandth, as where a task was learned: what differs is right to float32's roundoff.

    That of what is written is a thousand times as much of the difference, and a GPU cuts sums off.
    """
    size, width, tasks = 100, 50, 100
    head, old = (
        normal(n, seed=i).float() for i, n in enumerate([size * (width + 1), tasks * width])
    )
    head, old = 0.1 * head, old.view(tasks, width)
    weight, bias = head[: size * width].view(size, width), head[size * width :]
    written = old.double() @ weight.double().T + bias.double()
    targets = (written + 1e-3 * normal(tasks, size, seed=2)).float()
    slope, hidden = torch.zeros(size), torch.zeros(width)
    moments = AdamMoments(torch.tensor(3.0), torch.zeros_like(head), torch.zeros_like(head))
    settings = AdamSettings(1e-4)
    wanted = torch.empty_like(head, dtype=torch.float64)
    given = slope, hidden, old, targets
    doubled = [t.double() for t in given]
    exact = regularised_head_reference(
        head.double(), wanted, AdamMoments(*(t.double() for t in moments)), settings,
        doubled[0], doubled[1], doubled[2], doubled[3], None, 1.0,
    )  # fmt: skip
    gradient = step.unwritten(head)
    got = step.regularised_head(
        step.to(head), gradient, step.moments(moments), settings, *step.to(*given), None, 1.0
    )
    for mine, theirs in ((gradient, wanted), (got.old.sum(0), exact.old.sum(0))):
        assert (mine.double().cpu() - theirs).norm() < 1.5e-4 * theirs.norm()


@pytest.mark.parametrize(("size", "tasks"), [(40, 1), (1, 16), (40, 65)])
def test_a_head_gives_every_gradient_to_twenty_bits(step, size, tasks):
    """Of one product each, as two parts of float16 do: 3 u² with u = 2⁻¹¹, and float32's own.

    The targets are so far that what is written errs by less than that. Where a gradient is a sum,
    the terms and their adding up err so, and the parts of bfloat16 that were there before by 2⁻¹⁶.
    """
    width, strength = 50, 0.5
    head, old = 0.01 * normal(size * (width + 1), seed=0), normal(tasks, width, seed=1)
    targets = 50 + 50 * normal(tasks, size, seed=2).sigmoid()
    head, old, targets = (t.float().double() for t in (head, old, targets))
    moments = AdamMoments(torch.tensor(3.0), torch.zeros_like(head), torch.zeros_like(head))
    weight, bias = head[: size * width].view(size, width), head[size * width :]
    slope = (old @ weight.T + bias - targets) * (2 * strength / tasks)
    gradient = step.unwritten(head)
    zeros = torch.zeros(size), torch.zeros(width)
    got = step.regularised_head(
        step.to(head), gradient, step.moments(moments), SETTINGS,
        *step.to(*zeros, old, targets), None, strength,
    )  # fmt: skip
    found = gradient.double().cpu()[: size * width].view(size, width)
    of_old = got.old.double().cpu().sum(0)
    for mine, left, right, least in (
        (found, slope.T, old, 2**-29),
        (of_old, slope, weight, 2**-33),
    ):
        terms = left.abs() @ right.abs()
        bound = (3 * 2**-22 + (left.shape[1] + 3) * 2**-24) * terms
        bound += least * left.abs().sum(1, keepdim=True)
        assert ((mine - left @ right).abs() <= bound).all()


@pytest.mark.parametrize(("weight", "target"), [(300.0, 0.0), (0.0, 300.0)])
@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
def test_a_head_beyond_float16_has_no_norm(step, weight, target):
    """What the kernel cannot hold is no number, never a wrong one: a run ends with a message."""
    head, old, targets = torch.full((100,), weight), torch.ones(1, 9), torch.full((1, 10), target)
    moments = AdamMoments(torch.tensor(3.0), torch.zeros_like(head), torch.zeros_like(head))
    got = step.regularised_head(
        step.to(head), step.unwritten(head), step.moments(moments), SETTINGS,
        *step.to(torch.zeros(10), torch.zeros(9), old, targets), None, 1.0,
    )  # fmt: skip
    assert bool(got.squares.sum().isfinite()) == (not step.kernels)


@pytest.mark.parametrize("limit", [0.5, 1e9])
@pytest.mark.parametrize(("trunk", "head", "tasks"), [(1100, 1500, 3), (5, 1, 0)])
def test_norms_clipping_and_adam(step, trunk, head, tasks, limit):
    theta, noise = normal(trunk + head, seed=0), normal(trunk + head, seed=1)
    embedding, own_noise = normal(10, seed=2), normal(10, seed=3)
    shares = normal(tasks, trunk, seed=4)
    losses, regularisers = normal(7, seed=5), normal(200, seed=6)
    wanted = [trained(theta, noise), trained(embedding, own_noise)]
    gradients = [normal(trunk + head, seed=7), normal(10, seed=8)]
    squares = gradients[0][trunk:].square()
    squares = F.pad(squares, (0, -len(squares) % 200)).view(200, -1).sum(1)
    others = normal(3, seed=9).square()  # of parameters that a model trains along

    mine = [
        Trained(step.to(parameter), step.to(gradient), step.moments(moments))
        for (parameter, _, moments), gradient in zip(wanted, gradients, strict=True)
    ]
    norms = step.gradient_norms(
        mine[0].gradient[:trunk],
        mine[1].gradient,
        Shares(
            step.to(losses),
            step.to(torch.cat([regularisers, torch.full((64,), torch.nan)]))[:200],
            *step.to(torch.cat([squares, others]), shares),
        ),
        (mine[0].moments.step, mine[1].moments.step),
    )
    step.clipped_adam(*mine, SETTINGS, norms[2:], limit)

    gradients[0][:trunk] += shares.sum(0)
    of_theta = (gradients[0].square().sum() + others.sum()).sqrt()
    sums = losses.sum(), regularisers.sum()
    step.assert_close(norms, torch.stack([*sums, of_theta, gradients[1].norm()]))
    for (parameter, adam, _), gradient, got in zip(wanted, gradients, mine, strict=True):
        step.assert_close(got.gradient, gradient)
        norm = of_theta if got is mine[0] else gradient.norm()
        parameter.grad = gradient.clone()
        torch.nn.utils.clip_grads_with_norm_([parameter], limit, norm)
        adam.step()
        step.assert_close(got.parameter, parameter.detach())
        state = adam.state[parameter]
        assert float(got.moments.step) == float(state["step"])
        step.assert_close(got.moments.mean, state["exp_avg"])
        step.assert_close(got.moments.square, state["exp_avg_sq"])


@pytest.mark.parametrize("tasks", [0, 1, 2, 7])
def test_a_head_and_a_step_in_many_chunks(monkeypatch, tasks):
    """In float32 as a CPU trains, the last chunk a short one: against the references in float64."""
    for module in (regularised_head_chunked, adam_chunked):
        monkeypatch.setattr(module, "CHUNK", 1000)
    size, width, settings = 333, 50, AdamSettings(1e-3)
    numel = size * (width + 1)
    head, square = normal(numel, seed=0), 0.01 * normal(numel, seed=2).square()
    step, mean = torch.tensor(3.0), 0.1 * normal(numel, seed=1)
    moments = AdamMoments(step, mean, square)
    slope, hidden = normal(size, seed=3), normal(width, seed=4)
    old, targets = normal(tasks, width, seed=5), normal(tasks, size, seed=6)
    exact = torch.empty_like(head)
    wanted = regularised_head_reference(
        head, exact, moments, settings, slope, hidden, old, targets, None, 0.7
    )

    single, gradient = head.float(), exact.new_empty(numel, dtype=torch.float32)
    halves = AdamMoments(step.clone(), mean.float(), square.float())
    rounded = [t.float() for t in (slope, hidden, old, targets)]
    got = training.regularised_head(
        single, gradient, halves, settings,
        rounded[0], rounded[1], rounded[2], rounded[3], None, 0.7,
    )  # fmt: skip
    for mine, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine.double().sum(0), theirs.sum(0), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(gradient.double(), exact, rtol=1e-5, atol=1e-5)
    norm, before = wanted.squares.sqrt()[0], gradient.clone()
    after = adam_reference(head, exact * 0.5 / (norm + 1e-6), moments, settings)
    adam_step(single, gradient, halves, settings, norm.float(), 0.5)
    for mine, theirs in zip((single, halves.mean, halves.square), after, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-6, atol=1e-7)
    assert torch.equal(gradient, before)
    assert float(halves.step) == 4


def test_a_wide_trunk_is_left_to_torch():
    """On CUDA too; here it would be whatever the trunk."""
    assert not Trunk((10, 256, 256), "relu").fits(torch.zeros(3))
    trunk = Trunk((2, 3), "elu")
    flat, x = normal(trunk.numel, seed=0), normal(1, 2, seed=1)
    moments = AdamMoments(torch.zeros(()), torch.zeros_like(flat), torch.zeros_like(flat))
    gradient = torch.empty_like(flat)
    outputs = modules(flat, trunk)(x[0]).detach()
    found = trunk_ahead(
        flat, gradient, moments, SETTINGS, x[0], outputs, normal(1, 3, seed=2), x, trunk
    )
    assert found.ahead.isfinite().all()
