"""The MLP memory's backward pass as a Triton kernel: one walk back through each sequence.

It makes again what the forward pass made of a chunk, but for the weights at its start.
"""

# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false, reportOperatorIssue=false
# pyright: reportArgumentType=false, reportPossiblyUnboundVariable=false
# ruff: noqa: RUF059

import triton
import triton.language as tl

from hypercrl_kernels.memory.chunks_triton import gate_gradients, segment_of
from old_forward import (
    activate,
    chunk_of,
    errors_of,
    velocity_reads,
)


@triton.jit
def _second_slope(x, SILU: tl.constexpr):
    """σ''(x)."""
    if SILU:
        gate = tl.sigmoid(x)
        return gate * (1.0 - gate) * (2.0 + x * (1.0 - 2.0 * gate))
    return 0.3989422804014327 * tl.exp(-0.5 * x * x) * (2.0 - x * x)


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
            places, queries, keys, targets, strength, weights = chunk_of(
                q, k, v, log_decay, beta, log_momentum, begin, steps, chunk, head, unit, value,
                HEADS, KEYS, VALUES, CHUNK, DECAY, STRENGTH, MOMENTUM, DOT,
            )  # fmt: skip
            t, inside, at, narrow, wide, in_keys, in_values = places
            a, r, c, d, m, kept, kept_before, moved, read, predict = weights
            f, a_last, f_last, m_last = velocity_reads(a, m, kept, t, inside, CHUNK)
            raw = tl.dot(queries, tl.trans(keys), input_precision=DOT)
            if turn == 0:
                scores = (raw * read).to(dtype)
                error = errors_of(
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
