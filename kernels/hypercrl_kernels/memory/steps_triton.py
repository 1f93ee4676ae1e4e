"""One step of a matrix memory as one Triton kernel: the state is read once and written once."""

# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false

import triton
import triton.language as tl


@triton.jit
def step_kernel(
    q,  # [B, H, K]
    k,  # [B, H, K]
    v,  # [B, H, V]
    log_decay,  # [B, H] or, as VECTOR, [B, H, K]
    beta,  # [B, H]
    log_momentum,  # [B, H]
    state,  # [B, H, (2,) K, COLUMNS] float32, written in place
    o,  # [B, H, V], written
    scale,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,  # K, padded
    VALUES: tl.constexpr,
    BLOCK: tl.constexpr,  # of columns, one program's
    DECAY: tl.constexpr,
    VECTOR: tl.constexpr,
    STRENGTH: tl.constexpr,
    MOMENTUM: tl.constexpr,
    ERROR: tl.constexpr,
    BEFORE: tl.constexpr,  # the error is taken before the decay
    NORMALISE: tl.constexpr,  # the last column, of ones, divides the others
):
    index = tl.program_id(1).to(tl.int64)
    unit = tl.arange(0, WIDTH)
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    columns: tl.constexpr = VALUES + 1 if NORMALISE else VALUES
    copies: tl.constexpr = 2 if MOMENTUM else 1
    in_keys = unit < KEYS
    mask = in_keys[:, None] & (column < columns)[None, :]
    here = index * copies * KEYS * columns + unit[:, None] * columns + column[None, :]
    memory = tl.load(state + here, mask=mask, other=0.0)
    read = tl.load(q + index * KEYS + unit, mask=in_keys, other=0.0).to(tl.float32)
    key = tl.load(k + index * KEYS + unit, mask=in_keys, other=0.0).to(tl.float32)
    value = tl.load(v + index * VALUES + column, mask=column < VALUES, other=0.0).to(tl.float32)
    if NORMALISE:
        value = tl.where(column == VALUES, 1.0, value)
    kept = memory
    if DECAY:
        if VECTOR:
            gate = tl.load(log_decay + index * KEYS + unit, mask=in_keys, other=0.0)
            kept = memory * tl.exp(gate.to(tl.float32))[:, None]
        else:
            kept = memory * tl.exp(tl.load(log_decay + index).to(tl.float32))
    if ERROR:
        if BEFORE:
            value -= tl.sum(memory * key[:, None], 0)
        else:
            value -= tl.sum(kept * key[:, None], 0)
    if STRENGTH:
        value *= tl.load(beta + index).to(tl.float32)
    write = key[:, None] * value[None, :]
    if MOMENTUM:
        place = state + here + KEYS * columns
        momentum = tl.exp(tl.load(log_momentum + index).to(tl.float32))
        write += momentum * tl.load(place, mask=mask, other=0.0)
        tl.store(place, write, mask=mask)
    memory = kept + write
    tl.store(state + here, memory, mask=mask)
    out = tl.sum(memory * read[:, None], 0) * scale
    if NORMALISE:
        out /= tl.sum(tl.where(column == VALUES, out, 0.0), 0)
    tl.store(o + index * VALUES + column, out.to(o.dtype.element_ty), mask=column < VALUES)
