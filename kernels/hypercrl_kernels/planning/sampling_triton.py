"""Bounded Gaussian action sequences as one Triton kernel instead of two torch operations."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["total", "size"])
def sampling_kernel(
    mean,  # [B, size] float32
    std,  # [B, size] float32
    noise,  # [B, K, size] float32
    low,  # [CONTROL] float32
    high,  # [CONTROL] float32
    actions,  # [B, K, size] float32, written
    total,  # K size
    size,  # H A
    CONTROL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    robot = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < total
    source = robot * size + at % size
    control = at % CONTROL  # size is a multiple of CONTROL
    value = tl.load(mean + source, mask=inside, other=0.0)
    scale = tl.load(std + source, mask=inside, other=0.0)
    value += scale * tl.load(noise + robot * total + at, mask=inside, other=0.0)
    value = tl.maximum(value, tl.load(low + control))
    value = tl.minimum(value, tl.load(high + control))
    tl.store(actions + robot * total + at, value, mask=inside)
