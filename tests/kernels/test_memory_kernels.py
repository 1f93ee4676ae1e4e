"""The matrix-memory kernels against the recurrence in float64: on a GPU, or interpreted."""

from typing import get_args

import pytest
import torch
from memory_cases import CASES, LAYOUTS, correlated, expanded, gradients, make, relative
from torch.nn.functional import normalize

from hypercrl_kernels import MLPState
from hypercrl_kernels.memory.chunk_memory.naive import Error

NAMES = [
    "linear attention", "RetNet", "gated", "momentum alone", "DeltaNet", "gated DeltaNet",
    "error before decay", "chunk-start error", "Titans", "Titans, chunk start",
    "momentum, error after decay", "GLA", "KDA", "HGRN",
    "MLP", "MLP, all gates", "MLP, silu",
]  # fmt: skip
ERRORS = {
    "DeltaNet": "before_decay", "gated DeltaNet": "after_decay",
    "error before decay": "before_decay", "chunk-start error": "chunk_start",
    "Titans": "before_decay", "Titans, chunk start": "chunk_start",
    "momentum, error after decay": "after_decay", "momentum, no decay": "before_decay",
}  # fmt: skip
PLACES = get_args(Error)
OFFSETS = [0, 0, 17, 18, 18, 40]


@pytest.fixture(autouse=True)
def poisoned(device, monkeypatch):
    """What a kernel does not write is not a number."""
    from hypercrl_kernels.memory.chunk_gla import launch as gla_launch
    from hypercrl_kernels.memory.chunk_memory import launch as memory_launch

    unwritten = memory_launch.unwritten

    def filled(*arguments):
        return [x if x is None else x.fill_(torch.nan) for x in unwritten(*arguments)]

    for module in (memory_launch, gla_launch):
        monkeypatch.setattr(module, "unwritten", filled)


def kernels(name, device):
    from hypercrl_kernels.memory.chunk_memory.op import memory_kernels

    def gla(x, state, cu_seqlens):
        from hypercrl_kernels.memory.chunk_gla.op import gla_kernels

        scale, start = x["q"].shape[-1] ** -0.5, state and state[0]
        o, final = gla_kernels(
            x["q"], x["k"], x["v"], x["key_decay"], x.get("beta"), start, cu_seqlens, scale
        )
        return o, [final]

    def scan(x, state, cu_seqlens):
        from hypercrl_kernels.memory.scan.op import scan_kernels

        o, final = scan_kernels(x["q"], x["key_decay"], state and state[0], cu_seqlens)
        return o, [final]

    def mlp(x, state, cu_seqlens):
        from hypercrl_kernels.memory.mlp_memory.op import mlp_memory_kernels

        gates = [x.get(gate) for gate in ("log_decay", "beta", "log_momentum")]
        o, final = mlp_memory_kernels(
            x["q"], x["k"], x["v"], *gates, MLPState(*state), cu_seqlens, "silu" in name, 16
        )
        return o, list(final)

    def run(x, state, cu_seqlens):
        x = expanded(x)
        gates = [x.get(gate) for gate in ("log_decay", "beta", "log_momentum")]
        error, scale = PLACES.index(ERRORS.get(name, "none")), x["q"].shape[-1] ** -0.5
        o, final = memory_kernels(
            x["q"], x["k"], x["v"], *gates, state and state[0], cu_seqlens, error, scale, 16
        )
        return o, [final]

    return {"GLA": gla, "KDA": gla, "HGRN": scan}.get(name, mlp if "MLP" in name else run)


def check(name, x, state, cu_seqlens, device, limit=1e-5, dtype=torch.float32):
    slow = lambda x, s, c: CASES[name].slow(expanded(x), s, c)  # noqa: E731
    compare(slow, kernels(name, device), x, state, cu_seqlens, device, limit, dtype)


def compare(slow, fast, x, state, cu_seqlens, device, limit=1e-5, dtype=torch.float32):
    """Outputs and gradients of `fast` on the device against `slow` in float64."""
    x = {n: t.to(dtype) if n in ("q", "k", "v") else t.float() for n, t in x.items()}
    state = state and [s.float() for s in state]
    exact = ({n: t.double() for n, t in x.items()}, state and [s.double() for s in state])
    wanted, wanted_gradients = gradients(slow, *exact, cu_seqlens)
    moved = ({n: t.to(device) for n, t in x.items()}, state and [s.to(device) for s in state])
    offsets = None if cu_seqlens is None else cu_seqlens.to(device)
    got, got_gradients = gradients(fast, *moved, offsets)
    for a, b in zip(got, wanted, strict=True):
        assert relative(a, b) < limit
    for key, b in wanted_gradients.items():
        assert relative(got_gradients[key], b) < limit or b.norm() < limit, f"d {key}"


@pytest.mark.parametrize("length", [1, 16, 33])
@pytest.mark.parametrize("name", NAMES)
def test_kernels_equal_the_recurrence(name, length, device):
    check(name, *make(CASES[name], 1, length, keys=20, values=18), None, device)


@pytest.mark.parametrize("length", [1, 16, 100])
@pytest.mark.parametrize("started", [False, True])
def test_based_kernels(length, started, device):
    from hypercrl_kernels.memory.based.op import based_kernels

    def run(x, state, cu_seqlens):
        o, final = based_kernels(x["q"], x["k"], x["v"], state and state[0], 1e-6)
        return o, [final]

    x, state = make(CASES["BASED"], 1, length, heads=1, keys=6, values=5)
    compare(CASES["BASED"].slow, run, x, state if started else None, None, device)


@pytest.mark.parametrize("name", NAMES)
def test_kernels_take_segments(name, device):
    x, state = make(CASES[name], 1, OFFSETS[-1], heads=1, offsets=OFFSETS)
    check(name, x, state, torch.tensor(OFFSETS), device)


@pytest.mark.parametrize("name", ["gated", "gated DeltaNet", "Titans", "GLA", "HGRN"])
def test_kernels_without_a_state(name, device):
    x, _ = make(CASES[name], 2, 20)
    check(name, x, None, None, device)


@pytest.mark.parametrize("reads_alone", [False, True])
@pytest.mark.parametrize("length", [9, 20])
@pytest.mark.parametrize("name", ["MLP", "MLP, all gates", "MLP, silu"])
def test_mlp_memories_that_start_from_the_same_weights(name, length, reads_alone, device):
    """Their weights lie in memory once; in a single chunk nothing that is zero is written."""
    x, state = make(CASES[name], 2, length, keys=20, values=18)
    start = [w[0] for w in state[:2]]

    def shared(function):
        def run(x, state, cu_seqlens):
            o, final = function(x, list(MLPState.fresh(*state, 2)), cu_seqlens)
            return o, [] if reads_alone else final[: 4 if "log_momentum" in x else 2]

        return run

    compare(shared(CASES[name].slow), shared(kernels(name, device)), x, start, None, device)


@pytest.mark.parametrize(
    ("layout", "length"), [("one projection", 9), *((layout, 20) for layout in LAYOUTS)]
)
def test_mlp_memories_bring_keys_to_length_one(layout, length, device):
    from hypercrl_kernels.memory.mlp_memory.op import mlp_memory_kernels

    def unit(x, state, cu_seqlens):
        q, k = (normalize(x[n], dim=-1) for n in "qk")
        return CASES["MLP"].slow(x | {"q": q, "k": k}, state, cu_seqlens)

    def run(x, state, cu_seqlens):
        """From views, as they lie."""
        q, k, v = LAYOUTS[layout](*(x[n] for n in "qkv"))
        given = (q, k, v, None, x["beta"], None, MLPState(*state), cu_seqlens)
        o, final = mlp_memory_kernels(*given, False, 16, True)
        return o, list(final)

    x, state = make(CASES["MLP"], 2, length, heads=2, keys=5, values=3)
    x["k"] = 3 * x["k"]
    compare(unit, run, x, state, None, device)


@pytest.mark.parametrize("length", [20, 40])
@pytest.mark.parametrize(
    "name", ["gated", "gated DeltaNet", "error before decay", "chunk-start error", "Titans", "GLA"]
)
def test_kernels_without_a_gradient_of_the_final_state(name, length, device):
    x, _ = make(CASES[name], 1, length, heads=1)

    def reads(function):
        return lambda x, state, offsets: (function(x, state, offsets)[0], [])

    slow = reads(lambda x, s, c: CASES[name].slow(expanded(x), s, c))
    compare(slow, reads(kernels(name, device)), x, None, None, device)


def test_kernels_in_half_precision(device):
    x, state = make(CASES["gated DeltaNet"], 1, 33, keys=20, values=18)
    check("gated DeltaNet", x, state, None, device, 3e-3, torch.float16)


def cut(monkeypatch, chunk, block):
    """The fused kernels, cut so."""
    from hypercrl_kernels.memory.chunk_gla import launch as gla_launch
    from hypercrl_kernels.memory.chunk_memory import launch as memory_launch
    from hypercrl_kernels.memory.chunk_memory import split_launch

    monkeypatch.setattr(split_launch, "choose_split", lambda *_: None)
    for name in ("prepare_forward", "prepare_backward"):  # as chosen now, not as kept
        kept = getattr(memory_launch, name)
        monkeypatch.setattr(memory_launch, name, getattr(kept, "__wrapped__", kept))
    # Not 4 for 32: ptxas 13.0 makes wrong code of that in float32 with momentum (right with
    # DISABLE_PTXAS_OPT=1), which no launch that is chosen for float32 has.
    launch = memory_launch.Launch(chunk, warps=8 if chunk == 32 else 4, block=block)
    for module in (memory_launch, gla_launch):
        for name in ("prepare_forward", "prepare_backward"):  # as chosen now, not as kept
            kept = getattr(module, name)
            monkeypatch.setattr(module, name, getattr(kept, "__wrapped__", kept))
        monkeypatch.setattr(module, "choose_launches", lambda *_: (launch, launch))


@pytest.mark.parametrize(("chunk", "block"), [(16, 16), (32, 32), (64, 16)])
@pytest.mark.parametrize("name", ["gated", "gated DeltaNet", "Titans"])
def test_every_cut_gives_the_same(name, chunk, block, device, monkeypatch):
    cut(monkeypatch, chunk, block)
    check(name, *make(CASES[name], 1, 70, heads=1, keys=20, values=40), None, device)


@pytest.mark.parametrize("chunk", [16, 32, 64])
@pytest.mark.parametrize("strength", [1.0, 2.0])
@pytest.mark.parametrize("name", ["DeltaNet", "gated DeltaNet", "error before decay", "KDA"])
def test_correlated_keys(name, strength, chunk, device, monkeypatch):
    cut(monkeypatch, chunk, 16)
    x, state = correlated(name, strength, 1, 128, heads=1, values=16)
    check(name, x, state, None, device, 1e-4)


@pytest.mark.parametrize(("chunk", "limit"), [(16, 0.02), (64, 0.03)])
@pytest.mark.parametrize("name", ["DeltaNet", "gated DeltaNet", "error before decay"])
def test_correlated_keys_in_half_precision(name, chunk, limit, device, monkeypatch):
    """An inverse in float16 alone, or kept as one of it, errs by twice the limits and more."""
    cut(monkeypatch, chunk, 16)
    x, state = correlated(name, 2.0, 1, 128, heads=2, values=16)
    check(name, x, state, None, device, limit, torch.float16)


@pytest.mark.parametrize("gate", [0.0, -20.0, -200.0])
@pytest.mark.parametrize(
    "name", ["gated", "gated DeltaNet", "error before decay", "Titans", "GLA", "KDA", "HGRN"]
)
def test_gates_from_open_to_shut(name, gate, device):
    x, state = make(CASES[name], 1, 40, heads=1)
    for each in ("log_decay", "log_momentum", "key_decay"):
        if each in x:
            x[each] = torch.full_like(x[each], gate)
            x[each][:, ::3] = -0.1
    x.update({"beta": 0.3 * x["beta"]} if "beta" in x else {})
    check(name, x, state, None, device)


@pytest.mark.parametrize("name", ["KDA", "HGRN"])
def test_other_operators_registered_with_torch(name, device):
    from hypercrl_kernels.memory.chunk_gla.op import gla_op
    from hypercrl_kernels.memory.scan.op import scan_op

    x, state = make(CASES[name], 1, 17, heads=1, dtype=torch.float32)
    tensors = [t.to(device).requires_grad_() for t in (*x.values(), state[0])]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    if name == "KDA":
        torch.library.opcheck(gla_op, (*tensors, None, 0.5, True), test_utils=checks)
    else:
        torch.library.opcheck(scan_op, (*tensors, None), test_utils=checks)


@pytest.mark.parametrize("name", ["linear attention", "gated DeltaNet", "Titans"])
def test_registered_with_torch(name, device):
    from hypercrl_kernels.memory.chunk_memory.op import memory_op

    x, state = make(CASES[name], 1, 17, heads=1, dtype=torch.float32)
    tensors = [x.get(n) for n in ("q", "k", "v", "log_decay", "beta", "log_momentum")]
    tensors = [t if t is None else t.to(device).requires_grad_() for t in (*tensors, state[0])]
    error = PLACES.index(ERRORS.get(name, "none"))
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    arguments = (*tensors, None, error, 0.5, 16, True)
    torch.library.opcheck(memory_op, arguments, test_utils=checks)


@pytest.mark.parametrize("name", ["gated DeltaNet", "GLA", "HGRN"])
def test_forward_mode_derivatives_are_refused(name, device):
    """They have none: what has a tangent, and needs no gradient, must not lose it unsaid."""
    x, state = make(CASES[name], 1, 17, heads=1, dtype=torch.float32)
    x, state = {n: t.to(device) for n, t in x.items()}, [s.to(device) for s in state]
    with torch.autograd.forward_ad.dual_level():
        x["q"] = torch.autograd.forward_ad.make_dual(x["q"], torch.ones_like(x["q"]))
        with pytest.raises(NotImplementedError, match="jvp"):
            kernels(name, device)(x, state, None)


def test_problems_of_other_sizes_one_after_another(device):
    """What is kept of one problem is not used for another."""
    sizes = [(1, 17, 16, 16), (2, 17, 16, 16), (1, 40, 16, 16), (1, 17, 20, 18), (1, 17, 16, 16)]
    for batch, length, keys, values in sizes:
        for started in (True, False):
            x, state = make(CASES["gated"], batch, length, keys=keys, values=values)
            check("gated", x, state if started else None, None, device)


def test_compiled_for_any_length(device):
    function = kernels("gated DeltaNet", device)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
    for length in (17, 40, 90):
        x, _ = make(CASES["gated DeltaNet"], 1, length, heads=1, dtype=torch.float32)
        x = {n: t.to(device) for n, t in x.items()}
        wanted, wanted_gradients = gradients(function, x, None)
        got, got_gradients = gradients(compiled, x, None)
        torch.testing.assert_close(got, wanted)
        torch.testing.assert_close(got_gradients, wanted_gradients)


def test_compiled(device):
    x, state = make(CASES["gated DeltaNet"], 1, 17, heads=1, dtype=torch.float32)
    x, state = {n: t.to(device) for n, t in x.items()}, [s.to(device) for s in state]
    function = kernels("gated DeltaNet", device)
    wanted, wanted_gradients = gradients(function, x, state)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    got, got_gradients = gradients(compiled, x, state)
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(got_gradients, wanted_gradients)


@pytest.mark.parametrize(
    "name", [n for n in (*NAMES, "linear attention, normalised", "BASED") if n != "HGRN"]
)
def test_step_kernel(name, device, monkeypatch):
    monkeypatch.setattr("hypercrl_kernels.memory.steps.api.step_as_kernel", lambda *_: True)
    case = CASES[name]
    x, state = make(case, 3, 1, keys=20, values=18, dtype=torch.float32)
    now = {n: t if t.dim() == 1 else t[:, 0] for n, t in x.items()}
    monkeypatch.setattr("memory_cases.CHUNK", 1)
    o, final = case.slow(
        expanded({n: t.double() for n, t in x.items()}), [s.double() for s in state], None
    )
    state = [s.to(device) for s in state]
    got = case.step({n: t.to(device) for n, t in now.items()}, state)
    assert relative(got, o[:, 0]) < 1e-5
    for a, b in zip(state, final, strict=True):
        assert relative(a, b) < 1e-6
