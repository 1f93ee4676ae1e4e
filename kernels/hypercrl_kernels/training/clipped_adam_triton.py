"""The end of a hypernetwork's training step as two Triton kernels: the norms, then Adam."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportAssignmentType=false

import triton
import triton.language as tl

from hypercrl_kernels.training.adam_triton import adam_moved, adam_rates


@triton.jit
def _sum(values, count, BLOCK: tl.constexpr):
    total = tl.zeros([BLOCK], tl.float32)
    for first in range(0, count, BLOCK):
        at = first + tl.arange(0, BLOCK)
        total += tl.load(values + at, mask=at < count, other=0.0)
    return tl.sum(total, 0)


@triton.jit(do_not_specialize=["loss_parts", "head_parts", "square_parts", "trunk_parts"])
def gradient_norms_kernel(
    trunk_gradient,  # [NUMEL] float32, changed
    embedding_gradient,  # [SIZE]
    losses,  # [loss_parts]
    regularisers,  # [head_parts]
    squares,  # [square_parts]
    trunk,  # [trunk_parts, NUMEL]
    theta_step,  # [], changed
    embedding_step,  # [], changed
    norms,  # [4], written
    loss_parts,
    head_parts,
    square_parts,
    trunk_parts,
    NUMEL: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,  # SIZE, a power of two
    BLOCK: tl.constexpr,
):
    total = tl.zeros([BLOCK], tl.float32)
    for first in range(0, NUMEL, BLOCK):
        at = first + tl.arange(0, BLOCK)
        inside = at < NUMEL
        value = tl.load(trunk_gradient + at, mask=inside, other=0.0)
        for part in range(trunk_parts):
            value += tl.load(trunk + part * NUMEL + at, mask=inside, other=0.0)
        tl.store(trunk_gradient + at, value, mask=inside)
        total += value * value
    norm = tl.sqrt(tl.sum(total, 0) + _sum(squares, square_parts, 128))
    unit = tl.arange(0, PADDED)
    own = tl.load(embedding_gradient + unit, mask=unit < SIZE, other=0.0)
    tl.store(norms, _sum(losses, loss_parts, 128))
    tl.store(norms + 1, _sum(regularisers, head_parts, 128))
    tl.store(norms + 2, norm)
    tl.store(norms + 3, tl.sqrt(tl.sum(own * own, 0)))
    tl.store(theta_step, tl.load(theta_step) + 1.0)
    tl.store(embedding_step, tl.load(embedding_step) + 1.0)


@triton.jit
def _clipped_step(
    parameter, gradient, step, mean, square, norm, first, count, BLOCK: tl.constexpr,
    RATE: tl.constexpr, BETA1: tl.constexpr, BETA2: tl.constexpr, EPSILON: tl.constexpr,
    LOG_BETA1: tl.constexpr, LOG_BETA2: tl.constexpr, LIMIT: tl.constexpr,
):  # fmt: skip
    at = first + tl.arange(0, BLOCK)
    inside = at < count
    value = tl.load(parameter + at, mask=inside, other=0.0)
    slope = tl.load(gradient + at, mask=inside, other=0.0)
    old_mean = tl.load(mean + at, mask=inside, other=0.0)
    old_square = tl.load(square + at, mask=inside, other=0.0)
    size, inverse_root = adam_rates(tl.load(step), RATE, LOG_BETA1, LOG_BETA2)
    slope *= tl.minimum(LIMIT / (tl.load(norm) + 1e-6), 1.0)
    value, new_mean, new_square = adam_moved(
        value, slope, old_mean, old_square, size, inverse_root, BETA1, BETA2, EPSILON
    )
    tl.store(parameter + at, value, mask=inside)
    tl.store(mean + at, new_mean, mask=inside)
    tl.store(square + at, new_square, mask=inside)


@triton.jit(do_not_specialize=["numel"])
def clipped_adam_kernel(
    theta,  # [numel] float32, changed
    theta_gradient,
    theta_step,  # [] float32, the step that is taken
    theta_mean,  # changed
    theta_square,  # changed
    embedding,  # [SIZE], changed
    embedding_gradient,
    embedding_step,
    embedding_mean,  # changed
    embedding_square,  # changed
    norms,  # [2]
    numel,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,  # SIZE, a power of two
    RATE: tl.constexpr,
    BETA1: tl.constexpr,
    BETA2: tl.constexpr,
    EPSILON: tl.constexpr,
    LOG_BETA1: tl.constexpr,
    LOG_BETA2: tl.constexpr,
    LIMIT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The last program takes the embedding's step, the others θ's, a block each."""
    if tl.program_id(0) == tl.num_programs(0) - 1:
        _clipped_step(
            embedding, embedding_gradient, embedding_step, embedding_mean, embedding_square,
            norms + 1, 0, SIZE, PADDED,
            RATE, BETA1, BETA2, EPSILON, LOG_BETA1, LOG_BETA2, LIMIT,
        )  # fmt: skip
    else:
        _clipped_step(
            theta, theta_gradient, theta_step, theta_mean, theta_square,
            norms, tl.program_id(0) * BLOCK, numel, BLOCK,
            RATE, BETA1, BETA2, EPSILON, LOG_BETA1, LOG_BETA2, LIMIT,
        )  # fmt: skip
