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

from hypercrl_kernels.memory.chunks_triton import (
    gate_gradients,
    gates_of,
    last_of,
    segment_of,
    weights_of,
)


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
def _second_slope(x, SILU: tl.constexpr):
    """σ''(x)."""
    if SILU:
        gate = tl.sigmoid(x)
        return gate * (1.0 - gate) * (2.0 + x * (1.0 - 2.0 * gate))
    return 0.3989422804014327 * tl.exp(-0.5 * x * x) * (2.0 - x * x)


@triton.jit
def _chunk(
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
def _errors(
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
        places, queries, keys, targets, strength, weights = _chunk(
            q, k, v, log_decay, beta, log_momentum, begin, steps, chunk, head, unit, value,
            HEADS, KEYS, VALUES, CHUNK, DECAY, STRENGTH, MOMENTUM, DOT,
        )  # fmt: skip
        t, inside, at, narrow, wide, in_keys, in_values = places
        a, r, c, d, m, kept, kept_before, moved, read, predict = weights
        f = tl.sum(kept * tl.where(inside, m, 0.0)[None, :], 1)
        a_last = last_of(a, t, CHUNK)
        f_last = last_of(f, t, CHUNK)
        m_last = last_of(m, t, CHUNK)
        scores = tl.dot(queries, tl.trans(keys), input_precision=DOT) * read
        scores = scores.to(dtype)
        error = _errors(keys, targets, w1, w2, unit, value, KEYS, VALUES, HIDDEN, BLOCK, SILU, DOT)
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


@triton.jit(do_not_specialize=["length"])
def mlp_walk_back_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    v,  # [B, T, H, V]
    log_decay,  # [B, T, H]
    beta,  # [B, T, H]
    log_momentum,  # [B, T, H]
    cu_seqlens,  # [N + 1]
    w1,  # [slots, H, K, F], those at each chunk's start, as all below; SHARED: [1, H, K, F]
    w2,  # [slots, H, F, V]
    s1,  # [slots, H, K, F]
    s2,  # [slots, H, F, V]
    d_o,  # [B, T, H, V]
    d_w1,  # [N, H, K, F] float32, from the final to the initial weights in place, as all below
    d_w2,  # [N, H, F, V] float32
    d_s1,  # [N, H, K, F] float32
    d_s2,  # [N, H, F, V] float32
    d_q,  # [B, T, H, K], written, as all below
    d_k,  # [B, T, H, K]
    d_v,  # [B, T, H, V]
    d_decay,  # [B, T, H] float32
    d_beta,  # [B, T, H] float32
    d_momentum,  # [B, T, H] float32
    length,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUES: tl.constexpr,
    OUT: tl.constexpr,
    HIDDEN: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    DECAY: tl.constexpr,
    STRENGTH: tl.constexpr,
    MOMENTUM: tl.constexpr,
    SILU: tl.constexpr,
    SHARED: tl.constexpr,  # all sequences are one chunk that starts from the same weights
    FADES: tl.constexpr,  # something comes after a chunk: d_w1 and so on hold gradients of it
    MOMENTA: tl.constexpr,  # the gradients of s1 and s2 are wanted
    VARLEN: tl.constexpr,
    DOT: tl.constexpr,
):
    dtype = q.dtype.element_ty
    index = tl.program_id(0).to(tl.int64)
    head = tl.program_id(0) % HEADS
    begin, steps, slot = segment_of(cu_seqlens, index // HEADS, length, CHUNK, VARLEN)
    unit = tl.arange(0, WIDTH)
    value = tl.arange(0, OUT)
    i = tl.arange(0, CHUNK)
    first_size: tl.constexpr = KEYS * HIDDEN
    second_size: tl.constexpr = HIDDEN * VALUES
    d_w1 += index * first_size
    d_s1 += index * first_size
    d_w2 += index * second_size
    d_s2 += index * second_size
    chunks = tl.cdiv(steps, CHUNK)
    for back in tl.range(0, chunks, disable_licm=True):
        chunk = chunks - 1 - back
        entry = (slot + chunk) * HEADS + head
        if SHARED:
            entry = head.to(tl.int64)
        first_entry = entry * first_size
        second_entry = entry * second_size
        # What reaches E and the gates from all hidden units; then, in a second loop over them, what
        # E's gradient does.
        for turn in tl.static_range(2):
            # Loaded again for the second: kept through the loops, a chunk's squares would spill.
            places, queries, keys, targets, strength, weights = _chunk(
                q, k, v, log_decay, beta, log_momentum, begin, steps, chunk, head, unit, value,
                HEADS, KEYS, VALUES, CHUNK, DECAY, STRENGTH, MOMENTUM, DOT,
            )  # fmt: skip
            t, inside, at, narrow, wide, in_keys, in_values = places
            a, r, c, d, m, kept, kept_before, moved, read, predict = weights
            f = tl.sum(kept * tl.where(inside, m, 0.0)[None, :], 1)
            a_last = last_of(a, t, CHUNK)
            f_last = last_of(f, t, CHUNK)
            m_last = last_of(m, t, CHUNK)
            raw = tl.dot(queries, tl.trans(keys), input_precision=DOT)
            if turn == 0:
                scores = (raw * read).to(dtype)
                error = _errors(
                    keys, targets, w1 + first_entry, w2 + second_entry, unit, value,
                    KEYS, VALUES, HIDDEN, BLOCK, SILU, DOT,
                )  # fmt: skip
                u2 = (strength[:, None] * error).to(dtype)
                half_error = error.to(dtype)
                half_d_error = half_error
                d_out = tl.load(d_o + wide, mask=in_values, other=0.0).to(dtype)
                d_mixed = tl.dot(d_out, tl.trans(u2), input_precision=DOT)
                d_mixing = (d_mixed * read).to(dtype)
                mixing = tl.zeros([CHUNK, CHUNK], tl.float32)
                d_scores = tl.zeros([CHUNK, CHUNK], tl.float32)
                d_error = tl.zeros([CHUNK, OUT], tl.float32)
                h_to_second = tl.zeros([CHUNK, OUT], tl.float32)
                h_to_s2 = tl.zeros([CHUNK, OUT], tl.float32)
                d_strength = tl.zeros([CHUNK], tl.float32)
                d_a = d_strength
                d_f = d_strength
                d_c = d_strength
                d_d = d_strength
                d_a_last = 0.0
                d_f_last = 0.0
                d_m_last = 0.0
            else:
                d_u2 = tl.dot(tl.trans((mixing * read).to(dtype)), d_out, input_precision=DOT)
                if FADES:
                    d_c += tl.sum(u2 * h_to_second, 1)
                    d_u2 += c[:, None] * h_to_second
                    if MOMENTUM:
                        d_d += tl.sum(u2 * h_to_s2, 1)
                        d_u2 += d[:, None] * h_to_s2
                d_strength += tl.sum(d_u2 * half_error, 1)
                d_error += strength[:, None] * d_u2
                tl.store(d_v + wide, d_error.to(d_v.dtype.element_ty), mask=in_values)
                half_d_error = d_error.to(dtype)
                if STRENGTH:
                    tl.store(d_beta + at, d_strength, mask=inside)
                lower = i[:, None] >= i[None, :]
                d_mixed = tl.dot(d_out, tl.trans(u2), input_precision=DOT)
                d_scores = tl.where(lower, d_scores, 0.0)
                d_read = tl.where(lower, d_mixed * mixing, 0.0) + d_scores * raw
                weighted = (d_scores * read).to(dtype)
                d_queries = tl.dot(weighted, keys, input_precision=DOT)
                d_keys = tl.dot(tl.trans(weighted), queries, input_precision=DOT)
                if DECAY or MOMENTUM:
                    last = i == CHUNK - 1
                    d_read += tl.where(last[:, None], d_c[None, :], 0.0)
                    d_a += tl.where(last, d_a_last, 0.0)
                    d_f += tl.where(last, d_f_last, 0.0)
                    by_decay, by_momentum = gate_gradients(
                        d_read, d_read, d_a, d_a, d_f, d_f, d_d, d_m_last, a, r, d, m, kept,
                        kept_before, moved, t, inside, CHUNK, MOMENTUM, 0, DOT,
                    )  # fmt: skip
                    if DECAY:
                        tl.store(d_decay + at, by_decay, mask=inside)
                    if MOMENTUM:
                        tl.store(d_momentum + at, by_momentum, mask=inside)
                tl.debug_barrier()  # all gradients are read before new ones are written
            for start in tl.range(0, HIDDEN, BLOCK, disable_licm=True):
                hidden = start + tl.arange(0, BLOCK)
                exists = hidden < HIDDEN
                into = unit[:, None] * HIDDEN + hidden[None, :]
                out = hidden[:, None] * VALUES + value[None, :]
                in_first = (unit < KEYS)[:, None] & exists[None, :]
                in_second = exists[:, None] & (value < VALUES)[None, :]
                first = tl.load(w1 + first_entry + into, mask=in_first, other=0.0).to(dtype)
                second = tl.load(w2 + second_entry + out, mask=in_second, other=0.0).to(dtype)
                z = tl.dot(keys, first, input_precision=DOT)
                h, slope = activate(z, SILU)
                half_h = h.to(dtype)
                p = tl.dot(half_error, tl.trans(second), input_precision=DOT)
                u1 = (strength[:, None] * p * slope).to(dtype)
                from_first = tl.dot(queries, first, input_precision=DOT)
                y = a[:, None] * from_first + tl.dot(scores, u1, input_precision=DOT)
                from_second = tl.dot(d_out, tl.trans(second), input_precision=DOT)
                d_x = a[:, None] * from_second
                d_x += tl.dot(d_mixing, half_h, input_precision=DOT)
                if MOMENTUM:
                    s_first = tl.load(s1 + first_entry + into, mask=in_first, other=0.0)
                    s_second = tl.load(s2 + second_entry + out, mask=in_second, other=0.0)
                    s_first = s_first.to(dtype)
                    s_second = s_second.to(dtype)
                    from_s1 = tl.dot(queries, s_first, input_precision=DOT)
                    from_s2 = tl.dot(d_out, tl.trans(s_second), input_precision=DOT)
                    y += f[:, None] * from_s1
                    d_x += f[:, None] * from_s2
                x, x_slope = activate(y, SILU)
                half_x = x.to(dtype)
                d_y = d_x * x_slope
                half_d_y = d_y.to(dtype)
                d_u1 = tl.dot(tl.trans(scores), half_d_y, input_precision=DOT)
                if FADES:
                    to_first = tl.load(d_w1 + into, mask=in_first, other=0.0)
                    to_second = tl.load(d_w2 + out, mask=in_second, other=0.0)
                    half_first = to_first.to(dtype)
                    half_second = to_second.to(dtype)
                    by_keys = tl.dot(keys, half_first, input_precision=DOT)
                    d_u1 += c[:, None] * by_keys
                    if MOMENTUM:
                        to_s1 = tl.load(d_s1 + into, mask=in_first, other=0.0)
                        to_s2 = tl.load(d_s2 + out, mask=in_second, other=0.0)
                        half_s1 = to_s1.to(dtype)
                        half_s2 = to_s2.to(dtype)
                        by_moving = tl.dot(keys, half_s1, input_precision=DOT)
                        d_u1 += d[:, None] * by_moving
                d_p = (strength[:, None] * d_u1 * slope).to(dtype)
                if turn == 0:
                    mixing += tl.dot(half_x, tl.trans(half_h), input_precision=DOT)
                    d_scores += tl.dot(half_d_y, tl.trans(u1), input_precision=DOT)
                    d_error += tl.dot(d_p, second, input_precision=DOT)
                    d_strength += tl.sum(d_u1 * p * slope, 1)
                    d_a += tl.sum(d_y * from_first + x * from_second, 1)
                    if MOMENTUM:
                        d_f += tl.sum(d_y * from_s1 + x * from_s2, 1)
                    if FADES:
                        h_to_second += tl.dot(half_h, half_second, input_precision=DOT)
                        d_c += tl.sum(u1 * by_keys, 1)
                        d_a_last += tl.sum(first * to_first) + tl.sum(second * to_second)
                        if MOMENTUM:
                            h_to_s2 += tl.dot(half_h, half_s2, input_precision=DOT)
                            d_d += tl.sum(u1 * by_moving, 1)
                            d_f_last += tl.sum(s_first * to_first) + tl.sum(s_second * to_second)
                            d_m_last += tl.sum(s_first * to_s1) + tl.sum(s_second * to_s2)
                else:
                    d_h = tl.dot(tl.trans(d_mixing), half_x, input_precision=DOT)
                    d_h -= tl.dot(half_d_error, tl.trans(second), input_precision=DOT)
                    if FADES:
                        d_h += c[:, None] * tl.dot(u2, tl.trans(half_second), input_precision=DOT)
                        d_keys += c[:, None] * tl.dot(u1, tl.trans(half_first), input_precision=DOT)
                        if MOMENTUM:
                            d_h += d[:, None] * tl.dot(u2, tl.trans(half_s2), input_precision=DOT)
                            d_keys += d[:, None] * tl.dot(
                                u1, tl.trans(half_s1), input_precision=DOT
                            )
                    d_z = d_h * slope + strength[:, None] * d_u1 * p * _second_slope(z, SILU)
                    d_z = d_z.to(dtype)
                    d_keys += tl.dot(d_z, tl.trans(first), input_precision=DOT)
                    reads = (a[:, None] * d_y).to(dtype)
                    d_queries += tl.dot(reads, tl.trans(first), input_precision=DOT)
                    new_first = tl.dot(tl.trans(keys), d_z, input_precision=DOT)
                    new_first += tl.dot(tl.trans(queries), reads, input_precision=DOT)
                    new_second = tl.dot(
                        tl.trans((a[:, None] * x).to(dtype)), d_out, input_precision=DOT
                    )
                    new_second -= tl.dot(tl.trans(half_h), half_d_error, input_precision=DOT)
                    new_second += tl.dot(tl.trans(d_p), half_error, input_precision=DOT)
                    if FADES:
                        new_first += a_last * to_first
                        new_second += a_last * to_second
                    tl.store(d_w1 + into, new_first, mask=in_first)
                    tl.store(d_w2 + out, new_second, mask=in_second)
                    if MOMENTUM:
                        reads = (f[:, None] * d_y).to(dtype)
                        d_queries += tl.dot(reads, tl.trans(s_first), input_precision=DOT)
                        if MOMENTA:
                            new_first = tl.dot(tl.trans(queries), reads, input_precision=DOT)
                            new_second = tl.dot(
                                tl.trans((f[:, None] * x).to(dtype)), d_out, input_precision=DOT
                            )
                            if FADES:
                                new_first += m_last * to_s1 + f_last * to_first
                                new_second += m_last * to_s2 + f_last * to_second
                            tl.store(d_s1 + into, new_first, mask=in_first)
                            tl.store(d_s2 + out, new_second, mask=in_second)
        tl.store(d_q + narrow, d_queries.to(d_q.dtype.element_ty), mask=in_keys)
        tl.store(d_k + narrow, d_keys.to(d_k.dtype.element_ty), mask=in_keys)
        tl.debug_barrier()
