"""A narrow MLP and its gradients: one program, one Triton kernel each.

Every layer is padded to one power of two; padding stays zero, which both activations keep.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportAssignmentType=false

import triton
import triton.language as tl


@triton.jit
def _layer(flat, OFFSET: tl.constexpr, IN: tl.constexpr, OUT: tl.constexpr, PADDED: tl.constexpr):
    """Addresses and mask of a weight [out, in] and of its bias [out]."""
    row, column = tl.arange(0, PADDED)[:, None], tl.arange(0, PADDED)[None, :]
    inside = (row < OUT) & (column < IN)
    unit = tl.arange(0, PADDED)
    return flat + OFFSET + row * IN + column, inside, flat + OFFSET + OUT * IN + unit, unit < OUT


@triton.jit
def _rows(matrix, count, WIDTH: tl.constexpr, ROWS: tl.constexpr, PADDED: tl.constexpr):
    """Addresses and mask of [count, WIDTH]."""
    row, column = tl.arange(0, ROWS)[:, None], tl.arange(0, PADDED)[None, :]
    return matrix + row * WIDTH + column, (row < count) & (column < WIDTH)


@triton.jit
def narrow_mlp_kernel(
    flat,  # W1 b1 W2 b2 … float32
    x,  # [count, SIZES[0]]
    outputs,  # all layers' one after another, [count, width] each, written
    count,
    SIZES: tl.constexpr,
    OFFSETS: tl.constexpr,  # of each layer in `flat`
    ROWS: tl.constexpr,  # count, padded
    PADDED: tl.constexpr,  # widths, padded
    ELU: tl.constexpr,  # else ReLU
):
    at, valid = _rows(x, count, SIZES[0], ROWS, PADDED)
    h = tl.load(at, mask=valid, other=0.0)
    for i in tl.static_range(len(OFFSETS)):
        weight_at, inside, bias_at, used = _layer(flat, OFFSETS[i], SIZES[i], SIZES[i + 1], PADDED)
        weight = tl.load(weight_at, mask=inside, other=0.0)
        bias = tl.load(bias_at, mask=used, other=0.0)
        z = tl.dot(h, tl.trans(weight), input_precision="tf32x3") + bias[None, :]
        h = tl.where(z > 0, z, tl.exp(tl.minimum(z, 0.0)) - 1.0) if ELU else tl.maximum(z, 0.0)
        at, valid = _rows(outputs, count, SIZES[i + 1], ROWS, PADDED)
        tl.store(at, h, mask=valid)
        outputs += count * SIZES[i + 1]


@triton.jit
def narrow_mlp_back_kernel(
    flat,
    x,
    outputs,
    slope,  # [count, SIZES[-1]], of the last layer's outputs
    flat_gradient,  # as `flat`, written
    x_gradient,  # as `x`, written
    count,
    SIZES: tl.constexpr,
    OFFSETS: tl.constexpr,
    STARTS: tl.constexpr,  # of each layer in `outputs`, in rows of width 1
    ROWS: tl.constexpr,
    PADDED: tl.constexpr,
    ELU: tl.constexpr,
):
    layers: tl.constexpr = len(OFFSETS)
    at, valid = _rows(slope, count, SIZES[layers], ROWS, PADDED)
    gradient = tl.load(at, mask=valid, other=0.0)
    at, valid = _rows(outputs + count * STARTS[layers - 1], count, SIZES[layers], ROWS, PADDED)
    h = tl.load(at, mask=valid, other=0.0)
    for i in tl.static_range(layers - 1, -1, -1):
        gradient *= tl.where(h > 0, 1.0, h + 1.0 if ELU else 0.0)
        below = x
        if i > 0:
            below = outputs + count * STARTS[i - 1]
        at, valid = _rows(below, count, SIZES[i], ROWS, PADDED)
        h = tl.load(at, mask=valid, other=0.0)
        weight_at, inside, _, _ = _layer(flat, OFFSETS[i], SIZES[i], SIZES[i + 1], PADDED)
        weight = tl.load(weight_at, mask=inside, other=0.0)
        weight_to, _, bias_to, used = _layer(
            flat_gradient, OFFSETS[i], SIZES[i], SIZES[i + 1], PADDED
        )
        tl.store(weight_to, tl.dot(tl.trans(gradient), h, input_precision="tf32x3"), mask=inside)
        tl.store(bias_to, tl.sum(gradient, 0), mask=used)
        gradient = tl.dot(gradient, weight, input_precision="tf32x3")
    at, valid = _rows(x_gradient, count, SIZES[0], ROWS, PADDED)
    tl.store(at, gradient, mask=valid)
