"""Every memory operation beside its recurrence, and inputs that tell them apart."""

import itertools
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn.functional import normalize

import hypercrl_kernels as ops
from hypercrl_kernels.memory.based.naive import EPSILON, based_recurrence, feature_count
from hypercrl_kernels.memory.chunk_gla.naive import gla_recurrence
from hypercrl_kernels.memory.chunk_memory.naive import memory_recurrence
from hypercrl_kernels.memory.mlp_memory.naive import mlp_memory_recurrence
from hypercrl_kernels.memory.scan.naive import scan_recurrence

HIDDEN = 7
CHUNK = 16
SEQUENCES = ("q", "k", "v", "key_decay")  # in half precision where anything is
ROUNDOFF = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
ROUNDINGS = 8


@dataclass(frozen=True)
class Case:
    """One operation with one choice of its options.

    Attributes:
        fast: from (inputs, state, cu_seqlens) to (o, list of states), the public operation.
        slow: the same by the recurrence, in the dtype of the inputs.
        inputs: names of the sequences it takes.
        state: shapes behind [N, H], one per tensor, from (K, V).
        step: the one-step form of `fast`, from (inputs at one step, state).
        writes: of a step, one after another; None: one, without an axis of its own.
        group: heads that share a query and a key.
    """

    fast: object
    slow: object
    inputs: tuple
    state: object
    step: object
    writes: int | None = None
    group: int = 1


def _scaled(x):
    return x["q"] * x["q"].shape[-1] ** -0.5, x["k"], x["v"]


def _gates(x):
    gates = {name: x[name] for name in ("log_decay", "beta", "log_momentum") if name in x}
    return gates | ({"log_decay": x["key_decay"]} if "key_decay" in x else {})


def memory_case(error, *gates, normaliser=False, writes=None, group=1):
    def fast(x, state, cu_seqlens):
        o, final = ops.chunk_memory(
            x["q"], x["k"], x["v"], **_gates(x), error=error, normalise=normaliser, chunk=CHUNK,
            initial_state=state and state[0], cu_seqlens=cu_seqlens,
        )  # fmt: skip
        return o, [final]

    def slow(x, state, cu_seqlens):
        q, k, v = _scaled(x)
        if normaliser:
            v = torch.cat([v, torch.ones_like(v[..., :1])], -1)
        o, final = memory_recurrence(
            q, k, v, **_gates(x), error=error, chunk=CHUNK,
            initial_state=state and state[0], cu_seqlens=cu_seqlens,
        )  # fmt: skip
        return (o[..., :-1] / o[..., -1:] if normaliser else o), [final]

    def step(x, state):
        return ops.memory_step(
            x["q"], x["k"], x["v"], **_gates(x), error=error, normalise=normaliser, state=state[0]
        )

    def shapes(keys, values):
        return [((2,) if "log_momentum" in gates else ()) + (keys, values + normaliser)]

    return Case(fast, slow, ("q", "k", "v", *gates), shapes, step, writes, group)


def gla_case():
    def fast(x, state, cu_seqlens):
        o, final = ops.chunk_gla(
            x["q"], x["k"], x["v"], log_decay=x["key_decay"],
            initial_state=state and state[0], cu_seqlens=cu_seqlens,
        )  # fmt: skip
        return o, [final]

    def slow(x, state, cu_seqlens):
        o, final = gla_recurrence(
            *_scaled(x), x["key_decay"], initial_state=state and state[0], cu_seqlens=cu_seqlens
        )
        return o, [final]

    def step(x, state):
        return ops.gla_step(x["q"], x["k"], x["v"], log_decay=x["key_decay"], state=state[0])

    return Case(fast, slow, ("q", "k", "v", "key_decay"), lambda k, v: [(k, v)], step)


def scan_case():
    def fast(x, state, cu_seqlens):
        o, final = ops.scan(
            x["q"], log_decay=x["key_decay"], initial_state=state and state[0],
            cu_seqlens=cu_seqlens,
        )  # fmt: skip
        return o, [final]

    def slow(x, state, cu_seqlens):
        q = x["q"]
        count = len(q) if cu_seqlens is None else len(cu_seqlens) - 1
        start = state[0] if state else q.new_zeros(count, *q.shape[2:])
        o, final = scan_recurrence(q, x["key_decay"], start, cu_seqlens)
        return o, [final]

    def step(x, state):
        return ops.scan_step(x["q"], log_decay=x["key_decay"], state=state[0])

    return Case(fast, slow, ("q", "key_decay"), lambda k, v: [(k,)], step)


def based_case():
    def fast(x, state, cu_seqlens):
        o, final = ops.based(
            x["q"], x["k"], x["v"], initial_state=state and state[0], cu_seqlens=cu_seqlens
        )
        return o, [final]

    def slow(x, state, cu_seqlens):
        q, k, v = x["q"], x["k"], x["v"]
        count = len(q) if cu_seqlens is None else len(cu_seqlens) - 1
        shape = (count, q.shape[2], feature_count(q.shape[3]), v.shape[3] + 1)
        start = state[0] if state else q.new_zeros(shape)
        o, final = based_recurrence(
            q, k, torch.cat([v, torch.ones_like(v[..., :1])], -1), start, cu_seqlens
        )
        return o[..., :-1] / (o[..., -1:] + EPSILON), [final]

    def step(x, state):
        return ops.based_step(x["q"], x["k"], x["v"], state=state[0])

    return Case(fast, slow, ("q", "k", "v"), lambda k, v: [(feature_count(k), v + 1)], step)


def mlp_case(activation, *gates):
    def run(function, x, state, cu_seqlens):
        o, final = function(
            x["q"], x["k"], x["v"], **_gates(x), activation=activation, chunk=CHUNK,
            cu_seqlens=cu_seqlens, initial_state=ops.MLPState(*state),
        )  # fmt: skip
        return o, list(final)

    def recurrence(q, k, v, initial_state, **options):
        return mlp_memory_recurrence(q, k, v, initial_state, **options)

    def step(x, state):
        state = ops.MLPState(*state)
        gates = _gates(x)
        return ops.mlp_memory_step(
            x["q"], x["k"], x["v"], **gates, activation=activation, state=state
        )

    def shapes(k, v):
        return [(k, HIDDEN), (HIDDEN, v), (k, HIDDEN), (HIDDEN, v)]

    fast, slow = partial(run, ops.chunk_mlp_memory), partial(run, recurrence)
    return Case(fast, slow, ("q", "k", "v", *gates), shapes, step)


CASES = {
    "linear attention": memory_case("none"),
    "linear attention, normalised": memory_case("none", normaliser=True),
    "RetNet": memory_case("none", "head_decay"),
    "gated": memory_case("none", "log_decay", "beta"),
    "gated, normalised": memory_case("none", "log_decay", normaliser=True),
    "momentum alone": memory_case("none", "log_momentum"),
    "DeltaNet": memory_case("before_decay", "beta"),
    "gated DeltaNet": memory_case("after_decay", "log_decay", "beta"),
    "gated DeltaNet, heads": memory_case("after_decay", "head_decay", "beta"),
    "error before decay": memory_case("before_decay", "log_decay", "beta"),
    "chunk-start error": memory_case("chunk_start", "log_decay", "beta"),
    "Titans": memory_case("before_decay", "log_decay", "beta", "log_momentum"),
    "Titans, chunk start": memory_case("chunk_start", "log_decay", "beta", "log_momentum"),
    "momentum, error after decay": memory_case("after_decay", "log_decay", "beta", "log_momentum"),
    "momentum, no decay": memory_case("before_decay", "beta", "log_momentum"),
    "KDA": memory_case("after_decay", "key_decay", "beta"),
    "a decay of every key": memory_case("none", "key_decay", "beta", group=2),
    "DeltaProduct": memory_case("before_decay", "beta", writes=3),
    "gated DeltaProduct": memory_case("after_decay", "log_decay", "beta", writes=2, group=2),
    "GLA": gla_case(),
    "HGRN": scan_case(),
    "BASED": based_case(),
    "MLP": mlp_case("gelu", "beta"),
    "MLP, all gates": mlp_case("gelu", "log_decay", "beta", "log_momentum"),
    "MLP, silu": mlp_case("silu", "log_decay", "log_momentum"),
}


def make(case, batch, length, heads=2, keys=5, values=3, offsets=None, seed=0, dtype=torch.float64):
    """Random inputs by name, and a random state for each segment or each of the batch."""
    g = torch.Generator().manual_seed(seed)
    randn = partial(torch.randn, generator=g, dtype=torch.float64)
    rand = partial(torch.rand, generator=g, dtype=torch.float64)
    lead, groups = (batch, length, heads), max(1, heads // case.group)
    wrote = (batch, length) if case.writes is None else (batch, length, case.writes)
    every = {
        "q": randn(batch, length, groups, keys),
        "k": normalize(randn(*wrote, groups, keys), dim=-1).abs(),
        "v": randn(*wrote, heads, values),
        "log_decay": -rand(*lead),
        "beta": rand(*wrote, heads),
        "log_momentum": -0.1 - rand(*lead),
        "key_decay": -rand(*lead, keys),
    }
    x = {name: every[name] for name in case.inputs if name != "head_decay"}
    if "head_decay" in case.inputs:
        x["log_decay"] = -rand(heads)
    if case is CASES["linear attention, normalised"] or case is CASES["gated, normalised"]:
        x["q"] = x["q"].abs()  # a normaliser needs positive features
    if case in (CASES["chunk-start error"], CASES["Titans, chunk start"]):
        x["beta"] = x["beta"] / CHUNK  # all steps of a chunk correct one error
    count = batch if offsets is None else len(offsets) - 1
    state = [randn(count, heads, *s).abs() / s[0] ** 0.5 for s in case.state(keys, values)]
    return {n: t.to(dtype) for n, t in x.items()}, [s.to(dtype) for s in state]


def _projected(*sequences, beside=0):
    """Views of one tensor [B, T, ·] that holds all of them in a step, and `beside` NaN."""
    flat = [x.flatten(2) for x in sequences]
    flat.append(flat[0].new_full((*flat[0].shape[:2], beside), torch.nan))
    parts = torch.cat(flat, -1).split([x.shape[2] for x in flat], -1)
    return [y.unflatten(2, x.shape[2:]) for x, y in zip(sequences, parts, strict=False)]


def _every_other_step(*sequences):
    return [torch.stack([x, x.new_full(x.shape, torch.nan)], 2)[:, :, 0] for x in sequences]


def _heads_first(*sequences):
    return [x.transpose(1, 2).contiguous().transpose(1, 2) for x in sequences]


LAYOUTS = {
    "one projection": _projected,
    "beside gates": partial(_projected, beside=3),  # rows that are no multiple of 16 bytes
    "every other step": _every_other_step,
    "heads first": _heads_first,
}
"""From sequences [B, T, H, ·] to the same as views of larger tensors."""


def expanded(x):
    """The same inputs with a decay per step, which is what the recurrence takes."""
    if "log_decay" in x and x["log_decay"].dim() == 1:
        return x | {"log_decay": x["log_decay"].expand(x["k"].shape[:3])}
    return x


def walk(batch, length, heads, width, seed=0):
    """Keys of unit length along a random walk: neighbours nearly equal, as in trajectories."""
    g = torch.Generator().manual_seed(seed)
    steps = torch.randn(batch, length, heads, width, generator=g, dtype=torch.float64)
    steps[:, 1:] *= 0.1
    return normalize(steps.cumsum(1), dim=-1)


def correlated(name, strength, batch, length, heads, values=64, seed=0):
    """`make` with keys 64 wide of a random walk, the queries a step behind them, β and slow decays.

    Such keys make I + L ill-conditioned. A strength of None leaves β as it is made.
    """
    x, state = make(CASES[name], batch, length, heads, keys=64, values=values, seed=seed)
    x["k"] = walk(batch, length, heads, 64, seed)
    x["q"] = x["k"].roll(1, 1)
    if strength is not None:
        x["beta"] = torch.full_like(x["beta"], strength)
    for gate in ("log_decay", "key_decay"):
        if gate in x:
            x[gate] = 0.01 * x[gate]
    return x, state


def relative(got, exact):
    """‖got − exact‖ / ‖exact‖."""
    got, exact = got.detach().double().cpu(), exact.detach().double().cpu()
    return float((got - exact).norm() / exact.norm())


def gradients(function, x, state, cu_seqlens=None, seed=0):
    """Outputs, and the gradients of all inputs and states for fixed random cotangents."""
    names = list(x)
    leaves = [t.detach().clone().requires_grad_() for t in itertools.chain(x.values(), state or [])]
    inputs = dict(zip(names, leaves, strict=False))
    o, final = function(inputs, leaves[len(names) :] or None, cu_seqlens)
    g = torch.Generator().manual_seed(seed)
    loss = sum(
        (y * torch.randn(y.shape, generator=g, dtype=torch.float64).to(y)).sum()
        for y in (o, *final)
    )
    grads = torch.autograd.grad(loss, leaves)
    labels = [*names, *(f"state {i}" for i in range(len(leaves) - len(names)))]
    return [o, *final], dict(zip(labels, grads, strict=True))


def by_name(results):
    """What `gradients` returns as one dict."""
    outputs, slopes = results
    named = {"o": outputs[0]} | {f"final state {i}": y for i, y in enumerate(outputs[1:])}
    return named | {f"d {name}": slope for name, slope in slopes.items()}


def half_precision_limits(exact, function, x, state, cu_seqlens, dtype):
    """Relative error that each of the `exact` outputs and gradients may have in half precision.

    It is `ROUNDINGS` times what one rounding of everything in half precision that goes in or out
    (the sequences, o and its gradient) does to the exact result, found by moving each number by an
    independent share in ± the unit roundoff. A kernel rounds about ten operands between a chunk's
    inputs and its output (the state, what is known, T, what is written, the scores, what is
    carried, the output), and as many on the way back. Each is off by 0.7 of the uniform share in
    root mean square, as numbers lie anywhere between powers of two. If all pulled the same way,
    that would be seven times one input's share.
    """
    g = torch.Generator().manual_seed(1)

    def moved(value):
        share = 2 * torch.rand(value.shape, generator=g, dtype=torch.float64) - 1
        return value * (1 + ROUNDOFF[dtype] * share.to(value.device))

    def rounded(x, state, cu_seqlens):
        o, final = function(x, state, cu_seqlens)
        return moved(o), final

    inputs = {name: moved(value) if name in SEQUENCES else value for name, value in x.items()}
    other = by_name(gradients(rounded, inputs, state, cu_seqlens))
    return {name: ROUNDINGS * relative(other[name], exact[name]) for name in exact}
