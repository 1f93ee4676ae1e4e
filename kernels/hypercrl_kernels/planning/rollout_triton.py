"""The rollout as one Triton kernel: a program carries a few particles through the whole horizon.

Activations are kept transposed, [hidden, particles], so that the weights are the left operand of
every product and fill the 64 rows of a Hopper matrix instruction however few particles there are:
a rollout is bound by latency, and few particles a program means many programs.

A hidden weight matrix lives in one of four places: shared memory, which the matrix unit reads at
128 bytes a cycle; registers, from where it reads for free; the L1 cache, from where fragments, the
order in which threads hold an operand, are loaded at each step straight into registers; or L2, read
through shared memory, for precisions whose operands have no such order.
"""

# pyright: reportGeneralTypeIssues=false

import triton
import triton.language as tl

_TALL = tl.constexpr(64)  # rows of a Hopper matrix instruction


@triton.jit
def _product(a, b, total, DOT: tl.constexpr, UPCAST: tl.constexpr):
    """total + a @ b. Triton's interpreter would multiply the bits of bf16 as integers: UPCAST."""
    if UPCAST:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total, input_precision=DOT)


@triton.jit
def _fragments(
    bits,
    first,
    COLUMNS: tl.constexpr,
    USED: tl.constexpr,
    WIDTH: tl.constexpr,
    WARPS: tl.constexpr,
):
    """[WIDTH, COLUMNS] of a matrix, from column `first` on, out of `PackedLayers.fragments`.

    Consecutive numbers of a thread are the ones it holds of this operand, so nothing moves between
    threads. An operand loaded as such would go to shared memory; the bits of one do not.
    """
    at = first * WIDTH + tl.arange(0, COLUMNS * WIDTH)
    used: tl.constexpr = (USED + 15) // 16 * 16
    row = at // 256 % (WIDTH // 16) * 16  # the first one of a block of 16 rows and columns
    loaded = tl.load(bits + at, mask=(at < used * WIDTH) & (row < USED), other=0)
    repeats: tl.constexpr = WIDTH // (16 * WARPS)
    # 16 columns, 16 rows a warp, warp, row, 2 columns, column's half, row's half, column
    parts = tl.reshape(loaded, [COLUMNS // 16, repeats, WARPS, 8, 4, 2, 2, 2])
    parts = tl.permute(parts, (1, 2, 6, 3, 0, 5, 4, 7))
    return tl.reshape(parts, [WIDTH, COLUMNS]).to(tl.bfloat16, bitcast=True)


@triton.jit
def _halves(h, WIDTH: tl.constexpr, TILE: tl.constexpr):
    """The upper and the lower rows: two repeats of one thread's rows."""
    return tl.split(tl.permute(tl.reshape(h, [2, WIDTH // 2, TILE]), (1, 2, 0)))


@triton.jit
def _fragment_product(
    bits,
    h,
    total,
    CHUNKS: tl.constexpr,
    USED: tl.constexpr,
    WIDTH: tl.constexpr,
    WARPS: tl.constexpr,
    TILE: tl.constexpr,
    DOT: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """total + matrix @ h, the matrix loaded in one or two chunks."""
    if CHUNKS == 1:
        weight = _fragments(bits, 0, WIDTH, USED, WIDTH, WARPS)
        total = _product(weight, h, total, DOT, UPCAST)
    else:
        half: tl.constexpr = WIDTH // 2
        upper_weight = _fragments(bits, 0, half, USED, WIDTH, WARPS)
        lower_weight = _fragments(bits, half, half, USED, WIDTH, WARPS)
        upper, lower = _halves(h, WIDTH, TILE)
        total = _product(upper_weight, upper, total, DOT, UPCAST)
        total = _product(lower_weight, lower, total, DOT, UPCAST)
    return total


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
def _hidden(
    x,
    base,
    first,
    first_weight,
    hidden,
    fragments,
    kept,
    offsets,
    scratch,
    INPUTS: tl.constexpr,
    ROWS: tl.constexpr,
    USED: tl.constexpr,
    WIDTH: tl.constexpr,
    LAYERS: tl.constexpr,
    KEPT: tl.constexpr,
    KEEP_ENDS: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    WARPS: tl.constexpr,
    DOT: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """The last hidden layer [WIDTH, TILE] on inputs x [ROWS, TILE]."""
    dtype = first.dtype.element_ty
    x = x.to(dtype)
    if KEEP_ENDS:
        h = _product(first_weight, x, base, DOT, UPCAST)
    else:
        narrow: tl.constexpr = min(BLOCK, ROWS)
        h = _streamed_product(
            first, x, base, scratch, WIDTH, ROWS, USED, INPUTS, narrow, TILE, DOT, UPCAST
        )
    h = tl.maximum(h, 0.0).to(dtype)
    for i in tl.static_range(LAYERS):
        total = offsets[i] + tl.zeros([WIDTH, TILE], tl.float32)
        if i < KEPT:
            h = _product(kept[i], h, total, DOT, UPCAST)
        elif CHUNKS > 0:
            bits = fragments + i * WIDTH * WIDTH
            h = _fragment_product(
                bits, h, total, CHUNKS, USED, WIDTH, WARPS, TILE, DOT, UPCAST
            )  # fmt: skip
        else:
            matrix = hidden + i * WIDTH * WIDTH
            h = _streamed_product(
                matrix, h, total, scratch, WIDTH, WIDTH, USED, USED, BLOCK, TILE, DOT, UPCAST
            )  # fmt: skip
        h = tl.maximum(h, 0.0).to(dtype)
    return h


@triton.jit
def _kept_outputs(matrix, ROWS: tl.constexpr, WIDTH: tl.constexpr, GROUPS: tl.constexpr):
    """An output layer's matrix as `_outputs` multiplies it: [tall, WIDTH] or by groups."""
    if GROUPS == 0:
        tall: tl.constexpr = max(_TALL, ROWS)
        row = tl.arange(0, tall)[:, None]
        at = matrix + row * WIDTH + tl.arange(0, WIDTH)[None, :]
        weight = tl.load(at, mask=row < ROWS, other=0.0)
    else:
        part: tl.constexpr = WIDTH // GROUPS
        group = tl.arange(0, GROUPS)[:, None, None]
        at = matrix + group * part + tl.arange(0, ROWS)[None, :, None] * WIDTH
        weight = tl.load(at + tl.arange(0, part)[None, None, :])
    return weight


@triton.jit
def _outputs(
    h,
    weight,
    matrix,
    offset,
    scratch,
    STATE: tl.constexpr,
    ROWS: tl.constexpr,
    USED: tl.constexpr,
    WIDTH: tl.constexpr,
    KEEP_ENDS: tl.constexpr,
    GROUPS: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    DOT: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """An output layer [ROWS, TILE] on the last hidden one.

    It is a few rows high: either each group of hidden units takes its part of the sum, or, with no
    group, rows are padded to the height of a matrix instruction.
    """
    if KEEP_ENDS and GROUPS == 0:
        tall: tl.constexpr = max(_TALL, ROWS)
        total = _product(weight, h, tl.zeros([tall, TILE], tl.float32), DOT, UPCAST)
        total = tl.sum(tl.reshape(total, [tall // ROWS, ROWS, TILE]), 0)
    elif KEEP_ENDS:
        parts = tl.zeros([GROUPS, ROWS, TILE], tl.float32)
        units = tl.reshape(h, [GROUPS, WIDTH // GROUPS, TILE])
        total = tl.sum(_product(weight, units, parts, DOT, UPCAST), 0)
    else:
        total = tl.zeros([ROWS, TILE], tl.float32)
        total = _streamed_product(
            matrix, h, total, scratch, ROWS, WIDTH, STATE, USED, BLOCK, TILE, DOT, UPCAST
        )  # fmt: skip
    return total + offset


@triton.jit
def _standard_deviation(raw, bounds, ROWS: tl.constexpr):
    """From the outputs of a log-variance, see `GaussianLayers`."""
    row = tl.arange(0, ROWS)[:, None]
    least = tl.load(bounds + row)
    inverse_most = tl.load(bounds + ROWS + row)
    scale = tl.load(bounds + 2 * ROWS + row)
    return scale * tl.sqrt(least + 1.0 / (inverse_most + tl.exp(-raw)))


@triton.jit
def _change(
    deviation,
    control,
    draw,
    base,
    first,
    first_weight,
    hidden,
    fragments,
    kept,
    offsets,
    last,
    last_weight,
    last_offset,
    head,
    head_weight,
    head_offset,
    bounds,
    scratch,
    STATE: tl.constexpr,
    CONTROL: tl.constexpr,
    ROWS: tl.constexpr,
    USED: tl.constexpr,
    WIDTH: tl.constexpr,
    LAYERS: tl.constexpr,
    KEPT: tl.constexpr,
    KEEP_ENDS: tl.constexpr,
    GROUPS: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    WARPS: tl.constexpr,
    SAMPLED: tl.constexpr,
    DOT: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """What one step adds to the state, [ROWS, TILE]; its rows beyond the state are zero."""
    h = _hidden(
        deviation + control, base, first, first_weight, hidden, fragments, kept, offsets, scratch,
        STATE + CONTROL, ROWS, USED, WIDTH, LAYERS, KEPT, KEEP_ENDS, CHUNKS, BLOCK, TILE, WARPS,
        DOT, UPCAST,
    )  # fmt: skip
    change = _outputs(
        h, last_weight, last, last_offset, scratch, STATE, ROWS, USED, WIDTH, KEEP_ENDS, GROUPS,
        BLOCK, TILE, DOT, UPCAST,
    )  # fmt: skip
    if SAMPLED:
        raw = _outputs(
            h, head_weight, head, head_offset, scratch, STATE, ROWS, USED, WIDTH, KEEP_ENDS,
            GROUPS, BLOCK, TILE, DOT, UPCAST,
        )  # fmt: skip
        change += _standard_deviation(raw, bounds, ROWS) * draw
    return change


@triton.jit(do_not_specialize=["particles", "samples", "horizon", "total"])
def rollout_kernel(
    first,  # [N, WIDTH, ROWS]
    first_exact,  # the same in float32
    hidden,  # [N, LAYERS, WIDTH, WIDTH]
    fragments,  # [N, LAYERS, WIDTH * WIDTH], the bits of the same in the order of threads
    last,  # [N, ROWS, WIDTH]
    bias,  # [N, LAYERS + 1, WIDTH] float32
    last_bias,  # [N, ROWS] float32
    head,  # [N, ROWS, WIDTH], of a log-variance
    head_bias,  # [N, ROWS] float32
    bounds,  # [3, ROWS] float32
    state,  # [B, STATE] float32
    controls,  # [B, K, H, CONTROL] float32
    noise,  # [B, K, H, STATE] float32
    states,  # [H + 1, B, K, STATE] float32, written
    scratch,  # [programs, max(WIDTH, ROWS), TILE], for what goes through shared memory
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
    CHUNKS: tl.constexpr,  # that each remaining matrix is loaded in as fragments, 0: streamed
    BLOCK: tl.constexpr,  # columns streamed at a time
    TILE: tl.constexpr,  # particles a program
    WARPS: tl.constexpr,
    SAMPLED: tl.constexpr,  # sampled next states, else the mean ones
    DOT: tl.constexpr,
    UPCAST: tl.constexpr,
):
    KEPT: tl.constexpr = REGISTERS + SHARED
    network = tl.program_id(1).to(tl.int64)
    column = tl.arange(0, TILE)
    particle = tl.program_id(0) * TILE + column
    inside = particle < particles
    particle = network * particles + particle
    robot = particle // samples

    unit = tl.arange(0, WIDTH)
    row = tl.arange(0, ROWS)[:, None]
    state_mask = (row < STATE) & inside[None, :]
    control_mask = (row >= STATE) & (row < STATE + CONTROL) & inside[None, :]

    first += network * WIDTH * ROWS
    first_exact += network * WIDTH * ROWS
    hidden += network * LAYERS * WIDTH * WIDTH
    fragments += network * LAYERS * WIDTH * WIDTH
    last += network * ROWS * WIDTH
    bias += network * (LAYERS + 1) * WIDTH
    last_bias += network * ROWS
    head += network * ROWS * WIDTH
    head_bias += network * ROWS
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
            bits = fragments + i * WIDTH * WIDTH
            kept = kept + (_fragments(bits, 0, WIDTH, USED, WIDTH, WARPS),)
        else:
            matrix = tl.load(hidden + i * WIDTH * WIDTH + square, mask=used, other=0.0)
            kept = kept + (matrix,)
    offsets = ()
    for i in tl.static_range(LAYERS):
        offsets = offsets + (tl.load(bias + (i + 1) * WIDTH + unit)[:, None],)
    first_weight = first
    last_weight = last
    head_weight = head
    if KEEP_ENDS:
        first_weight = tl.load(first + unit[:, None] * ROWS + tl.arange(0, ROWS)[None, :])
        last_weight = _kept_outputs(last, ROWS, WIDTH, GROUPS)
        if SAMPLED:
            head_weight = _kept_outputs(head, ROWS, WIDTH, GROUPS)
    last_offset = tl.load(last_bias + row)
    head_offset = last_offset
    if SAMPLED:
        head_offset = tl.load(head_bias + row)

    start = tl.load(state + robot[None, :] * STATE + row, mask=state_mask, other=0.0)
    control_at = controls + (particle * horizon * CONTROL)[None, :] + row - STATE
    draw_at = noise + (particle * horizon * STATE)[None, :] + row
    out = states + particle[None, :] * STATE + row
    control = tl.load(control_at, mask=control_mask, other=0.0)
    draw = start
    if SAMPLED:
        draw = tl.load(draw_at, mask=state_mask, other=0.0)
    tl.store(out, start, mask=state_mask)
    deviation = tl.zeros([ROWS, TILE], tl.float32)
    begin = 0
    if REGISTERS > 0:
        # Triton sinks what only a loop uses into the loop, loads of register operands too.
        begin = 1
        deviation = _change(
            deviation, control, draw, base, first, first_weight, hidden, fragments, kept, offsets,
            last, last_weight, last_offset, head, head_weight, head_offset, bounds, scratch, STATE,
            CONTROL, ROWS, USED, WIDTH, LAYERS, KEPT, KEEP_ENDS, GROUPS, CHUNKS, BLOCK, TILE,
            WARPS, SAMPLED, DOT, UPCAST,
        )  # fmt: skip
        out += total * STATE
        tl.store(out, start + deviation, mask=state_mask)
        later = tl.minimum(1, horizon - 1)
        control = tl.load(control_at + later * CONTROL, mask=control_mask, other=0.0)
        if SAMPLED:
            draw = tl.load(draw_at + later * STATE, mask=state_mask, other=0.0)
    for t in range(begin, horizon):
        # Asked for one step ahead: the load's latency hides behind the products.
        later = tl.minimum(t + 1, horizon - 1)
        next_control = tl.load(control_at + later * CONTROL, mask=control_mask, other=0.0)
        next_draw = draw
        if SAMPLED:
            next_draw = tl.load(draw_at + later * STATE, mask=state_mask, other=0.0)
        deviation += _change(
            deviation, control, draw, base, first, first_weight, hidden, fragments, kept, offsets,
            last, last_weight, last_offset, head, head_weight, head_offset, bounds, scratch, STATE,
            CONTROL, ROWS, USED, WIDTH, LAYERS, KEPT, KEEP_ENDS, GROUPS, CHUNKS, BLOCK, TILE,
            WARPS, SAMPLED, DOT, UPCAST,
        )  # fmt: skip
        control, draw = next_control, next_draw
        out += total * STATE
        tl.store(out, start + deviation, mask=state_mask)
