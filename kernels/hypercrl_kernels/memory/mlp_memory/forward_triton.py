"""Titans' MLP memory in dual form as Triton kernels: one program per sequence and head.

The weights and momenta of one memory are too many for registers. They stay in device memory,
mostly in L2, and hidden units pass through in blocks: once for the prediction errors E of a chunk,
once for its reads and the new weights. What a loop over them multiplies from the left is written
and read again first: loaded operands stay in shared memory, computed ones would take registers that
are not there. The backward pass reads what was written. With W at the start of a chunk, the row
vectors and G of `weights_of`, ∘ elementwise and row vectors scaling rows:

    Z = K W₁, H = σ(Z), E = V − H W₂, U₂ = β E, U₁ = β (E W₂ᵀ)∘σ'(Z),
    Y = a QW₁ + f QS₁ + (QKᵀ∘G) U₁, X = σ(Y), O = a XW₂ + f XS₂ + (XHᵀ∘G) U₂,
    W₁' = a_C W₁ + f_C S₁ + (c K)ᵀ U₁, S₁' = m_C S₁ + (d K)ᵀ U₁; W₂', S₂' with H and U₂.
"""

# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false, reportOperatorIssue=false
# pyright: reportArgumentType=false, reportPossiblyUnboundVariable=false
# ruff: noqa: RUF059

import triton
import triton.language as tl

from hypercrl_kernels.memory.chunks_triton import gates_of, last_of, segment_of, weights_of


@triton.jit
def activate(x, SILU: tl.constexpr):
    """σ(x) and σ'(x)."""
    if SILU:
        gate = tl.sigmoid(x)
        return x * gate, gate * (1.0 + x * (1.0 - gate))
    below, bell = normal(x)
    return x * below, below + x * bell


@triton.jit
def normal(x):
    """The normal distribution Φ(x), to 1e-7, and its density.

    Abramowitz and Stegun, 7.1.26: a third of what erf takes, as it shares its exponential with the
    density. A reciprocal is a root of a square, which takes one instruction where 1/x takes eight,
    and exp2 one where exp takes four.
    """
    bell = tl.exp2(-0.7213475204444817 * x * x)
    away = 1.0 + 0.23164187 * tl.abs(x)
    t = tl.rsqrt(away * away)
    tail = t * (-0.142248368 + t * (0.7107068705 + t * (-0.7265760135 + t * 0.5307027145)))
    tail = bell * t * (0.127414796 + tail)
    return tl.where(x < 0.0, tail, 1.0 - tail), 0.3989422804014327 * bell


@triton.jit
def chunk_of(
    q, k, log_decay, beta, log_momentum, begin, steps, chunk, head, unit, value,
    HEADS: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr, CHUNK: tl.constexpr,
    DECAY: tl.constexpr, STRENGTH: tl.constexpr, MOMENTUM: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Queries and keys of a chunk, and what its gates make of the weights."""
    t = chunk * CHUNK + tl.arange(0, CHUNK)
    inside = t < steps
    at = (begin + t) * HEADS + head
    narrow = at[:, None] * KEYS + unit[None, :]
    wide = at[:, None] * VALUES + value[None, :]
    in_keys = inside[:, None] & (unit < KEYS)[None, :]
    in_values = inside[:, None] & (value < VALUES)[None, :]
    queries = tl.load(q + narrow, mask=in_keys, other=0.0)
    keys = tl.load(k + narrow, mask=in_keys, other=0.0)
    decay, _, momentum, strength = gates_of(
        log_decay, beta, log_momentum, at, t, inside,
        HEADS, CHUNK, DECAY, STRENGTH, MOMENTUM, False,
    )  # fmt: skip
    weights = weights_of(decay, decay, momentum, t, inside, CHUNK, DECAY, MOMENTUM, True, DOT)
    places = (t, inside, at, narrow, wide, in_keys, in_values)
    return places, queries, keys, strength, weights


@triton.jit
def velocity_reads(a, m, kept, t, inside, CHUNK: tl.constexpr):
    """f [C], the weights at which steps read the momenta before the chunk; the last a, f and m."""
    f = tl.sum(kept * tl.where(inside, m, 0.0)[None, :], 1)
    return f, last_of(a, t, CHUNK), last_of(f, t, CHUNK), last_of(m, t, CHUNK)


@triton.jit
def errors_of(
    keys, targets, w1, w2, unit, value,
    KEYS: tl.constexpr, VALUES: tl.constexpr, HIDDEN: tl.constexpr, BLOCK: tl.constexpr,
    SILU: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """E = V − σ(K W₁) W₂, the hidden units in blocks."""
    dtype = keys.dtype
    predicted = tl.zeros(targets.shape, tl.float32)
    for start in tl.range(0, HIDDEN, BLOCK, disable_licm=True):
        hidden = start + tl.arange(0, BLOCK)
        exists = hidden < HIDDEN
        into = unit[:, None] * HIDDEN + hidden[None, :]
        out = hidden[:, None] * VALUES + value[None, :]
        first = tl.load(w1 + into, mask=(unit < KEYS)[:, None] & exists[None, :], other=0.0)
        second = tl.load(w2 + out, mask=exists[:, None] & (value < VALUES)[None, :], other=0.0)
        h = activate(tl.dot(keys, first.to(dtype), input_precision=DOT), SILU)[0]
        predicted = tl.dot(h.to(dtype), second.to(dtype), acc=predicted, input_precision=DOT)
    return targets - predicted


@triton.jit
def lengths(x):
    """Of the rows of x, in float32, as of `torch.nn.functional.normalize`."""
    return tl.maximum(tl.sqrt(tl.sum(x * x, 1)), 1e-12)


@triton.jit
def outer(left, right, DOT: tl.constexpr):
    """leftᵀ right; in half precision as the transpose of a product that has 64 rows where right is
    as wide, which is how many an instruction takes."""
    if DOT == "tf32x3":
        return tl.dot(tl.trans(left), right, input_precision=DOT)
    return tl.trans(tl.dot(tl.trans(right), left, input_precision=DOT))


@triton.jit
def _copy(source, target, SIZE: tl.constexpr):
    """SIZE numbers."""
    for start in tl.range(0, SIZE, 1024):
        place = start + tl.arange(0, 1024)
        tl.store(target + place, tl.load(source + place, mask=place < SIZE), mask=place < SIZE)


@triton.jit(do_not_specialize=["length"])
def mlp_walk_kernel(
    q,  # [B, T, H, K], with UNIT written from the given ones, as k
    k,  # [B, T, H, K]
    v,  # [B, T, H, V], a step after V_ROW numbers
    log_decay,  # [B, T, H]
    beta,  # [B, T, H]
    log_momentum,  # [B, T, H]
    cu_seqlens,  # [N + 1]
    w1,  # [N, H, K, F] float32, the initial weights and momenta; SHARED: [1, H, K, F]
    w2,  # [N, H, F, V] float32
    s1,  # [N, H, K, F] float32
    s2,  # [N, H, F, V] float32
    o,  # [B, T, H, V], written
    final_w1,  # [N, H, K, F] float32, written after every chunk and read in the next, as all below
    final_w2,  # [N, H, F, V] float32
    final_s1,  # [N, H, K, F] float32
    final_s2,  # [N, H, F, V] float32
    saved_w1,  # [slots, H, K, F], written with SAVE: those at each chunk's start, as all below
    saved_w2,  # [slots, H, F, V]
    saved_s1,  # [slots, H, K, F]
    saved_s2,  # [slots, H, F, V]
    errors,  # [B, T, H, V], written: E
    squares,  # [slots, H, 2, C, C], written: QKᵀ∘G and XHᵀ
    given_q,  # [B, T, H, K], a step after QK_ROW numbers; None without UNIT
    given_k,  # [B, T, H, K]
    length,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,  # K, padded
    VALUES: tl.constexpr,
    OUT: tl.constexpr,  # V, padded
    HIDDEN: tl.constexpr,
    BLOCK: tl.constexpr,  # hidden units at a time
    CHUNK: tl.constexpr,
    DECAY: tl.constexpr,
    STRENGTH: tl.constexpr,
    MOMENTUM: tl.constexpr,
    SILU: tl.constexpr,
    QK_ROW: tl.constexpr,
    V_ROW: tl.constexpr,
    UNIT: tl.constexpr,
    SHARED: tl.constexpr,  # all sequences start from the same weights
    SAVE: tl.constexpr,
    REST: tl.constexpr,  # each sequence is one chunk without momenta before it: s1, s2 are None
    VARLEN: tl.constexpr,
    DOT: tl.constexpr,
):
    MOVING: tl.constexpr = MOMENTUM and not REST
    dtype = q.dtype.element_ty
    index = tl.program_id(0).to(tl.int64)
    head = tl.program_id(0) % HEADS
    begin, steps, slot = segment_of(cu_seqlens, index // HEADS, length, CHUNK, VARLEN)
    unit = tl.arange(0, WIDTH)
    value = tl.arange(0, OUT)
    i = tl.arange(0, CHUNK)
    first_size: tl.constexpr = KEYS * HIDDEN
    second_size: tl.constexpr = HIDDEN * VALUES
    start_index = index
    if SHARED:
        start_index = head.to(tl.int64)
    w1 += start_index * first_size
    w2 += start_index * second_size
    if MOVING:
        s1 += start_index * first_size
        s2 += start_index * second_size
    final_w1 += index * first_size
    final_s1 += index * first_size
    final_w2 += index * second_size
    final_s2 += index * second_size
    if VARLEN:  # noqa: SIM102
        if steps == 0:
            _copy(w1, final_w1, first_size)
            _copy(w2, final_w2, second_size)
            if MOVING:
                _copy(s1, final_s1, first_size)
                _copy(s2, final_s2, second_size)
    for chunk in tl.range(0, tl.cdiv(steps, CHUNK), disable_licm=True):
        if UNIT:
            t = chunk * CHUNK + i
            given = ((begin + t) * QK_ROW + head * KEYS)[:, None] + unit[None, :]
            narrow = ((begin + t) * HEADS + head)[:, None] * KEYS + unit[None, :]
            in_keys = (t < steps)[:, None] & (unit < KEYS)[None, :]
            for part in tl.static_range(2):
                source = tl.load((given_k if part else given_q) + given, mask=in_keys, other=0.0)
                source = source.to(tl.float32)
                source = (source / lengths(source)[:, None]).to(dtype)
                tl.store((k if part else q) + narrow, source, mask=in_keys)
            tl.debug_barrier()  # other threads read them
        places, queries, keys, strength, weights = chunk_of(
            q, k, log_decay, beta, log_momentum, begin, steps, chunk, head, unit, value,
            HEADS, KEYS, VALUES, CHUNK, DECAY, STRENGTH, MOMENTUM, DOT,
        )  # fmt: skip
        t, inside, at, narrow, wide, in_keys, in_values = places
        a, r, c, d, m, kept, kept_before, moved, read, predict = weights
        f, a_last, f_last, m_last = velocity_reads(a, m, kept, t, inside, CHUNK)
        given = ((begin + t) * V_ROW + head * VALUES)[:, None] + value[None, :]
        targets = tl.load(v + given, mask=in_values, other=0.0).to(tl.float32)
        entry = (slot + chunk) * HEADS + head
        square = squares + entry * (2 * CHUNK * CHUNK) + i[:, None] * CHUNK + i[None, :]
        scores = tl.dot(queries, tl.trans(keys), input_precision=DOT) * read
        tl.store(square, scores.to(dtype))
        read = read.to(dtype)  # through the loop, half the registers
        error = errors_of(
            keys, targets, w1, w2, unit, value, KEYS, VALUES, HIDDEN, BLOCK, SILU, DOT
        )
        tl.store(errors + wide, error.to(dtype), mask=in_values)
        u2 = strength[:, None] * error
        written = (c[:, None] * u2).to(dtype)
        moving = (d[:, None] * u2).to(dtype)
        u2 = u2.to(dtype)
        # Old weights are read before new ones are written, and other threads read E and the square.
        tl.debug_barrier()
        error = tl.load(errors + wide, mask=in_values, other=0.0)
        scores = tl.load(square)
        mixing = tl.zeros([CHUNK, CHUNK], tl.float32)
        result = tl.zeros([CHUNK, OUT], tl.float32)
        for start in tl.range(0, HIDDEN, BLOCK, disable_licm=True):
            hidden = start + tl.arange(0, BLOCK)
            exists = hidden < HIDDEN
            into = unit[:, None] * HIDDEN + hidden[None, :]
            out = hidden[:, None] * VALUES + value[None, :]
            in_first = (unit < KEYS)[:, None] & exists[None, :]
            in_second = exists[:, None] & (value < VALUES)[None, :]
            first = tl.load(w1 + into, mask=in_first, other=0.0).to(dtype)
            second = tl.load(w2 + out, mask=in_second, other=0.0).to(dtype)
            if SAVE:
                tl.store(saved_w1 + entry * first_size + into, first, mask=in_first)
                tl.store(saved_w2 + entry * second_size + out, second, mask=in_second)
            h, slope = activate(tl.dot(keys, first, input_precision=DOT), SILU)
            h = h.to(dtype)
            u1 = tl.dot(error, tl.trans(second), input_precision=DOT)
            u1 = strength[:, None] * u1 * slope
            y = a[:, None] * tl.dot(queries, first, input_precision=DOT)
            if MOVING:
                first = tl.load(s1 + into, mask=in_first, other=0.0).to(dtype)
                moving_second = tl.load(s2 + out, mask=in_second, other=0.0).to(dtype)
                y += f[:, None] * tl.dot(queries, first, input_precision=DOT)
                if SAVE:
                    half = moving_second
                    tl.store(saved_s1 + entry * first_size + into, first, mask=in_first)
                    tl.store(saved_s2 + entry * second_size + out, half, mask=in_second)
            y = tl.dot(scores, u1.to(dtype), acc=y, input_precision=DOT)
            x = activate(y, SILU)[0]
            mixing = tl.dot(x.to(dtype), tl.trans(h), acc=mixing, input_precision=DOT)
            reads = (a[:, None] * x).to(dtype)
            result = tl.dot(reads, second, acc=result, input_precision=DOT)
            if MOVING:
                reads = (f[:, None] * x).to(dtype)
                result = tl.dot(reads, moving_second, acc=result, input_precision=DOT)
            # Weights are loaded again, rather than kept in float32 up to here; `fma` keeps what is
            # loaded out of the product's layout.
            tl.debug_barrier()
            new = tl.dot(tl.trans(keys), (c[:, None] * u1).to(dtype), input_precision=DOT)
            new = tl.fma(tl.load(w1 + into, mask=in_first, other=0.0), a_last, new)
            if MOVING:
                old = tl.load(s1 + into, mask=in_first, other=0.0)
                new = tl.fma(old, f_last, new)
            tl.store(final_w1 + into, new, mask=in_first)
            if MOMENTUM:
                new = tl.dot(tl.trans(keys), (d[:, None] * u1).to(dtype), input_precision=DOT)
                if MOVING:
                    new = tl.fma(old, m_last, new)
                tl.store(final_s1 + into, new, mask=in_first)
            new = outer(h, written, DOT)
            new = tl.fma(tl.load(w2 + out, mask=in_second, other=0.0), a_last, new)
            if MOVING:
                old = tl.load(s2 + out, mask=in_second, other=0.0)
                new = tl.fma(old, f_last, new)
            tl.store(final_w2 + out, new, mask=in_second)
            if MOMENTUM:
                new = outer(h, moving, DOT)
                if MOVING:
                    new = tl.fma(old, m_last, new)
                tl.store(final_s2 + out, new, mask=in_second)
        tl.store(square + CHUNK * CHUNK, mixing.to(dtype))
        mixing = (mixing * read.to(tl.float32)).to(dtype)
        result = tl.dot(mixing, u2, acc=result, input_precision=DOT)
        tl.store(o + wide, result.to(o.dtype.element_ty), mask=in_values)
        w1 = final_w1
        w2 = final_w2
        if MOVING:
            s1 = final_s1
            s2 = final_s2
        # The next chunk's threads read weights that other threads of this program wrote.
        tl.debug_barrier()
