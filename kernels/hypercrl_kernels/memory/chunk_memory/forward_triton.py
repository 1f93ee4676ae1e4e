"""Matrix memories as two Triton kernels: one walks forward through a sequence, one back.

A program takes one sequence, head and block of values, keeps the state in registers and makes all
that a chunk needs on the spot: nothing but inputs and outputs passes through device memory. With M
the memory and S its velocity at the start of a chunk:

    R = β (V − r KM − s KS),  U = T R,  O = a QM + f QS + A U,
    M' = a_C M + f_C S + (c K)ᵀ U,  S' = m_C S + (d K)ᵀ U,

with A = QKᵀ∘G and T = (I + β KKᵀ∘P)⁻¹; G, P and the row vectors a, r, f, s, c, d come from the
gates alone (`weights_of`).
"""

# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false, reportOperatorIssue=false
# pyright: reportPossiblyUnboundVariable=false, reportArgumentType=false

import triton
import triton.language as tl

from hypercrl_kernels.memory.chunk_memory.inverse_triton import inverse_of
from hypercrl_kernels.memory.chunks_triton import (
    gates_of,
    last_of,
    refined,
    sequence_of,
    state_of,
    weights_of,
)


@triton.jit(do_not_specialize=["length"])
def forward_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    v,  # [B, T, H, V]
    log_decay,  # [B, T, H]
    beta,  # [B, T, H]
    log_momentum,  # [B, T, H]
    initial,  # [N, H, (2,) K, V] float32
    cu_seqlens,  # [N + 1]
    o,  # [B, T, H, V], written
    final,  # [N, H, (2,) K, V] float32, written
    states,  # [slots, H, (2,) K, V], written with SAVE: the state at each chunk's start
    inverse,  # T [slots, H, PARTS, C, C], written with SAVE
    scale,
    length,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,  # K, padded
    VALUES: tl.constexpr,
    BLOCK: tl.constexpr,  # of values, one program's
    CHUNK: tl.constexpr,
    DECAY: tl.constexpr,
    STRENGTH: tl.constexpr,
    MOMENTUM: tl.constexpr,
    ERROR: tl.constexpr,  # 0 none, 1 chunk start, 2 before decay, 3 after decay
    STARTS: tl.constexpr,  # from an initial state, else from zeros
    SINGLE: tl.constexpr,  # there is one chunk, which starts from zeros
    SAVE: tl.constexpr,
    VARLEN: tl.constexpr,
    PARTS: tl.constexpr,  # of T: its rounding, then that of what is left, and so on
    DOT: tl.constexpr,
):
    dtype = q.dtype.element_ty
    # Tensor cores cut sums off instead of rounding them: all of a bias, which L would not bear.
    SOLVE: tl.constexpr = "ieee" if DOT == "tf32x3" else DOT
    # Products of float16 would cost more than rounding T to it does; to bfloat16 they do not.
    INVERT: tl.constexpr = "tf32x3" if dtype == tl.float16 else DOT
    segment, head, begin, steps, slot = sequence_of(
        tl.program_id(1), cu_seqlens, length, HEADS, CHUNK, VARLEN
    )
    unit = tl.arange(0, WIDTH)
    value = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    in_keys, in_values, in_state, place = state_of(unit, value, KEYS, VALUES)
    copies: tl.constexpr = 2 if MOMENTUM else 1
    size: tl.constexpr = KEYS * VALUES
    here = (segment * HEADS + head) * copies * size
    memory = tl.zeros([WIDTH, BLOCK], tl.float32)
    velocity = memory
    if STARTS:
        memory = tl.load(initial + here + place, mask=in_state, other=0.0)
        if MOMENTUM:
            velocity = tl.load(initial + here + size + place, mask=in_state, other=0.0)
    i = tl.arange(0, CHUNK)
    square = i[:, None] * CHUNK + i[None, :]
    by_key = i[:, None] * (HEADS * KEYS) + unit[None, :]
    by_value = i[:, None] * (HEADS * VALUES) + value[None, :]
    chunks = 1 if SINGLE else tl.cdiv(steps, CHUNK)
    for chunk in tl.range(0, chunks, disable_licm=True):
        index = (slot + chunk) * HEADS + head
        first = (begin + chunk * CHUNK) * HEADS + head
        t = chunk * CHUNK + i
        inside = t < steps
        rows = inside[:, None]
        queries = tl.load(q + first * KEYS + by_key, mask=rows & in_keys, other=0.0)
        keys = tl.load(k + first * KEYS + by_key, mask=rows & in_keys, other=0.0)
        right = tl.load(v + first * VALUES + by_value, mask=rows & in_values, other=0.0)
        decay, previous, momentum, strength = gates_of(
            log_decay, beta, log_momentum, first + i * HEADS, t, inside,
            HEADS, CHUNK, DECAY, STRENGTH, MOMENTUM, ERROR == 2,
        )  # fmt: skip
        a, r, c, d, m, kept, kept_before, _, read, predict = weights_of(
            decay, previous, momentum, t, inside, CHUNK, DECAY, MOMENTUM, ERROR != 2, DOT
        )
        score = (tl.dot(queries, tl.trans(keys), input_precision=DOT) * read).to(dtype)
        if ERROR >= 2:
            lower = tl.dot(keys, tl.trans(keys), input_precision=SOLVE) * predict
            lower *= strength[:, None]
            rest = inverse_of(lower, t, CHUNK, INVERT)

        right = right.to(tl.float32)
        out = tl.zeros([CHUNK, BLOCK], tl.float32)
        if not SINGLE:
            old = memory.to(dtype)
            if SAVE:
                saved = states + index * copies * size + place
                tl.store(saved, old, mask=in_state)
            out = a[:, None] * tl.dot(queries, old, input_precision=DOT)
            if ERROR == 1:
                right -= tl.dot(keys, old, input_precision=DOT)
            if ERROR >= 2:
                right -= r[:, None] * tl.dot(keys, old, input_precision=DOT)
        if MOMENTUM:
            present = tl.where(inside, m, 0.0)
            f = tl.sum(kept * present[None, :], 1)
            if not SINGLE:
                old = velocity.to(dtype)
                if SAVE:
                    tl.store(saved + size, old, mask=in_state)
                out += f[:, None] * tl.dot(queries, old, input_precision=DOT)
                if ERROR >= 2:
                    s = tl.sum(kept_before * present[None, :], 1)
                    right -= s[:, None] * tl.dot(keys, old, input_precision=DOT)
        write = strength[:, None] * right
        if ERROR >= 2:
            known = write.to(dtype)
            write = tl.zeros([CHUNK, BLOCK], tl.float32)
            for part in tl.static_range(PARTS):
                solve = rest.to(dtype)
                if SAVE and tl.program_id(0) == 0:
                    at = (index * PARTS + part) * CHUNK * CHUNK
                    tl.store(inverse + at + square, solve)
                write = tl.dot(solve, known, acc=write, input_precision=DOT)
                rest -= solve.to(tl.float32)
            if SOLVE == "ieee":
                write = refined(write, solve, lower, known, DOT)
        out += tl.dot(score, write.to(dtype), input_precision=DOT)
        out = (scale * out).to(o.dtype.element_ty)
        tl.store(o + first * VALUES + by_value, out, mask=rows & in_values)
        carried = (c[:, None] * write).to(dtype)
        memory *= last_of(a, t, CHUNK)
        memory += tl.dot(tl.trans(keys), carried, input_precision=DOT)
        if MOMENTUM:
            memory += last_of(f, t, CHUNK) * velocity
            velocity *= last_of(m, t, CHUNK)
            carried = (d[:, None] * write).to(dtype)
            velocity += tl.dot(tl.trans(keys), carried, input_precision=DOT)
    tl.store(final + here + place, memory, mask=in_state)
    if MOMENTUM:
        tl.store(final + here + size + place, velocity, mask=in_state)
