"""Memory operations on the CPU: the chunk forms against the recurrences that define them."""

import pytest
import torch
from memory_cases import (
    CASES,
    Case,
    correlated,
    expanded,
    gradients,
    make,
    memory_case,
    relative,
)
from torch.nn.functional import normalize

import hypercrl_kernels as ops

OFFSETS = [0, 0, 17, 18, 18, 40]
DELTA = ["DeltaNet", "gated DeltaNet", "error before decay", "KDA"]


@pytest.mark.parametrize("length", [1, 15, 16, 17, 63, 100])
@pytest.mark.parametrize("name", CASES)
def test_chunks_equal_the_recurrence(name, length):
    case = CASES[name]
    x, state = make(case, 2, length)
    compare(case, x, state, None)


@pytest.mark.parametrize("name", CASES)
def test_segments_equal_the_recurrence(name):
    case = CASES[name]
    x, state = make(case, 1, OFFSETS[-1], offsets=OFFSETS)
    compare(case, x, state, torch.tensor(OFFSETS))


def compare(case: Case, x, state, cu_seqlens):
    got, got_gradients = gradients(case.fast, x, state, cu_seqlens)
    slow = lambda x, s, c: case.slow(expanded(x), s, c)  # noqa: E731
    wanted, wanted_gradients = gradients(slow, x, state, cu_seqlens)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    for key, b in wanted_gradients.items():
        torch.testing.assert_close(
            got_gradients[key], b, rtol=1e-9, atol=1e-9, msg=lambda m, k=key: f"d {k}: {m}"
        )


def test_everything_at_once_equals_the_recurrence():
    """Several writes, shared keys, a decay of every key, segments: and step after step."""
    case = memory_case("after_decay", "key_decay", "beta", writes=2, group=2)
    x, state = make(case, 1, OFFSETS[-1], heads=4, offsets=OFFSETS)
    compare(case, x, state, torch.tensor(OFFSETS))
    x, state = make(case, 2, 9, heads=4)
    check_steps(case, x, state, *case.fast(x, state, None))


@pytest.mark.parametrize("name", [n for n in CASES if not n.startswith("MLP")])
def test_without_a_state_it_starts_from_zero(name):
    case = CASES[name]
    x, state = make(case, 2, 19)
    o, final = case.fast(x, None, None)
    wanted, last = case.fast(x, [torch.zeros_like(s) for s in state], None)
    torch.testing.assert_close(o, wanted)
    torch.testing.assert_close(final, last)


@pytest.mark.parametrize("name", CASES)
def test_gradcheck_of_the_recurrence(name):
    case = CASES[name]
    x, state = make(case, 1, 5, heads=1, keys=3, values=2)
    names, leaves = list(x), [t.requires_grad_() for t in (*x.values(), *state)]

    def function(*leaves):
        inputs = expanded(dict(zip(names, leaves, strict=False)))
        o, final = case.slow(inputs, list(leaves[len(names) :]), None)
        return (o, *final)

    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize("name", CASES)
def test_a_sequence_cut_in_two_is_the_same(name):
    case = CASES[name]
    x, state = make(case, 2, 37)
    o, final = case.fast(x, state, None)
    cut = 16  # where a chunk ends, so that the error at its start is the same
    sequences = {n: t for n, t in x.items() if t.dim() > 1}
    first = x | {n: t[:, :cut] for n, t in sequences.items()}
    second = x | {n: t[:, cut:] for n, t in sequences.items()}
    o1, middle = case.fast(first, state, None)
    o2, last = case.fast(second, middle, None)
    torch.testing.assert_close(torch.cat([o1, o2], 1), o)
    torch.testing.assert_close(last, final)


@pytest.mark.parametrize("name", [n for n in CASES if "chunk" not in n and "MLP" not in n])
def test_step_after_step_equals_the_sequence(name):
    case = CASES[name]
    x, state = make(case, 2, 9)
    o, final = case.fast(x, state, None)
    check_steps(case, x, state, o, final)


@pytest.mark.parametrize("name", [n for n in CASES if "MLP" in n])
def test_mlp_steps_take_the_gradient_at_the_present_weights(name, monkeypatch):
    monkeypatch.setattr("memory_cases.CHUNK", 1)
    case = CASES[name]
    x, state = make(case, 2, 5)
    check_steps(case, x, state, *case.slow(x, state, None))


def test_mlp_memories_at_rest_and_keys_of_any_length():
    x, (w1, w2, *_) = make(CASES["MLP, all gates"], 2, 9)
    gates = {n: x[n] for n in ("log_decay", "beta", "log_momentum")}
    still = ops.MLPState(w1, w2, torch.zeros_like(w1), torch.zeros_like(w2))
    unit = [normalize(x[n], dim=-1) for n in "qk"]
    wanted = ops.chunk_mlp_memory(*unit, x["v"], initial_state=still, **gates)
    rests = ops.MLPState(w1, w2)
    got = ops.chunk_mlp_memory(
        2 * x["q"], 3 * x["k"], x["v"], initial_state=rests, **gates, unit_keys=True
    )
    torch.testing.assert_close(got, wanted)
    with pytest.raises(ValueError, match="writes s1 in place"):
        ops.mlp_memory_step(*(x[n][:, 0] for n in "qkv"), state=rests)


def check_steps(case, x, state, o, final):
    state = [s.clone() for s in state]
    addresses = [s.data_ptr() for s in state]
    for t in range(o.shape[1]):
        now = {n: g if g.dim() == 1 else g[:, t] for n, g in x.items()}
        torch.testing.assert_close(case.step(now, state), o[:, t])
    assert addresses == [s.data_ptr() for s in state]
    torch.testing.assert_close(state, final)


@pytest.mark.parametrize("strength", [1.0, 2.0])
@pytest.mark.parametrize("name", DELTA)
def test_correlated_keys_in_float32(name, strength, monkeypatch):
    """Series for the inverse fail here."""
    case = CASES[name]
    x, state = correlated(name, strength, 1, 128, heads=1, values=16)
    exact, exact_gradients = gradients(case.slow, x, state)
    single = {n: t.float() for n, t in x.items()}
    for chunk in (16, 64):
        monkeypatch.setattr("memory_cases.CHUNK", chunk)
        got, got_gradients = gradients(case.fast, single, [s.float() for s in state])
        for a, b in zip(got, exact, strict=True):
            assert relative(a, b) < 1e-4
        for key, b in exact_gradients.items():
            assert relative(got_gradients[key], b) < 1e-4, key


@pytest.mark.parametrize("gate", [0.0, -20.0, -200.0])
@pytest.mark.parametrize("name", ["gated", "gated DeltaNet", "Titans", "GLA", "KDA", "HGRN"])
def test_gates_from_open_to_shut_in_float32(name, gate):
    case = CASES[name]
    x, state = make(case, 1, 40)
    for each in ("log_decay", "log_momentum", "key_decay"):
        if each in x:
            x[each] = torch.full_like(x[each], gate)
            x[each][:, ::3] = -0.1  # a shut gate must not blur the open ones beside it
    x.update({"beta": 0.3 * x["beta"]} if "beta" in x else {})
    exact, exact_gradients = gradients(case.slow, x, state)
    got, got_gradients = gradients(
        case.fast, {n: t.float() for n, t in x.items()}, [s.float() for s in state]
    )
    for a, b in zip(got, exact, strict=True):
        assert relative(a, b) < 1e-5
    for key, b in exact_gradients.items():
        assert relative(got_gradients[key], b) < 1e-5 or b.norm() < 1e-6, key


def test_linear_attention_is_attention_without_softmax():
    x, _ = make(CASES["linear attention"], 2, 21)
    o, state = ops.chunk_memory(**x, scale=1.0)
    scores = torch.einsum("bthk,bjhk->bhtj", x["q"], x["k"]).tril()
    torch.testing.assert_close(o, torch.einsum("bhtj,bjhv->bthv", scores, x["v"]))
    torch.testing.assert_close(state, torch.einsum("bthk,bthv->bhkv", x["k"], x["v"]))


def test_the_delta_rule_replaces_what_a_key_held():
    k = torch.eye(4)[[0, 1, 0, 2]].view(1, 4, 1, 4)
    v = torch.arange(8.0).view(1, 4, 1, 2)
    beta = torch.ones(1, 4, 1)
    _, state = ops.chunk_memory(k, k, v, beta=beta, error="before_decay")
    expected = torch.tensor([[4.0, 5.0], [2.0, 3.0], [6.0, 7.0], [0.0, 0.0]])
    torch.testing.assert_close(state[0, 0], expected)


def test_based_is_quadratic_attention():
    x, _ = make(CASES["BASED"], 2, 21, keys=16)
    o, _ = ops.based(**x)
    s = torch.einsum("bthk,bjhk->bhtj", x["q"], x["k"]) / 4
    p = (1 + s + s * s / 2).tril()
    expected = torch.einsum("bhtj,bjhv->bthv", p / p.sum(-1, keepdim=True), x["v"])
    torch.testing.assert_close(o, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("updates", [1, 3])
def test_hopfield_retrieval_by_its_equation(updates):
    g = torch.Generator().manual_seed(0)
    query, stored, values = (
        torch.randn(2, n, 2, d, generator=g, dtype=torch.float64)
        for n, d in ((4, 3), (6, 3), (6, 5))
    )
    mask = torch.rand(2, 6, generator=g) < 0.7
    got = ops.hopfield_retrieval(query, stored, values, updates=updates, beta=1.5, mask=mask)
    each = ops.hopfield_retrieval(
        query, stored, values, updates=updates, beta=1.5, mask=mask[:, None].repeat(1, 4, 1)
    )
    torch.testing.assert_close(each, got)
    for b in range(2):
        for h in range(2):
            keys, content = stored[b, mask[b], h], values[b, mask[b], h]
            xi = query[b, :, h]
            for _ in range(updates):
                p = (1.5 * xi @ keys.T).softmax(-1)
                xi = p @ keys
            torch.testing.assert_close(got[b, :, h], p @ content)


def test_each_query_retrieves_from_what_it_may_see():
    g = torch.Generator().manual_seed(0)
    query, stored = (torch.randn(2, n, 2, 3, generator=g) for n in (4, 6))
    mask = torch.rand(2, 4, 6, generator=g) < 0.5
    mask[0, 1] = False
    got = ops.hopfield_retrieval(query, stored, updates=2, mask=mask)
    for i in range(4):
        alone = ops.hopfield_retrieval(query[:, i : i + 1], stored, updates=2, mask=mask[:, i])
        torch.testing.assert_close(got[:, i : i + 1], alone)
    assert not got[0, 1].any()


@pytest.mark.parametrize("length", [1, 7, 8, 21])
@pytest.mark.parametrize(("window", "prefix"), [(1, 0), (4, 0), (4, 3), (30, 0), (8, 9)])
def test_sliding_windows_by_a_mask(length, window, prefix):
    check_window(length, window, prefix, None)


@pytest.mark.parametrize("window", [3, 30])
def test_sliding_windows_end_at_segments(window):
    check_window(20, window, 0, torch.tensor([0, 5, 5, 6, 20]))


def check_window(length, window, prefix, offsets):
    g = torch.Generator().manual_seed(0)
    batch = 2 if offsets is None else 1
    q, k, v = (
        torch.randn(batch, length, 2, d, generator=g, dtype=torch.float64) for d in (4, 4, 3)
    )
    got = ops.sliding_window_attention(q, k, v, window=window, prefix=prefix, cu_seqlens=offsets)
    t = torch.arange(length)
    lag = t[:, None] - t
    allowed = (lag >= 0) & ((lag < window) | (t < prefix))
    if offsets is not None:
        segment = torch.bucketize(t, offsets, right=True)
        allowed &= segment[:, None] == segment
    scores = torch.einsum("bthk,bjhk->bhtj", q, k) / 2
    p = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
    torch.testing.assert_close(got, torch.einsum("bhtj,bjhv->bthv", p, v))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name", CASES)
def test_outputs_keep_their_dtype_and_states_are_float32(name, dtype):
    case = CASES[name]
    x, state = make(case, 1, 5, dtype=dtype)
    o, final = case.fast(x, [s.float() for s in state], None)
    assert o.dtype == dtype
    assert {s.dtype for s in final} == {torch.float32}
    wanted, _ = case.slow(
        expanded({n: t.double() for n, t in x.items()}), [s.double() for s in state], None
    )
    assert relative(o, wanted) < {torch.bfloat16: 2e-2, torch.float16: 2e-3}.get(dtype, 1e-5)


def test_compiled_on_the_cpu():
    torch._dynamo.reset()  # sizes seen in other tests would be symbols here
    x, state = make(CASES["gated DeltaNet"], 1, 40, dtype=torch.float32)
    function = torch.compile(CASES["gated DeltaNet"].fast, fullgraph=True, backend="aot_eager")
    wanted, wanted_gradients = gradients(CASES["gated DeltaNet"].fast, x, state)
    got, got_gradients = gradients(function, x, state)
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(got_gradients, wanted_gradients)


MISTAKES = {
    "one B, T and H": lambda q, k, v: ops.chunk_memory(q, k, v[:, :3]),
    "Cast them to one": lambda q, k, v: ops.chunk_memory(q, k.half(), v),
    r"beta \[B=1, T=4, H=2\]": lambda q, k, v: ops.chunk_memory(q, k, v, beta=torch.ones(1, 4)),
    r"log_decay \[H=2\]": lambda q, k, v: ops.chunk_memory(q, k, v, log_decay=torch.ones(3)),
    "knows error none, chunk_start": lambda q, k, v: ops.chunk_memory(q, k, v, error="after"),
    "normalise needs error='none'": lambda q, k, v: ops.chunk_memory(
        q, k, v, error="before_decay", normalise=True
    ),
    r"initial_state \[N=1, H=2, K=3, V=5\]": lambda q, k, v: ops.chunk_memory(
        q, k, v, initial_state=torch.zeros(1, 2, 5, 3)
    ),
    "a decay of every key needs": lambda q, k, v: ops.chunk_memory(
        q, k, v, log_decay=-torch.ones(1, 4, 2, 3), error="before_decay"
    ),
    r"v \[B, T, n, H, V\] with one B, T and n": lambda q, k, v: ops.chunk_memory(
        q, torch.stack([k, k], 2), v
    ),
    "chunk_memory with several writes a step needs another error": lambda q, k, v: ops.chunk_memory(
        q, torch.stack([k, k], 2), torch.stack([v, v], 2), error="chunk_start"
    ),
    r"beta \[B=1, T=4, n=2, H=2\]": lambda q, k, v: ops.chunk_memory(
        q, torch.stack([k, k], 2), torch.stack([v, v], 2), beta=torch.ones(1, 4, 2)
    ),
    r"with one B, T and H; got \(1, 4, 2, 3\)": lambda q, k, v: ops.chunk_memory(
        q, k, torch.cat([v, v[:, :, :1]], 2)
    ),
    "memory_step with several writes a step needs another error": lambda q, k, v: ops.memory_step(
        q[0],
        torch.stack([k[0]] * 2, 1),
        torch.stack([v[0]] * 2, 1),
        error="chunk_start",
        state=torch.zeros(4, 2, 3, 5),
    ),
    "chunks of at least 1 step": lambda q, k, v: ops.chunk_memory(q, k, v, chunk=0),
    "rise from 0 to the length 4": lambda q, k, v: ops.chunk_memory(
        q, k, v, cu_seqlens=torch.tensor([0, 3, 2, 4])
    ),
    r"Use x.flatten\(0, 1\)\[None\]": lambda q, k, v: ops.chunk_memory(
        *(x.repeat(2, 1, 1, 1) for x in (q, k, v)), cu_seqlens=torch.tensor([0, 4])
    ),
    r"log_decay \[B=1, T=4, H=2, K=3\]": lambda q, k, v: ops.chunk_gla(
        q, k, v, log_decay=torch.zeros(1, 4, 2)
    ),
    "x and log_decay": lambda q, k, v: ops.scan(q, log_decay=v),
    r"state \[B=4, H=2, K=3, V=5\]": lambda q, k, v: ops.memory_step(
        q[0], k[0], v[0], state=torch.zeros(4, 2, 3, 3)
    ),
    "at least 1 update": lambda q, k, v: ops.hopfield_retrieval(q, k, updates=0),
    "a prefix or cu_seqlens": lambda q, k, v: ops.sliding_window_attention(
        q, k, v, window=2, prefix=1, cu_seqlens=torch.tensor([0, 4])
    ),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_named(message):
    q, k, v = torch.ones(1, 4, 2, 3), torch.ones(1, 4, 2, 3), torch.ones(1, 4, 2, 5)
    with pytest.raises(ValueError, match=message):
        MISTAKES[message](q, k, v)
