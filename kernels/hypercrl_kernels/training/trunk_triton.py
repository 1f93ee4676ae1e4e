"""A hypernetwork's trunk in Triton kernels: one step of Adam ahead, then for the old tasks.

Every layer is padded to one power of two; padding stays zero, which both activations keep.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportAssignmentType=false
# pyright: reportCallIssue=false

import triton
import triton.language as tl

from hypercrl_kernels.training.adam_triton import adam_moved, adam_rates


@triton.jit
def layer_at(flat, OFFSET: tl.constexpr, IN: tl.constexpr, OUT: tl.constexpr, PADDED: tl.constexpr):
    """Addresses and mask of a weight [out, in] and of its bias [out]."""
    row, column = tl.arange(0, PADDED)[:, None], tl.arange(0, PADDED)[None, :]
    inside = (row < OUT) & (column < IN)
    unit = tl.arange(0, PADDED)
    return flat + OFFSET + row * IN + column, inside, flat + OFFSET + OUT * IN + unit, unit < OUT


@triton.jit
def _store(
    flat, weight, bias, OFFSET: tl.constexpr, IN: tl.constexpr, OUT: tl.constexpr,
    PADDED: tl.constexpr,
):  # fmt: skip
    """Write a layer."""
    at, inside, bias_at, used = layer_at(flat, OFFSET, IN, OUT, PADDED)
    tl.store(at, weight, mask=inside)
    tl.store(bias_at, bias, mask=used)


@triton.jit
def _rows_at(
    matrix, first, count, WIDTH: tl.constexpr, ROWS: tl.constexpr, TAKEN: tl.constexpr,
    PADDED: tl.constexpr,
):  # fmt: skip
    """Addresses and mask of TAKEN rows of [count, WIDTH], as ROWS, a power of two."""
    row, column = tl.arange(0, ROWS)[:, None], tl.arange(0, PADDED)[None, :]
    inside = (row < TAKEN) & (first + row < count) & (column < WIDTH)
    return matrix + (first + row) * WIDTH + column, inside


@triton.jit
def activated(z, ELU: tl.constexpr):
    return tl.where(z > 0, z, tl.exp(tl.minimum(z, 0.0)) - 1.0) if ELU else tl.maximum(z, 0.0)


@triton.jit
def _slope_of(h, ELU: tl.constexpr):
    """Derivative of the activation, from its value."""
    return tl.where(h > 0, 1.0, h + 1.0 if ELU else 0.0)


@triton.jit(do_not_specialize=["parts", "count"])
def trunk_ahead_kernel(
    flat,  # W1 b1 W2 b2 … float32
    mean,  # as `flat`, Adam's
    square,
    step,  # [] float32
    embedding,  # [SIZES[0]]
    outputs,  # all layers' for it, one after another
    products,  # [parts, SIZES[-1]], whose sum is the gradient of the last of them
    old,  # [count, SIZES[0]]
    gradient,  # as `flat`, written
    embedding_gradient,  # [SIZES[0]], written
    ahead,  # as `flat`, written
    old_outputs,  # all layers' one after another, [count, width] each, written
    parts,
    count,
    SIZES: tl.constexpr,
    OFFSETS: tl.constexpr,  # of each layer in `flat`
    STARTS: tl.constexpr,  # of each layer in `outputs`
    PADDED: tl.constexpr,
    ELU: tl.constexpr,
    TAKEN: tl.constexpr,  # old tasks a program
    ROWS: tl.constexpr,  # their number, padded
    CHUNK: tl.constexpr,  # products at a time
    RATE: tl.constexpr,
    BETA1: tl.constexpr,
    BETA2: tl.constexpr,
    EPSILON: tl.constexpr,
    LOG_BETA1: tl.constexpr,
    LOG_BETA2: tl.constexpr,
):
    """Every program takes the step ahead for itself, the first one writes it."""
    layers: tl.constexpr = len(OFFSETS)
    unit = tl.arange(0, PADDED)
    rate, inverse_root = adam_rates(tl.load(step) + 1.0, RATE, LOG_BETA1, LOG_BETA2)
    total = tl.zeros([CHUNK, PADDED], tl.float32)
    for part in range(0, parts, CHUNK):
        row = part + tl.arange(0, CHUNK)
        total += tl.load(
            products + row[:, None] * SIZES[layers] + unit[None, :],
            mask=(row < parts)[:, None] & (unit < SIZES[layers])[None, :],
            other=0.0,
        )
    slope = tl.sum(total, 0)
    moved = ()
    for i in tl.static_range(layers - 1, -1, -1):
        weight_at, inside, bias_at, used = layer_at(
            flat, OFFSETS[i], SIZES[i], SIZES[i + 1], PADDED
        )
        weight = tl.load(weight_at, mask=inside, other=0.0)
        h = tl.load(outputs + STARTS[i] + unit, mask=used, other=0.0)
        below = embedding
        if i > 0:
            below = outputs + STARTS[i - 1]
        slope *= _slope_of(h, ELU)
        x = tl.load(below + unit, mask=unit < SIZES[i], other=0.0)
        weight_gradient = slope[:, None] * x[None, :]

        mean_at, _, bias_mean, _ = layer_at(mean, OFFSETS[i], SIZES[i], SIZES[i + 1], PADDED)
        square_at, _, bias_square, _ = layer_at(square, OFFSETS[i], SIZES[i], SIZES[i + 1], PADDED)
        new, _, _ = adam_moved(
            weight, weight_gradient,
            tl.load(mean_at, mask=inside, other=0.0), tl.load(square_at, mask=inside, other=0.0),
            rate, inverse_root, BETA1, BETA2, EPSILON,
        )  # fmt: skip
        bias, _, _ = adam_moved(
            tl.load(bias_at, mask=used, other=0.0), slope,
            tl.load(bias_mean, mask=used, other=0.0), tl.load(bias_square, mask=used, other=0.0),
            rate, inverse_root, BETA1, BETA2, EPSILON,
        )  # fmt: skip
        if tl.program_id(0) == 0:
            _store(gradient, weight_gradient, slope, OFFSETS[i], SIZES[i], SIZES[i + 1], PADDED)
            _store(ahead, new, bias, OFFSETS[i], SIZES[i], SIZES[i + 1], PADDED)
        moved = moved + ((new, bias),)
        slope = tl.sum(weight * slope[:, None], 0)
    if tl.program_id(0) == 0:
        tl.store(embedding_gradient + unit, slope, mask=unit < SIZES[0])

    begin = tl.program_id(0) * TAKEN
    at, valid = _rows_at(old, begin, count, SIZES[0], ROWS, TAKEN, PADDED)
    rows = tl.load(at, mask=valid, other=0.0)
    for i in tl.static_range(layers):
        z = tl.dot(rows, tl.trans(moved[layers - 1 - i][0]), input_precision="tf32x3")
        rows = activated(z + moved[layers - 1 - i][1][None, :], ELU)
        at, valid = _rows_at(
            old_outputs + count * STARTS[i], begin, count, SIZES[i + 1], ROWS, TAKEN, PADDED
        )
        tl.store(at, rows, mask=valid)


@triton.jit(do_not_specialize=["parts", "count"])
def trunk_back_kernel(
    flat,  # W1 b1 W2 b2 … float32
    x,  # [count, SIZES[0]]
    outputs,  # all layers' one after another, [count, width] each
    slopes,  # [parts, count, SIZES[-1]], whose sum is the gradient of the last of them
    gradients,  # [programs, as `flat`], written
    parts,
    count,
    NUMEL: tl.constexpr,  # of `flat`
    SIZES: tl.constexpr,
    OFFSETS: tl.constexpr,
    STARTS: tl.constexpr,
    PADDED: tl.constexpr,
    ELU: tl.constexpr,
    TAKEN: tl.constexpr,  # rows a program
    ROWS: tl.constexpr,  # their number, padded
    CHUNK: tl.constexpr,  # parts at a time
):
    layers: tl.constexpr = len(OFFSETS)
    width: tl.constexpr = SIZES[layers]
    begin = tl.program_id(0) * TAKEN
    gradients += tl.program_id(0) * NUMEL

    # All parts of a row, TAKEN rows at a time, as one matrix [CHUNK, TAKEN PADDED].
    flat_at = tl.arange(0, TAKEN * PADDED)
    row, column = begin + flat_at // PADDED, flat_at % PADDED
    inside = (row < count) & (column < width)
    total = tl.zeros([CHUNK, TAKEN * PADDED], tl.float32)
    for first in range(0, parts, CHUNK):
        part = first + tl.arange(0, CHUNK)
        at = (part * count)[:, None] * width + (row * width + column)[None, :]
        total += tl.load(slopes + at, mask=(part < parts)[:, None] & inside[None, :], other=0.0)
    taken = tl.reshape(tl.sum(total, 0), [TAKEN, PADDED])
    # Rows that a matrix product needs beside them are zero.
    slope = tl.reshape(
        taken[None, :, :] * (tl.arange(0, ROWS // TAKEN) == 0).to(tl.float32)[:, None, None],
        [ROWS, PADDED],
    )
    for i in tl.static_range(layers - 1, -1, -1):
        at, valid = _rows_at(
            outputs + count * STARTS[i], begin, count, SIZES[i + 1], ROWS, TAKEN, PADDED
        )
        slope *= _slope_of(tl.load(at, mask=valid, other=0.0), ELU)
        below = x
        if i > 0:
            below = outputs + count * STARTS[i - 1]
        at, valid = _rows_at(below, begin, count, SIZES[i], ROWS, TAKEN, PADDED)
        h = tl.load(at, mask=valid, other=0.0)
        weight_gradient = tl.dot(tl.trans(slope), h, input_precision="tf32x3")
        bias_gradient = tl.sum(slope, 0)
        _store(
            gradients, weight_gradient, bias_gradient, OFFSETS[i], SIZES[i], SIZES[i + 1], PADDED
        )
        if i > 0:
            weight_at, inside, _, _ = layer_at(flat, OFFSETS[i], SIZES[i], SIZES[i + 1], PADDED)
            weight = tl.load(weight_at, mask=inside, other=0.0)
            slope = tl.dot(slope, weight, input_precision="tf32x3")
