"""Adam as one Triton kernel."""

# pyright: reportGeneralTypeIssues=false

import triton
import triton.language as tl


@triton.jit
def adam_rates(steps, RATE: tl.constexpr, LOG_BETA1: tl.constexpr, LOG_BETA2: tl.constexpr):
    """Step size and 1/√(1 − β₂^t) of step number t from 1 on; 1 − β^t needs float64."""
    steps = steps.to(tl.float64)
    size = RATE / (1.0 - tl.exp(steps * LOG_BETA1))
    inverse_root = 1.0 / tl.sqrt(1.0 - tl.exp(steps * LOG_BETA2))
    return size.to(tl.float32), inverse_root.to(tl.float32)


@triton.jit
def adam_moved(
    value,
    gradient,
    mean,
    square,
    size,
    inverse_root,
    BETA1: tl.constexpr,
    BETA2: tl.constexpr,
    EPSILON: tl.constexpr,
):
    """Value and moments after the step."""
    mean = BETA1 * mean + (1 - BETA1) * gradient
    square = BETA2 * square + (1 - BETA2) * gradient * gradient
    value -= size * mean / (tl.sqrt(square) * inverse_root + EPSILON)
    return value, mean, square


@triton.jit(do_not_specialize=["numel"])
def adam_kernel(
    parameter,  # [numel] float32
    gradient,
    norm,  # [] float32, of the gradient; read where UPDATE
    step,  # [] float32
    mean,  # written where UPDATE
    square,  # written where UPDATE
    out,  # written
    numel,
    RATE: tl.constexpr,
    BETA1: tl.constexpr,
    BETA2: tl.constexpr,
    EPSILON: tl.constexpr,
    LOG_BETA1: tl.constexpr,
    LOG_BETA2: tl.constexpr,
    UPDATE: tl.constexpr,  # clip to LIMIT and change the moments too
    LIMIT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < numel
    size, inverse_root = adam_rates(tl.load(step) + 1.0, RATE, LOG_BETA1, LOG_BETA2)
    value = tl.load(parameter + at, mask=inside, other=0.0)
    slope = tl.load(gradient + at, mask=inside, other=0.0)
    if UPDATE:
        slope *= tl.minimum(LIMIT / (tl.load(norm) + 1e-6), 1.0)
    old_mean = tl.load(mean + at, mask=inside, other=0.0)
    old_square = tl.load(square + at, mask=inside, other=0.0)
    value, new_mean, new_square = adam_moved(
        value, slope, old_mean, old_square, size, inverse_root, BETA1, BETA2, EPSILON
    )
    tl.store(out + at, value, mask=inside)
    if UPDATE:
        tl.store(mean + at, new_mean, mask=inside)
        tl.store(square + at, new_square, mask=inside)
