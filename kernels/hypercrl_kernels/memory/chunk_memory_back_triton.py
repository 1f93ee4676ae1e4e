"""The matrix memories' backward pass as a Triton kernel: one walk back through each sequence.

A program takes one sequence and head with all its values and carries the gradient of the state. It
makes again what `forward_kernel` made of a chunk, but for the state at its start and the inverse.
"""

# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false, reportOperatorIssue=false
# pyright: reportPossiblyUnboundVariable=false, reportArgumentType=false

import triton
import triton.language as tl

from hypercrl_kernels.memory.chunks_triton import (
    gate_gradients,
    gates_of,
    last_of,
    segment_of,
    weights_of,
)


@triton.jit(do_not_specialize=["length"])
def backward_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    v,  # [B, T, H, V]
    log_decay,  # [B, T, H]
    beta,  # [B, T, H]
    log_momentum,  # [B, T, H]
    d_o,  # [B, T, H, V]
    d_final,  # [N, H, (2,) K, V] float32
    states,  # [slots, H, (2,) K, V]
    inverse,  # T [slots, H, C, C]
    cu_seqlens,  # [N + 1]
    d_q,  # [B, T, H, K], written, as all below
    d_k,  # [B, T, H, K]
    d_v,  # [B, T, H, V]
    d_decay,  # [B, T, H] float32
    d_beta,  # [B, T, H] float32
    d_momentum,  # [B, T, H] float32
    d_initial,  # [N, H, (2,) K, V] float32
    scale,
    length,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUES: tl.constexpr,
    BLOCK: tl.constexpr,  # V, padded
    CHUNK: tl.constexpr,
    DECAY: tl.constexpr,
    STRENGTH: tl.constexpr,
    MOMENTUM: tl.constexpr,
    ERROR: tl.constexpr,
    STARTS: tl.constexpr,  # from an initial state, which has a gradient
    ENDS: tl.constexpr,  # the final state has a gradient
    VARLEN: tl.constexpr,
    DOT: tl.constexpr,
):
    dtype = q.dtype.element_ty
    segment = tl.program_id(0).to(tl.int64) // HEADS
    head = tl.program_id(0) % HEADS
    begin, steps, slot = segment_of(cu_seqlens, segment, length, CHUNK, VARLEN)
    unit = tl.arange(0, WIDTH)
    value = tl.arange(0, BLOCK)
    in_keys = (unit < KEYS)[None, :]
    in_values = (value < VALUES)[None, :]
    in_state = (unit < KEYS)[:, None] & in_values
    copies: tl.constexpr = 2 if MOMENTUM else 1
    size: tl.constexpr = KEYS * VALUES
    place = unit[:, None] * VALUES + value[None, :]
    here = (segment * HEADS + head) * copies * size
    d_memory = tl.zeros([WIDTH, BLOCK], tl.float32)
    d_velocity = d_memory
    if ENDS:
        d_memory = tl.load(d_final + here + place, mask=in_state, other=0.0)
        if MOMENTUM:
            d_velocity = tl.load(d_final + here + size + place, mask=in_state, other=0.0)
    i = tl.arange(0, CHUNK)
    square = i[:, None] * CHUNK + i[None, :]
    by_key = i[:, None] * (HEADS * KEYS) + unit[None, :]
    by_value = i[:, None] * (HEADS * VALUES) + value[None, :]
    chunks = tl.cdiv(steps, CHUNK)
    for back in range(0, chunks):
        chunk = chunks - 1 - back
        index = (slot + chunk) * HEADS + head
        first = (begin + chunk * CHUNK) * HEADS + head
        t = chunk * CHUNK + i
        last = t % CHUNK == CHUNK - 1
        inside = t < steps
        rows = inside[:, None]
        queries = tl.load(q + first * KEYS + by_key, mask=rows & in_keys, other=0.0)
        keys = tl.load(k + first * KEYS + by_key, mask=rows & in_keys, other=0.0)
        right = tl.load(v + first * VALUES + by_value, mask=rows & in_values, other=0.0)
        d_out = tl.load(d_o + first * VALUES + by_value, mask=rows & in_values, other=0.0)
        d_out = (scale * d_out).to(dtype)
        saved = states + index * copies * size + place
        memory = tl.load(saved, mask=in_state, other=0.0)
        decay, previous, momentum, strength = gates_of(
            log_decay, beta, log_momentum, first + i * HEADS, t, inside,
            HEADS, CHUNK, DECAY, STRENGTH, MOMENTUM, ERROR == 2,
        )  # fmt: skip
        a, r, c, d, m, kept, kept_before, moved, read, predict = weights_of(
            decay, previous, momentum, t, inside, CHUNK, DECAY, MOMENTUM, ERROR == 3, DOT
        )

        # What the step wrote, and the gradient of it.
        right = right.to(tl.float32)
        if ERROR == 1:
            right -= tl.dot(keys, memory, input_precision=DOT)
        if ERROR >= 2:
            right -= r[:, None] * tl.dot(keys, memory, input_precision=DOT)
        scores = tl.dot(queries, tl.trans(keys), input_precision=DOT)
        read_weight = tl.trans((scores * read).to(dtype))
        later = d_memory.to(dtype)
        d_write = tl.dot(read_weight, d_out, input_precision=DOT)
        d_write += tl.dot((c[:, None] * keys).to(dtype), later, input_precision=DOT)
        if MOMENTUM:
            velocity = tl.load(saved + size, mask=in_state, other=0.0)
            present = tl.where(inside, m, 0.0)
            f = tl.sum(kept * present[None, :], 1)
            if ERROR >= 2:
                s = tl.sum(kept_before * present[None, :], 1)
                right -= s[:, None] * tl.dot(keys, velocity, input_precision=DOT)
            later_velocity = d_velocity.to(dtype)
            carried = (d[:, None] * keys).to(dtype)
            d_write += tl.dot(carried, later_velocity, input_precision=DOT)
        write = (strength[:, None] * right).to(dtype)
        if ERROR >= 2:
            solve = tl.load(inverse + index * CHUNK * CHUNK + square)
            write = tl.dot(solve, write, input_precision=DOT).to(dtype)
            d_write = tl.dot(tl.trans(solve), d_write.to(dtype), input_precision=DOT)
        d_strength = tl.sum(d_write * right, 1)
        d_value = strength[:, None] * d_write
        tl.store(
            d_v + first * VALUES + by_value,
            d_value.to(d_v.dtype.element_ty),
            mask=rows & in_values,
        )
        d_predicted = d_value.to(dtype)

        # Through the scores and through the memories at the chunk's two ends.
        d_scores = tl.dot(d_out, tl.trans(write), input_precision=DOT)
        d_scores = tl.where(t[:, None] >= t[None, :], d_scores, 0.0)
        d_read = d_scores * scores
        d_scores = (d_scores * read).to(dtype)
        product = tl.dot(d_out, tl.trans(memory), input_precision=DOT)
        d_queries = a[:, None] * product
        d_a = tl.sum(queries * product, 1)
        d_queries += tl.dot(d_scores, keys, input_precision=DOT)
        product = tl.dot(write, tl.trans(later), input_precision=DOT)
        d_keys = c[:, None] * product
        d_c = tl.sum(keys * product, 1)
        d_keys += tl.dot(tl.trans(d_scores), queries, input_precision=DOT)
        d_r = tl.zeros([CHUNK], tl.float32)
        d_f = d_r
        d_s = d_r
        d_d = d_r
        d_m_last = 0.0
        d_predict = tl.zeros([CHUNK, CHUNK], tl.float32)
        if ERROR >= 1:
            product = tl.dot(d_predicted, tl.trans(memory), input_precision=DOT)
            if ERROR == 1:
                d_keys -= product
            if ERROR >= 2:
                d_keys -= r[:, None] * product
                d_r = -tl.sum(keys * product, 1)
                overlap = tl.dot(keys, tl.trans(keys), input_precision=DOT)
                d_lower = tl.dot(d_write.to(dtype), tl.trans(write), input_precision=DOT)
                d_lower = tl.where(t[:, None] > t[None, :], -d_lower, 0.0)
                d_strength += tl.sum(d_lower * overlap * predict, 1)
                d_lower *= strength[:, None]
                d_predict = d_lower * overlap
                both = d_lower * predict
                both = (both + tl.trans(both)).to(dtype)
                d_keys += tl.dot(both, keys, input_precision=DOT)
        if MOMENTUM:
            product = tl.dot(d_out, tl.trans(velocity), input_precision=DOT)
            d_queries += f[:, None] * product
            d_f = tl.sum(queries * product, 1)
            product = tl.dot(write, tl.trans(later_velocity), input_precision=DOT)
            d_keys += d[:, None] * product
            d_d = tl.sum(keys * product, 1)
            if ERROR >= 2:
                product = tl.dot(d_predicted, tl.trans(velocity), input_precision=DOT)
                d_keys -= s[:, None] * product
                d_s = -tl.sum(keys * product, 1)
        mask = rows & in_keys
        tl.store(d_q + first * KEYS + by_key, d_queries.to(d_q.dtype.element_ty), mask=mask)
        tl.store(d_k + first * KEYS + by_key, d_keys.to(d_k.dtype.element_ty), mask=mask)
        if STRENGTH:
            tl.store(d_beta + first + i * HEADS, d_strength, mask=inside)
        if DECAY or MOMENTUM:
            d_read += tl.where(last[:, None], d_c[None, :], 0.0)
            d_a += tl.where(last, tl.sum(memory.to(tl.float32) * d_memory), 0.0)
            if MOMENTUM:
                d_f += tl.where(last, tl.sum(velocity.to(tl.float32) * d_memory), 0.0)
                d_m_last = tl.sum(velocity.to(tl.float32) * d_velocity)
            by_decay, by_momentum = gate_gradients(
                d_read, d_predict, d_a, d_r, d_f, d_s, d_d, d_m_last, a, r, d, m, kept,
                kept_before, moved, t, inside, CHUNK, MOMENTUM, ERROR, DOT,
            )  # fmt: skip
            if DECAY:
                tl.store(d_decay + first + i * HEADS, by_decay, mask=inside)
            if MOMENTUM:
                tl.store(d_momentum + first + i * HEADS, by_momentum, mask=inside)

        # The gradient of the state at the chunk's start.
        if MOMENTUM:
            d_velocity *= last_of(m, t, CHUNK)
            d_velocity += last_of(f, t, CHUNK) * d_memory
            reads = tl.trans((f[:, None] * queries).to(dtype))
            d_velocity += tl.dot(reads, d_out, input_precision=DOT)
            if ERROR >= 2:
                predicts = tl.trans((s[:, None] * keys).to(dtype))
                d_velocity -= tl.dot(predicts, d_predicted, input_precision=DOT)
        d_memory *= last_of(a, t, CHUNK)
        reads = tl.trans((a[:, None] * queries).to(dtype))
        d_memory += tl.dot(reads, d_out, input_precision=DOT)
        if ERROR == 1:
            d_memory -= tl.dot(tl.trans(keys), d_predicted, input_precision=DOT)
        if ERROR >= 2:
            predicts = tl.trans((r[:, None] * keys).to(dtype))
            d_memory -= tl.dot(predicts, d_predicted, input_precision=DOT)
    if STARTS:
        tl.store(d_initial + here + place, d_memory, mask=in_state)
        if MOMENTUM:
            tl.store(d_initial + here + size + place, d_velocity, mask=in_state)
