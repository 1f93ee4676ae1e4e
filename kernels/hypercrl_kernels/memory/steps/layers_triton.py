"""One step of affine maps and short convolutions, each with all around it as one Triton kernel."""

# pyright: reportGeneralTypeIssues=false

import triton
import triton.language as tl


@triton.jit
def linear_step_kernel(
    x,  # [B, D], rows `x_stride` apart
    weight,  # [N, D]
    bias,  # [N]
    norm,  # [PART]
    gate,  # [B, D], rows `gate_stride` apart
    residual,  # [B, N]
    y,  # [B, N], written
    x_stride,
    gate_stride,
    epsilon,
    OUTPUTS: tl.constexpr,  # N
    PARTS: tl.constexpr,  # of x that are normalised, each for itself
    PART: tl.constexpr,  # D / PARTS
    ROWS: tl.constexpr,  # PARTS, padded
    COLUMNS: tl.constexpr,  # PART, padded
    BLOCK: tl.constexpr,  # of outputs, one program's
    BIAS: tl.constexpr,
    NORM: tl.constexpr,
    GATE: tl.constexpr,
    RESIDUAL: tl.constexpr,
):
    robot = tl.program_id(1).to(tl.int64)
    lane = tl.arange(0, ROWS * COLUMNS)
    part, unit = lane // COLUMNS, lane % COLUMNS
    place = part * PART + unit
    inside = (part < PARTS) & (unit < PART)
    value = tl.load(x + robot * x_stride + place, mask=inside, other=0.0)
    if NORM:
        parts = tl.reshape(value, [ROWS, COLUMNS])
        length = tl.sqrt(tl.sum(parts * parts, 1) / PART + epsilon)
        value = tl.reshape(parts / length[:, None], [ROWS * COLUMNS])
        value *= tl.load(norm + unit, mask=inside, other=0.0)
    if GATE:
        opening = tl.load(gate + robot * gate_stride + place, mask=inside, other=0.0)
        value *= opening * tl.sigmoid(opening)
    output = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    in_outputs = output < OUTPUTS
    matrix = tl.load(
        weight + output[:, None] * (PARTS * PART) + place[None, :],
        mask=in_outputs[:, None] & inside[None, :],
        other=0.0,
    )
    out = tl.sum(matrix * value[None, :], 1)
    if BIAS:
        out += tl.load(bias + output, mask=in_outputs, other=0.0)
    if RESIDUAL:
        out += tl.load(residual + robot * OUTPUTS + output, mask=in_outputs, other=0.0)
    tl.store(y + robot * OUTPUTS + output, out, mask=in_outputs)


@triton.jit
def convolution_step_kernel(
    x,  # [B, D]
    weight,  # [TAPS, D]
    before,  # [B, TAPS − 1, D], written in place
    y,  # [B, D], written
    CHANNELS: tl.constexpr,  # D
    TAPS: tl.constexpr,
    ROWS: tl.constexpr,  # TAPS, padded
    BLOCK: tl.constexpr,  # of channels, one program's
):
    robot = tl.program_id(1).to(tl.int64)
    tap = tl.arange(0, ROWS)[:, None]
    channel = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK))[None, :]
    inside = channel < CHANNELS
    place = before + (robot * (TAPS - 1) + tap) * CHANNELS + channel
    present = tl.load(x + robot * CHANNELS + channel, mask=inside, other=0.0)
    seen = tl.load(place, mask=inside & (tap < TAPS - 1), other=0.0)
    seen = tl.where(tap == TAPS - 1, present, seen)
    matrix = tl.load(weight + tap * CHANNELS + channel, mask=inside & (tap < TAPS), other=0.0)
    out = tl.sum(matrix * seen, 0, keep_dims=True)
    tl.debug_barrier()  # all is read before any of it moves on
    tl.store(place - CHANNELS, seen, mask=inside & (tap > 0) & (tap < TAPS))
    tl.store(y + robot * CHANNELS + channel, out * tl.sigmoid(out), mask=inside)
