"""The last layer of a hypernetwork for one embedding, forward and backward, a block of written
numbers a program.

The trunk for one row is so small that every program computes it for itself, while its block of the
matrix is on its way.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportAssignmentType=false

import triton
import triton.language as tl

from hypercrl_kernels.training.trunk_triton import activated, layer_at


@triton.jit(do_not_specialize=["size"])
def written_weights_kernel(
    trunk,  # W1 b1 W2 b2 … float32
    head,  # [size WIDTH + size]
    embedding,  # [SIZES[0]]
    outputs,  # all trunk layers' one after another, written
    written,  # [size], written
    size,  # P
    SIZES: tl.constexpr,
    OFFSETS: tl.constexpr,
    PADDED: tl.constexpr,
    ELU: tl.constexpr,
    BLOCK: tl.constexpr,
):
    layers: tl.constexpr = len(OFFSETS)
    width: tl.constexpr = SIZES[layers]
    row, column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, PADDED)
    inside = row < size
    weight = tl.load(
        head + row[:, None] * width + column[None, :],
        mask=inside[:, None] & (column < width)[None, :],
        other=0.0,
    )
    bias = tl.load(head + size * width + row, mask=inside, other=0.0)

    h = tl.load(embedding + column, mask=column < SIZES[0], other=0.0)
    for i in tl.static_range(layers):
        weight_at, valid, bias_at, used = layer_at(
            trunk, OFFSETS[i], SIZES[i], SIZES[i + 1], PADDED
        )
        layer = tl.load(weight_at, mask=valid, other=0.0)
        z = tl.sum(layer * h[None, :], 1) + tl.load(bias_at, mask=used, other=0.0)
        h = activated(z, ELU)
        if tl.program_id(0) == 0:
            tl.store(outputs + column, h, mask=used)
        outputs += SIZES[i + 1]
    tl.store(written + row, tl.sum(weight * h[None, :], 1) + bias, mask=inside)


@triton.jit(do_not_specialize=["size", "parts", "l1"])
def written_gradient_kernel(
    head,  # [size WIDTH + size] float32
    partials,  # [parts, size]
    written,  # [size]
    slope,  # [size], written
    products,  # [programs, WIDTH], written
    size,
    parts,
    l1,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    L1: tl.constexpr,  # whether l1 is not 0
    BLOCK: tl.constexpr,
):
    row, column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, PADDED)
    inside, in_width = row < size, column < WIDTH
    weight = tl.load(
        head + row[:, None] * WIDTH + column[None, :],
        mask=inside[:, None] & in_width[None, :],
        other=0.0,
    )
    total = tl.zeros([BLOCK], tl.float32)
    for part in range(parts):
        total += tl.load(partials + part * size + row, mask=inside, other=0.0)
    if L1:
        w = tl.load(written + row, mask=inside, other=0.0)
        total += l1 * ((w > 0).to(tl.float32) - (w < 0).to(tl.float32))
    tl.store(slope + row, total, mask=inside)
    product = tl.sum(weight * total[:, None], 0)
    tl.store(products + tl.program_id(0) * WIDTH + column, product, mask=in_width)
