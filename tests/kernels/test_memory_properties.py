"""What holds of every memory operation, run as torch operations and as kernels.

Any strides of what comes in, forward and backward; nothing to do; gates that are open or shut;
second derivatives. The truth is the recurrence in float64. Kernels run on a GPU, or interpreted.
"""

from importlib import import_module

import pytest
import torch
from memory_cases import (
    CASES,
    SEQUENCES,
    by_name,
    expanded,
    gradients,
    half_precision_limits,
    make,
)

import hypercrl_kernels as ops

MODULES = ("chunk_memory", "chunk_gla", "scan", "based", "mlp_memory")
# Triton's interpreter multiplies bfloat16 wrongly.
HALF = [torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]
DTYPES = [torch.float32, *HALF]
GATES = ("log_decay", "log_momentum", "key_decay")
GATED = [n for n in CASES if {*GATES, "head_decay"} & {*CASES[n].inputs}]
GATED.remove("gated DeltaProduct")  # lays out the gates of gated DeltaNet
# Of the others, what a step at a shut gate writes depends on what was before it.
FORGETTING = ["gated", "gated, normalised", "gated DeltaNet", "momentum, error after decay"]
FORGETTING += ["GLA", "KDA", "HGRN"]


@pytest.fixture(params=["torch", "kernels"])
def form(request, device, monkeypatch):
    for name in MODULES:
        module = import_module(f"hypercrl_kernels.memory.{name}.api")
        monkeypatch.setattr(module, "runs_as_kernel", lambda *_, **__: request.param == "kernels")
    steps = import_module("hypercrl_kernels.memory.steps.api")
    monkeypatch.setattr(steps, "step_as_kernel", lambda *_: request.param == "kernels")
    return request.param


def check(name, x, state, dtype, device, layout=lambda t: t):
    """Outputs and all gradients, with inputs, states and incoming gradients in that layout."""
    x = {n: t.to(dtype) if n in SEQUENCES else t.float() for n, t in x.items()}
    x = {n: t.to(device) for n, t in x.items()}
    state = [s.float().to(device) for s in state]
    exact = {n: t.double() for n, t in x.items()}, [s.double() for s in state], None

    def laid(function):
        def run(x, state, cu_seqlens):
            x = {n: layout(t) for n, t in x.items()}
            o, final = function(x, [layout(s) for s in state], cu_seqlens)
            return Laid.apply(o, layout), [Laid.apply(s, layout) for s in final]

        return run

    slow = laid(lambda x, s, c: CASES[name].slow(expanded(x), s, c))
    wanted = by_name(gradients(slow, *exact))
    got = by_name(gradients(laid(CASES[name].fast), x, state))
    limits = {key: 8e-5 if key.startswith("d ") else 4e-5 for key in wanted}
    if dtype != torch.float32:
        rounding = half_precision_limits(wanted, slow, *exact, dtype)
        limits = {key: max(limits[key], rounding[key]) for key in limits}
    errors = {key: error(got[key], wanted[key]) for key in wanted}
    assert {key: (e, limits[key]) for key, e in errors.items() if not e < limits[key]} == {}


def error(got, wanted):
    """Relative, or where next to nothing is wanted, a thousand times as large as it is."""
    got, wanted = got.detach().double(), wanted.detach()
    return float((got - wanted).norm() / wanted.norm().clamp_min(1e-3))


class Laid(torch.autograd.Function):
    """Lets a number pass, and lays out the gradient that comes in."""

    @staticmethod
    def forward(ctx, y, layout):
        ctx.layout = layout
        return y.view_as(y)

    @staticmethod
    def backward(ctx, d):
        return ctx.layout(d), None


LAYOUTS = {
    "every other number": lambda t: torch.stack([t, t], -1)[..., 0],
    "axes the other way round": lambda t: t.movedim(0, -1).contiguous().movedim(-1, 0),
    "one number for all": lambda t: t[:1].expand_as(t),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CASES)
def test_strides_do_not_matter(name, layout, form, device):
    batch, heads = (2, 1) if layout == "one number for all" else (1, 2)
    x, state = make(CASES[name], batch, 17, heads, keys=6, values=3)
    check(name, x, state, torch.float32, device, LAYOUTS[layout])


@pytest.mark.parametrize("name", [n for n in CASES if n != "HGRN"])
def test_strides_do_not_matter_to_steps(name, form, device):
    x, state = make(CASES[name], 2, 1, dtype=torch.float32)
    x = {n: (t if t.dim() == 1 else t[:, 0]).to(device) for n, t in x.items()}
    for layout in LAYOUTS.values():
        own = [s.to(device).clone() for s in state]
        laid = {n: layout(t) for n, t in x.items()}
        wanted = [s.clone() for s in own]
        o = CASES[name].step({n: t.contiguous() for n, t in laid.items()}, wanted)
        got = CASES[name].step(laid, own)
        torch.testing.assert_close([got, *own], [o, *wanted], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("batch", "length"), [(0, 5), (2, 0), (0, 0)])
def test_nothing_in_nothing_out(name, batch, length, device):
    case = CASES[name]
    x, state = make(case, batch, length, keys=6, values=3, dtype=torch.float32)
    x, state = {n: t.to(device) for n, t in x.items()}, [s.to(device) for s in state]
    leaves = [t.requires_grad_() for t in (*x.values(), *state)]
    o, final = case.fast(x, state, None)
    assert o.shape == (batch, length, 2, 6 if name == "HGRN" else 3)
    assert all(torch.equal(a, b) and a is not b for a, b in zip(final, state, strict=True))
    slopes = torch.autograd.grad(o.sum(), leaves, allow_unused=True)
    assert not any(d.any() for d in slopes if d is not None)
    if not name.startswith("MLP"):
        _, final = case.fast(x, None, None)
        assert [s.shape for s in final] == [s.shape for s in state]
        assert not any(s.any() for s in final)


@pytest.mark.parametrize("name", CASES)
def test_a_step_of_no_robots(name, form, device):
    x, state = make(CASES[name], 0, 1, dtype=torch.float32)
    x = {n: (t if t.dim() == 1 else t[:, 0]).to(device) for n, t in x.items()}
    o = CASES[name].step(x, [s.to(device) for s in state])
    assert o.shape == ((0, 2, 5) if name == "HGRN" else (0, 2, 3))


def test_no_robots_around_a_memory(device):
    x, rows = torch.ones(0, 4, device=device), torch.ones(0, 3, 2, 4, device=device)
    weight = torch.ones(5, 4, device=device)
    assert ops.linear_step(x, weight).shape == (0, 5)
    assert ops.convolution_step(x, weight, before=torch.ones(0, 4, 4, device=device)).shape == (
        0,
        4,
    )
    assert ops.sliding_window_attention(rows, rows, rows, window=2).shape == rows.shape
    assert ops.hopfield_retrieval(rows, rows).shape == rows.shape
    seen = torch.zeros(0, dtype=torch.long, device=device)
    state = {"keys": rows.clone(), "values": rows.clone(), "seen": seen}
    assert ops.attention_step(rows[:, 0], rows[:, :1], rows[:, :1], **state).shape == (0, 2, 4)


def with_shut_gates(x):
    """Open, shut and nearly so, in the first and in later chunks, for some heads and keys alone."""
    for gate in GATES:
        if gate in x and x[gate].dim() == 1:
            x[gate] = torch.tensor([-torch.inf, 0.0])
        elif gate in x:
            x[gate][:, 2:4] = 0.0
            x[gate][:, 5] = -torch.inf
            x[gate][:, 6, 0] = -1e7
            x[gate][:, 21, ..., 1] = -1e7
            x[gate][:, 34:36, ..., 0] = -torch.inf
    return x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", GATED)
def test_gates_may_be_shut(name, dtype, form, device):
    x, state = make(CASES[name], 1, 40, heads=2, keys=5, values=3)
    if name.startswith("MLP"):
        x["k"] *= 0.3  # steps of size 1 on longer keys diverge, or blow roundings up
    check(name, with_shut_gates(x), state, dtype, device)


@pytest.mark.parametrize("name", [n for n in GATED if n != "HGRN"])
@pytest.mark.parametrize("gate", [0.0, -1e7, -torch.inf])
def test_gates_of_steps_may_be_shut(name, gate, form, device, monkeypatch):
    monkeypatch.setattr("memory_cases.CHUNK", 1)
    x, state = make(CASES[name], 2, 1)
    x |= {g: torch.full_like(x[g], gate) for g in GATES if g in x}
    wanted, last = CASES[name].slow(expanded(x), state, None)
    x = {n: (t if t.dim() == 1 else t[:, 0]).float().to(device) for n, t in x.items()}
    state = [s.float().to(device) for s in state]
    o = CASES[name].step(x, state)
    assert error(o.cpu(), wanted[:, 0]) < 1e-5
    assert all(error(a.cpu(), b) < 1e-5 for a, b in zip(state, last, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shut", [-1e7, -torch.inf])
@pytest.mark.parametrize("name", FORGETTING)
def test_nothing_passes_a_shut_gate(name, shut, dtype, form, device):
    """Not a bit of what was before comes out, and no gradient goes back."""
    at = 21
    x, state = make(CASES[name], 1, 40, heads=1)
    for gate in GATES:
        if gate in x:
            x[gate][:, at] = shut
    x = {n: (t.to(dtype) if n in SEQUENCES else t.float()).to(device) for n, t in x.items()}
    state = [s.float().to(device) for s in state]
    other = {n: torch.cat([t[:, :at].flip(1), t[:, at:]], 1) for n, t in x.items()}

    def later(x, state, cu_seqlens):
        o, final = CASES[name].fast(x, state, cu_seqlens)
        return o[:, at:], final

    outputs, slopes = gradients(later, x, state)
    changed, _ = gradients(later, other, [2 * s for s in state])
    assert all(torch.equal(a, b) for a, b in zip(outputs, changed, strict=True))
    for key, d in slopes.items():
        if key not in GATES:
            assert not (d if key.startswith("state") else d[:, :at]).any(), key


@pytest.mark.parametrize("name", CASES)
def test_second_derivatives_of_torch_operations(name):
    case = CASES[name]
    x, state = make(case, 1, 9, heads=1, keys=3, values=2)

    def penalty(function):
        leaves = [t.clone().requires_grad_() for t in (*x.values(), *state)]
        o, final = function(dict(zip(x, leaves, strict=False)), leaves[len(x) :], None)
        loss = o.square().sum() + sum(s.square().sum() for s in final)
        slopes = torch.autograd.grad(loss, leaves, create_graph=True)
        return torch.autograd.grad(sum(s.square().sum() for s in slopes), leaves)

    wanted = penalty(lambda x, s, c: case.slow(expanded(x), s, c))
    torch.testing.assert_close(penalty(case.fast), wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_second_derivatives_of_kernels_are_refused(name, power, device, monkeypatch):
    """With a loss linear in what comes out, too: then no incoming gradient has one itself."""
    for module in MODULES:
        module = import_module(f"hypercrl_kernels.memory.{module}.api")
        monkeypatch.setattr(module, "runs_as_kernel", lambda *_, **__: True)
    case = CASES[name]
    x, state = make(case, 1, 9, heads=1, keys=3, values=2, dtype=torch.float32)
    x, state = {n: t.to(device) for n, t in x.items()}, [s.to(device) for s in state]
    weight = torch.ones((), device=device, requires_grad=True)
    entry = x["q"].requires_grad_()
    for output in (0, 1):
        if output == 1 and name != "HGRN":
            entry = x["v"].requires_grad_()
        inputs = {n: t if t.dim() == 1 else weight * t for n, t in x.items()}
        o, final = case.fast(inputs, state, None)
        loss = (o if output == 0 else final[1 if "MLP" in name else 0]).pow(power).sum()
        (slope,) = torch.autograd.grad(loss, entry, create_graph=True)
        with pytest.raises(RuntimeError, match="cannot be differentiated again"):
            torch.autograd.grad(slope.square().sum(), weight)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_normaliser_of_zero_divides_nothing(dtype, form, device):
    x, _ = make(CASES["linear attention, normalised"], 1, 20)
    x["k"][:, :2] = 0.0  # nothing is written
    x["q"][:, 11] = 0.0  # nothing is read
    x = {n: t.to(device, dtype) for n, t in x.items()}
    (o, _), slopes = gradients(CASES["linear attention, normalised"].fast, x, None)
    assert not o[:, [0, 1, 11]].any()
    others = [t for t in range(2, 20) if t != 11]
    q, k, v = (x[n].double() for n in "qkv")
    weights = torch.einsum("bthk,bjhk->bthj", q, k)
    weights *= torch.ones(20, 20, device=device).tril()[:, None]
    weights = weights[:, others] / weights[:, others].sum(-1, keepdim=True)
    limit = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}[dtype]
    assert error(o[:, others], torch.einsum("bthj,bjhv->bthv", weights, v)) < limit
    assert all(d.isfinite().all() for d in slopes.values())
    now = {n: t[:, 0] for n, t in x.items()}
    state = [torch.zeros(1, 2, 5, 4, device=device)]
    assert not CASES["linear attention, normalised"].step(now, state).any()


@pytest.mark.parametrize("name", [n for n in GATED if n != "RetNet" and "heads" not in n])
def test_log_gates_above_zero_are_refused(name):
    """Where looking at them does not wait for a GPU."""
    x, state = make(CASES[name], 2, 4)
    for gate in [g for g in GATES if g in x]:
        wrong = {n: t.clone() for n, t in x.items()}
        wrong[gate][1, 3, 1] = 1e-3
        message = f"needs log_{'momentum' if gate == 'log_momentum' else 'decay'} ≤ 0"
        with pytest.raises(ValueError, match=message):
            CASES[name].fast(wrong, state, None)
        with pytest.raises(ValueError, match=message):
            CASES[name].step({n: t[:, 3] for n, t in wrong.items()}, state)
