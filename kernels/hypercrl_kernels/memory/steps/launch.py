"""Launches of the step kernels; imported only where Triton is used."""

from __future__ import annotations

from collections.abc import Sequence

# pyright: reportCallIssue=false, reportArgumentType=false
import torch
import triton
from torch import Tensor

from hypercrl_kernels.memory.chunk_memory.naive import Error
from hypercrl_kernels.memory.steps.attention_triton import attention_step_kernel
from hypercrl_kernels.memory.steps.layers_triton import convolution_step_kernel, linear_step_kernel
from hypercrl_kernels.memory.steps.naive import LEAST_LENGTH
from hypercrl_kernels.memory.steps.triton import based_step_kernel, mlp_step_kernel, step_kernel


def launch_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    beta: Tensor | None,
    log_momentum: Tensor | None,
    state: Tensor,
    scale: float,
    error: Error = "none",
    normalise: bool = False,
    unit_keys: bool = False,
) -> Tensor:
    """`memory_step`, and with log_decay [B, H, K] `gla_step`, by the kernel."""
    batch, groups, keys = q.shape
    heads, values = v.shape[-2:]
    if log_decay is not None and log_decay.dim() == 1:
        log_decay = log_decay.expand(batch, heads)
    sequences = [x.contiguous() for x in (q, k, v)]
    gates = [None if x is None else x.contiguous() for x in (log_decay, beta, log_momentum)]
    o = torch.empty((batch, heads, values), dtype=v.dtype, device=v.device)
    columns = values + normalise
    width = triton.next_power_of_2(keys)
    # A program of 4096 numbers: many enough to fill the device, each with its loads in flight.
    block = triton.next_power_of_2(columns)
    if not normalise:
        block = min(block, max(1, 4096 // width))
    step_kernel[(triton.cdiv(columns, block), batch * heads)](
        *sequences, *gates, state, o, scale, LEAST_LENGTH,
        HEADS=heads, GROUP=heads // groups, WRITES=k.shape[1] if k.dim() == 4 else 1,
        KEYS=keys, WIDTH=width, VALUES=values, BLOCK=block,
        DECAY=log_decay is not None, VECTOR=log_decay is not None and log_decay.dim() == 3,
        STRENGTH=beta is not None, MOMENTUM=log_momentum is not None, ERROR=error != "none",
        BEFORE=error != "after_decay", NORMALISE=normalise, UNIT=unit_keys,
        num_warps=4,
    )  # fmt: skip
    return o


def launch_based_step(q: Tensor, k: Tensor, v: Tensor, state: Tensor, epsilon: float) -> Tensor:
    """`based_step` by the kernel."""
    batch, heads, keys = q.shape
    q, k, v = (x.contiguous() for x in (q, k, v))
    o = torch.empty_like(v)
    based_step_kernel[(batch * heads,)](
        q, k, v, state, o, epsilon,
        KEYS=keys, WIDTH=triton.next_power_of_2(keys), VALUES=v.shape[2],
        BLOCK=triton.next_power_of_2(v.shape[2] + 1), num_warps=4,
    )  # fmt: skip
    return o


def launch_mlp_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    beta: Tensor | None,
    log_momentum: Tensor | None,
    state: Sequence[Tensor],
    silu: bool,
) -> Tensor:
    """`mlp_memory_step` by the kernel; the state as w1, w2, s1 and s2."""
    batch, heads, keys = q.shape
    sequences = [x.contiguous() for x in (q, k, v)]
    gates = [None if x is None else x.contiguous() for x in (log_decay, beta, log_momentum)]
    o, hidden = torch.empty_like(sequences[2]), state[0].shape[3]
    mlp_step_kernel[(batch * heads,)](
        *sequences, *gates, *state, o,
        KEYS=keys, WIDTH=triton.next_power_of_2(keys), VALUES=v.shape[2],
        OUT=triton.next_power_of_2(v.shape[2]), HIDDEN=hidden,
        BLOCK=min(64, triton.next_power_of_2(hidden)), DECAY=log_decay is not None,
        STRENGTH=beta is not None, MOMENTUM=log_momentum is not None, SILU=silu, num_warps=8,
    )  # fmt: skip
    return o


def launch_attention_step(
    q: Tensor,
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    values: Tensor,
    seen: Tensor,
    rates: Tensor | None,
    persistent: Tensor | None,
    segments: bool,
    updates: int,
    beta: float,
) -> Tensor:
    """`attention_step` by the kernel."""
    (batch, heads, width), slots = q.shape, keys.shape[1]
    q, key, value = (
        x if x.stride()[-2:] == (x.shape[-1], 1) else x.contiguous() for x in (q, key, value)
    )
    rates = None if rates is None else rates.contiguous()
    persistent = None if persistent is None else persistent.contiguous()
    count = 0 if persistent is None else persistent.shape[1]
    o = q.new_empty(batch, heads, value.shape[3])
    padded, columns = triton.next_power_of_2(width), triton.next_power_of_2(value.shape[3])
    # Keys and values of a block take 64 of a thread's registers, all their loads in flight.
    block = min(triton.next_power_of_2(slots), max(1, 8192 // max(padded, columns)))
    attention_step_kernel[(heads, batch)](
        q, key, value, keys, values, seen.contiguous(), rates, persistent, o, beta,
        q.stride(0), *key.stride()[:2], *value.stride()[:2],
        HEADS=heads, KEYS=width, WIDTH=padded, VALUES=value.shape[3], COLUMNS=columns,
        ENTRIES=key.shape[1], SLOTS=slots, BLOCK=block, PERSISTENT=count,
        PERSISTENT_BLOCK=triton.next_power_of_2(max(count, 1)), TURN=rates is not None,
        SEGMENTS=segments, UPDATES=updates, num_warps=8,
    )  # fmt: skip
    seen.add_(1)  # behind all heads, which read it
    return o


def launch_linear_step(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm: Tensor | None,
    gate: Tensor | None,
    residual: Tensor | None,
) -> Tensor:
    """`linear_step` by the kernel."""
    (batch, width), outputs = x.shape, len(weight)
    x = x if x.stride(1) == 1 else x.contiguous()
    if gate is not None and gate.stride(1) != 1:
        gate = gate.contiguous()
    bias, norm, residual = (
        None if part is None else part.contiguous() for part in (bias, norm, residual)
    )
    y = x.new_empty(batch, outputs)
    part = width if norm is None else len(norm)
    rows, columns = triton.next_power_of_2(width // part), triton.next_power_of_2(part)
    # Small programs: a matrix of 64 columns and more is read by many at once.
    block = min(triton.next_power_of_2(outputs), max(1, 1024 // (rows * columns)))
    linear_step_kernel[(triton.cdiv(outputs, block), batch)](
        x, weight, bias, norm, gate, residual, y,
        x.stride(0), 0 if gate is None else gate.stride(0), torch.finfo(x.dtype).eps,
        OUTPUTS=outputs, PARTS=width // part, PART=part, ROWS=rows, COLUMNS=columns, BLOCK=block,
        BIAS=bias is not None, NORM=norm is not None, GATE=gate is not None,
        RESIDUAL=residual is not None, num_warps=4,
    )  # fmt: skip
    return y


def launch_convolution_step(x: Tensor, weight: Tensor, before: Tensor) -> Tensor:
    """`convolution_step` by the kernel."""
    (batch, channels), taps = x.shape, len(weight)
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    block = min(256, triton.next_power_of_2(channels))
    convolution_step_kernel[(triton.cdiv(channels, block), batch)](
        x.contiguous(), weight.contiguous(), before, y,
        CHANNELS=channels, TAPS=taps, ROWS=triton.next_power_of_2(taps), BLOCK=block, num_warps=4,
    )  # fmt: skip
    return y
