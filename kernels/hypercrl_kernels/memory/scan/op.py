"""Launches of the scan kernels, and their registration with torch."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from hypercrl_kernels.derivatives import first_order
from hypercrl_kernels.memory.operators import blocks, differentiable, power_of_2, unless_traced
from hypercrl_kernels.memory.prepared import KEPT, PreparedKernel
from hypercrl_kernels.memory.scan.triton import scan_back_kernel, scan_kernel

_ARGUMENTS = "Tensor log_decay, Tensor initial, Tensor? cu_seqlens"


@lru_cache(KEPT)
def _prepare(
    length: int, channels: int, segments: int, varlen: bool, back: bool, ends: bool
) -> PreparedKernel:
    """One pass; a warp a program, as sequences are many and tiles small."""
    block = min(32, power_of_2(channels))
    grid = (blocks(channels, block), segments)
    constants = {"length": length, "CHANNELS": channels, "BLOCK": block, "TILE": 16}
    constants |= {"VARLEN": varlen} | ({"ENDS": ends} if back else {})
    return PreparedKernel(
        scan_back_kernel if back else scan_kernel, grid, constants, {"num_warps": 1}
    )


def _kernel(
    x: Tensor, initial: Tensor, cu_seqlens: Tensor | None, back: bool, ends: bool = False
) -> PreparedKernel:
    _, length, heads, width = x.shape
    segments, varlen = initial.shape[0], cu_seqlens is not None
    return _prepare(length, heads * width, segments, varlen, back, ends)


def _forward(x, log_decay, initial, cu_seqlens):
    """h and the final state."""
    h, final = torch.empty_like(x), torch.empty_like(initial)
    kernel = _kernel(x, initial, cu_seqlens, back=False)
    kernel((x, log_decay, initial, cu_seqlens, h, final))
    return h, final


def _backward_kernels(h, log_decay, initial, cu_seqlens, d_h, d_final):
    """Gradients of x, log_decay and the initial state."""
    gradients = [torch.empty_like(x) for x in (h, log_decay, initial)]
    kernel = _kernel(h, initial, cu_seqlens, back=True, ends=d_final is not None)
    kernel((h, log_decay, initial, d_h, d_final, cu_seqlens, *gradients))
    return tuple(gradients)


scan_op = torch.library.custom_op(
    "hypercrl::scan",
    _forward,
    mutates_args=(),
    schema=f"(Tensor x, {_ARGUMENTS}) -> (Tensor, Tensor)",
)
scan_backward_op = torch.library.custom_op(
    "hypercrl::scan_backward",
    _backward_kernels,
    mutates_args=(),
    schema=f"(Tensor h, {_ARGUMENTS}, Tensor d_h, Tensor? d_final) -> (Tensor, Tensor, Tensor)",
)
_run_backward = unless_traced(scan_backward_op, _backward_kernels)


@scan_op.register_fake
def _(x, _, initial, *__):
    return torch.empty_like(x), torch.empty_like(initial)


@scan_backward_op.register_fake
def _(h, log_decay, initial, *_):
    return torch.empty_like(h), torch.empty_like(log_decay), torch.empty_like(initial)


def _setup_context(ctx, inputs, output) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[0], *inputs[1:])


@first_order
def _backward(ctx, d_h, d_final):
    h, *others = ctx.saved_tensors
    d_h = torch.zeros_like(h) if d_h is None else d_h
    return (*_run_backward(h, *others, d_h, d_final), None)


scan_op.register_autograd(_backward, setup_context=_setup_context)
_run = unless_traced(scan_op, differentiable(_forward, _setup_context, _backward))


def scan_kernels(
    x: Tensor, log_decay: Tensor, initial_state: Tensor, cu_seqlens: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`scan` by the kernels; the initial state in float32."""
    return _run(x.contiguous(), log_decay.contiguous(), initial_state.contiguous(), cu_seqlens)
