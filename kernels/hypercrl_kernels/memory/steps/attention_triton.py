"""One step of attention as one Triton kernel: writes into the ring, and reads it once an update."""

# pyright: reportGeneralTypeIssues=false

import triton
import triton.language as tl


@triton.jit
def _turned(x, cos, sin, unit, inside, TURN: tl.constexpr):
    """The vector at x, with TURN its pairs of channels turned; sin has its sign in the pair."""
    value = tl.load(x + unit, mask=inside, other=0.0).to(tl.float32)
    if TURN:
        other = tl.load(x + (unit ^ 1), mask=inside, other=0.0).to(tl.float32)
        value = value * cos + other * sin
    return value


@triton.jit
def _take_in(
    pattern,  # [WIDTH]
    keys,  # from here [COUNT, H, K]
    values,  # from here [COUNT, H, V]
    filled,  # of COUNT
    highest,  # score so far
    total,  # of the weights, exp(score − highest)
    found,  # [COLUMNS], sum of the values under them
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUES: tl.constexpr,
    COLUMNS: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A softmax goes on over more patterns; the first block has at least one that is filled."""
    unit, column = tl.arange(0, WIDTH), tl.arange(0, COLUMNS)
    for start in range(0, COUNT, BLOCK):
        entry = start + tl.arange(0, BLOCK)
        inside = (entry < COUNT) & (entry < filled)
        key = tl.load(
            keys + entry[:, None] * (HEADS * KEYS) + unit[None, :],
            mask=inside[:, None] & (unit < KEYS)[None, :],
            other=0.0,
        )
        value = tl.load(
            values + entry[:, None] * (HEADS * VALUES) + column[None, :],
            mask=inside[:, None] & (column < VALUES)[None, :],
            other=0.0,
        )
        score = tl.where(inside, tl.sum(key * pattern[None, :], 1), -float("inf"))
        higher = tl.maximum(highest, tl.max(score, 0))
        shrunk = tl.exp(highest - higher)
        weight = tl.exp(score - higher)
        total = total * shrunk + tl.sum(weight, 0)
        found = found * shrunk + tl.sum(weight[:, None] * value, 0)
        highest = higher
    return highest, total, found


@triton.jit
def _retrieve(
    pattern,  # [WIDTH], times the inverse temperature
    keys,  # [S, H, K]
    values,  # [S, H, V]
    persistent,  # this head's of [P, H, K]
    ahead,  # from them to the values
    filled,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUES: tl.constexpr,
    COLUMNS: tl.constexpr,
    SLOTS: tl.constexpr,
    BLOCK: tl.constexpr,
    PERSISTENT: tl.constexpr,
    PERSISTENT_BLOCK: tl.constexpr,
):
    highest = tl.full([], -float("inf"), tl.float32)
    total = tl.full([], 0.0, tl.float32)
    found = tl.zeros([COLUMNS], tl.float32)
    if PERSISTENT > 0:
        highest, total, found = _take_in(
            pattern, persistent, persistent + ahead, PERSISTENT, highest, total, found,
            HEADS, KEYS, WIDTH, VALUES, COLUMNS, PERSISTENT, PERSISTENT_BLOCK,
        )  # fmt: skip
    highest, total, found = _take_in(
        pattern, keys, values, filled, highest, total, found,
        HEADS, KEYS, WIDTH, VALUES, COLUMNS, SLOTS, BLOCK,
    )  # fmt: skip
    return found / total


@triton.jit
def attention_step_kernel(
    q,  # [B, H, K]; its heads lie one after another, as those of key and value
    key,  # [B, E, H, K]
    value,  # [B, E, H, V]
    keys,  # [B, S, H, K] float32, a step's E of them written in place
    values,  # [B, S, H, V] float32, likewise
    seen,  # [B] int64
    rates,  # [K / 2] float32
    persistent,  # [2, P, H, K] float32
    o,  # [B, H, V], written
    beta,
    q_robot,  # strides of q, key and value
    key_robot,
    key_entry,
    value_robot,
    value_entry,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,  # K, padded
    VALUES: tl.constexpr,
    COLUMNS: tl.constexpr,  # V, padded
    ENTRIES: tl.constexpr,  # E
    SLOTS: tl.constexpr,  # S
    BLOCK: tl.constexpr,  # of slots
    PERSISTENT: tl.constexpr,  # P, or 0
    PERSISTENT_BLOCK: tl.constexpr,
    TURN: tl.constexpr,
    SEGMENTS: tl.constexpr,
    UPDATES: tl.constexpr,
):
    head = tl.program_id(0)
    robot = tl.program_id(1).to(tl.int64)
    unit, column = tl.arange(0, WIDTH), tl.arange(0, COLUMNS)
    in_keys, in_values = unit < KEYS, column < VALUES
    position = tl.load(seen + robot)
    slot = position % (SLOTS // ENTRIES)
    if SEGMENTS:
        position = slot
    cos, sin = 1.0, 0.0
    if TURN:
        rate = tl.load(rates + unit // 2, mask=in_keys, other=0.0)
        angle = position.to(tl.float32) * rate
        cos, sin = tl.cos(angle), tl.where(unit % 2 == 1, 1.0, -1.0) * tl.sin(angle)
    keys += (robot * SLOTS * HEADS + head) * KEYS
    values += (robot * SLOTS * HEADS + head) * VALUES
    for entry in tl.static_range(ENTRIES):
        there = (slot * ENTRIES + entry) * HEADS
        new = key + robot * key_robot + entry * key_entry + head * KEYS
        turned = _turned(new, cos, sin, unit, in_keys, TURN)
        tl.store(keys + there * KEYS + unit, turned, mask=in_keys)
        new = value + robot * value_robot + entry * value_entry + head * VALUES
        now = tl.load(new + column, mask=in_values, other=0.0).to(tl.float32)
        tl.store(values + there * VALUES + column, now, mask=in_values)
    tl.debug_barrier()  # what is written is read by other threads
    filled = ENTRIES * (position + 1)
    if PERSISTENT > 0:
        persistent += head * KEYS
    pattern = _turned(q + robot * q_robot + head * KEYS, cos, sin, unit, in_keys, TURN)
    for _ in range(UPDATES - 1):
        pattern = _retrieve(
            pattern * beta, keys, keys, persistent, 0, filled,
            HEADS, KEYS, WIDTH, KEYS, WIDTH, SLOTS, BLOCK, PERSISTENT, PERSISTENT_BLOCK,
        )  # fmt: skip
    found = _retrieve(
        pattern * beta, keys, values, persistent, PERSISTENT * HEADS * KEYS, filled,
        HEADS, KEYS, WIDTH, VALUES, COLUMNS, SLOTS, BLOCK, PERSISTENT, PERSISTENT_BLOCK,
    )  # fmt: skip
    out = (robot * HEADS + head) * VALUES
    tl.store(o + out + column, found.to(o.dtype.element_ty), mask=in_values)
