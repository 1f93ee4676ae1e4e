"""Launches of the step kernels; imported only where Triton is used."""

from __future__ import annotations

from collections.abc import Sequence

# pyright: reportCallIssue=false, reportArgumentType=false
import torch
import triton
from torch import Tensor

from hypercrl_kernels.memory.chunk_memory_reference import Error
from hypercrl_kernels.memory.steps_triton import (
    based_step_kernel,
    mlp_step_kernel,
    step_kernel,
)


def launch_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    beta: Tensor | None,
    log_momentum: Tensor | None,
    state: Tensor,
    error: Error,
    normalise: bool,
    scale: float,
) -> Tensor:
    """`memory_step`, and with log_decay [B, H, K] `gla_step`, by the kernel."""
    batch, heads, keys = q.shape
    if log_decay is not None and log_decay.dim() == 1:
        log_decay = log_decay.expand(batch, heads)
    sequences = [x.contiguous() for x in (q, k, v)]
    gates = [None if x is None else x.contiguous() for x in (log_decay, beta, log_momentum)]
    o = torch.empty_like(sequences[2])
    columns = v.shape[2] + normalise
    width = triton.next_power_of_2(keys)
    # A program of 4096 numbers: many enough to fill the device, each with its loads in flight.
    block = triton.next_power_of_2(columns)
    if not normalise:
        block = min(block, max(1, 4096 // width))
    step_kernel[(triton.cdiv(columns, block), batch * heads)](
        *sequences, *gates, state, o, scale,
        KEYS=keys, WIDTH=width, VALUES=v.shape[2], BLOCK=block,
        DECAY=log_decay is not None, VECTOR=log_decay is not None and log_decay.dim() == 3,
        STRENGTH=beta is not None, MOMENTUM=log_momentum is not None, ERROR=error != "none",
        BEFORE=error != "after_decay", NORMALISE=normalise,
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
