"""The scan kernels as operators of torch: autograd, torch.compile, CUDA graphs."""

from __future__ import annotations

import torch
from torch import Tensor

from hypercrl_kernels.derivatives import first_order
from hypercrl_kernels.memory.operators import (
    contiguous,
    differentiable,
    for_operator,
    unless_traced,
)
from hypercrl_kernels.memory.scan.launch import final_state, launch_backward, launch_forward

_ARGUMENTS = "Tensor log_decay, Tensor? initial, Tensor? cu_seqlens"


scan_op = torch.library.custom_op(
    "hypercrl::scan",
    launch_forward,
    mutates_args=(),
    schema=f"(Tensor x, {_ARGUMENTS}) -> (Tensor, Tensor)",
)
scan_backward_op = torch.library.custom_op(
    "hypercrl::scan_backward",
    for_operator(launch_backward),
    mutates_args=(),
    schema=f"(Tensor h, {_ARGUMENTS}, Tensor d_h, Tensor? d_final) -> (Tensor, Tensor, Tensor)",
)
_run_backward = unless_traced(scan_backward_op, launch_backward)


@scan_op.register_fake
def _(x, _, __, cu_seqlens):
    return torch.empty_like(x), final_state(x, cu_seqlens)


@scan_backward_op.register_fake
@for_operator
def _(*arguments):
    return tuple(None if x is None else torch.empty_like(x) for x in arguments[:3])


def _setup_context(ctx, inputs, output) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[0], *inputs[1:])


@first_order
def _backward(ctx, d_h, d_final):
    h, *others = ctx.saved_tensors
    d_h = torch.zeros_like(h) if d_h is None else d_h
    d_x, d_decay, d_initial = _run_backward(h, *others, d_h, d_final)
    return d_x, d_decay, None if others[1] is None else d_initial, None


scan_op.register_autograd(_backward, setup_context=_setup_context)
_run = unless_traced(scan_op, differentiable(launch_forward, _setup_context, _backward))


def scan_kernels(
    x: Tensor, log_decay: Tensor, initial_state: Tensor | None, cu_seqlens: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`scan` by the kernels; the initial state in float32, None for zeros."""
    tensors, _ = contiguous((x, log_decay, initial_state, cu_seqlens))
    return _run(*tensors)
