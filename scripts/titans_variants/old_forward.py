"""Titans' MLP memory in dual form as Triton kernels: one program per sequence and head.

The weights and momenta of one memory are too many for registers. They stay in device memory,
mostly in L2, and hidden units pass through in blocks: once for the prediction errors E of a chunk,
once for its reads and the new weights. With W at the start of a chunk, the row vectors and G of
`weights_of`, ∘ elementwise and row vectors scaling rows:

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
    # The normal distribution by Abramowitz and Stegun, 7.1.26, to 1e-7: a third of what erf takes,
    # as it shares its exponential with the slope.
    bell = tl.exp(-0.5 * x * x)
    t = 1.0 / (1.0 + 0.23164187 * tl.abs(x))
    tail = t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))
    tail = 0.5 * bell * t * (0.254829592 + tail)
    below = tl.where(x < 0.0, tail, 1.0 - tail)
    return x * below, below + 0.3989422804014327 * x * bell


@triton.jit
def chunk_of(
    q, k, v, log_decay, beta, log_momentum, begin, steps, chunk, head, unit, value,
    HEADS: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr, CHUNK: tl.constexpr,
    DECAY: tl.constexpr, STRENGTH: tl.constexpr, MOMENTUM: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Sequences of a chunk, and what its gates make of the weights."""
    t = chunk * CHUNK + tl.arange(0, CHUNK)
    inside = t < steps
    at = (begin + t) * HEADS + head
    narrow = at[:, None] * KEYS + unit[None, :]
    wide = at[:, None] * VALUES + value[None, :]
    in_keys = inside[:, None] & (unit < KEYS)[None, :]
    in_values = inside[:, None] & (value < VALUES)[None, :]
    queries = tl.load(q + narrow, mask=in_keys, other=0.0)
    keys = tl.load(k + narrow, mask=in_keys, other=0.0)
    targets = tl.load(v + wide, mask=in_values, other=0.0).to(tl.float32)
    decay, _, momentum, strength = gates_of(
        log_decay, beta, log_momentum, at, t, inside,
        HEADS, CHUNK, DECAY, STRENGTH, MOMENTUM, False,
    )  # fmt: skip
    weights = weights_of(decay, decay, momentum, t, inside, CHUNK, DECAY, MOMENTUM, True, DOT)
    places = (t, inside, at, narrow, wide, in_keys, in_values)
    return places, queries, keys, targets, strength, weights


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
    for start in tl.range(0, HIDDEN, BLOCK, disable_licm=True):
        hidden = start + tl.arange(0, BLOCK)
        exists = hidden < HIDDEN
        into = unit[:, None] * HIDDEN + hidden[None, :]
        out = hidden[:, None] * VALUES + value[None, :]
        first = tl.load(w1 + into, mask=(unit < KEYS)[:, None] & exists[None, :], other=0.0)
        second = tl.load(w2 + out, mask=exists[:, None] & (value < VALUES)[None, :], other=0.0)
        h = activate(tl.dot(keys, first.to(dtype), input_precision=DOT), SILU)[0]
        targets -= tl.dot(h.to(dtype), second.to(dtype), input_precision=DOT)
    return targets


@triton.jit
def _copy(source, target, SIZE: tl.constexpr):
    """SIZE numbers."""
    for start in tl.range(0, SIZE, 1024):
        place = start + tl.arange(0, 1024)
        tl.store(target + place, tl.load(source + place, mask=place < SIZE), mask=place < SIZE)


@triton.jit(do_not_specialize=["length"])
def mlp_walk_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    v,  # [B, T, H, V]
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
    SHARED: tl.constexpr,  # all sequences start from the same weights
    SAVE: tl.constexpr,
    VARLEN: tl.constexpr,
    DOT: tl.constexpr,
):
    dtype = q.dtype.element_ty
    index = tl.program_id(0).to(tl.int64)
    head = tl.program_id(0) % HEADS
    begin, steps, slot = segment_of(cu_seqlens, index // HEADS, length, CHUNK, VARLEN)
    unit = tl.arange(0, WIDTH)
    value = tl.arange(0, OUT)
    first_size: tl.constexpr = KEYS * HIDDEN
    second_size: tl.constexpr = HIDDEN * VALUES
    start_index = index
    if SHARED:
        start_index = head.to(tl.int64)
    w1 += start_index * first_size
    s1 += start_index * first_size
    w2 += start_index * second_size
    s2 += start_index * second_size
    final_w1 += index * first_size
    final_s1 += index * first_size
    final_w2 += index * second_size
    final_s2 += index * second_size
    if VARLEN:  # noqa: SIM102
        if steps == 0:
            _copy(w1, final_w1, first_size)
            _copy(w2, final_w2, second_size)
            if MOMENTUM:
                _copy(s1, final_s1, first_size)
                _copy(s2, final_s2, second_size)
    for chunk in tl.range(0, tl.cdiv(steps, CHUNK), disable_licm=True):
        places, queries, keys, targets, strength, weights = chunk_of(
            q, k, v, log_decay, beta, log_momentum, begin, steps, chunk, head, unit, value,
            HEADS, KEYS, VALUES, CHUNK, DECAY, STRENGTH, MOMENTUM, DOT,
        )  # fmt: skip
        t, inside, at, narrow, wide, in_keys, in_values = places
        a, r, c, d, m, kept, kept_before, moved, read, predict = weights
        f, a_last, f_last, m_last = velocity_reads(a, m, kept, t, inside, CHUNK)
        scores = tl.dot(queries, tl.trans(keys), input_precision=DOT) * read
        scores = scores.to(dtype)
        error = errors_of(
            keys, targets, w1, w2, unit, value, KEYS, VALUES, HIDDEN, BLOCK, SILU, DOT
        )
        tl.debug_barrier()  # the old weights are read before new ones are written
        u2 = (strength[:, None] * error).to(dtype)
        error = error.to(dtype)
        carried = tl.trans((c[:, None] * keys).to(dtype))
        mixing = tl.zeros([CHUNK, CHUNK], tl.float32)
        result = tl.zeros([CHUNK, OUT], tl.float32)
        entry = (slot + chunk) * HEADS + head
        for start in tl.range(0, HIDDEN, BLOCK, disable_licm=True):
            hidden = start + tl.arange(0, BLOCK)
            exists = hidden < HIDDEN
            into = unit[:, None] * HIDDEN + hidden[None, :]
            out = hidden[:, None] * VALUES + value[None, :]
            in_first = (unit < KEYS)[:, None] & exists[None, :]
            in_second = exists[:, None] & (value < VALUES)[None, :]
            first = tl.load(w1 + into, mask=in_first, other=0.0)
            second = tl.load(w2 + out, mask=in_second, other=0.0)
            first_half = first.to(dtype)
            second_half = second.to(dtype)
            h, slope = activate(tl.dot(keys, first_half, input_precision=DOT), SILU)
            h = h.to(dtype)
            u1 = tl.dot(error, tl.trans(second_half), input_precision=DOT)
            u1 = (strength[:, None] * u1 * slope).to(dtype)
            y = a[:, None] * tl.dot(queries, first_half, input_precision=DOT)
            y += tl.dot(scores, u1, input_precision=DOT)
            if SAVE:
                tl.store(saved_w1 + entry * first_size + into, first_half, mask=in_first)
                tl.store(saved_w2 + entry * second_size + out, second_half, mask=in_second)
            new_first = a_last * first + tl.dot(carried, u1, input_precision=DOT)
            new_second = a_last * second
            if MOMENTUM:
                first = tl.load(s1 + into, mask=in_first, other=0.0)
                second = tl.load(s2 + out, mask=in_second, other=0.0)
                first_half = first.to(dtype)
                y += f[:, None] * tl.dot(queries, first_half, input_precision=DOT)
                if SAVE:
                    half = second.to(dtype)
                    tl.store(saved_s1 + entry * first_size + into, first_half, mask=in_first)
                    tl.store(saved_s2 + entry * second_size + out, half, mask=in_second)
                new_first += f_last * first
                new_second += f_last * second
            x = activate(y, SILU)[0].to(dtype)
            mixing += tl.dot(x, tl.trans(h), input_precision=DOT)
            result += a[:, None] * tl.dot(x, second_half, input_precision=DOT)
            written = tl.trans((c[:, None] * h).to(dtype))
            new_second += tl.dot(written, u2, input_precision=DOT)
            tl.store(final_w1 + into, new_first, mask=in_first)
            tl.store(final_w2 + out, new_second, mask=in_second)
            if MOMENTUM:
                result += f[:, None] * tl.dot(x, second.to(dtype), input_precision=DOT)
                moving = tl.trans((d[:, None] * keys).to(dtype))
                first = m_last * first + tl.dot(moving, u1, input_precision=DOT)
                written = tl.trans((d[:, None] * h).to(dtype))
                second = m_last * second + tl.dot(written, u2, input_precision=DOT)
                tl.store(final_s1 + into, first, mask=in_first)
                tl.store(final_s2 + out, second, mask=in_second)
        result += tl.dot((mixing * read).to(dtype), u2, input_precision=DOT)
        tl.store(o + wide, result.to(o.dtype.element_ty), mask=in_values)
        w1 = final_w1
        w2 = final_w2
        s1 = final_s1
        s2 = final_s2
        # The next chunk's threads read weights that other threads of this program wrote.
        tl.debug_barrier()
