"""One step of a memory as one Triton kernel: the state is read once and written once."""

# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false

import triton
import triton.language as tl

from hypercrl_kernels.memory.mlp_memory.forward_triton import activate


@triton.jit
def step_kernel(
    q,  # [B, H / GROUP, K]
    k,  # [B, WRITES, H / GROUP, K]
    v,  # [B, WRITES, H, V]
    log_decay,  # [B, H] or, as VECTOR, [B, H, K]
    beta,  # [B, WRITES, H]
    log_momentum,  # [B, H]
    state,  # [B, H, (2,) K, COLUMNS] float32, written in place
    o,  # [B, H, V], written
    scale,
    least_length,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,  # heads that share queries and keys
    WRITES: tl.constexpr,
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
    UNIT: tl.constexpr,  # q and k are brought to length 1
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
    groups: tl.constexpr = HEADS // GROUP
    batch, head = index // HEADS, index % HEADS
    at = batch * groups + head // GROUP
    read = tl.load(q + at * KEYS + unit, mask=in_keys, other=0.0).to(tl.float32)
    if UNIT:
        read /= tl.maximum(tl.sqrt(tl.sum(read * read, 0)), least_length)
    kept = memory
    if DECAY:
        if VECTOR:
            gate = tl.load(log_decay + index * KEYS + unit, mask=in_keys, other=0.0)
            kept = memory * tl.exp(gate.to(tl.float32))[:, None]
        else:
            kept = memory * tl.exp(tl.load(log_decay + index).to(tl.float32))
    for i in tl.static_range(WRITES):
        step = batch * WRITES + i
        at = (step * groups + head // GROUP) * KEYS + unit
        key = tl.load(k + at, mask=in_keys, other=0.0).to(tl.float32)
        at = (step * HEADS + head) * VALUES + column
        value = tl.load(v + at, mask=column < VALUES, other=0.0).to(tl.float32)
        if UNIT:
            key /= tl.maximum(tl.sqrt(tl.sum(key * key, 0)), least_length)
        if NORMALISE:
            value = tl.where(column == VALUES, 1.0, value)
        if ERROR:
            if BEFORE:
                value -= tl.sum(memory * key[:, None], 0)
            else:
                value -= tl.sum(kept * key[:, None], 0)
        if STRENGTH:
            value *= tl.load(beta + step * HEADS + head).to(tl.float32)
        write = key[:, None] * value[None, :]
        if MOMENTUM:
            place = state + here + KEYS * columns
            momentum = tl.exp(tl.load(log_momentum + index).to(tl.float32))
            write += momentum * tl.load(place, mask=mask, other=0.0)
            tl.store(place, write, mask=mask)
        memory = kept + write
        kept = memory
    tl.store(state + here, memory, mask=mask)
    out = tl.sum(memory * read[:, None], 0) * scale
    if NORMALISE:
        normaliser = tl.sum(tl.where(column == VALUES, out, 0.0), 0)
        out /= tl.where(normaliser == 0.0, 1.0, normaliser)
    tl.store(o + index * VALUES + column, out.to(o.dtype.element_ty), mask=column < VALUES)


@triton.jit
def based_step_kernel(
    q,  # [B, H, K]
    k,  # [B, H, K]
    v,  # [B, H, V]
    state,  # [B, H, F, V + 1] float32, written in place
    o,  # [B, H, V], written
    epsilon,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUES: tl.constexpr,
    BLOCK: tl.constexpr,  # V + 1, padded
):
    """Rows i of φ one after another: products x_i x_j with j ≥ i, then x itself, then 1."""
    index = tl.program_id(0).to(tl.int64)
    unit = tl.arange(0, WIDTH)
    column = tl.arange(0, BLOCK)
    root: tl.constexpr = KEYS**-0.25
    read = tl.load(q + index * KEYS + unit, mask=unit < KEYS, other=0.0).to(tl.float32) * root
    key = tl.load(k + index * KEYS + unit, mask=unit < KEYS, other=0.0).to(tl.float32) * root
    value = tl.load(v + index * VALUES + column, mask=column < VALUES, other=0.0).to(tl.float32)
    value = tl.where(column == VALUES, 1.0, value)
    features: tl.constexpr = 1 + KEYS + KEYS * (KEYS + 1) // 2
    here = state + index * features * (VALUES + 1)
    below = column <= VALUES
    constant = tl.load(here + column, mask=below, other=0.0) + value
    tl.store(here + column, constant, mask=below)
    out = constant
    for i in range(0, KEYS + 1):
        single = i == KEYS
        weight = tl.where((unit == i) & (i < KEYS), 0.5**0.5, 1.0)
        row = tl.where(single, 1 + unit, 1 + KEYS + i * KEYS - i * (i - 1) // 2 + unit - i)
        mine = (unit < KEYS) & (single | (unit >= i))
        read_i = tl.sum(tl.where(single, 0.0, tl.where(unit == i, read, 0.0)), 0)
        key_i = tl.sum(tl.where(single, 0.0, tl.where(unit == i, key, 0.0)), 0)
        read_i = tl.where(single, 1.0, read_i) * weight
        key_i = tl.where(single, 1.0, key_i) * weight
        place = here + row[:, None] * (VALUES + 1) + column[None, :]
        mask = mine[:, None] & below[None, :]
        memory = tl.load(place, mask=mask, other=0.0)
        memory += (key * key_i)[:, None] * value[None, :]
        tl.store(place, memory, mask=mask)
        out += tl.sum(tl.where(mask, (read * read_i)[:, None] * memory, 0.0), 0)
    out /= tl.sum(tl.where(column == VALUES, out, 0.0), 0) + epsilon
    tl.store(o + index * VALUES + column, out.to(o.dtype.element_ty), mask=column < VALUES)


@triton.jit
def mlp_step_kernel(
    q,  # [B, H, K]
    k,  # [B, H, K]
    v,  # [B, H, V]
    log_decay,  # [B, H]
    beta,  # [B, H]
    log_momentum,  # [B, H]
    w1,  # [B, H, K, F] float32, written in place, as all below
    w2,  # [B, H, F, V] float32
    s1,  # [B, H, K, F] float32
    s2,  # [B, H, F, V] float32
    o,  # [B, H, V], written
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUES: tl.constexpr,
    OUT: tl.constexpr,
    HIDDEN: tl.constexpr,
    BLOCK: tl.constexpr,  # hidden units at a time
    DECAY: tl.constexpr,
    STRENGTH: tl.constexpr,
    MOMENTUM: tl.constexpr,
    SILU: tl.constexpr,
):
    """Hidden units in blocks: once for the error of the present weights, once for new weights."""
    index = tl.program_id(0).to(tl.int64)
    unit = tl.arange(0, WIDTH)
    value = tl.arange(0, OUT)
    read = tl.load(q + index * KEYS + unit, mask=unit < KEYS, other=0.0).to(tl.float32)
    key = tl.load(k + index * KEYS + unit, mask=unit < KEYS, other=0.0).to(tl.float32)
    error = tl.load(v + index * VALUES + value, mask=value < VALUES, other=0.0).to(tl.float32)
    for start in range(0, HIDDEN, BLOCK):
        hidden = start + tl.arange(0, BLOCK)
        into = index * KEYS * HIDDEN + unit[:, None] * HIDDEN + hidden[None, :]
        out = index * HIDDEN * VALUES + hidden[:, None] * VALUES + value[None, :]
        in_first = (unit < KEYS)[:, None] & (hidden < HIDDEN)[None, :]
        in_second = (hidden < HIDDEN)[:, None] & (value < VALUES)[None, :]
        first = tl.load(w1 + into, mask=in_first, other=0.0)
        second = tl.load(w2 + out, mask=in_second, other=0.0)
        h, _ = activate(tl.sum(key[:, None] * first, 0), SILU)
        error -= tl.sum(h[:, None] * second, 0)
    tl.debug_barrier()  # the old weights are read before new ones are written
    decay = 1.0
    if DECAY:
        decay = tl.exp(tl.load(log_decay + index).to(tl.float32))
    strength = 1.0
    if STRENGTH:
        strength = tl.load(beta + index).to(tl.float32)
    result = tl.zeros([OUT], tl.float32)
    for start in range(0, HIDDEN, BLOCK):
        hidden = start + tl.arange(0, BLOCK)
        into = index * KEYS * HIDDEN + unit[:, None] * HIDDEN + hidden[None, :]
        out = index * HIDDEN * VALUES + hidden[:, None] * VALUES + value[None, :]
        in_first = (unit < KEYS)[:, None] & (hidden < HIDDEN)[None, :]
        in_second = (hidden < HIDDEN)[:, None] & (value < VALUES)[None, :]
        first = tl.load(w1 + into, mask=in_first, other=0.0)
        second = tl.load(w2 + out, mask=in_second, other=0.0)
        h, slope = activate(tl.sum(key[:, None] * first, 0), SILU)
        through = strength * slope * tl.sum(second * error[None, :], 1)
        add_first = key[:, None] * through[None, :]
        add_second = h[:, None] * (strength * error)[None, :]
        if MOMENTUM:
            momentum = tl.exp(tl.load(log_momentum + index).to(tl.float32))
            add_first += momentum * tl.load(s1 + into, mask=in_first, other=0.0)
            add_second += momentum * tl.load(s2 + out, mask=in_second, other=0.0)
            tl.store(s1 + into, add_first, mask=in_first)
            tl.store(s2 + out, add_second, mask=in_second)
        first = decay * first + add_first
        second = decay * second + add_second
        tl.store(w1 + into, first, mask=in_first)
        tl.store(w2 + out, second, mask=in_second)
        x, _ = activate(tl.sum(read[:, None] * first, 0), SILU)
        result += tl.sum(x[:, None] * second, 0)
    tl.store(o + index * VALUES + value, result.to(o.dtype.element_ty), mask=value < VALUES)
