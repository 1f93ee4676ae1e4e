"""The MLP memory's backward pass as a Triton kernel: one walk back through each sequence.

It makes again what the forward pass made of a chunk, but for the weights at its start, E, and the
squares QKᵀ∘G and XHᵀ. Two loops run over the hidden units: what reaches E and the gates, then what
E's gradient does. Between them X and the gradient of Y lie in device memory, mostly in L2.
"""

# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false, reportOperatorIssue=false
# pyright: reportArgumentType=false, reportPossiblyUnboundVariable=false
# ruff: noqa: RUF059

import triton
import triton.language as tl

from hypercrl_kernels.memory.chunks_triton import gate_gradients, segment_of
from hypercrl_kernels.memory.mlp_memory.forward_triton import (
    activate,
    chunk_of,
    lengths,
    normal,
    outer,
    velocity_reads,
)


@triton.jit
def _activate_twice(x, SILU: tl.constexpr):
    """σ(x), σ'(x) and σ''(x)."""
    if SILU:
        gate = tl.sigmoid(x)
        open_or_shut = gate * (1.0 - gate)
        slope = gate + x * open_or_shut
        return x * gate, slope, open_or_shut * (2.0 + x * (1.0 - 2.0 * gate))
    below, bell = normal(x)
    return x * below, below + x * bell, bell * (2.0 - x * x)


@triton.jit
def _again(x, place, mask, DOT: tl.constexpr):
    """x; float32 reads it again, as through a loop it would not fit into shared memory."""
    if DOT == "tf32x3":
        return tl.load(place, mask=mask, other=0.0)
    return x


@triton.jit
def _before_unit(place, mask, gradient):
    """The gradient of rows from that of the same at length 1."""
    x = tl.load(place, mask=mask, other=0.0).to(tl.float32)
    length = lengths(x)[:, None]
    x = tl.where(length > 1e-12, x / length, 0.0)
    return (gradient - tl.sum(x * gradient, 1)[:, None] * x) / length


@triton.jit(do_not_specialize=["length"])
def mlp_walk_back_kernel(
    q,  # [B, T, H, K], with UNIT of length 1, as k
    k,  # [B, T, H, K]
    errors,  # [B, T, H, V], E of the forward pass
    squares,  # [slots, H, 2, C, C], its QKᵀ∘G and XHᵀ
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
    given_q,  # [B, T, H, K], a step after QK_ROW numbers; None without UNIT
    given_k,  # [B, T, H, K]
    between,  # [N, H, 2 F + C, C], written: X, the gradients of Y and of XHᵀ
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
    QK_ROW: tl.constexpr,
    UNIT: tl.constexpr,  # d_q and d_k are those of the given ones
    SHARED: tl.constexpr,  # all sequences are one chunk that starts from the same weights
    FADES: tl.constexpr,  # something comes after a chunk: d_w1 and so on hold gradients of it
    MOMENTA: tl.constexpr,  # the gradients of s1 and s2 are wanted
    REST: tl.constexpr,  # one chunk without momenta before it: s1, s2 are None
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
    d_w1 += index * first_size
    d_w2 += index * second_size
    d_s1 += index * first_size
    d_s2 += index * second_size
    between += index * (2 * CHUNK * HIDDEN + CHUNK * CHUNK)
    chunks = tl.cdiv(steps, CHUNK)
    for back in tl.range(0, chunks, disable_licm=True):
        chunk = chunks - 1 - back
        entry = (slot + chunk) * HEADS + head
        pair = i[:, None] * CHUNK + i[None, :]
        square = squares + entry * (2 * CHUNK * CHUNK) + pair
        kept_mixing = between + 2 * CHUNK * HIDDEN + pair
        if SHARED:
            entry = head.to(tl.int64)
        first_entry = entry * first_size
        second_entry = entry * second_size
        # What reaches E and the gates from all hidden units; then, in a second loop over them, what
        # E's gradient does.
        for turn in tl.static_range(2):
            # Loaded again for the second: kept through the loops, a chunk's squares would spill.
            # Without a barrier the compiler would find that they are the same.
            tl.debug_barrier()
            places, queries, keys, strength, weights = chunk_of(
                q, k, log_decay, beta, log_momentum, begin, steps, chunk, head, unit, value,
                HEADS, KEYS, VALUES, CHUNK, DECAY, STRENGTH, MOMENTUM, DOT,
            )  # fmt: skip
            t, inside, at, narrow, wide, in_keys, in_values = places
            a, r, c, d, m, kept, kept_before, moved, read, predict = weights
            f, a_last, f_last, m_last = velocity_reads(a, m, kept, t, inside, CHUNK)
            error = tl.load(errors + wide, mask=in_values, other=0.0)
            d_out = tl.load(d_o + wide, mask=in_values, other=0.0).to(dtype)
            scores = tl.load(square)
            u2 = (strength[:, None] * error.to(tl.float32)).to(dtype)
            d_mixed = tl.dot(d_out, tl.trans(u2), input_precision=DOT)
            if turn == 0:
                tl.store(kept_mixing, (d_mixed * read).to(dtype))
                tl.debug_barrier()
                d_mixing = tl.load(kept_mixing)
                d_u2 = tl.zeros([CHUNK, OUT], tl.float32)
                d_scores = tl.zeros([CHUNK, CHUNK], tl.float32)
                d_error = tl.zeros([CHUNK, OUT], tl.float32)
                d_strength = tl.zeros([CHUNK], tl.float32)
                d_a = d_strength
                d_f = d_strength
                d_c = d_strength
                d_d = d_strength
                d_a_last = 0.0
                d_f_last = 0.0
                d_m_last = 0.0
            else:
                raw = tl.dot(queries, tl.trans(keys), input_precision=DOT)
                mixing = tl.load(square + CHUNK * CHUNK).to(tl.float32)
                reached = tl.trans((mixing * read).to(dtype))
                d_u2 = tl.dot(reached, d_out, acc=d_u2, input_precision=DOT)
                d_strength += tl.sum(d_u2 * error.to(tl.float32), 1)
                d_error += strength[:, None] * d_u2
                tl.store(d_v + wide, d_error.to(d_v.dtype.element_ty), mask=in_values)
                if STRENGTH:
                    tl.store(d_beta + at, d_strength, mask=inside)
                lower = i[:, None] >= i[None, :]
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
                # All gradients are read before new ones are written, and other threads read E's.
                tl.debug_barrier()
                half_d_error = tl.load(d_v + wide, mask=in_values, other=0.0)
                d_mixing = tl.load(kept_mixing)
            for start in tl.range(0, HIDDEN, BLOCK, disable_licm=True):
                hidden = start + tl.arange(0, BLOCK)
                exists = hidden < HIDDEN
                into = unit[:, None] * HIDDEN + hidden[None, :]
                out = hidden[:, None] * VALUES + value[None, :]
                in_first = (unit < KEYS)[:, None] & exists[None, :]
                in_second = exists[:, None] & (value < VALUES)[None, :]
                at_first = first_entry + into
                at_second = second_entry + out
                first = tl.load(w1 + at_first, mask=in_first, other=0.0).to(dtype)
                second = tl.load(w2 + at_second, mask=in_second, other=0.0).to(dtype)
                place = between + i[:, None] * HIDDEN + hidden[None, :]
                there = exists[None, :] & (i < CHUNK)[:, None]
                z = tl.dot(keys, first, input_precision=DOT)
                h, slope, bend = _activate_twice(z, SILU)
                half_h = h.to(dtype)
                wrong = _again(error, errors + wide, in_values, DOT)
                p = tl.dot(wrong, tl.trans(second), input_precision=DOT)
                if turn == 0:
                    u1 = (strength[:, None] * p * slope).to(dtype)
                    from_first = tl.dot(queries, first, input_precision=DOT)
                    y = a[:, None] * from_first
                    from_second = tl.dot(d_out, tl.trans(second), input_precision=DOT)
                    d_x = a[:, None] * from_second
                    if MOVING:
                        s_first = tl.load(s1 + at_first, mask=in_first, other=0.0).to(dtype)
                        s_second = tl.load(s2 + at_second, mask=in_second, other=0.0).to(dtype)
                        from_s1 = tl.dot(queries, s_first, input_precision=DOT)
                        from_s2 = tl.dot(d_out, tl.trans(s_second), input_precision=DOT)
                        y += f[:, None] * from_s1
                        d_x += f[:, None] * from_s2
                    y = tl.dot(scores, u1, acc=y, input_precision=DOT)
                    d_x = tl.dot(d_mixing, half_h, acc=d_x, input_precision=DOT)
                    x, x_slope = activate(y, SILU)
                    d_y = d_x * x_slope
                    half_d_y = d_y.to(dtype)
                    d_a += tl.sum(d_y * from_first + x * from_second, 1)
                    if MOVING:
                        d_f += tl.sum(d_y * from_s1 + x * from_s2, 1)
                    tl.store(place, x.to(dtype), mask=there)
                    tl.store(place + CHUNK * HIDDEN, half_d_y, mask=there)
                    d_scores = tl.dot(half_d_y, tl.trans(u1), acc=d_scores, input_precision=DOT)
                else:
                    x = tl.load(place, mask=there, other=0.0)
                    half_d_y = tl.load(place + CHUNK * HIDDEN, mask=there, other=0.0)
                reached = _again(scores, square, i[:, None] < CHUNK, DOT)
                d_u1 = tl.dot(tl.trans(reached), half_d_y, input_precision=DOT)
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
                d_p = strength[:, None] * d_u1 * slope
                if turn == 0:
                    d_error = tl.dot(d_p.to(dtype), second, acc=d_error, input_precision=DOT)
                    d_strength += tl.sum(d_u1 * p * slope, 1)
                    if FADES:
                        d_c += tl.sum(u1 * by_keys, 1)
                        d_a_last += tl.sum(first * to_first) + tl.sum(second * to_second)
                        by_u2 = tl.dot(u2, tl.trans(half_second), input_precision=DOT)
                        d_c += tl.sum(h * by_u2, 1)
                        written = (c[:, None] * h).to(dtype)
                        d_u2 = tl.dot(written, half_second, acc=d_u2, input_precision=DOT)
                        if MOMENTUM:
                            by_u2 = tl.dot(u2, tl.trans(half_s2), input_precision=DOT)
                            d_d += tl.sum(h * by_u2, 1)
                            written = (d[:, None] * h).to(dtype)
                            d_u2 = tl.dot(written, half_s2, acc=d_u2, input_precision=DOT)
                            d_d += tl.sum(u1 * by_moving, 1)
                            if MOVING:
                                d_m_last += tl.sum(s_first * to_s1) + tl.sum(s_second * to_s2)
                                d_f_last += tl.sum(s_first * to_first)
                                d_f_last += tl.sum(s_second * to_second)
                else:
                    mixed = _again(d_mixing, kept_mixing, i[:, None] < CHUNK, DOT)
                    d_wrong = _again(half_d_error, d_v + wide, in_values, DOT)
                    d_h = tl.dot(tl.trans(mixed), x, input_precision=DOT)
                    d_h -= tl.dot(d_wrong, tl.trans(second), input_precision=DOT)
                    if FADES:
                        wrote = (strength[:, None] * wrong.to(tl.float32)).to(dtype)
                        by_u2 = tl.dot(wrote, tl.trans(half_second), input_precision=DOT)
                        d_h += c[:, None] * by_u2
                        u1 = strength[:, None] * p * slope
                        u1_c = (c[:, None] * u1).to(dtype)
                        d_keys = tl.dot(u1_c, tl.trans(half_first), acc=d_keys, input_precision=DOT)
                        if MOMENTUM:
                            by_u2 = tl.dot(wrote, tl.trans(half_s2), input_precision=DOT)
                            d_h += d[:, None] * by_u2
                            u1 = (d[:, None] * u1).to(dtype)
                            d_keys = tl.dot(u1, tl.trans(half_s1), acc=d_keys, input_precision=DOT)
                    d_z = (d_h * slope + strength[:, None] * d_u1 * p * bend).to(dtype)
                    d_keys = tl.dot(d_z, tl.trans(first), acc=d_keys, input_precision=DOT)
                    new = tl.dot(tl.trans(keys), d_z, input_precision=DOT)
                    reads = (a[:, None] * half_d_y).to(dtype)
                    d_queries = tl.dot(reads, tl.trans(first), acc=d_queries, input_precision=DOT)
                    new = tl.dot(tl.trans(queries), reads, acc=new, input_precision=DOT)
                    if FADES:
                        new = tl.fma(to_first, a_last, new)
                    tl.store(d_w1 + into, new, mask=in_first)
                    d_read_out = _again(d_out, d_o + wide, in_values, DOT)
                    new = outer((a[:, None] * x).to(dtype), d_read_out, DOT)
                    new += outer(d_p.to(dtype), _again(error, errors + wide, in_values, DOT), DOT)
                    d_wrong = _again(half_d_error, d_v + wide, in_values, DOT)
                    new -= outer(half_h, d_wrong, DOT)
                    if FADES:
                        new = tl.fma(to_second, a_last, new)
                    tl.store(d_w2 + out, new, mask=in_second)
                    if MOVING or (MOMENTUM and MOMENTA):
                        reads = (f[:, None] * half_d_y).to(dtype)
                    if MOVING:
                        s_first = tl.trans(tl.load(s1 + at_first, mask=in_first, other=0.0))
                        s_first = s_first.to(dtype)
                        d_queries = tl.dot(reads, s_first, acc=d_queries, input_precision=DOT)
                    if MOMENTUM and MOMENTA:
                        new = tl.dot(tl.trans(queries), reads, input_precision=DOT)
                        if FADES:
                            new = tl.fma(to_s1, m_last, tl.fma(to_first, f_last, new))
                        tl.store(d_s1 + into, new, mask=in_first)
                        reads = (f[:, None] * x).to(dtype)
                        new = outer(reads, d_read_out, DOT)
                        if FADES:
                            new = tl.fma(to_s2, m_last, tl.fma(to_second, f_last, new))
                        tl.store(d_s2 + out, new, mask=in_second)
        if UNIT:
            given = ((begin + t) * QK_ROW + head * KEYS)[:, None] + unit[None, :]
            d_queries = _before_unit(given_q + given, in_keys, d_queries)
            d_keys = _before_unit(given_k + given, in_keys, d_keys)
        tl.store(d_q + narrow, d_queries.to(d_q.dtype.element_ty), mask=in_keys)
        tl.store(d_k + narrow, d_keys.to(d_k.dtype.element_ty), mask=in_keys)
        tl.debug_barrier()
