"""The rollout as one Triton kernel: a program carries a few particles through the whole horizon.

Activations are kept transposed, [hidden, particles], so that the weights are the left operand of
every product and fill the 64 rows of a Hopper matrix instruction however few particles there are:
a rollout is bound by latency, and few particles a program means many programs.

Hidden weight matrices live in one of three places, the fastest first: registers, from where the
matrix unit reads them for free; shared memory, at 128 bytes a cycle; or L2, read anew at each step.
"""

# pyright: reportGeneralTypeIssues=false

import triton
import triton.language as tl


@triton.jit
def _product(a, b, total, DOT: tl.constexpr, UPCAST: tl.constexpr):
    """total + a @ b. Triton's interpreter would multiply the bits of bf16 as integers: UPCAST."""
    if UPCAST:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total, input_precision=DOT)


@triton.jit
def _streamed_product(
    weight,
    x,
    total,
    scratch,
    OUT: tl.constexpr,
    IN: tl.constexpr,
    OUT_USED: tl.constexpr,
    IN_USED: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    DOT: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """total + weight [OUT, IN] @ x, the weight read from L2 BLOCK columns at a time.

    A register tensor cannot be sliced, so x goes through scratch memory of this program. Padding
    beyond OUT_USED and IN_USED is not read.
    """
    output = tl.arange(0, OUT)[:, None]
    column = tl.arange(0, TILE)[None, :]
    tl.debug_barrier()
    tl.store(scratch + tl.arange(0, IN)[:, None] * TILE + column, x)
    tl.debug_barrier()
    k = tl.arange(0, BLOCK)
    for start in range(0, IN_USED, BLOCK):
        here = weight + output * IN + (start + k)[None, :]
        w = tl.load(here, mask=output < OUT_USED, other=0.0)
        block = tl.load(scratch + (start + k)[:, None] * TILE + column)
        total = _product(w, block, total, DOT, UPCAST)
    return total


@triton.jit
def _change(
    x,
    base,
    first,
    first_weight,
    hidden,
    kept,
    offsets,
    last,
    last_weight,
    last_offset,
    scratch,
    INPUTS: tl.constexpr,
    ROWS: tl.constexpr,
    USED: tl.constexpr,
    WIDTH: tl.constexpr,
    LAYERS: tl.constexpr,
    KEPT: tl.constexpr,
    KEEP_ENDS: tl.constexpr,
    GROUPS: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    DOT: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """The network's output [ROWS, TILE] for inputs x [ROWS, TILE]."""
    dtype = last.dtype.element_ty
    x = x.to(dtype)
    if KEEP_ENDS:
        h = _product(first_weight, x, base, DOT, UPCAST)
    else:
        narrow: tl.constexpr = min(BLOCK, ROWS)
        h = _streamed_product(
            first, x, base, scratch, WIDTH, ROWS, USED, INPUTS, narrow, TILE, DOT, UPCAST
        )  # fmt: skip
    h = tl.maximum(h, 0.0).to(dtype)
    for i in tl.static_range(LAYERS):
        total = offsets[i] + tl.zeros([WIDTH, TILE], tl.float32)
        if i < KEPT:
            h = _product(kept[i], h, total, DOT, UPCAST)
        else:
            matrix = hidden + i * WIDTH * WIDTH
            h = _streamed_product(
                matrix, h, total, scratch, WIDTH, WIDTH, USED, USED, BLOCK, TILE, DOT, UPCAST
            )  # fmt: skip
        h = tl.maximum(h, 0.0).to(dtype)
    if KEEP_ENDS:
        part: tl.constexpr = WIDTH // GROUPS
        parts = tl.zeros([GROUPS, ROWS, TILE], tl.float32)
        h = tl.reshape(h, [GROUPS, part, TILE])
        change = tl.sum(_product(last_weight, h, parts, DOT, UPCAST), 0)
    else:
        change = tl.zeros([ROWS, TILE], tl.float32)
        change = _streamed_product(
            last, h, change, scratch, ROWS, WIDTH, INPUTS, USED, BLOCK, TILE, DOT, UPCAST
        )  # fmt: skip
    return change + last_offset


@triton.jit(do_not_specialize=["particles", "samples", "horizon", "total"])
def rollout_kernel(
    first,  # [N, WIDTH, ROWS]
    first_exact,  # the same in float32
    hidden,  # [N, LAYERS, WIDTH, WIDTH]
    hidden_bits,  # the same, bf16 as int16
    last,  # [N, ROWS, WIDTH]
    bias,  # [N, LAYERS + 1, WIDTH] float32
    last_bias,  # [N, ROWS] float32
    state,  # [B, STATE] float32
    controls,  # [B, K, H, CONTROL] float32
    states,  # [H + 1, B, K, STATE] float32, written
    scratch,  # [programs, max(WIDTH, ROWS), TILE], for what is streamed
    particles,  # of one network
    samples,  # K
    horizon,  # H
    total,  # B K
    STATE: tl.constexpr,
    CONTROL: tl.constexpr,
    ROWS: tl.constexpr,  # STATE + CONTROL, padded
    USED: tl.constexpr,  # hidden width
    WIDTH: tl.constexpr,  # the same, padded
    LAYERS: tl.constexpr,
    REGISTERS: tl.constexpr,  # hidden matrices kept in registers, the first ones
    SHARED: tl.constexpr,  # kept in shared memory, the next ones
    KEEP_ENDS: tl.constexpr,  # first and last matrix in shared memory, else streamed
    GROUPS: tl.constexpr,  # parts of the last product's sum, side by side
    BLOCK: tl.constexpr,  # columns streamed at a time
    TILE: tl.constexpr,  # particles a program
    DOT: tl.constexpr,
    UPCAST: tl.constexpr,
):
    dtype = last.dtype.element_ty
    KEPT: tl.constexpr = REGISTERS + SHARED
    network = tl.program_id(1).to(tl.int64)
    column = tl.arange(0, TILE)
    particle = tl.program_id(0) * TILE + column
    inside = particle < particles
    particle = network * particles + particle
    robot = particle // samples

    row = tl.arange(0, ROWS)
    unit = tl.arange(0, WIDTH)
    is_state = (row < STATE)[:, None]
    is_control = ((row >= STATE) & (row < STATE + CONTROL))[:, None]

    first += network * WIDTH * ROWS
    first_exact += network * WIDTH * ROWS
    hidden += network * LAYERS * WIDTH * WIDTH
    hidden_bits += network * LAYERS * WIDTH * WIDTH
    last += network * ROWS * WIDTH
    bias += network * (LAYERS + 1) * WIDTH
    last_bias += network * ROWS
    deepest: tl.constexpr = max(WIDTH, ROWS)
    program = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    scratch += program.to(tl.int64) * deepest * TILE

    # The network sees the deviation from the start; the start itself enters the first layer's bias
    # in float32. Rounding to bf16 is then relative to the distance moved, not to the position.
    base = tl.load(bias + unit)[:, None] + tl.zeros([WIDTH, TILE], tl.float32)
    for i in range(STATE):
        start_i = tl.load(state + robot * STATE + i, mask=inside, other=0.0)
        base += tl.load(first_exact + unit * ROWS + i)[:, None] * start_i[None, :]

    square = unit[:, None] * WIDTH + unit[None, :]
    used = (unit < USED)[:, None]
    kept = ()
    for i in tl.static_range(KEPT):
        if i < REGISTERS:
            # An operand loaded as such would go to shared memory; the bits of one stay here.
            bits = tl.load(hidden_bits + i * WIDTH * WIDTH + square, mask=used, other=0)
            kept = kept + (bits.to(dtype, bitcast=True),)
        else:
            matrix = tl.load(hidden + i * WIDTH * WIDTH + square, mask=used, other=0.0)
            kept = kept + (matrix,)
    offsets = ()
    for i in tl.static_range(LAYERS):
        offsets = offsets + (tl.load(bias + (i + 1) * WIDTH + unit)[:, None],)
    first_weight = first
    last_weight = last
    if KEEP_ENDS:
        first_weight = tl.load(first + unit[:, None] * ROWS + row[None, :])
        # The output layer is a few rows high: each group of hidden units takes its part of the sum.
        part: tl.constexpr = WIDTH // GROUPS
        group = tl.arange(0, GROUPS)[:, None, None]
        member = tl.arange(0, part)[None, None, :]
        last_weight = tl.load(last + row[None, :, None] * WIDTH + group * part + member)
    last_offset = tl.load(last_bias + row)[:, None]

    start = tl.load(
        state + robot[None, :] * STATE + row[:, None], mask=is_state & inside[None, :], other=0.0
    )
    control = controls + (particle * horizon * CONTROL)[None, :] + (row[:, None] - STATE)
    out = states + particle[None, :] * STATE + row[:, None]
    control_mask = is_control & inside[None, :]
    out_mask = is_state & inside[None, :]
    x = tl.load(control, mask=control_mask, other=0.0)
    later = tl.minimum(1, horizon - 1)
    next_control = tl.load(control + later * CONTROL, mask=control_mask, other=0.0)
    tl.store(out, start, mask=out_mask)
    begin = 0
    if REGISTERS > 0:
        # Triton sinks what only a loop uses into the loop, loads of register operands too.
        begin = 1
        change = _change(
            x, base, first, first_weight, hidden, kept, offsets, last, last_weight, last_offset,
            scratch, STATE + CONTROL, ROWS, USED, WIDTH, LAYERS, KEPT, KEEP_ENDS,
            GROUPS, BLOCK, TILE, DOT, UPCAST,
        )  # fmt: skip
        x = tl.where(is_state, change, next_control)
        out += total * STATE
        tl.store(out, start + x, mask=out_mask)
        later = tl.minimum(2, horizon - 1)
        next_control = tl.load(control + later * CONTROL, mask=control_mask, other=0.0)
    for t in range(begin, horizon):
        change = _change(
            x, base, first, first_weight, hidden, kept, offsets, last, last_weight, last_offset,
            scratch, STATE + CONTROL, ROWS, USED, WIDTH, LAYERS, KEPT, KEEP_ENDS,
            GROUPS, BLOCK, TILE, DOT, UPCAST,
        )  # fmt: skip
        x = tl.where(is_state, x + change, next_control)
        out += total * STATE
        tl.store(out, start + x, mask=out_mask)
        # Asked for one step ahead: the load's latency hides behind the products.
        later = tl.minimum(t + 2, horizon - 1)
        next_control = tl.load(control + later * CONTROL, mask=control_mask, other=0.0)
