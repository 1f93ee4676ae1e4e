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
    refined,
    sequence_of,
    state_of,
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
    inverse,  # T [slots, H, PARTS, C, C]
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
    SINGLE: tl.constexpr,  # there is one chunk, which starts from zeros
    ENDS: tl.constexpr,  # the final state has a gradient
    VARLEN: tl.constexpr,
    PARTS: tl.constexpr,
    DOT: tl.constexpr,
):
    dtype = q.dtype.element_ty
    SOLVE: tl.constexpr = "ieee" if DOT == "tf32x3" else DOT  # as in the forward pass
    segment, head, begin, steps, slot = sequence_of(
        tl.program_id(0), cu_seqlens, length, HEADS, CHUNK, VARLEN
    )
    unit = tl.arange(0, WIDTH)
    value = tl.arange(0, BLOCK)
    in_keys, in_values, in_state, place = state_of(unit, value, KEYS, VALUES)
    copies: tl.constexpr = 2 if MOMENTUM else 1
    size: tl.constexpr = KEYS * VALUES
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
    FADES: tl.constexpr = ENDS or not SINGLE  # something comes after a chunk
    chunks = 1 if SINGLE else tl.cdiv(steps, CHUNK)
    for back in tl.range(0, chunks, disable_licm=True):
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
        d_out = (scale * d_out.to(tl.float32)).to(dtype)
        if not SINGLE:
            saved = states + index * copies * size + place
            memory = tl.load(saved, mask=in_state, other=0.0)
        decay, previous, momentum, strength = gates_of(
            log_decay, beta, log_momentum, first + i * HEADS, t, inside,
            HEADS, CHUNK, DECAY, STRENGTH, MOMENTUM, ERROR == 2,
        )  # fmt: skip
        a, r, c, d, m, kept, kept_before, moved, read, predict = weights_of(
            decay, previous, momentum, t, inside, CHUNK, DECAY, MOMENTUM, ERROR != 2, DOT
        )

        # What the step wrote, and the gradient of it.
        right = right.to(tl.float32)
        if ERROR == 1 and not SINGLE:
            right -= tl.dot(keys, memory, input_precision=DOT)
        if ERROR >= 2 and not SINGLE:
            right -= r[:, None] * tl.dot(keys, memory, input_precision=DOT)
        scores = tl.dot(queries, tl.trans(keys), input_precision=DOT)
        read_weight = tl.trans((scores * read).to(dtype))
        d_write = tl.dot(read_weight, d_out, input_precision=DOT)
        if FADES:
            later = d_memory.to(dtype)
            d_write += c[:, None] * tl.dot(keys, later, input_precision=DOT)
        if MOMENTUM:
            present = tl.where(inside, m, 0.0)
            f = tl.sum(kept * present[None, :], 1)
            s = f
            if ERROR >= 2:
                s = tl.sum(kept_before * present[None, :], 1)
            if not SINGLE:
                velocity = tl.load(saved + size, mask=in_state, other=0.0)
                if ERROR >= 2:
                    right -= s[:, None] * tl.dot(keys, velocity, input_precision=DOT)
            if FADES:
                later_velocity = d_velocity.to(dtype)
                d_write += d[:, None] * tl.dot(keys, later_velocity, input_precision=DOT)
        write = (strength[:, None] * right).to(dtype)
        if ERROR >= 2:
            known = write
            d_solved = d_write.to(dtype)
            write = tl.zeros([CHUNK, BLOCK], tl.float32)
            d_write = write
            for part in tl.static_range(PARTS):
                at = (index * PARTS + part) * CHUNK * CHUNK
                solve = tl.load(inverse + at + square)
                write = tl.dot(solve, known, acc=write, input_precision=DOT)
                d_write = tl.dot(tl.trans(solve), d_solved, acc=d_write, input_precision=DOT)
            if SOLVE == "ieee":
                alike = tl.dot(keys, tl.trans(keys), input_precision=SOLVE)
                lower = strength[:, None] * alike * predict
                write = refined(write, solve, lower, known, DOT)
                d_write = refined(d_write, tl.trans(solve), tl.trans(lower), d_solved, DOT)
            write = write.to(dtype)
        d_strength = tl.sum(d_write * right, 1)
        d_value = strength[:, None] * d_write
        tl.store(
            d_v + first * VALUES + by_value,
            d_value.to(d_v.dtype.element_ty),
            mask=rows & in_values,
        )
        d_predicted = d_value.to(dtype)

        # Of queries, of keys as they write and as they predict: through the scores, and through the
        # memories at the chunk's two ends.
        mask = rows & in_keys
        d_scores = tl.dot(d_out, tl.trans(write), input_precision=DOT)
        d_scores = tl.where(t[:, None] >= t[None, :], d_scores, 0.0)
        pairs = d_scores * read
        weighted = pairs.to(dtype)
        pairs *= scores
        d_queries = tl.dot(weighted, keys, input_precision=DOT)
        d_keys = tl.dot(tl.trans(weighted), queries, input_precision=DOT)
        d_predicting = tl.zeros([CHUNK, WIDTH], tl.float32)
        zeros = tl.zeros([CHUNK], tl.float32)
        d_a = zeros
        d_r = zeros
        d_c = zeros
        d_d = zeros
        d_f = zeros
        d_s = zeros
        if not SINGLE:
            from_start = tl.dot(d_out, tl.trans(memory), input_precision=DOT)
            d_a = tl.sum(queries * from_start, 1)
            d_queries += a[:, None] * from_start
            if MOMENTUM:
                from_start = tl.dot(d_out, tl.trans(velocity), input_precision=DOT)
                d_f = tl.sum(queries * from_start, 1)
                d_queries += f[:, None] * from_start
        tl.store(d_q + first * KEYS + by_key, d_queries.to(d_q.dtype.element_ty), mask=mask)
        if not SINGLE and ERROR >= 1:
            predicts = tl.dot(d_predicted, tl.trans(memory), input_precision=DOT)
            d_r = -tl.sum(keys * predicts, 1)
            d_predicting = -predicts
            if ERROR >= 2:
                d_predicting = -r[:, None] * predicts
                if MOMENTUM:
                    predicts = tl.dot(d_predicted, tl.trans(velocity), input_precision=DOT)
                    d_s = -tl.sum(keys * predicts, 1)
                    d_predicting -= s[:, None] * predicts
        if FADES:
            to_end = tl.dot(write, tl.trans(later), input_precision=DOT)
            d_c = tl.sum(keys * to_end, 1)
            d_keys += c[:, None] * to_end
            if MOMENTUM:
                to_end = tl.dot(write, tl.trans(later_velocity), input_precision=DOT)
                d_d = tl.sum(keys * to_end, 1)
                d_keys += d[:, None] * to_end
        if ERROR >= 2:
            d_lower = tl.dot(d_write.to(dtype), tl.trans(write), input_precision=DOT)
            d_lower = tl.where(t[:, None] > t[None, :], -d_lower, 0.0)
            mixed = d_lower * predict
            weighted = (strength[:, None] * mixed).to(dtype)
            if SOLVE != "ieee":
                alike = tl.dot(keys, tl.trans(keys), input_precision=DOT)
            mixed *= alike
            d_predict = tl.sum(mixed, 1)
            d_strength += d_predict
            pairs += strength[:, None] * mixed
        if STRENGTH:
            tl.store(d_beta + first + i * HEADS, d_strength, mask=inside)
        if MOMENTUM:
            d_read = d_scores * scores + tl.where(last[:, None], d_c[None, :], 0.0)
            d_predict = d_read
            if ERROR >= 2:
                d_predict = strength[:, None] * d_lower * alike
            d_m_last = 0.0
            if FADES and not SINGLE:
                d_a += tl.where(last, tl.sum(memory.to(tl.float32) * d_memory), 0.0)
                d_f += tl.where(last, tl.sum(velocity.to(tl.float32) * d_memory), 0.0)
                d_m_last = tl.sum(velocity.to(tl.float32) * d_velocity)
            by_decay, by_momentum = gate_gradients(
                d_read, d_predict, d_a, d_r, d_f, d_s, d_d, d_m_last, a, r, d, m, kept,
                kept_before, moved, t, inside, CHUNK, MOMENTUM, ERROR, DOT,
            )  # fmt: skip
            tl.store(d_momentum + first + i * HEADS, by_momentum, mask=inside)
            if DECAY:
                tl.store(d_decay + first + i * HEADS, by_decay, mask=inside)
        elif DECAY:
            # The sum of decays up to t scales what a query and a predicting key take and divides
            # what a writing key leaves, up to the chunk's end. Pairs inside the chunk cancel but
            # for those that t parts: in rows of q·∂q and k·∂k they would leave their rounding,
            # which the delta rule makes large, as what it writes changes sign from step to step.
            if ERROR >= 2:
                d_sum = tl.sum(pairs - tl.trans(pairs), 1) + a * d_a + r * d_r - c * d_c
            else:
                d_sum = tl.sum(queries * d_queries, 1) - tl.sum(keys * d_keys, 1)
            at_end = tl.sum(c * d_c, 0)
            if FADES and not SINGLE:
                at_end += last_of(a, t, CHUNK) * tl.sum(memory.to(tl.float32) * d_memory)
            d_sum += tl.where(last, at_end, 0.0)
            by_decay = tl.cumsum(d_sum, 0, reverse=True)
            if ERROR == 2:
                by_decay -= strength * d_predict + r * d_r
            tl.store(d_decay + first + i * HEADS, by_decay, mask=inside)
        # Triton 3.6 lays out all products of short chunks as the last: it has to be wide, or warps
        # do the same work.
        if ERROR >= 2:
            d_predicting += tl.dot(weighted, keys, input_precision=DOT)
            d_keys += tl.dot(tl.trans(weighted), keys, input_precision=DOT)
        if ERROR >= 1:
            d_keys += d_predicting
        tl.store(d_k + first * KEYS + by_key, d_keys.to(d_k.dtype.element_ty), mask=mask)

        if not SINGLE:  # the gradient of the state at the chunk's start
            if MOMENTUM:
                d_velocity *= last_of(m, t, CHUNK)
                d_velocity += last_of(f, t, CHUNK) * d_memory
                reads = tl.trans((f[:, None] * queries).to(dtype))
                d_velocity += tl.dot(reads, d_out, input_precision=DOT)
                if ERROR >= 2:
                    predicted = (s[:, None] * d_value).to(dtype)
                    d_velocity -= tl.dot(tl.trans(keys), predicted, input_precision=DOT)
            d_memory *= last_of(a, t, CHUNK)
            reads = tl.trans((a[:, None] * queries).to(dtype))
            d_memory += tl.dot(reads, d_out, input_precision=DOT)
            if ERROR == 1:
                d_memory -= tl.dot(tl.trans(keys), d_predicted, input_precision=DOT)
            if ERROR >= 2:
                predicted = (r[:, None] * d_value).to(dtype)
                d_memory -= tl.dot(tl.trans(keys), predicted, input_precision=DOT)
    if STARTS:
        tl.store(d_initial + here + place, d_memory, mask=in_state)
        if MOMENTUM:
            tl.store(d_initial + here + size + place, d_velocity, mask=in_state)
