"""The rollout for so many particles that arithmetic is what bounds it: a particle is a row.

With activations [particles, hidden] as left operands, what one product leaves in a warp's registers
is what the next one takes from there: nothing passes between warps, each goes through the horizon
with rows of its own, and while one computes sums and maxima another keeps the matrix unit busy.
All weights are in shared memory, as right operands. Compare `rollout_triton`.
"""

# pyright: reportGeneralTypeIssues=false

import triton
import triton.language as tl


@triton.jit
def _product(a, b, DOT: tl.constexpr, UPCAST: tl.constexpr):
    """a @ b. Triton's interpreter would multiply the bits of bf16 as integers: UPCAST."""
    if UPCAST:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision=DOT)


@triton.jit(do_not_specialize=["samples", "horizon", "total"])
def rows_kernel(
    first,  # [N, WIDTH, ROWS]
    first_exact,  # the same in float32
    hidden,  # [N, LAYERS, WIDTH, WIDTH]
    last,  # [N, ROWS, WIDTH]
    bias,  # [N, LAYERS + 1, WIDTH] float32
    last_bias,  # [N, ROWS] float32
    state,  # [B, STATE] float32
    controls,  # [B, K, H, CONTROL] float32
    states,  # [H + 1, B, K, STATE] float32, written
    scratch,  # [programs, WIDTH] float32
    samples,  # K
    horizon,  # H
    total,  # B K
    OWN: tl.constexpr,  # one network a robot, N = B, else N = 1
    STATE: tl.constexpr,
    CONTROL: tl.constexpr,
    ROWS: tl.constexpr,  # STATE + CONTROL, padded
    WIDTH: tl.constexpr,
    LAYERS: tl.constexpr,
    TILE: tl.constexpr,  # particles a program, all of one robot
    DOT: tl.constexpr,
    UPCAST: tl.constexpr,
):
    robot = tl.program_id(1).to(tl.int64)
    sample = tl.program_id(0) * TILE + tl.arange(0, TILE)
    particle = (robot * samples + sample)[:, None]
    unit = tl.arange(0, WIDTH)
    entry = tl.arange(0, ROWS)
    if OWN:
        first += robot * WIDTH * ROWS
        first_exact += robot * WIDTH * ROWS
        hidden += robot * LAYERS * WIDTH * WIDTH
        last += robot * ROWS * WIDTH
        bias += robot * (LAYERS + 1) * WIDTH
        last_bias += robot * ROWS

    # As in `rollout_triton`: the start enters the first layer's bias in float32.
    state += robot * STATE
    base = tl.load(bias + unit)
    for i in range(STATE):
        base += tl.load(first_exact + unit * ROWS + i) * tl.load(state + i)
    scratch += (robot * tl.num_programs(0) + tl.program_id(0)) * WIDTH
    tl.store(scratch + unit, base)
    tl.debug_barrier()

    inwards = tl.trans(tl.load(first + unit[:, None] * ROWS + entry[None, :]))
    outwards = tl.trans(tl.load(last + entry[:, None] * WIDTH + unit[None, :]))
    between = ()
    for i in tl.static_range(LAYERS):
        square = hidden + i * WIDTH * WIDTH + unit[:, None] * WIDTH + unit[None, :]
        between = between + (tl.trans(tl.load(square)),)
    offset = tl.load(last_bias + entry)[None, :]

    inside = (sample < samples)[:, None]
    state_mask = inside & (entry < STATE)[None, :]
    control_mask = inside & ((entry >= STATE) & (entry < STATE + CONTROL))[None, :]
    control_at = controls + particle * horizon * CONTROL + (entry - STATE)[None, :]
    out = states + particle * STATE + entry[None, :]
    start = tl.load(state + entry, mask=entry < STATE, other=0.0)[None, :]
    tl.store(out, start + tl.zeros([TILE, ROWS], tl.float32), mask=state_mask)
    deviation = tl.zeros([TILE, ROWS], tl.float32)
    control = tl.load(control_at, mask=control_mask, other=0.0)
    for t in range(horizon):
        later = tl.minimum(t + 1, horizon - 1)
        next_control = tl.load(control_at + later * CONTROL, mask=control_mask, other=0.0)
        x = (deviation + control).to(first.dtype.element_ty)
        h = _product(x, inwards, DOT, UPCAST) + tl.load(scratch + unit)[None, :]
        h = tl.maximum(h, 0.0).to(x.dtype)
        for i in tl.static_range(LAYERS):
            h = _product(h, between[i], DOT, UPCAST)
            h = tl.maximum(h + tl.load(bias + (i + 1) * WIDTH + unit)[None, :], 0.0).to(x.dtype)
        deviation += _product(h, outwards, DOT, UPCAST) + offset
        control = next_control
        out += total * STATE
        tl.store(out, start + deviation, mask=state_mask)
